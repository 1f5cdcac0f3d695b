"""Text for measurements: made up, the same every time, with the frequencies of a language."""

from pathlib import Path

import numpy as np


def make_corpus(path: Path, size: int, end: str = "\n", repeat: int | None = None) -> None:
    """Writes at least `size` bytes: sentences of 5 to 39 words, `end` after each; from `repeat` bytes on, the same again and again.

    The words are 200,000 made-up ones with Zipf's frequencies; three in a thousand are made for the occasion.
    """
    generator = np.random.default_rng(1)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = ["".join(generator.choice(letters, length)) for length in generator.integers(1, 12, 200_000)]
    share = 1 / np.arange(1, len(words) + 1)
    share /= share.sum()
    with open(path, "w", encoding="ascii") as stream:
        while stream.tell() < min(size, repeat or size):
            lengths = generator.integers(5, 40, 20_000)
            drawn = generator.choice(len(words), lengths.sum(), p=share)
            rare = generator.random(len(drawn)) < 0.003
            spelled = [words[index] for index in drawn]
            for place in np.flatnonzero(rare).tolist():
                spelled[place] += words[int(generator.integers(len(words)))]
            start = 0
            for length in lengths.tolist():
                stream.write(" ".join(spelled[start : start + length]).capitalize() + "." + end)
                start += length
    first = path.read_bytes()
    with open(path, "ab") as more:
        while more.tell() < size:
            more.write(first)
