"""Synthetic text for benchmarks: always the same, with the word frequencies of a natural language."""

from pathlib import Path

import numpy as np


def make_corpus(path: Path, size: int, end: str = "\n", repeat: int | None = None) -> None:
    """Writes at least `size` bytes: sentences of 5 to 39 words, `end` after each; after `repeat` bytes, copies of the same text.

    The words are sampled from 200,000 random ones by Zipf's law; three in a thousand are new combinations of two.
    """
    generator = np.random.default_rng(1)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(generator.choice(letters, length)) for length in generator.integers(1, 12, 200_000)]
    share = 1 / np.arange(1, len(words) + 1)
    share /= share.sum()
    with open(path, "w", encoding="ascii") as stream:
        while stream.tell() < min(size, repeat or size):
            lengths = generator.integers(5, 40, 20_000)
            sampled = generator.choice(len(words), lengths.sum(), p=share)
            is_new = generator.random(len(sampled)) < 0.003
            text = [words[index] for index in sampled]
            for index in np.flatnonzero(is_new).tolist():
                text[index] += words[int(generator.integers(len(words)))]
            start = 0
            for length in lengths.tolist():
                stream.write(" ".join(text[start : start + length]).capitalize() + "." + end)
                start += length
    first = path.read_bytes()
    with open(path, "ab") as more:
        while more.tell() < size:
            more.write(first)
