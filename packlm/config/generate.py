"""Section `generate`: prompts, decoding strategy and its options."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from packlm.config.section import Section, refuse_address

Strings = Annotated[tuple[str, ...], BeforeValidator(lambda value: ((value,) if value else ()) if isinstance(value, str) else value)]

MAX_TOKENS = 10_000_000
"""Most tokens of all continuations of one prompt, which are in memory together."""


class Generate(Section):
    prompts: Annotated[tuple[str, ...] | Path, BeforeValidator(refuse_address)] = ()
    """Prompts: a list, or a file with one per line (or JSONL with the field `prompt`); empty: unconditional generation."""
    strategy: Literal["greedy", "sample", "beam"] = "sample"
    """Decoding strategy: greedy search, sampling, or beam search."""
    samples: int = Field(1, ge=1, le=100_000)
    """Number of continuations per prompt, most likely first. Greedy search has one, beam search at most `beams`."""
    temperature: float = Field(1.0, ge=1e-6, le=1e6)
    """sample: softmax temperature; values below 1 sharpen the distribution."""
    top_k: int = Field(0, ge=0, le=100_000_000)
    """sample: samples from the k most likely tokens; 0: from all."""
    top_p: float = Field(1.0, gt=0, le=1)
    """sample: nucleus sampling, from the smallest set of tokens with this total probability (Holtzman et al. 2020)."""
    min_p: float = Field(0.0, ge=0, le=1)
    """sample: samples from tokens with at least this fraction of the highest probability (Nguyen et al. 2024)."""
    typical_p: float = Field(1.0, gt=0, le=1)
    """sample: locally typical sampling, from the smallest set of tokens with this total probability whose surprisal is closest to the
    entropy (Meister et al. 2023)."""
    replacement: bool = True
    """sample: independent samples; false: distinct samples, without replacement (stochastic beam search, Kool et al. 2019)."""
    beams: int = Field(5, ge=1, le=100_000)
    """beam: beam size."""
    beam_groups: int = Field(1, ge=1, le=100_000)
    """beam: number of groups that the beams are divided into, each searched apart from those before it: diverse beam search (Vijayakumar et
    al. 2018)."""
    diversity: float = Field(0.5, ge=0, le=1e6)
    """beam, several groups: nats that a group pays for each time that one before it has chosen the same token at this step."""
    length_penalty: float = Field(1.0, ge=0, le=50)
    """beam: ranks hypotheses by log P / tokens^length_penalty. 1: by mean log P per token; 0: by log P, which the shortest text often wins;
    larger values favour length."""
    no_repeat_ngram: int = Field(0, ge=0, le=100)
    """n-grams of this size occur at most once in a generation; 0: no limit. 3 keeps beam search from repeating itself."""
    banned: Strings = Field((), max_length=10_000)
    """Words that must not occur in a generation as whole words, in any tokenization."""
    min_tokens: int = Field(0, ge=0, le=1_000_000)
    """Minimum number of generated tokens, `<eos>` included."""
    max_tokens: int = Field(60, ge=1, le=1_000_000)
    """Maximum number of generated tokens, `<eos>` included. Times samples or beams at most 10,000,000, which are in memory together."""
    stop: Strings = Field((), max_length=1_000)
    """Stop strings: a generation ends with the token that completes one of them; the text includes it."""
    stop_at_eos: bool = True
    """Ends a generation at `<eos>`; false: continues with the next sentence, until `max_tokens` or a stop string."""
    batch_tokens: int = Field(8192, ge=1, le=10**9)
    """Tokens of prompts and continuations per batch, over all samples or beams. Does not affect the results."""

    @field_validator("banned", "stop")
    @classmethod
    def _spelled(cls, strings: tuple[str, ...]) -> tuple[str, ...]:
        if "" in strings:
            raise ValueError("an empty string matches every text; remove it")
        return strings

    @field_validator("banned")
    @classmethod
    def _words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [number for number, word in enumerate(words, 1) if word != word.strip()]:
            raise ValueError(f"word {wrong[0]} has whitespace around it; remove it")
        return words

    @model_validator(mode="after")
    def _possible(self) -> "Generate":
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens = {self.min_tokens} is more than max_tokens = {self.max_tokens}; lower it or raise max_tokens")
        if self.strategy == "beam" and self.beams % self.beam_groups:
            raise ValueError(f"beams = {self.beams} cannot be divided into beam_groups = {self.beam_groups} of one size; change one")
        if self.num_rows * self.max_tokens > MAX_TOKENS:
            several = "beams" if self.strategy == "beam" else "samples"
            raise ValueError(
                f"{several} = {self.num_rows} times max_tokens = {self.max_tokens} is more than {MAX_TOKENS:,} tokens in memory; lower one"
            )
        return self

    @property
    def num_rows(self) -> int:
        """Hypotheses or samples of each prompt that the strategy keeps at a time; also the most that it returns."""
        return {"greedy": 1, "sample": self.samples, "beam": self.beams}[self.strategy]

    @property
    def ignored(self) -> dict[str, str]:
        """The settings without effect, because of the strategy or another setting, each with the reason."""
        changed = self.model_dump(exclude_defaults=True)
        reasons = {
            key: f"generate.{key} is for strategy = {strategy}, not {self.strategy}"
            for strategy, keys in _STRATEGY_SETTINGS.items() if strategy != self.strategy for key in keys if key in changed
        }  # fmt: skip
        if "diversity" in changed and self.beam_groups == 1:
            reasons["diversity"] = "generate.diversity is for several beam_groups"
        if self.samples > self.num_rows:
            reasons["samples"] = f"generate.samples = {self.samples}: {self.strategy} gives at most {self.num_rows} of each prompt"
        if self.min_tokens and not (self.stop_at_eos or self.stop):
            reasons["min_tokens"] = "generate.min_tokens: nothing ends a generation before max_tokens"
        return reasons


_STRATEGY_SETTINGS = {
    "sample": ("temperature", "top_k", "top_p", "min_p", "typical_p", "replacement"),
    "beam": ("beams", "beam_groups", "diversity", "length_penalty"),
}  # fmt: skip
"""The settings that only one strategy reads."""
DECODING_SETTINGS = tuple(name for name in Generate.model_fields if name not in ("prompts", "batch_tokens"))
"""The settings of `generate` that a model folder recommends, and that a prompt may override."""
