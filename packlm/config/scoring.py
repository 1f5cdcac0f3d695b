"""Sections `score`, `pairs` and `rescore`: inputs and weights of the scoring commands."""

from typing import Annotated, Literal

from pydantic import Field

from packlm.config.section import Section

Weight = Annotated[float, Field(ge=-1e6, le=1e6)] | Literal["tune"]


class Score(Section):
    context: Literal["auto", "sentence", "document"] = "auto"
    """Context of a prediction: its sentence so far, or its document so far; auto: as in training."""
    rows: Literal["auto", "word", "token", "region", "sentence"] = "auto"
    """Unit of a row in the TSV output; auto: region for SyntaxGym suites, else word."""
    format: Literal["auto", "text", "tsv", "csv", "jsonl", "json"] = "auto"
    """Input format; auto: from the file name (`.tsv`, `.csv`, `.jsonl`, `.json`; anything else is text, and refused if it looks like JSON
    or a table). json: an array of records, or a SyntaxGym suite."""
    text_field: str = "text"
    """Column or field with the sentence."""


class Pairs(Section):
    format: Literal["auto", "tsv", "csv", "jsonl", "json"] = "auto"
    """Input format; auto: from the file name (`.jsonl`, `.json`, `.csv`) or the first bytes, else a table (TSV or CSV)."""
    good: str = ""
    """Column or field with the acceptable sentence. Default: `good`, in JSONL `sentence_good`."""
    bad: str = ""
    """Column or field with the unacceptable sentence. Default: `bad`, in JSONL `sentence_bad`."""
    group: str = ""
    """Column or field to report accuracy by, or `file`; empty: by file if there are several."""


class Rescore(Section):
    lm_weight: Weight = "tune"
    """Weight of the log-probability under this model; tune: minimizes word errors on the references."""
    word_bonus: Weight = 0.0
    """Word insertion bonus, in nats per word; or tune."""
    old_lm_weight: Weight = 0.0
    """Weight of the recogniser's own language model score, if the lists contain it separately; or tune."""
    context: int = Field(0, ge=0, le=1_000_000)
    """Number of preceding utterances of the same recording used as context."""
    context_from: Literal["best", "reference"] = "best"
    """Text of a preceding utterance: its best hypothesis, or its reference (an oracle)."""
    sign: Literal["log-prob", "cost"] = "log-prob"
    """Meaning of scores in JSONL: log-probabilities (higher is better) or costs (lower is better)."""
    log_base: Annotated[float, Field(gt=1, le=1e6)] | Literal["e"] = "e"
    """Base of the logarithm of scores in JSONL."""
