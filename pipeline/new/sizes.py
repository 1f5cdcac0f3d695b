"""Settings of model and training by the size of the corpus, as measured (`benchmarks/2026-11-28-recipes-by-size.md`)."""

import math
from bisect import bisect
from dataclasses import dataclass
from pathlib import Path

_BYTES_PER_TOKEN = ((500, 2.4), (1_000, 2.8), (2_000, 3.2), (4_000, 3.6), (8_000, 3.95), (16_000, 4.2))
"""(vocabulary, bytes): of byte-level BPE on English prose."""
_TABLE = (
    # training tokens, units of a layer, dropout, epochs
    (50_000, 400, 0.6, 25),
    (150_000, 400, 0.5, 14),
    (400_000, 400, 0.45, 10),
    (1_000_000, 400, 0.35, 4),
    (2_500_000, 448, 0.25, 3),
    (5_000_000, 448, 0.15, 2),
    (20_000_000, 512, 0.05, 1),
    (100_000_000, 640, 0.0, 1),
)
_TWO_LAYERS = 600_000
"""Training tokens from which on two layers are better than one."""
_STREAMS = ((0, 10), (1_500_000, 20), (4_000_000, 40))
"""Training tokens from which on batches of so many streams make enough updates."""
WINDOW = 35
"""Time steps of a stream in an update."""
_SECONDS_PER_PRODUCT, _SECONDS_PER_TOKEN = 8.5e-12, 2.5e-5
"""Time of a training token on two cores with instructions for bfloat16: for each multiplication, and besides."""
_SECONDS_PER_UPDATE = 3.6e-10
"""Time of Muon's update there, for each layer and units cubed (docs/scaling.md)."""


@dataclass(frozen=True)
class Size:
    """What depends on the size of the corpus."""

    train_tokens: int
    """About the tokens of the training split."""
    vocab_size: int
    layers: int
    streams: int
    hidden: int
    dropout: float
    epochs: int
    precision: str
    minutes: float
    """About the minutes that training takes on two cores."""


def by_size(train_bytes: int, vocab_size: int) -> Size:
    """The settings for a training split of so many bytes of text and this vocabulary: `_TABLE`, and between its rows a line over the
    logarithm of the tokens."""
    tokens = max(1, round(train_bytes / _interpolated(vocab_size, _BYTES_PER_TOKEN)))
    hidden = 8 * round(_interpolated(tokens, [(size, width) for size, width, _, _ in _TABLE]) / 8)
    dropout = round(_interpolated(tokens, [(size, rate) for size, _, rate, _ in _TABLE]), 2)
    epochs = round(_interpolated(tokens, [(size, passes) for size, _, _, passes in _TABLE]))
    layers = 1 if tokens < _TWO_LAYERS else 2
    streams = max(count for size, count in _STREAMS if tokens >= size)
    products = layers * 8 * hidden**2 + hidden * vocab_size
    update = layers * hidden**3 * _SECONDS_PER_UPDATE / (streams * WINDOW)
    minutes = epochs * tokens * (3 * products * _SECONDS_PER_PRODUCT + _SECONDS_PER_TOKEN + update) / 60
    fast = _has_bfloat16()
    return Size(
        tokens, vocab_size, layers, streams, hidden, dropout, epochs, "bf16" if fast else "float32", minutes if fast else 2 * minutes
    )


def _interpolated(x: float, points: "list[tuple[int, float]] | tuple[tuple[int, float], ...]") -> float:
    """The value at x: linear in log x between points, constant outside."""
    index = bisect([point for point, _ in points], x)
    if index in (0, len(points)):
        return float(points[min(index, len(points) - 1)][1])
    (low, below), (high, above) = points[index - 1], points[index]
    return below + (above - below) * math.log(x / low) / math.log(high / low)


def _has_bfloat16() -> bool:
    """Whether this machine's processor multiplies bfloat16, or nobody knows: then training takes half the time, with the same result."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return Path("/dev/nvidia0").exists()
    return "avx512_bf16" in flags or "amx_bf16" in flags or Path("/dev/nvidia0").exists()
