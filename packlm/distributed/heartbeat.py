"""Heartbeats: every rank counts up in the store that brought the ranks together, so that one that froze or died can be named.

A collective that fails says at best that some peer is gone, not which.
"""

import threading
import time
from contextlib import suppress

from torch.distributed import Store

from packlm.base.errors import PacklmError

INTERVAL_SECONDS = 1.0
"""Time between two heartbeats."""
SILENCE_SECONDS = 3.0
"""A rank without a heartbeat for this long is taken for lost."""

RECORDS_SECONDS = 8.0
"""Time that rank 0 may take to end with an exception of its own: by default up to five of it go into its records in MLflow."""


class OtherRankFailed(PacklmError):
    """This rank ends because another one failed."""


class Heartbeat:
    """Sends this rank's heartbeats until it is closed, and reads those of the others."""

    def __init__(self, store: Store, rank: int, world: int, timeout: float):
        """`timeout`: seconds without a heartbeat after which `barrier` stops waiting for a rank."""
        self._store, self._rank, self._world, self._timeout = store, rank, world, timeout
        self._barriers = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            try:
                self._store.add(_key(self._rank), 1)
            except RuntimeError:  # the store is gone, and with it all readers
                return

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def lost(self) -> list[int]:
        """The ranks that send no heartbeat within `SILENCE_SECONDS` from now."""
        before = self._read()
        time.sleep(SILENCE_SECONDS)
        return [rank for rank, (old, new) in enumerate(zip(before, self._read(), strict=True)) if old == new and rank != self._rank]

    def barrier(self) -> None:
        """All ranks: wait for each other, however long a rank takes, as long as it sends heartbeats.

        Raises:
            OtherRankFailed: the other rank says why itself.
            PacklmError: a rank sent no heartbeat for `timeout` seconds.
        """
        self._barriers += 1
        name = f"barrier-{self._barriers}"
        self._store.set(f"{name}/{self._rank}", "")
        missing, beats, since = set(range(self._world)), self._read(), time.monotonic()
        while missing := {rank for rank in missing if not self._store.check([f"{name}/{rank}"])}:
            time.sleep(0.01)
            failed = [rank for rank in missing if self._store.check([f"failed/{rank}"])]
            if failed := [rank for rank in failed if not self._store.check([f"{name}/{rank}"])]:  # it may have failed after the barrier
                raise OtherRankFailed(f"rank {failed[0]} failed, so the other ranks stopped")
            if time.monotonic() - since > max(self._timeout, SILENCE_SECONDS):
                now = self._read()
                if silent := sorted(rank for rank in missing if now[rank] == beats[rank]):
                    raise PacklmError(f"{no_response(silent)} for {self._timeout:.0f} s (train.timeout_seconds)")
                beats, since = now, time.monotonic()

    def failed(self, error: BaseException) -> bool:
        """Tells the other ranks of an exception on this one; returns whether rank 0 is another rank, and does not fail, too."""
        with suppress(RuntimeError):  # the store was served by a rank that is gone
            self._store.set(f"failed/{self._rank}", type(error).__name__)
            until = time.monotonic() + RECORDS_SECONDS
            while self._rank and not self._store.check(["failed/0"]):
                if time.monotonic() > until:
                    return True
                time.sleep(0.01)
        return False

    def _read(self) -> list[int]:
        return [self._store.add(_key(rank), 0) for rank in range(self._world)]


def no_response(ranks: list[int]) -> str:
    """`rank 2 did not respond`"""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} did not respond"


def _key(rank: int) -> str:
    return f"beat/{rank}"
