"""Shallow fusion (Gulcehre et al. 2015): a decoder of speech, handwriting or translation asks a language model about its hypotheses while
it searches: state in, log-probabilities out, for many hypotheses at a time.

A hypothesis grows by words, whatever the tokenizer makes of them, or by ids. What the model says after a hypothesis is computed once,
however many others branch off from it, and has the same bits whatever hypotheses are asked about together (`stepper`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from packlm.base.errors import RequestError
from packlm.generation.stepper import Stepper
from packlm.model.recurrence import State
from packlm.text.encoder import Encoder


@dataclass(eq=False)
class PartialHypothesis:
    """The beginning of a sentence."""

    text: str
    """Its words, with a blank between them; empty if it was made of ids."""
    ids: tuple[int, ...]
    """What it is read as, `<eos>` first."""
    log_prob: float
    """ln P(hypothesis), in nats."""
    before: State = field(repr=False)
    """The state before its last id."""
    after: tuple[Tensor, State] | None = field(default=None, repr=False)
    """ln P of every next id [V], and the state after its last id, once they are known."""


class FusionScorer:
    """The language model of a decoder."""

    def __init__(self, stepper: Stepper, encoder: Encoder, zero: State):
        """`zero`: the state before anything was read."""
        self._stepper, self._encoder, self._zero = stepper, encoder, zero

    def start(self) -> PartialHypothesis:
        """The empty hypothesis, at the beginning of a sentence."""
        return PartialHypothesis("", (self._encoder.eos,), 0.0, self._zero)

    def extend(self, hypotheses: Sequence[PartialHypothesis], words: Sequence[str]) -> list[PartialHypothesis]:
        """Each hypothesis with another word. What the word adds is the difference of their `log_prob`.

        Raises:
            RequestError: something is no word: it is empty, or has white space; or a hypothesis was made by `advance`.
        """
        for word in words:
            if word.split() != [word]:
                raise RequestError(f"{word!r}: a word without white space is expected")
        if any(one.ids[1:] and not one.text for one in hypotheses):
            raise RequestError("a hypothesis that was made of ids is extended by ids: use advance")
        texts = [f"{one.text} {word}".strip() for one, word in zip(hypotheses, words, strict=True)]
        extended, remaining = [*hypotheses], []
        for index, (one, text) in enumerate(zip(hypotheses, texts, strict=True)):
            ids = self._encoder.encode_open(text).tolist()
            known = len(one.ids) - 1
            if tuple(ids[:known]) != one.ids[1:]:  # the word changes how those before it are cut into tokens
                extended[index], known = self.start(), 0
            remaining.append(ids[known:])
        while any(remaining):
            running = [index for index, ids in enumerate(remaining) if ids]
            advanced = self.advance([extended[index] for index in running], [remaining[index].pop(0) for index in running])
            for index, one in zip(running, advanced, strict=True):
                extended[index] = one
        for one, text in zip(extended, texts, strict=True):
            one.text = text
        return extended

    def finish(self, hypotheses: Sequence[PartialHypothesis]) -> np.ndarray:
        """[n] float64: ln P(hypothesis and the end of its sentence), in nats; equal, to rounding, to the score of the whole text."""
        ends = self.log_probs(hypotheses)[:, self._encoder.eos].double().cpu().numpy()
        return np.array([one.log_prob for one in hypotheses]) + ends

    def log_probs(self, hypotheses: Sequence[PartialHypothesis]) -> Tensor:
        """[n, V] ln P of every next id after each hypothesis, in nats."""
        self._read(hypotheses)
        return torch.stack([one.after[0] for one in hypotheses if one.after is not None])

    def advance(self, hypotheses: Sequence[PartialHypothesis], ids: Sequence[int]) -> list[PartialHypothesis]:
        """Each hypothesis with another id, for decoders that search over the model's own tokens."""
        self._read(hypotheses)
        advanced = []
        for one, id in zip(hypotheses, ids, strict=True):
            assert one.after is not None
            log_probs, state = one.after
            advanced.append(PartialHypothesis("", (*one.ids, id), one.log_prob + float(log_probs[id].double()), state))
        return advanced

    @torch.no_grad()
    def _read(self, hypotheses: Sequence[PartialHypothesis]) -> None:
        """Lets the model read the last id of each hypothesis, where it has not done so."""
        waiting = list({id(one): one for one in hypotheses if one.after is None}.values())
        if not waiting:
            return
        ids = torch.tensor([one.ids[-1] for one in waiting], device=self._zero[0].device)
        state = tuple(torch.cat(parts, 1) for parts in zip(*(one.before for one in waiting), strict=True))
        log_probs, after = self._stepper.step(ids, state)
        for row, one in enumerate(waiting):
            one.after = log_probs[row], tuple(part[:, row : row + 1] for part in after)
