"""Tasks that are still being found while the first of them are done."""

import threading
from collections.abc import Iterator
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import Generic, TypeVar

Task = TypeVar("Task")


class ArrivingTasks(Generic[Task]):
    """What an iterator that takes its time yields; a thread asks for it."""

    def __init__(self, tasks: Iterator[Task]):
        self.connection, self._sign = Pipe(duplex=False)
        """Readable whenever `take` has something: what waits for processes can wait for this too."""
        self._found = SimpleQueue[Task | BaseException | None]()
        threading.Thread(target=self._ask, args=(tasks,), daemon=True).start()

    def take(self) -> Task | None:
        """The next one, waited for; None once there are no more. Raises what the iterator raised."""
        self.connection.recv_bytes()
        found = self._found.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def _ask(self, tasks: Iterator[Task]) -> None:
        try:
            for task in tasks:
                self._tell(task)
            self._tell(None)
        except BaseException as error:
            self._tell(error)

    def _tell(self, found: Task | BaseException | None) -> None:
        self._found.put(found)
        self._sign.send_bytes(b"x")
