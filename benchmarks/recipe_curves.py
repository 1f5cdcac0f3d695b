"""Plots validation perplexity against training tokens, one curve per run, from each run's metrics.jsonl.

    python benchmarks/recipe_curves.py --out docs/recipes.svg runs/ptb-fast runs/ptb-zaremba-small ...

Runs whose names agree up to the first dash (the corpus) share a panel.
"""

import argparse
import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

matplotlib.rcParams.update({"svg.hashsalt": "packlm", "svg.fonttype": "none", "font.size": 9})  # the same bytes for the same curves


def curve(run: Path) -> list[tuple[float, float]]:
    """(millions of tokens, perplexity) of every validation but the one before training."""
    lines = [json.loads(line) for line in (run / "train" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(line["tokens"] / 1e6, line["validation/perplexity"]) for line in lines if "validation/perplexity" in line and line["tokens"]]


def plot(runs: list[Path]) -> Figure:
    """One panel per corpus; each curve is labelled with its run and its best perplexity."""
    corpora = list(dict.fromkeys(run.name.split("-")[0] for run in runs))
    figure = Figure(figsize=(4.6 * len(corpora), 4.2), layout="constrained")
    for axes, corpus in zip(figure.subplots(1, len(corpora), squeeze=False)[0], corpora, strict=True):
        perplexities = []
        for run in (run for run in runs if run.name.split("-")[0] == corpus):
            points = curve(run)
            best = min(perplexity for _, perplexity in points)
            perplexities += [perplexity for _, perplexity in points]
            label = f"{run.name.removeprefix(corpus + '-')}: {best:.4g}"
            axes.plot(*zip(*points, strict=True), "o-", markersize=3, linewidth=1.2, label=label)
        axes.set_title(corpus)
        axes.set_xlim(left=0)
        axes.set_ylim(min(perplexities) * 0.95, min(max(perplexities), 2.2 * min(perplexities)))
        axes.set_xlabel("training tokens (millions)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.axes[0].set_ylabel("validation perplexity")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    plot(arguments.runs).savefig(arguments.out, metadata={"Date": None} if arguments.out.suffix == ".svg" else None)


if __name__ == "__main__":
    main()
