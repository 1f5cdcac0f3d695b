"""The torture program in its short form: a minute of kills, damaged files and malformed input, with a fixed seed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture import verdict
from tests.torture.verdict import Ended, Outcome

ROOT = Path(__file__).resolve().parents[2]
PARTS = "flips,mutations,kills-preprocess,kills-training,malformed,malicious"


@pytest.mark.long
def test_half_a_minute_of_faults_ends_as_it_must() -> None:
    command = [sys.executable, "-m", "tests.torture", "--seed", "24", "--minutes", "0.3", "--only", PARTS]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("status", "errors", "outcome"),
    [
        (0, "", Outcome.OK),
        (1, "error: data/manifest.json: damaged\n", Outcome.NAMED),
        (2, "error: wrong configuration:\n  train.lr: not a number\n  run.dir: no path\n", Outcome.NAMED),
        (1, "", Outcome.TRACEBACK),
        (1, "error: something is wrong\n", Outcome.TRACEBACK),
        (1, "error: a/b: damaged\nerror: a/c: damaged\n", Outcome.TRACEBACK),
        (1, "Traceback (most recent call last):\n  ...\nOSError: a/b\n", Outcome.TRACEBACK),
        (1, "critical: unexpected: OSError: a/b (a.py:1); the full trace is in /tmp/x\n", Outcome.TRACEBACK),
        (0, "thread '<unnamed>' panicked at lib.rs\n", Outcome.TRACEBACK),
        (-11, "error: a/b: damaged\n", Outcome.TRACEBACK),
        (3, "error: a/b: damaged\n", Outcome.TRACEBACK),
        (None, "", Outcome.HANG),
    ],
)
def test_an_end_is_judged(status: int | None, errors: str, outcome: Outcome) -> None:
    ended = Ended(status, "", errors, 1.0)
    assert verdict.judge(ended, [], "").outcome is outcome
    if status == 0 and outcome is Outcome.OK:
        assert verdict.judge(ended, ["a file is different"], "").outcome is Outcome.DIFFERENT
