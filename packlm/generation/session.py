"""A text that grows piece by piece, and is read by the model once: an editor's, a dialogue's, an experiment's.

A session gives to the last bit what reading the whole text at once gives, since the model reads both in single steps (`stepper`). Where a
new piece changes how the end of the text is cut into tokens or sentences ("Mr." was no end of a sentence after all), the session goes back
to the last token that stays, and reads on from there.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from packlm.config import Generate
from packlm.config.requests import NextRequest, validated
from packlm.generation.stepper import Stepper
from packlm.model.recurrence import State

KEPT_STATES = 512
"""States after the last tokens that are kept to go back to; where an earlier one is needed, the text is read from its beginning."""

Result = TypeVar("Result")


class SteppedModel(Protocol[Result]):
    """What a session needs of `packlm.engine.Engine`."""

    @property
    def stepper(self) -> Stepper: ...
    def states(self) -> State: ...
    def encode_prompt(self, text: str) -> tuple[np.ndarray, np.ndarray]: ...
    def most_likely(self, log_probs: Tensor, top: int) -> list[tuple[str, float]]: ...
    def decoding_settings(self, seed: int, settings: Mapping[str, Any]) -> tuple[Generate, int]: ...
    def continue_batch(
        self, prompts: Sequence[tuple[np.ndarray, np.ndarray]], settings: Generate, seed: int, before: tuple[Tensor, State] | None
    ) -> list[list[Result]]: ...


class TextSession(Generic[Result]):
    """The text so far, and what the model has made of it."""

    def __init__(self, model: SteppedModel[Result]):
        self._model = model
        self.text = ""
        """What was fed so far."""
        self._ids = np.empty(0, np.int64)
        self._log_probs: list[float] = []
        """ln P of each id after the first."""
        self._steps: list[tuple[Tensor, State]] = []
        """ln P of the next id [1, V], and the state, after each of the last ids."""

    def feed(self, text: str) -> None:
        """Reads on: appends a piece to the text as it is, so whitespace between words has to be part of a piece."""
        whole = self.text + validated(NextRequest, prompt=text).prompt
        self._read(self._model.encode_prompt(whole)[0])
        self.text = whole

    def next(self, top: int = 10) -> list[tuple[str, float]]:
        """The `top` most likely next tokens, most likely first, each with its probability (0 to 1)."""
        request = validated(NextRequest, prompt="", top=top)
        return self._model.most_likely(self._steps[-1][0][0], request.top)

    def score(self, text: str) -> float:
        """ln P(text | the text so far), in nats: the difference that feeding it makes to `log_prob`. The session stays where it is."""
        copy = self.copy()
        copy.feed(text)
        return copy.log_prob - self.log_prob

    def generate(self, seed: int = 1, **settings: Any) -> list[Result]:
        """Continues the text so far, as `Engine.generate` does. The session stays where it is: feed it the continuation to go on."""
        resolved, seed = self._model.decoding_settings(seed, settings)
        return self._model.continue_batch([self._model.encode_prompt(self.text)], resolved, seed, self._steps[-1])[0]

    def copy(self) -> "TextSession[Result]":
        """Another session at the same place of the same text."""
        copy = TextSession(self._model)
        copy.text, copy._ids, copy._log_probs, copy._steps = self.text, self._ids, [*self._log_probs], [*self._steps]
        return copy

    @property
    def log_prob(self) -> float:
        """ln P(text so far), in nats; the end of its last sentence does not count."""
        return sum(self._log_probs)

    @property
    def log_probs(self) -> Tensor:
        """[V] ln P(next id), in nats."""
        return self._steps[-1][0][0]

    @property
    def state(self) -> State:
        """The state after the text so far, as `Engine.step` and `Engine.read` take it."""
        return self._steps[-1][1]

    @torch.no_grad()
    def _read(self, ids: np.ndarray) -> None:
        """Goes back to where these ids differ from those read so far, and reads the rest of them."""
        shorter = min(len(ids), len(self._ids))
        differing = np.flatnonzero(ids[:shorter] != self._ids[:shorter])
        common = int(differing[0]) if len(differing) else shorter
        behind = len(self._ids) - common
        if behind >= len(self._steps):
            common, behind = 0, len(self._steps)
        steps, log_probs = self._steps[: len(self._steps) - behind], self._log_probs[: max(0, common - 1)]
        for id in ids[common:].tolist():
            before, state = steps[-1] if steps else (None, self._model.states())
            if before is not None:
                log_probs.append(before[0, id].double().item())
            steps.append(self._model.stepper.step(torch.tensor([id], device=state[0].device), state))
            del steps[:-KEPT_STATES]
        self._ids, self._steps, self._log_probs = ids, steps, log_probs
