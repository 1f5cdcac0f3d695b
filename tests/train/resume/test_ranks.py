"""One rank that fails alone is named, and the others do not wait for it: real torchrun."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import os, sys, time
sys.path.insert(0, {root!r})
from packlm.base import program

def main():
    from packlm import distributed
    from packlm.base.errors import PacklmError, RequestError
    with distributed.start("cpu", 600) as ranks:
        ranks.barrier()
        if {who}:
            {what}
        ranks.barrier() if {by_barrier} else ranks.sum(__import__("numpy").zeros(1))

if __name__ == "__main__":
    sys.modules["rank_program"] = sys.modules["__main__"]
    program.run("rank_program")
"""


@pytest.mark.parametrize(
    ("who", "what", "line", "by_barrier"),
    [
        ("ranks.rank == 1", "raise ValueError('odd')", "[rank 1] critical: unexpected: ValueError: odd (", False),
        pytest.param(
            "ranks.rank == 1", "raise PacklmError('shard 7: damaged')", "[rank 1] critical: shard 7: damaged", True, marks=pytest.mark.long
        ),
        pytest.param("ranks.rank == 0", "raise PacklmError('shard 7: damaged')", "error: shard 7: damaged", False, marks=pytest.mark.long),
        ("True", "raise RequestError('no such model')", "error: no such model", True),
    ],
)
def test_a_rank_that_fails_is_named_once_and_nobody_waits(tmp_path, who, what, line, by_barrier):
    script = tmp_path / "script.py"
    script.write_text(PROGRAM.format(root=str(ROOT), who=who, what=what, by_barrier=by_barrier))
    began = time.monotonic()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    ours = [text for text in done.stderr.splitlines() if text.startswith(("error: ", "critical: ", "[rank "))]
    assert done.returncode == 1 and time.monotonic() - began < 60
    assert sum(text.startswith(line) for text in ours) == 1, done.stderr
    assert done.stderr.count(line.rpartition(": ")[2]) == 1, done.stderr
    assert len(list(tmp_path.glob("packlm-*"))) == ("unexpected" in line)
