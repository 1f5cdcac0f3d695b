"""What `/v1/completions` takes and gives: a part of OpenAI's completions API, which many programs can talk to."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from packlm.config.requests import Text

MAX_LOGPROBS = 20
MAX_CHOICES = 128


class CompletionRequest(BaseModel):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid")

    model: str = ""
    """Not read: there is one model."""
    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=256)] | list[int] | list[list[int]]
    """A text, several, the ids of one, or the ids of several."""
    max_tokens: int = Field(16, ge=0, le=1_000_000)
    """Most tokens of a continuation; 0 with `echo`: none, for the probabilities of the prompt."""
    temperature: float = Field(1.0, ge=0, le=1e6)
    """0: greedy decoding."""
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    """Not of OpenAI: samples from the k most likely tokens; 0: from all."""
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    """Continuations of each prompt, the most likely first."""
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)
    """Samples that the `n` most likely are taken from."""
    stop: list[str] | str | None = None
    """Strings at which a continuation ends; it does not include them."""
    seed: int = Field(1, ge=0, lt=2**32)
    """The same request with the same seed has the same answer, to the bit."""
    echo: bool = False
    """Whether the prompt precedes its continuation."""
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    """The number of most likely tokens to list at each token, with the log-probability of the token itself."""
    stream: bool = False
    """Whether the text is sent as it is generated (server-sent events)."""
    stream_options: dict[str, Any] | None = None
    user: str | None = None
    presence_penalty: float = Field(0, ge=0, le=0)
    frequency_penalty: float = Field(0, ge=0, le=0)
    logit_bias: dict[str, float] | None = Field(None, max_length=0)
    suffix: str | None = Field(None, max_length=0)

    @model_validator(mode="after")
    def _check(self) -> "CompletionRequest":
        if self.prompt == []:
            raise ValueError("prompt: a list of ids is empty")
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(f"best_of = {self.best_of} is less than n = {self.n}")
        if not self.temperature and (self.best_of or self.n) > 1:
            raise ValueError("temperature = 0 is greedy decoding, which has one continuation: leave out n and best_of")
        if not self.max_tokens and not self.echo:
            raise ValueError("max_tokens = 0 asks for nothing; add echo = true for the probabilities of the prompt")
        if self.stream and (self.several or self.n > 1 or (self.best_of or 1) > 1 or self.logprobs is not None or self.echo):
            raise ValueError("stream: one continuation of one prompt, without echo and logprobs")
        return self

    @property
    def several(self) -> bool:
        """Whether there is a list of prompts."""
        return isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)

    @property
    def prompts(self) -> list[str | list[int]]:
        return self.prompt if self.several else [self.prompt]  # type: ignore[list-item, return-value]

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    def settings(self) -> dict[str, Any]:
        """The settings of `generate` that say the same."""
        common = {"max_tokens": max(1, self.max_tokens), "stop": list(self.stops), "samples": self.best_of or self.n}
        if not self.temperature:
            return common | {"strategy": "greedy", "samples": 1}
        return common | {"strategy": "sample", "temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
