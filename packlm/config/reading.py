"""Reads settings from a TOML file, the environment and the command line.

In order of increasing precedence: defaults; the TOML file; the environment (MLflow's own `MLFLOW_TRACKING_URI` and
`MLFLOW_EXPERIMENT_NAME`, then `PACKLM_SECTION__KEY`); the command line (`--section.key value`). All wrong keys and values are reported
together. Relative paths are relative to the current folder.
"""

import ast
import inspect
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from packlm.base import escape, regular_files
from packlm.base.credentials import echo
from packlm.base.errors import PacklmError, RequestError
from packlm.config import recipes
from packlm.config.section import Section
from packlm.config.settings import Config
from packlm.config.suggestions import suggestion

DEFAULT_CONFIG = recipes.folder() / "quickstart.toml"
HELD_OUT = {"validation_fraction": 0.05, "test_fraction": 0.05}
"""What is held out of a corpus unless the configuration says so itself; 0 says so, too."""
MAX_FILE_BYTES = 1 << 24
"""Size of a configuration file: 100,000 paths of a corpus."""
_LONG_KEY = re.compile(r"^[ \t]*[\w-]+(?:\.[\w-]+){1000}", re.MULTILINE)
"""A dotted key of which tomllib takes time and memory with the square of its parts."""
MAX_MESSAGES = 200
"""Wrong settings that are named; there are fewer settings."""
MAX_DEPTH = 20
"""Of tables and lists in each other; no setting has more than two."""
_PYDANTIC_DETAIL = re.compile(r", (unable to \w+ .*|got a number with a fractional part)$")
"""What pydantic adds for some types of a wrong value."""
_QUOTED_NUMBER, _UNQUOTED = re.compile(r"'([+-]?[\d.]+(?:[eE][+-]?\d+)?|nan|true|false)'"), r"\1"


def resolve(values: Mapping[str, Any]) -> Config:
    """Validates nested values, and fills in the settings that default to the run's name.

    Raises:
        RequestError: naming every wrong key, what is wrong with it, and the key that was probably meant.
    """
    if wrong := list(islice(_unusable(values), MAX_MESSAGES)):
        raise RequestError(escape.lines("wrong configuration:", *(f"  {message}" for message in wrong)))
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        raise RequestError(escape.lines("wrong configuration:", *(f"  {message}" for message in messages(error)))) from None
    name = config.run.name
    run = config.run if config.run.dir != Path() else config.run.model_copy(update={"dir": Path("runs") / name})
    dataset = config.dataset if config.dataset.dir != Path() else config.dataset.model_copy(update={"dir": Path("data") / name})
    tracking = config.tracking if config.tracking.model_name else config.tracking.model_copy(update={"model_name": name})
    return config.model_copy(update={"run": run, "dataset": dataset, "tracking": tracking})


def load(
    path: Path | None = None, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None, model_only: bool = False
) -> Config:
    """Reads a configuration file, the environment and `--section.key value` arguments.

    Without a file, a command that names neither a run nor a corpus is part of the tour, and reads the recipe `quickstart`; any other has
    the defaults of the settings. Where a corpus is named and nothing of it is held out, `HELD_OUT` of its documents each are for validation
    and for testing.

    Args:
        path: the file, or the name of a recipe.
        environment: `os.environ` unless given.
        model_only: for a command that needs a model and no run: it never reads the recipe.

    Raises:
        RequestError: for wrong settings, and for a corpus without a name for its run, which would take the place of the tour's.
    """
    assignments = [*_from_environment(os.environ if environment is None else environment), *_from_arguments(arguments)]
    is_tour = path is None and not model_only and not {"run.name", "corpus.train"} & {setting for setting, _ in assignments}
    values = _read_toml(DEFAULT_CONFIG if path is None else recipes.find(Path(path))) if path is not None or is_tour else {}
    for dotted, text in assignments:
        section, _, key = dotted.partition(".")
        settings = values.setdefault(section, {})
        if isinstance(settings, dict):
            settings[key] = _parse(text)
    corpus = values.get("corpus")
    if isinstance(corpus, dict) and corpus.get("train") and not {"validation", "test", *HELD_OUT} & corpus.keys():
        corpus |= HELD_OUT
    config = resolve(values)
    if not model_only and config.corpus.train and "name" not in config.run.model_fields_set and "dir" not in values.get("dataset", {}):
        raise RequestError("corpus.train: a corpus of your own needs a name for its run: add --run.name NAME")
    return config


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
        return parse_toml(regular_files.read_text(path, MAX_FILE_BYTES))
    except PacklmError as error:
        raise RequestError(f"the configuration file {error}") from None
    except ValueError as error:
        raise RequestError(f"{path}: not a TOML file: {error}") from None


def parse_toml(text: str) -> dict[str, Any]:
    """Parses TOML; any fault is a `ValueError`, also too deep a nesting and a number of too many digits."""
    if _LONG_KEY.search(text):
        raise ValueError("nested too deeply")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _from_environment(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """(setting, value) of each variable that names a setting; packlm's own names override MLflow's."""
    aliases = {"MLFLOW_TRACKING_URI": "tracking.uri", "MLFLOW_EXPERIMENT_NAME": "tracking.experiment"}
    mlflow = [(key, environment[name]) for name, key in aliases.items() if environment.get(name)]
    names = [name for name in sorted(environment) if name.startswith("PACKLM_") and "__" in name]
    if wrong := next((name for name in names if not re.fullmatch(r"PACKLM_[A-Za-z]+__[A-Za-z]\w*", name)), None):
        raise RequestError(
            f"environment variable {wrong[:100]}: a setting is named PACKLM_SECTION__KEY there, as PACKLM_TRAIN__LR; unset it"
        )
    return mlflow + [(name.removeprefix("PACKLM_").lower().replace("__", ".", 1), environment[name]) for name in names]


def _from_arguments(arguments: Sequence[str]) -> list[tuple[str, str]]:
    _, settings, others = split_arguments(arguments)
    if others:
        raise RequestError(f"unknown argument {echo(others[0])}; settings are given as --section.key value")
    return [(option.removeprefix("--"), value) for option, value in zip(settings[::2], settings[1::2], strict=True)]


def _parse(text: str) -> Any:
    """A value given as text: a list in brackets or a table in braces is parsed as TOML, `null` is None, and anything else stays text,
    which pydantic converts to the setting's type."""
    if text == "null":
        return None
    if text.startswith(("[", "{")):
        try:
            return parse_toml(f"value = {text}")["value"]
        except ValueError:
            return text
    return text


def messages(error: ValidationError) -> list[str]:
    """One line a wrong setting, in the same words for text, JSON and Python objects. A rejected value may be a credential in the wrong
    place: `echo` shows what cannot be one."""
    lines = []
    for item in error.errors(include_url=False)[:MAX_MESSAGES]:
        # Section, setting, and index in a list; the rest of pydantic's location names alternatives of a type.
        location = [str(part) for depth, part in enumerate(item["loc"]) if depth < 2 or isinstance(part, int)]
        key = ".".join(location)[:100]
        if item["type"] == "extra_forbidden":
            lines.append(f"{key}: there is no such setting{suggestion(location)}")
        else:
            message = _PYDANTIC_DETAIL.sub("", item["msg"].removeprefix("Value error, "))
            got = "" if isinstance(item["input"], dict | Section) else f", got {_QUOTED_NUMBER.sub(_UNQUOTED, echo(item['input']))}"
            lines.append(f"{key}: {message}{got}")
    return list(dict.fromkeys(lines))


def _unusable(values: Mapping[str, Any]) -> Iterator[str]:
    """A line for each text that no file name, prompt or pattern can have, and for what is nested too deeply for pydantic."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), values)]
    while pending:
        path, value = pending.pop()
        key = ".".join(path[:2])[:100]
        if isinstance(value, str):
            if "\0" in value:
                yield f"{key}: holds a NUL character; remove it"
            elif not value.isascii() and re.search("[\ud800-\udfff]", value):
                yield f"{key}: not UTF-8 (half of a surrogate pair); rename the file, or set the locale to UTF-8"
        elif len(path) > MAX_DEPTH:
            yield f"{key}: nested too deeply"
        elif isinstance(value, Mapping):
            pending += [((*path, str(name)), inner) for name, inner in value.items()]
        elif isinstance(value, list | tuple):
            pending += [((*path, str(index)), inner) for index, inner in enumerate(value)]
