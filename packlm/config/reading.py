"""Where settings come from: defaults, a TOML file, the environment, the command line.

The value of a setting comes from its default, then the TOML file, then the environment (`PACKLM_SECTION__KEY`, and
MLflow's own `MLFLOW_TRACKING_URI` and `MLFLOW_EXPERIMENT_NAME`), then the command line (`--section.key value`); the last one wins.
All wrong keys and values are reported together, before any work. Relative paths are relative to the current folder.
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

from packlm.base.errors import RequestError
from packlm.config import recipes
from packlm.config.section import Section
from packlm.config.settings import Config

DEFAULT_CONFIG = recipes.folder() / "quickstart.toml"


def resolve(values: Mapping[str, Any]) -> Config:
    """Validates nested values and fills in the settings that follow from the run's name.

    Raises:
        RequestError: naming every wrong key at once, with what is wrong and, for a typo, the key that was meant.
    """
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise RequestError("wrong configuration:\n" + "\n".join(f"  {line}" for line in _complaints(error))) from None
    name = config.run.name
    run = config.run if config.run.dir != Path() else config.run.model_copy(update={"dir": Path("runs") / name})
    dataset = config.dataset if config.dataset.dir != Path() else config.dataset.model_copy(update={"dir": Path("data") / name})
    tracking = config.tracking if config.tracking.model_name else config.tracking.model_copy(update={"model_name": name})
    return config.model_copy(update={"run": run, "dataset": dataset, "tracking": tracking})


def load(path: Path | None = None, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Config:
    """Reads the configuration file (`configs/quickstart.toml` unless given), the environment and `--section.key value` arguments."""
    path = recipes.find(Path(path)) if path is not None else DEFAULT_CONFIG
    values = _read_toml(path)
    for dotted, text in [*_from_environment(os.environ if environment is None else environment), *_from_arguments(arguments)]:
        section, _, key = dotted.partition(".")
        inner = values.setdefault(section, {})
        if isinstance(inner, dict):
            inner[key] = _value(text)
    return resolve(values)


def split_arguments(arguments: Sequence[str]) -> tuple[Path | None, list[str], list[str]]:
    """Takes `--config FILE` and the `--section.key value` settings out of a command line.

    Returns (configuration file or None, settings as given, all other arguments).
    """
    file, settings, others = None, [], []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option == "--config" or re.fullmatch(r"--[a-z_]+\.[a-z_.]+", option):
            if not equals:
                if not rest:
                    raise RequestError(f"{option} needs a value")
                value = rest.pop(0)
            if option == "--config":
                file = Path(value)
            else:
                settings += [option, value]
        else:
            others.append(word)
    return file, settings, others


def to_toml(config: Config, explain: bool = False) -> str:
    """The configuration as TOML that `load` reads back to an equal one; with every setting's meaning where `explain`."""
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
    """What each setting of a section means, in one line: the string below it in the source, which is read when somebody asks."""
    (definition,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for setting, below in pairwise(definition.body):
        match setting, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def toml_value(value: Any) -> str:
    """A value as TOML writes it."""
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
    found = [
        (name.removeprefix("PACKLM_").lower().replace("__", ".", 1), value)
        for name, value in sorted(environment.items())
        if name.startswith("PACKLM_") and "__" in name
    ]
    given = dict(found)
    for name, key in (("MLFLOW_TRACKING_URI", "tracking.uri"), ("MLFLOW_EXPERIMENT_NAME", "tracking.experiment")):
        if environment.get(name) and key not in given:
            found.append((key, environment[name]))
    return found


def _from_arguments(arguments: Sequence[str]) -> list[tuple[str, str]]:
    _, settings, others = split_arguments(arguments)
    if others:
        raise RequestError(f"unknown argument {others[0]!r}; settings are given as --section.key value")
    return [(settings[i].removeprefix("--"), settings[i + 1]) for i in range(0, len(settings), 2)]


def _value(text: str) -> Any:
    """A value given as text: a list in brackets and a table in braces become one, `null` the absence of a value, anything else
    is for its type to read."""
    if text == "null":
        return None
    if text.startswith(("[", "{")):
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _complaints(error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        # Section, setting and place in a list; what else pydantic adds are the names of its types.
        places = [str(place) for depth, place in enumerate(item["loc"]) if depth < 2 or isinstance(place, int)]
        key = ".".join(places)
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: there is no such setting{_suggestion(places)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            got = "" if isinstance(item["input"], dict | Section) else f", got {item['input']!r}"
            lines.append(f"{key}: {message}{got}")
    return list(dict.fromkeys(lines))


def _suggestion(places: list[str]) -> str:
    sections = {name: field.annotation for name, field in Config.model_fields.items()}
    known = {"": list(sections)} | {name: list(section.model_fields) for name, section in sections.items() if section}
    section, key = ("", places[0]) if len(places) == 1 else (places[0], places[1])
    near = difflib.get_close_matches(key, known.get(section, []), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {'.'.join([*places[:-1], near[0]])}?"
    elsewhere = [f"{name}.{key}" for name in known if name and key in known[name]]
    return f"; did you mean {elsewhere[0]}?" if elsewhere else ""
