"""How far a mean loss might be off, had other documents been drawn: the bootstrap over documents (Efron 1979; percentile intervals)."""

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95


def interval(nll: np.ndarray, tokens: np.ndarray) -> tuple[float, float] | None:
    """Between which losses per token (nats) the middle 95 % lie, of 1,000 splits made by drawing as many documents with replacement.

    Args:
        nll, tokens: [D] summed loss and number of tokens of each document.

    None for fewer than two documents. The draws are the same every time.
    """
    count = len(tokens)
    if count < 2:
        return None
    generator = np.random.Generator(np.random.Philox(key=[count, 0]))
    losses = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        drawn = generator.integers(0, count, count)
        losses[number] = nll[drawn].sum() / tokens[drawn].sum()
    low, high = np.quantile(losses, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
