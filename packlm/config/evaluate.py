"""Settings of the section `evaluate`: what is measured, and in which context."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from packlm.config.section import Section


class Evaluate(Section):
    split: Literal["train", "validation", "test", "all"] = "validation"
    """The split that `serve evaluate` measures; all: each that the dataset has, one after the other."""
    context: Literal["auto", "sentences", "documents", "streams"] = "auto"
    """What precedes a prediction: its sentence alone, its document, or its stream; auto: what the model was trained with."""
    streams: int = Field(1, ge=1)
    """In how many streams the split is measured, with context streams."""
    batch_tokens: int = Field(8192, ge=1)
    """Tokens run at a time; changes nothing in the numbers."""
    baselines: bool = True
    """Measures on the same tokens, if they are held out, what predicts without a model: all words alike, their frequencies, Kneser-Ney
    5-grams."""
    cache: int = Field(0, ge=0)
    """Tokens that a neural cache remembers (Grave et al. 2017): what followed there gets likelier where the text looks alike; 0: none."""
    cache_theta: float = Field(0.3, ge=0)
    """How much more alike places count in the cache than others; 0: all the same."""
    cache_share: float = Field(0.1, gt=0, lt=1)
    """The share of the probability that the cache gives out."""
    dynamic_lr: float = Field(0, ge=0)
    """Learning rate with which the model goes on learning from the text after scoring it (dynamic evaluation, Krause et al. 2018); 0: it
    does not."""
    dynamic_decay: float = Field(0.02, ge=0)
    """Dynamic evaluation: how strongly weights are drawn back to the trained ones."""
    dynamic_window: int = Field(5, ge=1)
    """Dynamic evaluation: tokens between two updates."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "Evaluate":
        if self.cache and self.dynamic_lr:
            raise ValueError("cache and dynamic_lr: measure one at a time")
        if self.dynamic_lr and self.streams > 1:
            raise ValueError("dynamic_lr: a model learns from one text in order; leave streams at 1")
        return self

    def splits(self, there: Iterable[str]) -> list[str]:
        """The splits to measure of a dataset that has those given."""
        return list(there) if self.split == "all" else [self.split]
