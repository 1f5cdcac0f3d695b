"""Imports run only along the arrows of `ARROWS`: everything else fails, imports inside functions included."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LEAVES = tuple(
    f"pipeline.{name}" for name in ("changes", "config", "dataset", "errors", "files", "log", "memory", "notes", "settings", "tracking")
)
ARROWS: dict[str, tuple[str, ...]] = {
    "pipeline": ("pipeline",),
    "preprocess": ("preprocess", *LEAVES),
    "train": ("train", *LEAVES),
    "serve": ("serve", "train", "preprocess.documents", "preprocess.sentences", "preprocess.encoding", "preprocess.texts", *LEAVES),
    "packlm": ("serve", "pipeline.errors"),
}
"""Who may import whom: a package, or a module of one; whatever is not listed, is not allowed."""
OURS = ("benchmarks", "packlm", "pipeline", "preprocess", "serve", "tests", "train")
ONLY_IN = {"mlflow": ("pipeline.tracking",), "torch": ("train", "serve")}
"""Libraries that only some of our modules may import."""


def modules() -> list[tuple[str, Path]]:
    """(dotted name, file) of every module of ours that has arrows."""
    files = [path for name in ARROWS for path in [ROOT / f"{name}.py", *sorted((ROOT / name).rglob("*.py"))] if path.exists()]
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path) for path in files]


def imports(source: str) -> list[str]:
    """Every module that a program imports, anywhere in it; `from a import b` counts as `a.b` too, since b may be a module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def within(module: str, allowed: tuple[str, ...]) -> bool:
    """Whether a module is one of those named, or inside one."""
    return any(module == name or module.startswith(name + ".") for name in allowed)


def complaints(module: str, imported: list[str]) -> list[str]:
    allowed = ARROWS[module.partition(".")[0]]
    forbidden = [library for library, where in ONLY_IN.items() if not within(module, where)]
    wrong = [name for name in imported if (within(name, OURS) and not within(name, allowed)) or within(name, tuple(forbidden))]
    return [f"{module} imports {name}" for name in wrong]


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_run_along_the_arrows(module: str, path: Path) -> None:
    assert complaints(module, imports(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("preprocess.encoding", "import torch"),
        ("train.trainer", "def f():\n    from preprocess import encoding"),
        ("serve.engine", "from preprocess.executors import run"),
        ("train.trainer", "import mlflow.pyfunc"),
        ("pipeline.stages", "from train import trainer"),
        ("preprocess.shard", "from pipeline import stages"),
        ("packlm", "import train.model"),
        ("train.model", "from tests import helpers"),
    ],
)
def test_a_wrong_import_is_noticed(module: str, source: str) -> None:
    assert complaints(module, imports(source))


def test_no_module_hides_one_of_the_standard_library() -> None:
    assert not {name for name, _ in modules()} & set(sys.stdlib_module_names)
