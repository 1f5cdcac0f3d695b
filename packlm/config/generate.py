"""Settings of the section `generate`: prompts, decoding strategy and its options."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from packlm.config.section import Section

Strings = Annotated[tuple[str, ...], BeforeValidator(lambda value: ((value,) if value else ()) if isinstance(value, str) else value)]


class Generate(Section):
    prompts: tuple[str, ...] | Path = ()
    """Prompts of the generation stage: a list of them, or a file with one a line (or JSONL with `prompt`); none: text from nothing."""
    strategy: Literal["greedy", "sample", "beam"] = "sample"
    """Always the likeliest token; random; or the likeliest sequences that a beam search finds."""
    samples: int = Field(1, ge=1)
    """Continuations of each prompt; the likeliest come first. Greedy has one, beam at most `beams`."""
    temperature: float = Field(1.0, gt=0)
    """sample: divides the logits; below 1 the likely gets likelier."""
    top_k: int = Field(0, ge=0)
    """sample: draws from the so many likeliest tokens; 0 from all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """sample: draws from the fewest tokens that together have this probability (Holtzman et al. 2020)."""
    min_p: float = Field(0.0, ge=0, le=1)
    """sample: draws from the tokens at least so many times as likely as the likeliest (Nguyen et al. 2024)."""
    typical_p: float = Field(1.0, gt=0, le=1)
    """sample: draws from the fewest tokens that together have this probability, those first whose surprisal is nearest the entropy
    (Meister et al. 2023)."""
    replacement: bool = True
    """sample: the samples of a prompt are independent; false: they are all different, drawn without replacement (Kool et al. 2019)."""
    beams: int = Field(5, ge=1)
    """beam: hypotheses kept at each step."""
    length_penalty: float = Field(0.0, ge=0)
    """beam: ranks by log P / tokens^length_penalty; 0 by log P, 1 by the mean of a token. More favours longer ones."""
    no_repeat_ngram: int = Field(0, ge=0)
    """No sequence of so many tokens occurs twice in a generation; 0 allows it."""
    banned: Strings = ()
    """Words that no generation contains as a word, however they are spelled in tokens."""
    min_tokens: int = Field(0, ge=0)
    """Fewest tokens generated before one may end, `<eos>` included."""
    max_tokens: int = Field(60, ge=1)
    """Most tokens generated after a prompt."""
    stop: Strings = ()
    """A generation ends with the token that makes its text contain one of these; its text keeps them."""
    stop_at_eos: bool = True
    """A generation ends with its sentence; false: it goes on into the next ones, until `max_tokens` or a string of `stop`."""
    batch_tokens: int = Field(8192, ge=1)
    """Tokens of prompts and continuations, over all samples or beams, that are held at a time; changes nothing in the text."""

    @field_validator("banned", "stop")
    @classmethod
    def _spelled(cls, strings: tuple[str, ...]) -> tuple[str, ...]:
        if "" in strings:
            raise ValueError("an empty string is in every text; leave it out")
        return strings

    @field_validator("banned")
    @classmethod
    def _words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [word for word in words if word != word.strip()]:
            raise ValueError(f"{wrong[0]!r} has white space around it; give the word alone")
        return words

    @model_validator(mode="after")
    def _possible(self) -> "Generate":
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens = {self.min_tokens} is more than max_tokens = {self.max_tokens}; lower it or raise max_tokens")
        return self

    @property
    def ignored(self) -> dict[str, str]:
        """The settings that the strategy, or another setting, leaves without effect: why, for each."""
        given = self.model_dump(exclude_defaults=True)
        why: dict[str, str] = {}
        own = {"sample": ("temperature", "top_k", "top_p", "min_p", "typical_p", "replacement"), "beam": ("beams", "length_penalty")}
        for strategy, keys in own.items():
            if self.strategy != strategy:
                why |= {key: f"generate.{key} is for strategy = {strategy}, not {self.strategy}" for key in keys if key in given}
        possible = {"greedy": 1, "beam": self.beams, "sample": self.samples}[self.strategy]
        if self.samples > possible:
            why["samples"] = f"generate.samples = {self.samples}: {self.strategy} gives at most {possible} of each prompt"
        if self.min_tokens and not (self.stop_at_eos or self.stop):
            why["min_tokens"] = "generate.min_tokens: nothing ends a generation before max_tokens"
        return why


DRAWING = tuple(name for name in Generate.model_fields if name not in ("prompts", "batch_tokens"))
"""The settings of `generate` that shape a text: what a model's folder recommends, and what a prompt may have for itself."""
