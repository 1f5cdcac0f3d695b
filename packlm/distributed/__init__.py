"""Ranks: the processes that torchrun starts, and the sums they make together."""

from packlm.distributed.ranks import Ranks, start, stop_signals

__all__ = ["Ranks", "start", "stop_signals"]
