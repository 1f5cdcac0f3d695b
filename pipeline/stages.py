"""Which command makes what from what, and the run of all of them, one after the other.

Each stage is a command of its own, started with the resolved configuration in `run.dir/config.toml`; it knows by itself what is
complete already. The first one that fails ends the run, with its exit status.
"""

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import packlm
from packlm import dataset
from packlm.base import files
from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError, Stopped
from packlm.config import Config, to_toml

log = logging.getLogger("packlm")


class Stage(NamedTuple):
    """One row of the table: `command` gives the words after the Python interpreter, without the configuration's."""

    name: str
    command: Callable[[Config], list[str]]
    needs: str
    makes: str
    rebuilds: bool
    """Whether its command takes `--rebuild`."""


def _train(config: Config) -> list[str]:
    if config.train.processes == 1:
        return ["-m", "packlm.stages.train"]
    processes = str(config.train.processes)
    return ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes, "-m", "packlm.stages.train"]


STAGES = (
    Stage("preprocess", lambda config: ["-m", "packlm.stages.preprocess"], "the corpus", "dataset.dir", True),
    Stage("train", _train, "dataset.dir", "run.dir/train, run.dir/model", True),
    Stage("evaluate", lambda config: ["-m", "packlm.stages.serve", "evaluate"], "dataset.dir, run.dir/model", "run.dir/evaluate", False),
    Stage("generate", lambda config: ["-m", "packlm.stages.serve", "generate"], "run.dir/model, prompts", "run.dir/generate", False),
)


class StageFailed(PacklmError):
    """A stage's command failed, and has said why; carries its exit status."""

    def __init__(self, name: str, status: int):
        how = f"exit status {status}" if status >= 0 else f"killed by signal {signal.Signals(-status).name}"
        super().__init__(f"the stage {name} failed ({how}); what was made before it is kept, and the same command goes on from there")
        self.status = status if status > 0 else 1


def run_all(config: Config, rebuild: bool = False) -> None:
    """Runs every stage.

    Raises:
        StageFailed: with the exit status of the first stage that failed.
        Stopped: a signal arrived; it was passed on to the running stage, which has ended.
    """
    path = config.run.dir / "config.toml"
    environment = write_config(config, path)
    with _forwarded_signals() as running:
        for stage in STAGES:
            log.info("\n%s: %s -> %s", stage.name, *(_places(text, config) for text in (stage.needs, stage.makes)))
            command = [sys.executable, *stage.command(config), "--config", str(path)]
            command += ["--rebuild"] if rebuild and stage.rebuilds else []
            status = running.call(command, environment | _threads(config, stage))
            if running.stopped:
                raise Stopped(f"stopped in the stage {stage.name}; the same command goes on from there")
            if status:
                raise StageFailed(stage.name, status)


def write_config(config: Config, path: Path) -> dict[str, str]:
    """Writes the resolved configuration, without credentials, and returns the environment in which a stage reads it back unchanged.

    What the environment said is in the file already, and would override the command line if it were passed on. The store's
    address goes through the environment only where it holds credentials, which belong in no file.
    """
    uri = without_credentials(config.tracking.uri)
    public = config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": uri})})
    files.write_text(path, to_toml(public))
    settings = re.compile(r"PACKLM_.*__.*|MLFLOW_TRACKING_URI|MLFLOW_EXPERIMENT_NAME")
    kept = {name: value for name, value in os.environ.items() if not settings.fullmatch(name)}
    # The stages find packlm where this process found it, and nothing in the current folder can take a module's name.
    kept["PYTHONPATH"] = os.pathsep.join([str(Path(packlm.__file__).parents[1]), *filter(None, [kept.get("PYTHONPATH")])])
    kept["PYTHONSAFEPATH"] = "1"
    return kept if uri == config.tracking.uri else kept | {"PACKLM_TRACKING__URI": config.tracking.uri}


def summary(config: Config) -> str:
    """What a run came to: documents and tokens, perplexity before and after, three samples, and where everything is."""
    manifest = dataset.read_manifest(config.dataset.dir)
    validation = files.read_json(config.run.dir / "train" / "summary.json")["validation"]
    reports = {split: files.read_json(config.run.dir / "evaluate" / f"{split}.json") for split in config.evaluate.splits(manifest.splits)}
    lines = ["", config.run.name, ""]
    for name, counts in manifest.splits.items():
        lines.append(f"  {name:<12}{counts.documents:>9,} documents {counts.tokens:>13,} tokens")
    lines.append("")
    if validation:
        before, after = validation["before"]["perplexity"], validation["best"]["perplexity"]
        lines.append(f"  validation perplexity {before:,.1f} before training, {after:,.1f} after it")
    lines += [
        f"  {split} perplexity {report['perplexity']:,.1f}, measured by the model folder alone ({report['tokens']:,} tokens)"
        for split, report in reports.items()
    ]
    lines.append("")
    for prompt, generation in _samples(config.run.dir / "generate" / "samples.jsonl", 3):
        lines.append(f"  {prompt!r} -> {generation['text']!r}  (log P = {generation['log_prob']:.1f})")
    lines += ["", f"  model       {config.run.dir / 'model'}", f"  dataset     {config.dataset.dir}"]
    lines += [f"  report      {config.run.dir / 'evaluate' / f'{split}.md'}" for split in reports]
    if config.tracking.uri:
        lines.append(f"  MLflow      {without_credentials(config.tracking.uri)}; `make ui` opens it")
    return "\n".join(lines)


def _samples(path: Path, count: int) -> list[tuple[str, dict[str, Any]]]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(record["prompt"], generation) for record in records for generation in record.get("generations", [])][:count]


def _places(text: str, config: Config) -> str:
    """A text of the table with the folders it names."""
    given = config.generate.prompts
    prompts = str(given) if isinstance(given, Path) else f"{len(given)} prompts"
    values = {"dataset.dir": config.dataset.dir, "run.dir": config.run.dir, "prompts": prompts}
    return re.sub("|".join(map(re.escape, values)), lambda found: str(values[found[0]]), text)


def _threads(config: Config, stage: Stage) -> dict[str, str]:
    """Shares the processors among the processes of training, unless the environment says how many threads each may have."""
    if stage.name != "train" or config.train.processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // config.train.processes))}


class _Running:
    """The command that runs just now, and whether a signal has arrived."""

    def __init__(self) -> None:
        self.stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def call(self, command: list[str], environment: dict[str, str]) -> int:
        """Runs a command to its end, in a process group of its own: Ctrl-C reaches it once, through us."""
        if self.stopped:
            return 0
        with subprocess.Popen(command, env=environment, process_group=0) as self._process:
            if self.stopped:  # the signal came while it was being started
                self._process.terminate()
            return self._process.wait()

    def stop(self, signum: int, frame: FrameType | None) -> None:
        self.stopped = True
        if self._process and self._process.poll() is None:
            self._process.terminate()


@contextmanager
def _forwarded_signals() -> Iterator[_Running]:
    running = _Running()
    before = {number: signal.signal(number, running.stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield running
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
