"""Where the time of a training step goes: torch's profiler over a few steps."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import profiler

log = logging.getLogger("packlm")

SKIPPED, WARM_UP, RECORDED = 5, 2, 6
"""Steps that are passed over, that the profiler gets ready in, and that it records."""
LONGEST = 25
"""Operations in the table."""


@contextmanager
def profile(folder: Path) -> Iterator[Callable[[], None]]:
    """Records the steps of the block after the first few; yields what is to be called after each step.

    Leaves `trace.json`, for Perfetto (ui.perfetto.dev) or chrome://tracing, and `operations.txt`, a table of the longest operations.
    """
    kinds = [profiler.ProfilerActivity.CPU] + [profiler.ProfilerActivity.CUDA] * torch.cuda.is_available()

    def ready(recorded: profiler.profile) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(folder / "trace.json"))
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        (folder / "operations.txt").write_text(recorded.key_averages().table(sort_by=by, row_limit=LONGEST) + "\n", encoding="utf-8")
        log.info("profile of %d steps: %s", RECORDED, folder / "trace.json")

    steps = profiler.schedule(wait=SKIPPED, warmup=WARM_UP, active=RECORDED, repeat=1)
    with profiler.profile(activities=kinds, schedule=steps, on_trace_ready=ready) as running:
        yield running.step
