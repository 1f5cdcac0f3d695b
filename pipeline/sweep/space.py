"""The search space of a sweep: a TOML file with what each setting may be.

[train]
lr = {low = 1e-3, high = 3e-2, log = true}       # any value between, evenly on a logarithmic scale
[model]
dropout = {low = 0.1, high = 0.6}                # any value between
layers = {low = 1, high = 3}                     # whole numbers, as the setting is one
cell = ["lstm", "gru"]                           # one of these
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from packlm import config as configuration
from packlm.base import regular_files
from packlm.base.errors import RequestError
from packlm.config import Config
from packlm.config.reading import messages, parse_toml

SECTIONS = ("model", "train")
"""A dataset and what is measured on it stay the same: trials are compared on it."""


class Range(BaseModel):
    """Any value between two."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low = {self.low} must be below high = {self.high}")
        if self.log and self.low <= 0:
            raise ValueError("log = true needs a low above 0")
        if self.log and self.step is not None:
            raise ValueError("log and step cannot be combined")
        return self

    @property
    def whole(self) -> bool:
        return all(isinstance(value, int) for value in (self.low, self.high, self.step or 1))

    def suggest(self, trial: Any, name: str) -> Any:
        """A value for an Optuna trial."""
        if self.whole:
            return trial.suggest_int(name, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


@dataclass(frozen=True)
class Choices:
    """One of several values."""

    values: tuple[Any, ...]

    def suggest(self, trial: Any, name: str) -> Any:
        if all(isinstance(value, str | int | float | bool) for value in self.values):
            return trial.suggest_categorical(name, self.values)
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in self.values]))  # Optuna takes no lists


Space = dict[str, Range | Choices]
"""`section.key` -> what it may be."""


def read(path: Path) -> Space:
    """Reads a search space; every value of it has to be one that its setting takes.

    Raises:
        RequestError: naming file and setting.
    """
    try:
        content = parse_toml(regular_files.read_text(path))
    except ValueError as error:
        raise RequestError(f"{path}: not a TOML file: {error}") from None
    space: Space = {}
    for name, spec in _settings(path, content):
        if name.partition(".")[0] not in SECTIONS:
            raise RequestError(f"{path}: {name}: a sweep searches settings of {' and '.join(SECTIONS)}")
        space[name] = _parse(path, name, spec)
    if not space:
        raise RequestError(f"{path}: no setting to search; write for example\n[train]\nlr = {{low = 1e-3, high = 3e-2, log = true}}")
    for name, domain in space.items():
        for value in (domain.low, domain.high) if isinstance(domain, Range) else domain.values:
            _check(path, name, value)
    return space


def with_values(base: Config, values: dict[str, Any]) -> Config:
    """The configuration with other values of some settings; `RequestError` if they do not go together."""
    sections = base.model_dump(mode="json")
    for name, value in values.items():
        section, key = name.split(".")
        sections[section][key] = value
    return configuration.resolve(sections)


def _settings(path: Path, content: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for section, settings in content.items():
        if not isinstance(settings, dict):
            raise RequestError(f"{path}: {section}: a section with settings is expected, as [train]")
        for key, spec in settings.items():
            yield f"{section}.{key}", spec


def _parse(path: Path, name: str, spec: Any) -> Range | Choices:
    if isinstance(spec, list) and len(spec) > 1:
        return Choices(tuple(spec))
    if not isinstance(spec, dict):
        raise RequestError(f"{path}: {name}: expected a list of several values, or {{low = A, high = B}}, found {spec!r}")
    try:
        return Range(**spec)
    except ValidationError as error:
        raise RequestError(f"{path}: {name}: {'; '.join(messages(error))}") from None


def _check(path: Path, name: str, value: Any) -> None:
    """Refuses a value that the setting does not take; whether values go together is known only of a trial's."""
    section, key = name.split(".")
    try:
        Config.model_validate({section: {key: value}})
    except ValidationError as error:
        if wrong := [message for message in messages(error) if message.startswith(f"{name}:")]:
            raise RequestError(f"{path}: {wrong[0]}") from None
