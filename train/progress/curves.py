"""The figure of a training: training and validation loss against tokens."""

import math
from pathlib import Path

from matplotlib.figure import Figure

from packlm.base import json_lines

from .metrics import MetricLine


def loss_figure(metrics: Path) -> Figure:
    """Plots the losses in a `metrics.jsonl` (nats per token, with perplexity on the right) against millions of tokens."""
    lines = [line for _, line in json_lines.read(metrics, MetricLine)]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for key, style in (("train/loss", "-"), ("validation/loss", "o-")):
        points = [(line["tokens"] / 1e6, line[key]) for line in lines if key in line]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=key.split("/")[0], markersize=4)
    axes.set_xlabel("tokens trained on (millions)")
    axes.set_ylabel("loss (nats per token)")
    axes.grid(alpha=0.3)
    axes.legend()
    # Perplexity is exp(loss): the same heights, labelled with round perplexities.
    right = axes.secondary_yaxis("right", functions=(lambda loss: loss, lambda loss: loss))
    low, high = axes.get_ylim()
    ticks = [factor * 10**power for power in range(8) for factor in (1, 2, 5) if low <= math.log(factor * 10**power) <= high]
    right.set_yticks([math.log(value) for value in ticks], [f"{value:,}" for value in ticks])
    right.set_ylabel("perplexity")
    return figure
