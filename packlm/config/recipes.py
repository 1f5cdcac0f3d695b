"""Recipes: the configuration files that come with packlm, found by name."""

import os
import re
from pathlib import Path

import packlm
from packlm.base import regular_files
from packlm.base.errors import PacklmError, RequestError, did_you_mean

_INSTALLED, _CHECKOUT = Path(packlm.__file__).with_name("recipes"), Path(packlm.__file__).parents[1] / "configs"


def folder() -> Path:
    """The folder of the recipes: in the installed package, or `configs/` of a checkout."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def names() -> list[str]:
    """The names of all recipes, sorted: `ptb-fast` for `ptb-fast.toml`."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def title(name: str) -> str:
    """The first comment line of a recipe, which says what it is; of a file that cannot be read, why."""
    try:
        first = regular_files.read_text(folder() / f"{name}.toml").partition("\n")[0]
    except PacklmError as error:
        return f"({error})"
    return first.lstrip("# ").rstrip()


def find(config: Path) -> Path:
    """The file of a `--config` argument: a path, or the name of a recipe where there is no such file.

    Raises:
        RequestError: for a name that is neither.
    """
    if os.path.isfile(config) or config.suffix or config.parent != Path():  # noqa: PTH113  (raises nothing for a long name)
        return config
    if str(config) not in names():
        hint = did_you_mean(str(config), names(), "`packlm recipes` lists the recipes")
        raise RequestError(f"--config {str(config)[:300]}: neither a file nor a recipe; {hint}")
    return folder() / f"{config}.toml"


def name_of(corpus: Path) -> str:
    """The name of a run for a folder or file: its own, without the characters that a name cannot have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", corpus.resolve().stem).strip("._-")[:100] or "corpus"
