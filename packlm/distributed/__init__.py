"""Distributed runs: the ranks that torchrun starts, their collectives and heartbeats."""

from packlm.distributed.ranks import Ranks, start, stop_signals, visible_gpus

__all__ = ["Ranks", "start", "stop_signals", "visible_gpus"]
