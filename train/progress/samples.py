"""A few texts sampled at each validation, which show what the model has learned; in `samples.jsonl` and as a page."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from tokenizers import Tokenizer

from packlm import dataset
from packlm.base import files, json_lines, json_text
from packlm.generation.sampling import sample_ids
from packlm.model import hashed_dropout
from packlm.model.language_model import LanguageModel

from . import samples_page

MAX_TOKENS = 40
"""Length of each text."""


class Sample(BaseModel, strict=True):
    """A line of `samples.jsonl`."""

    step: int
    perplexity: float | None
    sample: int
    text: str


class Sampler:
    """Samples texts that begin after `<eos>`, from the model's distribution as it is.

    The random numbers are a function of seed, text and position, so from one validation to the next only the model changes.
    """

    def __init__(self, tokenizer: Tokenizer, count: int, seed: int, single_sentences: bool):
        """
        Args:
            single_sentences: ends a text with its first sentence, for models trained on sentences.
        """
        self.tokenizer = tokenizer
        self.eos = self.tokenizer.get_vocab()[dataset.EOS]
        self.count, self.seed, self.single_sentences = count, seed, single_sentences

    @torch.inference_mode()
    def sample(self, model: LanguageModel) -> list[str]:
        """`count` texts of at most `MAX_TOKENS` tokens."""
        device = model.embedding.weight.device
        ids, state = torch.full((self.count,), self.eos, device=device), model.recurrence.zero_state(self.count)
        sampled = []
        for time in range(MAX_TOKENS):
            log_probs, state = model.step(ids, state)
            uniform = torch.from_numpy(hashed_dropout.uniform(self.seed, np.arange(self.count), time)).to(device)
            ids = sample_ids(log_probs, uniform)
            sampled.append(ids)
        return [self._text(row) for row in torch.stack(sampled, 1).tolist()]

    def _text(self, ids: list[int]) -> str:
        ends = [position for position, id in enumerate(ids) if id == self.eos]
        sentences = [[int(id) for id in sentence if id != self.eos] for sentence in np.split(ids, ends)]
        if self.single_sentences:
            sentences = sentences[:1]
        return "\n".join(self.tokenizer.decode(sentence, skip_special_tokens=False) for sentence in sentences if sentence)


def add_samples(path: Path, step: int, perplexity: float | None, texts: list[str]) -> list[dict[str, Any]]:
    """Adds the texts of a step to `samples.jsonl` and its page, in place of those of this and later steps; returns all rows."""
    rows = [row for _, row in json_lines.read(path, Sample) if row["step"] < step] if path.exists() and step else []
    rows += [{"step": step, "perplexity": perplexity, "sample": number, "text": text} for number, text in enumerate(texts, 1)]
    files.write_text(path, "".join(json_text.dumps(row) + "\n" for row in rows))
    files.write_text(path.with_suffix(".html"), samples_page.page(rows))
    return rows
