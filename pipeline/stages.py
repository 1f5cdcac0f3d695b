"""The stages of a pipeline, and their execution one after the other.

Each stage is a command of its own, started with the resolved configuration in `run.dir/config.toml`; it skips what is complete already.
The first one that fails ends the pipeline with its exit status.
"""

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import packlm
from packlm import dataset
from packlm.base import files
from packlm.base.credentials import public_address
from packlm.base.errors import WRONG_REQUEST, PacklmError, Stopped
from packlm.config import Config, to_toml
from packlm.tracking import run_files

log = logging.getLogger("packlm")


class Stage(NamedTuple):
    """A stage of the pipeline."""

    name: str
    command: Callable[[Config], list[str]]
    """The arguments of the Python interpreter, without those of the configuration."""
    files: Callable[[Config], str]
    """What it reads and writes, for the log."""
    rebuilds: bool
    """Whether its command takes `--rebuild`."""


def training_command(config: Config) -> list[str]:
    """The arguments of the Python interpreter for a training with `train.processes`."""
    if config.train.processes == 1:
        return ["-m", "packlm.stages.train"]
    processes = str(config.train.processes)
    return ["-m", "packlm.distributed.torchrun", "--standalone", "--nproc-per-node", processes, "-m", "packlm.stages.train"]


STAGES = (
    Stage("preprocess", lambda config: ["-m", "packlm.stages.preprocess"], lambda config: f"corpus -> {config.dataset.dir}", True),
    Stage("train", training_command, lambda config: f"{config.dataset.dir} -> {config.run.dir}/train, {config.run.dir}/model", True),
    Stage(
        "evaluate", lambda config: ["-m", "packlm.stages.serve", "evaluate"],
        lambda config: f"{config.dataset.dir}, {config.run.dir}/model -> {config.run.dir}/evaluate", False,
    ),
    Stage(
        "generate", lambda config: ["-m", "packlm.stages.serve", "generate"],
        lambda config: f"{config.run.dir}/model, prompts -> {config.run.dir}/generate", False,
    ),
)  # fmt: skip


class StageFailed(PacklmError):
    """A stage's command failed and printed why; carries its exit status."""

    def __init__(self, name: str, status: int):
        names = {int(number): number.name for number in signal.Signals}  # real-time signals have none
        how = f"exit status {status}" if status >= 0 else f"killed by signal {names.get(-status, -status)}"
        if status == WRONG_REQUEST:
            super().__init__(f"stage {name} refused its settings ({how}), and nothing after it was run; correct what it says")
        else:
            super().__init__(f"stage {name} failed ({how}); after fixing the cause, resume by running the same command again")
        self.status = status if status > 0 else 1


def run_all(config: Config, rebuild: bool = False, only: Collection[str] | None = None) -> None:
    """Runs every stage, or `only` some of them.

    Raises:
        StageFailed: with the exit status of the first stage that failed.
        Stopped: a signal arrived, was forwarded to the running stage, and has ended it.
    """
    path = config.run.dir / "config.toml"
    environment = write_config(config, path)
    with _forwarded_signals() as running:
        for stage in (stage for stage in STAGES if only is None or stage.name in only):
            log.info("\n%s: %s", stage.name, stage.files(config))
            command = [sys.executable, *stage.command(config), "--config", str(path)]
            command += ["--rebuild"] if rebuild and stage.rebuilds else []
            several = stage.name == "train" and config.train.processes > 1
            status = running.call(command, environment | (share_of_threads(config.train.processes) if several else {}))
            if running.stopped:
                raise Stopped(f"stopped in stage {stage.name}; resume by running the same command again")
            if status:
                raise StageFailed(stage.name, status)


def write_config(config: Config, path: Path) -> dict[str, str]:
    """Writes the resolved configuration, without credentials, and returns the environment in which a stage reads it back unchanged.

    Settings of the environment are in the file already, and would override the command line if they were passed on. The address of the
    store is passed on only if it holds credentials, which belong in no file.
    """
    files.write_text(path, to_toml(config))
    settings = re.compile(r"PACKLM_.*__.*|MLFLOW_TRACKING_URI|MLFLOW_EXPERIMENT_NAME")
    environment = {name: value for name, value in os.environ.items() if not settings.fullmatch(name)}
    # The stages import the same packlm as this process, and no module of the current folder.
    python_path = [str(Path(packlm.__file__).parents[1]), *filter(None, [environment.get("PYTHONPATH")])]
    environment |= {"PYTHONPATH": os.pathsep.join(python_path), "PYTHONSAFEPATH": "1"}
    uri = config.tracking.uri
    return environment if uri == public_address(uri) else environment | {"PACKLM_TRACKING__URI": uri}


def summary(config: Config) -> str:
    """The results of a pipeline for people: size of the dataset, perplexity before and after, three samples, and the paths."""
    manifest = dataset.read_manifest(config.dataset.dir)
    training, all_reports = run_files.training_summary(config.run.dir), run_files.reports(config.run.dir)
    reports = {split: report for split, report in all_reports.items() if split in config.evaluate.splits(manifest.splits)}
    lines = ["", config.run.name, ""]
    for name, counts in manifest.splits.items():
        lines.append(f"  {name:<12}{counts.documents:>9,} documents {counts.tokens:>13,} tokens")
    lines.append("")
    if training and (before := training.validation.before) and (best := training.validation.best):
        lines.append(f"  validation perplexity {before.perplexity:,.1f} before training, {best.perplexity:,.1f} after it")
    for split, report in reports.items():
        lines.append(f"  {split} perplexity {report.perplexity:,.1f}, measured by the model folder alone ({report.tokens:,} tokens)")
        if baselines := report.baselines:
            mixture = f"; interpolated with the model {baselines.interpolated.perplexity:,.1f}" if baselines.interpolated else ""
            lines.append(f"  {split} perplexity {baselines.kneser_ney_5.perplexity:,.1f} of 5-grams{mixture}")
    lines.append("")
    for prompt, generation in run_files.generations(config.run.dir, 3):
        lines.append(f"  {prompt!r} -> {generation.text!r}  (log P = {generation.log_prob:.1f})")
    lines += ["", f"  model       {config.run.dir / 'model'}", f"  dataset     {config.dataset.dir}"]
    lines += [f"  report      {config.run.dir / 'evaluate' / f'{split}.md'}" for split in reports]
    if config.tracking.uri:
        store = public_address(config.tracking.uri)
        viewer = "" if store.startswith("http") else f"; `make ui`, or `mlflow ui --backend-store-uri {store}`, shows it"
        lines.append(f"  MLflow      {store}{viewer}")
    return "\n".join(lines)


def share_of_threads(processes: int) -> dict[str, str]:
    """Divides the CPU cores among processes that run at the same time, unless the environment sets the number of threads."""
    return {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}


class _RunningStage:
    """The command of the current stage, and whether a signal has arrived."""

    def __init__(self) -> None:
        self.stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, command: list[str], environment: dict[str, str]) -> int:
        """Runs a command in a process group of its own, so that Ctrl-C reaches it once, forwarded by us; returns its exit status."""
        if self.stopped:
            return 0
        with subprocess.Popen(command, env=environment, process_group=0) as self._process:
            if self.stopped:  # the signal arrived while it was being started
                self._process.terminate()
            return self._process.wait()

    def stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self._process and self._process.poll() is None:
            self._process.terminate()


@contextmanager
def _forwarded_signals() -> Iterator[_RunningStage]:
    running = _RunningStage()
    before = {number: signal.signal(number, running.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield running
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
