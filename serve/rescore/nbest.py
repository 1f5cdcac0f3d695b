"""N-best lists: the most likely texts of each utterance by a recognizer, with its scores; and the interface of a format that holds them.

Every score is a log-probability in nats here, in whatever unit a file has it. Lists are read as a whole, since weights are tuned on all of
them together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

MAX_SCORE = 1e100
"""Largest score, positive or negative: products with weights and differences stay finite."""


@dataclass(frozen=True)
class Hypothesis:
    """A text that an utterance may be."""

    text: str
    rank: int
    """Rank in the recognizer's order, from 1."""
    score: float
    """Score of the recognizer, as a log-probability in nats."""
    lm_score: float | None = None
    """Score of the recognizer's own language model, likewise."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Other fields of the input, which are passed through."""


@dataclass(frozen=True)
class Utterance:
    """The hypotheses of an utterance."""

    id: str
    hypotheses: list[Hypothesis]
    """In the recognizer's order; not empty."""
    number: int
    """Position in the input, from 1: its first line, if the input is one file."""
    reference: str | None = None
    """The correct text."""
    recording: str | None = None
    """The recording it is part of, in which utterances are consecutive."""
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A part of the input that is skipped."""

    source: str
    """File and line."""
    number: int
    """The line, from 1; 0 if it concerns a whole list."""
    reason: str


@dataclass(frozen=True)
class NbestLists:
    """All n-best lists of an input."""

    utterances: list[Utterance]
    problems: list[Problem]


class RankedList(NamedTuple):
    """An n-best list of K hypotheses in its new order."""

    utterance: Utterance
    log_probs: np.ndarray
    """[K] log P of each hypothesis under the new model, in nats."""
    order: Sequence[int]
    """[K] the hypotheses, best first."""
    totals: np.ndarray
    """[K] the weighted score of each hypothesis, in nats."""


@dataclass(frozen=True)
class NbestInput:
    """The files of `serve rescore`, and the unit of scores in JSONL."""

    path: Path
    ac_costs: Path | None
    lm_costs: Path | None
    sign: Literal["log-prob", "cost"]
    log_base: float | Literal["e"]

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.path, self.ac_costs, self.lm_costs) if path]


@dataclass(frozen=True)
class NbestFormat:
    """A format of n-best lists."""

    name: str
    description: str
    """Its input, for messages: `an ESPnet folder`."""
    unit: tuple[Literal["log-prob", "cost"], Literal["e"]] | None
    """(sign, base of the logarithm) of its scores; None if the settings `rescore.sign` and `rescore.log_base` say."""
    recognizes: Callable[[NbestInput], bool]
    read: Callable[[NbestInput], NbestLists]
    """Skips what it cannot read, as `Problem`s; `RequestError` if the input as a whole is wrong."""
    write: Callable[[Path, Sequence[RankedList]], None] | None
    """Writes ranked lists to a folder; None if its output is the JSONL that is written for every format."""
