"""Section `evaluate`: what is evaluated, and with how much context."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from packlm.config.section import Section


class Evaluate(Section):
    split: Literal["train", "validation", "test", "all"] = "validation"
    """Split to evaluate; all: every split of the dataset."""
    context: Literal["auto", "sentences", "documents", "streams"] = "auto"
    """Context of a prediction: its sentence so far, its document so far, or its stream so far; auto: as in training."""
    streams: int = Field(1, ge=1, le=1_000_000)
    """With `context = "streams"`: number of parallel streams that the split is cut into."""
    batch_tokens: int = Field(8192, ge=1, le=10**9)
    """Tokens per batch. Does not affect the results."""
    baselines: bool = True
    """Evaluates baselines on the same tokens of a held-out split: uniform, unigram and Kneser-Ney 5-gram."""
    cache: int = Field(0, ge=0, le=10**8)
    """Size of the neural cache in tokens (Grave et al. 2017); 0: no cache."""
    cache_theta: float = Field(0.3, ge=0, le=1e6)
    """Flatness of the cache distribution (theta in the paper): larger values favour similar hidden states; 0: uniform."""
    cache_share: float = Field(0.1, gt=0, lt=1)
    """Weight of the cache distribution in the linear interpolation with the model (lambda in the paper)."""
    dynamic_lr: float = Field(0, ge=0, le=1e4)
    """Learning rate of dynamic evaluation (Krause et al. 2018): weights are updated on text that was already scored; 0: off."""
    dynamic_decay: float = Field(0.02, ge=0, le=1e4)
    """Dynamic evaluation: decay rate towards the trained weights (lambda in the paper)."""
    dynamic_window: int = Field(20, ge=1, le=1_000_000)
    """Dynamic evaluation: tokens per update; 5 in the paper. A learning rate of about 0.001 goes with 20, half of it with 5."""

    @model_validator(mode="after")
    def _check_combinations(self) -> "Evaluate":
        if self.cache and self.dynamic_lr:
            raise ValueError("cache and dynamic_lr cannot be combined; set one of them to 0")
        if self.dynamic_lr and self.streams > 1:
            raise ValueError("dynamic_lr updates the weights in text order; set streams to 1")
        return self

    def splits(self, available: Iterable[str]) -> list[str]:
        """The splits to evaluate, of those that the dataset has."""
        return list(available) if self.split == "all" else [self.split]
