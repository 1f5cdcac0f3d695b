"""N-best lists as JSONL, a list a line:

    {"id": "u1", "hypotheses": [{"text": "the cat", "score": -3.5}, ...], "reference": "the cat", "recording": "r1"}

`reference`, `recording` and each hypothesis' `lm_score` (of the recognizer's own language model) are optional; other fields are passed
through.
"""

import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from packlm.base import json_models
from packlm.base.errors import PacklmError

from ...lines import json_value
from ..keyed_files import lines
from ..nbest import MAX_SCORE, Hypothesis, NbestFormat, NbestInput, NbestLists, Problem, Utterance

Score = Annotated[float, Field(ge=-MAX_SCORE, le=MAX_SCORE)]


class JsonHypothesis(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    text: str
    score: Score
    lm_score: Score | None = None


class JsonList(BaseModel):
    model_config = ConfigDict(strict=True)

    id: str
    hypotheses: list[JsonHypothesis] = Field(min_length=1)
    reference: str | None = None
    recording: str | None = None


def read(path: Path, sign: str, base: float) -> NbestLists:
    """Reads a file of lists.

    Args:
        sign: `rescore.sign` of `score` and `lm_score`.
        base: base of their logarithm.
    """
    factor = math.log(base) * (-1.0 if sign == "cost" else 1.0)
    utterances: dict[str, Utterance] = {}
    problems = []
    for number, line, error in lines(path):
        value, error = (None, error) if error else json_value(line)
        try:
            if error:
                raise PacklmError(error)
            utterance = _utterance(value, number, factor)
            if utterance.id in utterances:
                raise PacklmError(f"duplicate id {utterance.id!r}, first on line {utterances[utterance.id].number}")
            utterances[utterance.id] = utterance
        except PacklmError as refusal:
            problems.append(Problem(f"{path} line {number}", number, str(refusal)[:500]))
    return NbestLists(list(utterances.values()), problems)


def _utterance(value: Any, number: int, factor: float) -> Utterance:
    name = value.get("id") if isinstance(value, dict) else None
    nbest = json_models.parse(value, JsonList, name if isinstance(name, str) else "not an n-best list")
    hypotheses = []
    for rank, (hypothesis, fields) in enumerate(zip(nbest.hypotheses, value["hypotheses"], strict=True), 1):
        extra = {key: field for key, field in fields.items() if key != "text"}
        lm_score = None if hypothesis.lm_score is None else hypothesis.lm_score * factor
        hypotheses.append(Hypothesis(hypothesis.text, rank, hypothesis.score * factor, lm_score, extra))
    extra = {key: field for key, field in value.items() if key not in ("id", "hypotheses")}
    return Utterance(nbest.id, hypotheses, number, nbest.reference, nbest.recording, extra)


def _read(source: NbestInput) -> NbestLists:
    return read(source.path, source.sign, math.e if source.log_base == "e" else source.log_base)


FORMAT = NbestFormat(
    name="jsonl",
    description="a .jsonl file",
    unit=None,
    recognizes=lambda source: source.path.suffix in (".jsonl", ".ndjson"),
    read=_read,
    write=None,
)
