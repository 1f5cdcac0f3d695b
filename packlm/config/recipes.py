"""Recipes: the configuration files that come with packlm, found by name."""

from pathlib import Path

import packlm

_INSTALLED, _CHECKOUT = Path(packlm.__file__).with_name("recipes"), Path(packlm.__file__).parents[1] / "configs"


def folder() -> Path:
    """Where the recipes are: in the installed package, or in `configs/` of a checkout."""
    return _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def names() -> list[str]:
    """The names of all recipes, sorted: `ptb-fast` for `ptb-fast.toml`."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def find(config: Path) -> Path:
    """The file that `--config` names: a path, or a recipe's name where no such file exists."""
    recipe = folder() / f"{config}.toml"
    return recipe if not config.exists() and str(config) in names() else config
