"""Settings of the sections `score`, `pairs` and `rescore`: inputs and weights of the scoring commands."""

from typing import Annotated, Literal

from pydantic import Field

from packlm.config.section import Section

Weight = float | Literal["tune"]


class Score(Section):
    context: Literal["auto", "sentence", "document"] = "auto"
    """What precedes a prediction in `serve score`: its sentence alone, or its document; auto: as the model was trained."""
    rows: Literal["word", "token", "sentence"] = "word"
    """What a row of the TSV is."""
    format: Literal["auto", "text", "tsv", "jsonl"] = "auto"
    """What the input is; auto: by its name (`.tsv`, `.jsonl`, anything else is text)."""
    text_field: str = "text"
    """The column or field of the input that holds the sentence."""


class Pairs(Section):
    format: Literal["auto", "tsv", "jsonl"] = "auto"
    """What the input of `serve pairs` is; auto: JSONL where its name ends in `.jsonl`, else TSV."""
    good: str = ""
    """The column or field with the acceptable sentence; empty: `good`, in JSONL `sentence_good`."""
    bad: str = ""
    """The one with the other sentence; empty: `bad`, in JSONL `sentence_bad`."""
    group: str = ""
    """The one by which accuracy is given apart; empty: none."""


class Rescore(Section):
    lm_weight: Weight = "tune"
    """What log P of a hypothesis counts for; tune: what gives the fewest word errors on the references."""
    word_bonus: Weight = 0.0
    """What is added for each word, in nats; tune likewise."""
    old_lm_weight: Weight = 0.0
    """What the score of the recogniser's own language model counts for, where the lists hold it apart; tune likewise."""
    context: int = Field(0, ge=0)
    """Utterances of the same recording that are read before a hypothesis."""
    context_from: Literal["best", "reference"] = "best"
    """What is read of an earlier utterance: the hypothesis that won, or its reference (which flatters)."""
    sign: Literal["log-prob", "cost"] = "log-prob"
    """What a score in JSONL is: higher is better, or lower."""
    log_base: Annotated[float, Field(gt=1)] | Literal["e"] = "e"
    """The base of the logarithm that a score in JSONL is."""
