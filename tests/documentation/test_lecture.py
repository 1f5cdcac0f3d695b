"""docs/lecture.md: its cells run one after the other, as in a notebook; its commands and rows exist."""

import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from batching_methods import METHODS

PAGE = ROOT / "docs" / "lecture.md"


def test_the_cells_of_the_lecture_run_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    cells = [(match.group(1), match.start()) for match in re.finditer(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)]
    assert len(cells) == 13
    torch.set_num_threads(1)
    notebook: dict[str, object] = {}
    for cell, start in cells:
        line = PAGE.read_text(encoding="utf-8")[:start].count("\n") + 1
        exec(compile("\n" * line + cell, str(PAGE), "exec"), notebook)  # an error names the line of the page
    assert "gradient off by" in capsys.readouterr().out


def test_every_row_of_the_comparison_has_a_step() -> None:
    rows = re.findall(
        r"`([^`]+)`", "\n".join(line.split("|")[2] for line in PAGE.read_text(encoding="utf-8").splitlines() if "| [" in line)
    )
    for method in METHODS.values():
        assert any(method.label.startswith(row.removesuffix("...")) for row in rows), method.label
