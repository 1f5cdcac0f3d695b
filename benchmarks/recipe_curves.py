"""Draws validation perplexity against tokens trained on, a line a run, from the metrics.jsonl of each.

    python benchmarks/recipe_curves.py --out docs/recipes.svg runs/ptb-fast runs/ptb-zaremba-small ...

Runs on the same validation split share a panel: their names begin alike, up to the first dash.
"""

import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

matplotlib.rcParams.update({"svg.hashsalt": "packlm", "svg.fonttype": "none", "font.size": 9})  # the same bytes for the same curves


def curve(run: Path) -> list[tuple[float, float]]:
    """(millions of tokens, validation perplexity) after each validation but the one before training."""
    lines = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["tokens"] / 1e6, line["validation/perplexity"]) for line in lines if "validation/perplexity" in line and line["tokens"]]


def drawn(runs: list[Path]) -> Figure:
    """A panel for each corpus; each line is labelled with its run and the best that it reached."""
    corpora = list(dict.fromkeys(run.name.split("-")[0] for run in runs))
    figure = Figure(figsize=(4.6 * len(corpora), 4.2), layout="constrained")
    for axes, corpus in zip(figure.subplots(1, len(corpora), squeeze=False)[0], corpora, strict=True):
        heights = []
        for run in (run for run in runs if run.name.split("-")[0] == corpus):
            points = curve(run)
            best = min(perplexity for _, perplexity in points)
            heights += [perplexity for _, perplexity in points]
            label = f"{run.name.removeprefix(corpus + '-')}: {best:.4g}"
            axes.plot(*zip(*points, strict=True), "o-", markersize=3, linewidth=1.2, label=label)
        axes.set_title(corpus)
        axes.set_xlim(left=0)
        axes.set_ylim(min(heights) * 0.95, min(max(heights), 2.2 * min(heights)))
        axes.set_xlabel("tokens trained on (millions)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.axes[0].set_ylabel("validation perplexity")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    drawn(arguments.runs).savefig(arguments.out, metadata={"Date": None} if arguments.out.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
