"""Requests that wait at the same time run together.

A step of many prompts costs hardly more than one of a single prompt, and a continuation depends on its prompt, the seed and the settings
alone, bit for bit (`decoding`): so requests of several clients become one batch, and each gets what it would get alone. Nothing waits for
company: while a batch runs, the requests that arrive meanwhile queue up to be the next one.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class _WaitingRequest:
    key: Hashable
    prompts: Sequence[Any]
    run: Callable[[list[Any]], list[Any]]
    done: bool = False
    results: list[Any] = field(default_factory=list)
    error: BaseException | None = None


class RequestBatches:
    """Answers the requests of several threads, one batch after the other, the oldest request first."""

    def __init__(self, max_prompts: int = 256):
        """`max_prompts`: most prompts of a batch of several requests; it bounds how long a request waits for the batch before it."""
        self._max_prompts = max_prompts
        self._waiting: list[_WaitingRequest] = []
        self._lock, self._turn = threading.Lock(), threading.Lock()

    def answer(self, key: Hashable, prompts: Sequence[Any], run: Callable[[list[Any]], list[Any]]) -> list[Any]:
        """The results of `run`, one for each prompt, or what it raises for these prompts alone; called by any number of threads.

        Requests of one `key`, such as the seed and the settings, may run together, by the `run` of any of them.
        """
        request = _WaitingRequest(key, prompts, run)
        with self._lock:
            self._waiting.append(request)
        while not request.done:  # another thread's turn may have answered it
            with self._turn:
                if not request.done:
                    self._answer(self._next_batch())
        if request.error:
            raise request.error
        return request.results

    def _next_batch(self) -> list[_WaitingRequest]:
        """Takes the oldest request, and later ones of its key as far as they fit."""
        with self._lock:
            batch, count = [self._waiting[0]], len(self._waiting[0].prompts)
            for request in self._waiting[1:]:
                if request.key == batch[0].key and count + len(request.prompts) <= self._max_prompts:
                    batch.append(request)
                    count += len(request.prompts)
            self._waiting = [request for request in self._waiting if request not in batch]
        return batch

    def _answer(self, batch: list[_WaitingRequest]) -> None:
        try:
            results = iter(batch[0].run([prompt for request in batch for prompt in request.prompts]))
            for request in batch:
                request.results = [next(results) for _ in request.prompts]
        except BaseException as error:
            if len(batch) > 1 and isinstance(error, Exception):  # it shows alone whose fault it is
                for request in batch:
                    self._answer([request])
                return
            for request in batch:
                request.error = error
        for request in batch:
            request.done = True
