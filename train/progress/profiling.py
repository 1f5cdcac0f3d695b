"""Profiles a few training steps with torch's profiler."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import profiler

log = logging.getLogger("packlm")

SKIPPED, WARM_UP, RECORDED = 5, 2, 6
"""Steps that are not profiled, that warm the profiler up, and that are recorded."""
TABLE_ROWS = 25


@contextmanager
def profile(folder: Path) -> Iterator[Callable[[], None]]:
    """Records some steps of the block, after the first few; yields a function to call after each step.

    Writes `trace.json`, for Perfetto (ui.perfetto.dev) or chrome://tracing, and `operations.txt`, a table of the slowest operations.
    """
    activities = [profiler.ProfilerActivity.CPU] + [profiler.ProfilerActivity.CUDA] * torch.cuda.is_available()

    def write(profile: profiler.profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        profile.export_chrome_trace(str(folder / "trace.json"))
        key = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        (folder / "operations.txt").write_text(profile.key_averages().table(sort_by=key, row_limit=TABLE_ROWS) + "\n", encoding="utf-8")
        log.info("profile of %d steps: %s", RECORDED, folder / "trace.json")

    schedule = profiler.schedule(wait=SKIPPED, warmup=WARM_UP, active=RECORDED, repeat=1)
    with profiler.profile(activities=activities, schedule=schedule, on_trace_ready=write) as running:
        yield running.step
