"""Imports run only along the arrows of `ARROWS`: everything else fails, imports inside functions included."""

import ast
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

LIBRARY = (
    "base", "config", "dataset", "corpus", "text", "distributed", "batches", "model", "interpolation", "evaluation", "scoring",
    "generation", "tracking",
)  # fmt: skip
ARROWS: dict[str, tuple[str, ...]] = {
    "packlm.base": ("packlm.base",),
    "packlm.config": ("packlm", "packlm.base", "packlm.config"),
    "packlm.dataset": ("packlm.base", "packlm.dataset"),
    "packlm.corpus": ("packlm.base", "packlm.config", "packlm.dataset", "packlm.text", "packlm.corpus"),
    "packlm.text": ("packlm.base", "packlm.config", "packlm.dataset", "packlm.text"),
    "packlm.tracking": ("packlm.base", "packlm.config", "packlm.dataset", "packlm.tracking"),
    "packlm.distributed": ("packlm.base", "packlm.distributed"),
    "packlm.batches": ("packlm.base", "packlm.dataset", "packlm.model", "packlm.batches"),
    "packlm.model": ("packlm.base", "packlm.config", "packlm.model"),
    "packlm.interpolation": ("packlm.base", "packlm.dataset", "packlm.model", "packlm.interpolation"),
    "packlm.evaluation": (
        "packlm.base", "packlm.config", "packlm.dataset", "packlm.corpus", "packlm.text", "packlm.tracking", "packlm.distributed",
        "packlm.batches", "packlm.model", "packlm.interpolation", "packlm.evaluation",
    ),
    "packlm.scoring": (
        "packlm.base", "packlm.config", "packlm.dataset", "packlm.text", "packlm.batches", "packlm.model", "packlm.evaluation",
        "packlm.scoring",
    ),
    "packlm.generation": (
        "packlm.base", "packlm.config", "packlm.dataset", "packlm.text", "packlm.model", "packlm.interpolation", "packlm.generation",
    ),
    "packlm.engine": tuple(f"packlm.{room}" for room in LIBRARY),
    "packlm.fine_tuning": ("packlm", "packlm.base", "packlm.config", "packlm.model", "packlm.tracking"),
    "packlm.hub": ("packlm.base",),
    "packlm.fetch": ("packlm", "packlm.base", "packlm.dataset", "packlm.model"),
    "packlm.commands": ("packlm.base", "packlm.config", "packlm.commands"),
    "packlm.stages": (),
    "packlm": ("packlm.engine",),
    "packlm.__main__": ("packlm.base",),
    "preprocess": ("packlm", "preprocess"),
    "train": ("packlm", "train"),
    "serve": ("packlm", "serve"),
    "pipeline": ("packlm", "pipeline"),
}  # fmt: skip
"""Who may import whom. A module belongs to the longest name that begins its own; whatever is not listed is not allowed."""
OURS = ("benchmarks", "packlm", "pipeline", "preprocess", "serve", "tests", "train")
STAGES = ("pipeline", "preprocess", "serve", "train")
ONLY_IN = {
    "mlflow": ("packlm.tracking",),
    "torch": (
        "packlm.batches", "packlm.distributed", "packlm.engine", "packlm.evaluation", "packlm.generation", "packlm.interpolation",
        "packlm.model", "packlm.scoring",
        "serve", "train",
    ),
}  # fmt: skip
"""Libraries that only some of our modules may import."""


def modules() -> list[tuple[str, Path]]:
    """(dotted name, file) of every module of the library and the stages."""
    paths = [path for name in ("packlm", *STAGES) for path in sorted((ROOT / name).rglob("*.py"))]
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path) for path in paths]


def imports(module: str, source: str, is_package: bool = False) -> list[str]:
    """Every module that a program imports, anywhere in it; `from a import b` counts as `a.b` too, since b may be a module.

    Relative imports are told by their absolute names. A stage has no absolute import of itself (but in the branch of `__main__` that runs
    from a checkout), the library no relative ones.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = within(module, STAGES) and not module.endswith("__main__")
            assert not inside or not within(node.module or "", STAGES) or node.level, f"line {node.lineno}: imports of a stage are relative"
            assert not node.level or within(module, STAGES), f"line {node.lineno}: imports of the library are absolute"
            parts = module.split(".")
            base = ".".join([*parts[: len(parts) - node.level + is_package], node.module or ""]).strip(".") if node.level else node.module
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def within(module: str, allowed: tuple[str, ...]) -> bool:
    """Whether a module is one of those named, or inside one."""
    return any(module == name or module.startswith(name + ".") for name in allowed)


def complaints(module: str, imported: list[str]) -> list[str]:
    """What is wrong with the imports of a module."""
    allowed = next(ARROWS[name] for name in sorted(ARROWS, key=len, reverse=True) if within(module, (name,)))
    forbidden = [library for library, where in ONLY_IN.items() if not within(module, where)]
    wrong = [name for name in imported if (within(name, OURS) and not within(name, allowed)) or within(name, tuple(forbidden))]
    return [f"{module} imports {name}" for name in wrong]


@pytest.mark.parametrize(("module", "path"), modules(), ids=[name for name, _ in modules()])
def test_imports_run_along_the_arrows(module: str, path: Path) -> None:
    assert complaints(module, imports(module, path.read_text(encoding="utf-8"), path.name == "__init__.py")) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("packlm.text.encoder", "import torch"),
        ("train.trainer", "def f():\n    import preprocess.build"),
        ("packlm.engine", "import preprocess.executors.runner"),
        ("train.trainer", "import mlflow.pyfunc"),
        ("pipeline.stages", "import train.trainer"),
        ("preprocess.build.plan", "from ...pipeline import stages"),
        ("packlm", "import packlm.model.language_model"),
        ("packlm.model.language_model", "from tests import helpers"),
        ("packlm.base.files", "from packlm import dataset"),
    ],
)
def test_a_wrong_import_is_noticed(module: str, source: str) -> None:
    assert complaints(module, imports(module, source))


def test_no_module_hides_one_of_the_standard_library() -> None:
    assert not {name for name, _ in modules()} & set(sys.stdlib_module_names)


@pytest.mark.parametrize("source", ["from train.trainer import Trainer", "from packlm.model import cells\nfrom train import setup"])
def test_within_a_stage_imports_are_relative(source: str) -> None:
    with pytest.raises(AssertionError, match="relative"):
        imports("train.progress", source)


def test_no_folder_is_crowded() -> None:
    folders = Counter(path.parent for _, path in modules() if path.name != "__init__.py")
    assert {str(folder): count for folder, count in folders.items() if count > 15} == {}


def test_the_wheel_has_every_package() -> None:
    """What is listed is what there is: a wheel without a folder would fail only where somebody has installed it."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    there = {".".join(path.parent.relative_to(ROOT).parts) for _, path in modules() if path.name == "__init__.py"}
    expected = {name if within(name, ("packlm",)) else f"packlm.stages.{name}" for name in there} | {"packlm.recipes"}
    assert set(settings["packages"]) == expected


def test_a_class_name_has_one_meaning() -> None:
    """Every class of the library and the stages, but the kernels of the cells, has a name of its own."""
    defined_in: dict[str, list[str]] = {}
    for module, path in modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not module.startswith("packlm.model.cells."):
                defined_in.setdefault(node.name.lstrip("_"), []).append(module)
    assert {name: where for name, where in defined_in.items() if len(where) > 1} == {}
