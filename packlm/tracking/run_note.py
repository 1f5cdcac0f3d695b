"""The note on the page of a run in MLflow: results, model and data, and the recipe that reproduces it.

All of it comes from the configuration and from the files that the stages wrote, so a note can be written after any of them.
"""

from pathlib import Path

from packlm import dataset
from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError
from packlm.base.escape import markdown, one_line
from packlm.config import Config, toml_value
from packlm.tracking import run_files


def architecture(config: Config) -> str:
    """`lstm 2x200`, `lstm 1150-1150-400`."""
    widths = config.model.widths
    return f"{config.model.cell} " + (f"{len(widths)}x{widths[0]}" if len(set(widths)) == 1 else "-".join(map(str, widths)))


def note(config: Config, results: Path | None = None) -> str:
    """The note, as Markdown, results first: MLflow folds the rest away.

    Args:
        results: the folder of the results; by default the run's.

    Raises:
        PacklmError: a result file in the run's folder is damaged.
    """
    folder = results or config.run.dir
    lines = [f"- {report.line}" for report in run_files.reports(folder).values()]
    lines += _training(folder)
    if comparison := run_files.comparison(folder):
        lines.append(f"- {markdown(f'models:/{comparison.model}@champion')}: {one_line(comparison.reason)}")
    model = f"{architecture(config)}, {config.train.segments}"
    lines += [f"- {model}; folder {markdown(config.run.dir)}, dataset {markdown(config.dataset.dir)}", *_data(config)]
    return "\n".join([*lines, "", "The recipe, where it differs from the defaults:", "", "```toml", recipe(config), "```"])


def recipe(config: Config) -> str:
    """The settings that differ from their defaults, as TOML, without the paths of results and the store."""
    changed = config.model_dump(mode="json", exclude_defaults=True, exclude={"run": {"dir"}, "dataset": {"dir"}, "tracking": True})
    lines = []
    for section, settings in changed.items():
        if settings:
            lines += [f"[{section}]", *(f"{key} = {toml_value(value)}" for key, value in settings.items())]
    return without_credentials("\n".join(lines))


def _data(config: Config) -> list[str]:
    try:
        manifest = dataset.read_manifest(config.dataset.dir)
    except PacklmError:  # not built yet
        return []
    splits = ", ".join(f"{name} {split.tokens:,}" for name, split in manifest.splits.items())
    return [f"- tokens: {splits}; vocabulary {manifest.vocab_size:,}; content `{manifest.digests['content'][:16]}`"]


def _training(folder: Path) -> list[str]:
    summary = run_files.training_summary(folder)
    if not summary:
        return []
    best = summary.validation.best
    result = f"; validation perplexity {best.perplexity:,.2f} at step {best.step:,}" if best else ""
    return [f"- trained {summary.epochs:.2g} epochs, {summary.steps:,} steps in {summary.seconds / 60:.1f} min{result}"]
