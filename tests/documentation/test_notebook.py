"""The notebook of the tour runs from top to bottom, by the public names of packlm alone, and is stored with what it showed."""

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packlm.config import Config

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "tour.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_every_cell_runs(
    cells: list[dict[str, Any]], made: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    matplotlib.use("Agg")
    for name, target in (("runs", made("bpe").run.dir / "model"), ("data", made("bpe").dataset.dir)):
        link = tmp_path / name / "quickstart" / ("model" if name == "runs" else "")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, cell {number}", "exec"), names)
    losses = {name: way(names["inputs"], names["targets"]).item() for name, way in names["ways"].items()}
    assert list(losses) == ["one by one", "equal lengths", "padded, masked", "packed"]
    assert [*losses.values()] == pytest.approx([losses["one by one"]] * 4, rel=1e-5)


def test_only_public_names_are_used(cells: list[dict[str, Any]]) -> None:
    tree = ast.parse("\n".join("".join(cell["source"]) for cell in cells))
    modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in modules if name.startswith("packlm")} == {"packlm"}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {name for name in attributes if name.startswith("_") and name != "_replace"}


def test_the_notebook_is_stored_with_its_outputs(cells: list[dict[str, Any]]) -> None:
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert sum(output["output_type"] == "stream" for output in outputs) >= 8
