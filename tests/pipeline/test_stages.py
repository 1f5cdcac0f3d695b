"""Running all stages, with stand-ins for their commands, and the summary."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from packlm import config as configuration
from packlm import dataset
from packlm.base import files
from packlm.config import Config
from pipeline import stages

MakeConfig = Callable[..., Config]
ROOT = Path(__file__).resolve().parents[2]


def stand_in(name: str, body: str) -> stages.Stage:
    """A stage whose command appends its name, configuration file and further arguments to `order`, then runs `body`."""
    program = f"import sys, time, signal\nopen('order', 'a').write(' '.join(['{name}', *sys.argv[1:]]) + '\\n')\n{body}"
    return stages.Stage(name, lambda config: ["-c", program], lambda config: "input -> output", rebuilds=name == "first")


def test_stages_run_in_order(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STAGES", (stand_in("first", ""), stand_in("second", "")))
    stages.run_all(make_config(), rebuild=True)
    file = "--config runs/tiny/config.toml"
    assert Path("order").read_text() == f"first {file} --rebuild\nsecond {file}\n"


def test_the_first_failure_ends_the_run_with_its_status(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STAGES", (stand_in("first", ""), stand_in("second", "sys.exit(75)"), stand_in("third", "")))
    with pytest.raises(stages.StageFailed, match=r"stage second failed \(exit status 75\)") as caught:
        stages.run_all(make_config())
    assert caught.value.status == 75
    assert "third" not in Path("order").read_text()


def test_only_what_can_be_resumed_is_said_to_be(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong request is wrong again when it is run again."""
    for status, resumed in ((1, True), (2, False), (75, True)):
        monkeypatch.setattr(stages, "STAGES", (stand_in("first", f"sys.exit({status})"),))
        with pytest.raises(stages.StageFailed) as caught:
            stages.run_all(make_config())
        assert ("running the same command again" in str(caught.value)) == resumed and caught.value.status == status


def test_a_killed_stage_is_a_failure(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "STAGES", (stand_in("first", "signal.raise_signal(signal.SIGKILL)"),))
    with pytest.raises(stages.StageFailed, match="killed by signal SIGKILL") as caught:
        stages.run_all(make_config())
    assert caught.value.status == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_running_stage(tmp_path: Path, number: signal.Signals) -> None:
    program = (
        "from pathlib import Path\nfrom packlm import config\nfrom packlm.base import errors, log\nfrom pipeline import stages\n"
        'body = \'import signal, sys, time\\nsignal.signal(signal.SIGTERM, lambda *_: (open("stopped", "w"), sys.exit(75)))\\n\'\n'
        'body += \'open("started", "w")\\ntime.sleep(60)\'\n'
        "stages.STAGES = (stages.Stage('first', lambda config: ['-c', body], lambda config: '', False),) * 2\n"
        "log.setup()\nerrors.run(lambda: stages.run_all(config.resolve({'run': {'name': 'tiny'}})))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 75
    assert (tmp_path / "stopped").exists() and "stopped in stage first" in stderr


def test_a_stage_reads_back_what_was_resolved(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("postgresql://me:hunter2@db/mlflow", train={"lr": 0.25})
    monkeypatch.setenv("PACKLM_TRAIN__LR", "0.5")  # lost to the command line, and must not win in the stage
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    path = config.run.dir / "config.toml"
    environment = stages.write_config(config, path)
    assert "hunter2" not in path.read_text()
    assert configuration.load(path, environment=environment) == config


def test_training_is_one_process_or_torchrun(make_config: MakeConfig) -> None:
    (train,) = [stage for stage in stages.STAGES if stage.name == "train"]
    assert train.command(make_config()) == ["-m", "packlm.stages.train"]
    assert train.command(make_config(train={"processes": 4})) == [
        "-m", "packlm.distributed.torchrun", "--standalone", "--nproc-per-node", "4", "-m", "packlm.stages.train",
    ]  # fmt: skip


def test_summary_shows_numbers_samples_and_places(make_config: MakeConfig) -> None:
    config = make_config()
    split = dataset.Split(3, 40, 1234, 1000, 6000, 0, 0, 50, {view: {} for view in dataset.VIEWS})
    splits = {"train": split, "validation": split}
    digests = {"settings": files.digest({}), "corpus": dataset.corpus_digest({}), "content": dataset.content_digest(splits)}
    manifest = dataset.Manifest({}, digests, 100, 64, True, splits, {}, {})
    config.dataset.dir.mkdir(parents=True)
    dataset.write_manifest(config.dataset.dir, manifest)
    reports = {
        "train/summary.json": {
            "epochs": 1.0, "steps": 20, "tokens": 1234, "seconds": 9.0,
            "validation": {"before": {"perplexity": 4012.34, "step": 0}, "best": {"perplexity": 85.25, "step": 20}},
        },
        "evaluate/validation.json": {
            "split": "validation", "tokens": 1234, "documents": 3, "words": 1000, "bytes": 6000, "context": "sentences", "streams": None,
            "perplexity": 85.26, "perplexity_per_word": 120.0, "bits_per_byte": 1.2, "unknown_rate": 0.0, "tokenizer_digest": "t",
        },
        "generate/samples.jsonl": {"prompt": "The", "generations": [{"text": f"The cat {i}", "log_prob": -1.5} for i in range(4)]},
    }  # fmt: skip
    for name, content in reports.items():
        (config.run.dir / name).parent.mkdir(parents=True)
        (config.run.dir / name).write_text(json.dumps(content) + "\n")
    text = stages.summary(config)
    for part in (
        "1,234 tokens",
        "validation perplexity 4,012.3 before training, 85.2 after it",
        "'The cat 2'",
        "runs/tiny/model",
        "`make ui`",
    ):
        assert part in text
    assert "'The cat 3'" not in text
