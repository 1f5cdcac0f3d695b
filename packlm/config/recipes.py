"""Recipes: the configuration files that come with packlm, found by name."""

from pathlib import Path

import packlm
from packlm.base.errors import RequestError, did_you_mean

_INSTALLED, _CHECKOUT = Path(packlm.__file__).with_name("recipes"), Path(packlm.__file__).parents[1] / "configs"


def folder() -> Path:
    """The folder of the recipes: in the installed package, or `configs/` of a checkout."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def names() -> list[str]:
    """The names of all recipes, sorted: `ptb-fast` for `ptb-fast.toml`."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def title(name: str) -> str:
    """The first comment line of a recipe, which says what it is."""
    with open(folder() / f"{name}.toml", encoding="utf-8") as lines:
        return next(lines, "").lstrip("# ").rstrip()


def find(config: Path) -> Path:
    """The file of a `--config` argument: a path, or the name of a recipe where there is no such file.

    Raises:
        RequestError: for a name that is neither.
    """
    if config.is_file() or config.suffix or config.parent != Path():
        return config
    if str(config) not in names():
        hint = did_you_mean(str(config), names(), "`packlm recipes` lists the recipes")
        raise RequestError(f"--config {config}: neither a file nor a recipe; {hint}")
    return folder() / f"{config}.toml"
