"""Reads settings from a TOML file, the environment and the command line.

In order of increasing precedence: defaults; the TOML file; the environment (MLflow's own `MLFLOW_TRACKING_URI` and
`MLFLOW_EXPERIMENT_NAME`, then `PACKLM_SECTION__KEY`); the command line (`--section.key value`). All wrong keys and values are reported
together. Relative paths are relative to the current folder.
"""

import ast
import difflib
import inspect
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from packlm.base import escape
from packlm.base.errors import RequestError
from packlm.config import recipes
from packlm.config.section import Section
from packlm.config.settings import Config

DEFAULT_CONFIG = recipes.folder() / "quickstart.toml"


def resolve(values: Mapping[str, Any]) -> Config:
    """Validates nested values, and fills in the settings that default to the run's name.

    Raises:
        RequestError: naming every wrong key, what is wrong with it, and the key that was probably meant.
    """
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise RequestError(escape.lines("wrong configuration:", *(f"  {message}" for message in _messages(error)))) from None
    name = config.run.name
    run = config.run if config.run.dir != Path() else config.run.model_copy(update={"dir": Path("runs") / name})
    dataset = config.dataset if config.dataset.dir != Path() else config.dataset.model_copy(update={"dir": Path("data") / name})
    tracking = config.tracking if config.tracking.model_name else config.tracking.model_copy(update={"model_name": name})
    return config.model_copy(update={"run": run, "dataset": dataset, "tracking": tracking})


def load(path: Path | None = None, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Config:
    """Reads a configuration file, the environment and `--section.key value` arguments.

    Args:
        path: the file, or the name of a recipe; the recipe `quickstart` unless given.
        environment: `os.environ` unless given.
    """
    values = _read_toml(DEFAULT_CONFIG if path is None else recipes.find(Path(path)))
    for dotted, text in [*_from_environment(os.environ if environment is None else environment), *_from_arguments(arguments)]:
        section, _, key = dotted.partition(".")
        settings = values.setdefault(section, {})
        if isinstance(settings, dict):
            settings[key] = _parse(text)
    return resolve(values)


def split_arguments(arguments: Sequence[str]) -> tuple[Path | None, list[str], list[str]]:
    """Takes `--config FILE` and `--section.key value` settings out of a command line.

    Returns (configuration file or None, options and values of the settings in turn, all other arguments).
    """
    file, settings, others = None, [], []
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        option, equals, value = argument.partition("=")
        if option != "--config" and not re.fullmatch(r"--[a-z_]+\.[a-z_.]+", option):
            others.append(argument)
            continue
        if not equals:
            if not remaining:
                raise RequestError(f"{option} needs a value")
            value = remaining.pop(0)
        if option == "--config":
            file = Path(value)
        else:
            settings += [option, value]
    return file, settings, others


def to_toml(config: Config, explain: bool = False) -> str:
    """The configuration as TOML that `load` reads back; with `explain`, the meaning of each setting stands above it."""
    lines = []
    for name, section in config:
        lines.append(f"[{name}]")
        meanings = explanations(type(section)) if explain else {}
        for key, value in section.model_dump(mode="json").items():
            if explain:
                lines.append(f"# {meanings[key]}")
            lines.append(f"{key} = {toml_value(value)}" if value is not None else f"# {key} is not set")
        lines.append("")
    return "\n".join(lines)


def explanations(section: type[Section]) -> dict[str, str]:
    """The meaning of each setting of a section, in one line: the docstring below it, read from the source when asked for."""
    (definition,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(definition, ast.ClassDef)
    meanings = {}
    for setting, docstring in pairwise(definition.body):
        match setting, docstring:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                meanings[name] = " ".join(text.split())
    return meanings


def toml_value(value: Any) -> str:
    """A value in TOML's notation."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RequestError(f"{path}: the configuration file cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path}: not a TOML file: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """(setting, value) of each variable that names a setting; packlm's own names override MLflow's."""
    aliases = {"MLFLOW_TRACKING_URI": "tracking.uri", "MLFLOW_EXPERIMENT_NAME": "tracking.experiment"}
    mlflow = [(key, environment[name]) for name, key in aliases.items() if environment.get(name)]
    packlm = [
        (name.removeprefix("PACKLM_").lower().replace("__", ".", 1), value)
        for name, value in sorted(environment.items())
        if name.startswith("PACKLM_") and "__" in name
    ]
    return mlflow + packlm


def _from_arguments(arguments: Sequence[str]) -> list[tuple[str, str]]:
    _, settings, others = split_arguments(arguments)
    if others:
        raise RequestError(f"unknown argument {others[0]!r}; settings are given as --section.key value")
    return [(option.removeprefix("--"), value) for option, value in zip(settings[::2], settings[1::2], strict=True)]


def _parse(text: str) -> Any:
    """A value given as text: a list in brackets or a table in braces is parsed as TOML, `null` is None, and anything else stays text,
    which pydantic converts to the setting's type."""
    if text == "null":
        return None
    if text.startswith(("[", "{")):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _messages(error: ValidationError) -> list[str]:
    """One line a wrong setting."""
    lines = []
    for item in error.errors():
        # Section, setting, and index in a list; the rest of pydantic's location names alternatives of a type.
        location = [str(part) for depth, part in enumerate(item["loc"]) if depth < 2 or isinstance(part, int)]
        key = ".".join(location)
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: there is no such setting{_suggestion(location)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            got = "" if isinstance(item["input"], dict | Section) else f", got {item['input']!r}"
            lines.append(f"{key}: {message}{got}")
    return list(dict.fromkeys(lines))


def _suggestion(location: list[str]) -> str:
    """`; did you mean X?` for a section or setting that does not exist, if one is like it or stands in another section."""
    sections = {name: list(field.annotation.model_fields) for name, field in Config.model_fields.items() if field.annotation}
    *section, key = location[:2]
    known = sections.get(section[0], []) if section else list(sections)
    elsewhere = [f"{name}.{key}" for name, settings in sections.items() if key in settings]
    similar = [".".join([*section, name]) for name in difflib.get_close_matches(key, known, n=1, cutoff=0.5)]
    matches = [*similar, *elsewhere]
    return f"; did you mean {matches[0]}?" if matches else ""
