"""Signs of life: every rank says now and then that it is alive, so that one that froze or died can be named.

A collective that fails says at best that some peer is gone. What ranks write into the store that brought them together says which.
"""

import threading
import time

from torch.distributed import Store

from packlm.base.errors import PacklmError

SECONDS = 1.0
"""Between two signs of life."""
SILENT_SECONDS = 3.0
"""A rank is taken for lost when it gave no sign for so long."""


class Heartbeat:
    """Gives this rank's signs of life until it is closed, and reads those of the others."""

    def __init__(self, store: Store, rank: int, world: int, timeout: float):
        """`timeout`: seconds without a sign of life after which a rank is no longer waited for."""
        self._store, self._rank, self._world, self._timeout = store, rank, world, timeout
        self._barriers = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(SECONDS):
            try:
                self._store.add(_key(self._rank), 1)
            except RuntimeError:  # the store is gone, and with it whoever would read this
                return

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def lost(self) -> list[int]:
        """The ranks that give no sign of life for `SILENT_SECONDS` from now on, and those that never gave one."""
        before = self._read()
        time.sleep(SILENT_SECONDS)
        return [rank for rank, (old, new) in enumerate(zip(before, self._read(), strict=True)) if old == new and rank != self._rank]

    def barrier(self) -> None:
        """All ranks: wait for each other, however long one takes, as long as it lives.

        Raises:
            PacklmError: one of them gave no sign of life for `timeout` seconds.
        """
        self._barriers += 1
        name = f"barrier-{self._barriers}"
        self._store.set(f"{name}/{self._rank}", "")
        missing, beats, since = set(range(self._world)), self._read(), time.monotonic()
        while missing := {rank for rank in missing if not self._store.check([f"{name}/{rank}"])}:
            time.sleep(0.01)
            if time.monotonic() - since > max(self._timeout, SILENT_SECONDS):
                now = self._read()
                if silent := sorted(rank for rank in missing if now[rank] == beats[rank]):
                    raise PacklmError(f"{named(silent)} for {self._timeout:.0f} seconds (train.timeout_seconds)")
                beats, since = now, time.monotonic()

    def _read(self) -> list[int]:
        return [self._store.add(_key(rank), 0) for rank in range(self._world)]


def named(ranks: list[int]) -> str:
    """`rank 2 gave no sign of life`."""
    several = "s" if len(ranks) > 1 else ""
    return f"rank{several} {', '.join(map(str, ranks))} gave no sign of life"


def _key(rank: int) -> str:
    return f"beat/{rank}"
