"""A few texts drawn from the model as it is, to see at each validation what it has learned."""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from packlm import dataset
from packlm.generation.draw import draw
from packlm.model import hashed_dropout
from packlm.model.language_model import LanguageModel

TOKENS = 40
"""Length of each text."""


class Sampler:
    """Texts that begin after `<eos>`, drawn from the model's own distribution.

    The random numbers depend on the seed, the text and the place in it alone: what changes from one validation to the next is the model.
    """

    def __init__(self, folder: Path, count: int, seed: int, fresh_sentences: bool):
        """
        Args:
            folder: the dataset, for its tokenizer.
            fresh_sentences: whether a sentence is all that is read at once, as in training on sentences: a text ends with it.
        """
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.eos = self.tokenizer.get_vocab()[dataset.EOS]
        self.count, self.seed, self.fresh = count, seed, fresh_sentences

    @torch.inference_mode()
    def texts(self, model: LanguageModel) -> list[str]:
        """`count` texts of at most `TOKENS` tokens."""
        device = model.embedding.weight.device
        ids, state = torch.full((self.count,), self.eos, device=device), model.recurrence.zero_state(self.count)
        drawn = []
        for time in range(TOKENS):
            log_probs, state = model.step(ids, state)
            uniform = torch.from_numpy(hashed_dropout.uniform(self.seed, np.arange(self.count), time)).to(device)
            ids = draw(log_probs, uniform)
            drawn.append(ids)
        return [self._text(row) for row in torch.stack(drawn, 1).tolist()]

    def _text(self, ids: list[int]) -> str:
        ends = [place for place, number in enumerate(ids) if number == self.eos]
        if self.fresh:
            ids = ids[: ends[0]] if ends else ids
        runs = np.split(ids, ends)
        return "\n".join(self.tokenizer.decode([int(id) for id in run if id != self.eos], skip_special_tokens=False) for run in runs)
