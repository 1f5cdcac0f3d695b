"""Drawing ids, and a few texts from the model as it is, to see at each validation what it has learned.

Shapes: R rows, V vocabulary.
"""

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from pipeline import dataset
from train import noise
from train.model import LanguageModel

TOKENS = 40
"""Length of each text."""


def draw(log_probs: Tensor, uniform: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Draws an id for each row by inverting the cumulative distribution.

    Args:
        log_probs: [R, V] log P of each id.
        uniform: [R] float64 in (0, 1).
        temperature: divides the logits.
        top_k: keeps the so many likeliest ids; 0 keeps all.
        top_p: of those, keeps the fewest that together have at least this probability (Holtzman et al. 2020).

    Returns [R] ids.
    """
    scaled, ids = log_probs.double() / temperature, None
    if 0 < top_k < scaled.shape[1]:
        scaled, ids = scaled.topk(top_k, dim=-1)
    elif top_p < 1:
        scaled, ids = scaled.sort(dim=-1, descending=True)
    probabilities = scaled.softmax(-1)
    if top_p < 1:
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    cumulative = probabilities.cumsum(-1)
    # Slightly below the total even for the largest uniform number, so that the place found has a probability above zero.
    target = uniform[:, None] * cumulative[:, -1:] * (1 - 2**-52)
    places = torch.searchsorted(cumulative, target, right=True)
    places = places.clamp(max=cumulative.shape[-1] - 1)  # beyond the end only where a probability is not a number: noticed later
    return (places if ids is None else ids.gather(-1, places)).squeeze(-1)


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
            uniform = torch.from_numpy(noise.uniform(self.seed, np.arange(self.count), time)).to(device)
            ids = draw(log_probs, uniform, temperature=1.0, top_k=0, top_p=1.0)
            drawn.append(ids)
        return [self._text(row) for row in torch.stack(drawn, 1).tolist()]

    def _text(self, ids: list[int]) -> str:
        ends = [place for place, number in enumerate(ids) if number == self.eos]
        if self.fresh:
            ids = ids[: ends[0]] if ends else ids
        runs = np.split(ids, ends)
        return "\n".join(self.tokenizer.decode([int(id) for id in run if id != self.eos], skip_special_tokens=False) for run in runs)
