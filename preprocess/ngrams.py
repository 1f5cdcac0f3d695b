"""N-grams of a dataset as an ARPA file, for recognizers and other programs."""

import math
from pathlib import Path

import numpy as np

from packlm import dataset
from packlm.dataset.views import Sentences
from packlm.interpolation import arpa, kneser_ney
from packlm.text.encoder import Encoder


def write(folder: Path, order: int, out: Path) -> str:
    """Writes the Kneser-Ney n-grams of the training split; returns their numbers, and the perplexity of every other split.

    Raises:
        RequestError: there is no training split, or tokens cannot be written as words.
    """
    manifest = dataset.read_manifest(folder)
    with dataset.described(folder, manifest):
        encoder = Encoder.load(folder, manifest.digests["tokenizer"])
    model = kneser_ney.of_training_split(folder, manifest, manifest.vocab_size, order)
    arpa.write(out, model, encoder.vocabulary, encoder.eos)
    lines = [f"{length}-grams  {len(part.keys):>12,}" for length, part in enumerate(model.orders, 1)]
    for name in manifest.splits:
        if name != "train":
            sentences = Sentences.open(folder, manifest, name)
            log_probs = model.log_probs(sentences.ids(), np.cumsum(sentences.lengths))
            lines.append(f"{name}: perplexity {math.exp(-log_probs.mean()):.2f} over {sentences.tokens:,} tokens, sentence by sentence")
    return "\n".join(lines)
