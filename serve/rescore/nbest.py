"""N-best lists: what a recogniser took for the likeliest texts of each utterance, with its scores; here their JSONL form.

    {"id": "u1", "hypotheses": [{"text": "the cat", "score": -3.5}, ...], "reference": "the cat", "recording": "r1"}

`reference`, `recording` and each hypothesis' `lm_score` (of the language model that took part in recognising) may be absent; other
fields are passed through. Inside, every score is a log-probability in nats, whatever the file holds. Lists are read whole: weights are
tuned on all of them together.
"""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packlm.base.errors import RequestError

from ..lines import decoded, json_value


@dataclass(frozen=True)
class Hypothesis:
    """A text that may have been said."""

    text: str
    rank: int
    """Its place in the recogniser's order, from 1."""
    score: float
    """The recogniser's, as a log-probability in nats."""
    lm_score: float | None = None
    """The recogniser's language model's, likewise."""
    others: dict[str, Any] = field(default_factory=dict)
    """What else the input says of it."""


@dataclass(frozen=True)
class Utterance:
    """What may have been said at a time."""

    id: str
    hypotheses: list[Hypothesis]
    """In the recogniser's order; not empty."""
    number: int
    """Its place in the input, from 1: the line that it begins on, where the input is one file."""
    reference: str | None = None
    """What was said."""
    recording: str | None = None
    """The one it is part of; utterances of a recording follow one another."""
    others: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Problem:
    """A part of the input that was left out."""

    where: str
    number: int
    """The line, from 1; 0 where it is about a whole list."""
    why: str


@dataclass(frozen=True)
class NbestLists:
    """All n-best lists of an input."""

    form: str
    """jsonl, kaldi or espnet."""
    utterances: list[Utterance]
    problems: list[Problem]


def read_jsonl(path: Path, sign: str, base: float) -> NbestLists:
    """Reads a JSONL file of lists; a line that is none becomes a problem.

    Args:
        sign: `rescore.sign` of `score` and `lm_score`.
        base: of the logarithm they are.
    """
    factor = math.log(base) * (-1.0 if sign == "cost" else 1.0)
    utterances: dict[str, Utterance] = {}
    problems = []
    for number, line, error in lines(path):
        value, error = (None, error) if error else json_value(line)
        found = error or _utterance(value, number, factor)
        if isinstance(found, Utterance) and found.id in utterances:
            found = f"the id {found.id!r} was there before, on line {utterances[found.id].number}"
        if isinstance(found, Utterance):
            utterances[found.id] = found
        else:
            problems.append(Problem(f"{path} line {number}", number, found))
    return NbestLists("jsonl", list(utterances.values()), problems)


def lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """(number from 1, text, what is wrong with it) of each line of a file; `RequestError` where it cannot be read or is binary."""
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                    if (place := line.find(b"\0")) >= 0:
                        raise RequestError(f"{path}: not a text file: byte {place + 1} is NUL; archives must be written as text (ark,t:)")
                yield number, *decoded(line)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None


def keyed(path: Path, problems: list[Problem]) -> Iterator[tuple[int, str, str]]:
    """(number, key, the rest) of the lines of a file in Kaldi's manner, `key text`; one that is none, or repeats a key, is a problem."""
    seen: dict[str, int] = {}
    for number, line, error in lines(path):
        key, rest = [*line.split(maxsplit=1), "", ""][:2]
        if not error and not key:
            error = "an empty line"
        if not error and key in seen:
            error = f"the key {key!r} was there before, on line {seen[key]}"
        if error:
            problems.append(Problem(f"{path} line {number}", number, error))
            continue
        seen[key] = number
        yield number, key, rest.strip()


def number_of(value: str | float) -> float | None:
    """A finite number, or None where it is none."""
    try:
        value = float(value)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _utterance(value: Any, number: int, factor: float) -> Utterance | str:
    """The list that a JSON value spells, or why it is none."""
    if not isinstance(value, dict) or not isinstance(value.get("id"), str):
        return 'not an object with an "id" that is a string'
    given = value.get("hypotheses")
    if not isinstance(given, list) or not given:
        return f'{value["id"]}: no "hypotheses", or an empty list of them'
    for name in ("reference", "recording"):
        if not isinstance(value.get(name), str | None):
            return f'{value["id"]}: "{name}" is not a string'
    hypotheses = []
    for rank, one in enumerate(given, 1):
        found = _hypothesis(one, rank, factor)
        if isinstance(found, str):
            return f"{value['id']}, hypothesis {rank}: {found}"
        hypotheses.append(found)
    others = {name: other for name, other in value.items() if name not in ("id", "hypotheses")}
    return Utterance(value["id"], hypotheses, number, value.get("reference"), value.get("recording"), others)


def _hypothesis(value: Any, rank: int, factor: float) -> Hypothesis | str:
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return 'not an object with a "text" that is a string'
    score, lm_score = (
        number_of(found) if isinstance(found := value.get(name), int | float) and not isinstance(found, bool) else None
        for name in ("score", "lm_score")
    )
    if score is None or (lm_score is None and value.get("lm_score") is not None):
        return f'"{"score" if score is None else "lm_score"}" is not a number'
    others = {name: other for name, other in value.items() if name != "text"}
    return Hypothesis(value["text"], rank, score * factor, None if lm_score is None else lm_score * factor, others)


def with_references(lists: NbestLists, references: dict[str, str]) -> list[Utterance]:
    """The utterances, with those references in the place of their own."""
    return [replace(one, reference=references.get(one.id, one.reference)) for one in lists.utterances]


def records(problems: Iterable[Problem], made: Iterable[tuple[int, dict[str, Any]]]) -> Iterator[str]:
    """Lines of JSONL in the input's order: (line, record) of what was rescored, and a record of each problem."""
    wrong = [(problem.number, {"error": f"{problem.where}: {problem.why}"}) for problem in problems]
    for _, record in sorted([*wrong, *made], key=lambda pair: pair[0]):
        yield json.dumps(record, ensure_ascii=False) + "\n"
