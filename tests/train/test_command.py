"""The command: `python train` and torchrun are the same code, and wrong requests end with status 2 before any work."""

import subprocess
import sys
from pathlib import Path

import pytest

from packlm.base import files

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "--train.lr", "0.004", "--model.hidden", "8", "--train.global_batch_tokens", "60", "--train.max_steps", "8",
    "--train.precision", "float64", "--tracking.uri", "", "--train.device", "cpu",
)  # fmt: skip


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=300)


def test_torchrun_and_python_train_the_same_model(random_data, tmp_path):
    """From another folder, started as the README says."""
    options = ["--dataset.dir", str(random_data.folder), *TINY]
    alone = run(tmp_path, str(ROOT / "train"), *options, "--run.dir", "alone")
    assert alone.returncode == 0, alone.stderr
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "train"))
    together = run(tmp_path, *torchrun, *options, "--run.dir", "together")
    assert together.returncode == 0, together.stderr
    first, second = (files.read_json(tmp_path / name / "train" / "summary.json")["validation"]["last"] for name in ("alone", "together"))
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-12)
    assert together.stderr.count("validation perplexity") == alone.stderr.count("validation perplexity") > 0
    assert alone.stdout == "" and together.stdout == ""

    again = run(tmp_path, str(ROOT / "train"), *options, "--run.dir", "alone")
    assert again.returncode == 0 and "up to date" in again.stderr
    changed = run(tmp_path, str(ROOT / "train"), *options, "--run.dir", "alone", "--train.lr", "0.5")
    assert changed.returncode == 2 and "train.lr: 0.004 -> 0.5" in changed.stderr and "--rebuild" in changed.stderr
    anew = run(tmp_path, str(ROOT / "train"), *options, "--run.dir", "alone", "--train.lr", "0.5", "--rebuild")
    assert anew.returncode == 0, anew.stderr
    assert files.read_json(tmp_path / "alone" / "train" / "summary.json")["validation"]["last"]["loss"] != first["loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--train.lrr", "1", "--modell.hidden", "2"], "train.lrr: there is no such setting; did you mean train.lr?"),
        (["--train.lr", "fast"], "train.lr: Input should be a valid number"),
        (["--train.clip", "inf"], "train.clip: Input should be a finite number"),
        (["--rebiuld"], "unknown option '--rebiuld'"),
        (["--config", "nowhere.toml"], "the configuration file nowhere.toml: cannot be read"),
        ([], "data/quickstart: no dataset here (no manifest.json); build it with `packlm preprocess`"),
    ],
)
def test_a_wrong_request_is_refused(tmp_path, arguments, message):
    done = run(tmp_path, str(ROOT / "train"), *arguments)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
