"""What a run is called in MLflow, and the note on its page: what was trained on what, what came out, and the recipe that does it again.

Everything is read from the configuration and from the files that the stages leave, so that a note can be written after any of them.
"""

from typing import Any

from packlm import dataset
from packlm.base import files
from packlm.base.credentials import without_credentials
from packlm.base.errors import PacklmError
from packlm.config import Config, toml_value


def run_name(config: Config) -> str:
    """`quickstart: lstm 2x200, sentences`: tells runs apart in a list; the dataset too where it is not called like the run."""
    data = config.dataset.dir.name
    return f"{config.run.name}: {shape(config)}, {config.train.segments}" + (f" of {data}" if data != config.run.name else "")


def stage_name(config: Config, stage: str) -> str:
    """`train quickstart`."""
    return f"{stage} {config.run.name}"


def shape(config: Config) -> str:
    """`lstm 2x200`, `lstm 1150-1150-400`."""
    widths = config.model.widths
    return f"{config.model.cell} " + (f"{len(widths)}x{widths[0]}" if len(set(widths)) == 1 else "-".join(map(str, widths)))


def note(config: Config) -> str:
    """The note, as Markdown; what came out stands first, since MLflow folds the rest away."""
    champion = _read(config, "evaluate/champion.json")
    lines = [*_reports(config), *_training(config)]
    lines += [f"- `models:/{champion['model']}@champion`: {champion['reason']}"] if champion else []
    lines += [f"- {shape(config)}, {config.train.segments}; folder `{config.run.dir}`, dataset `{config.dataset.dir}`", *_data(config)]
    return "\n".join([*lines, "", "The recipe, as far as it differs from the defaults:", "", "```toml", recipe(config), "```"])


def in_a_line(report: dict[str, Any]) -> str:
    """What an evaluation came to: `validation: perplexity 93.20 per token, 141.00 per word, 1.3210 bits per byte`."""
    bits = f", {report['bits_per_byte']:.4f} bits per byte" if report["bits_per_byte"] is not None else ""
    return f"{report['split']}: perplexity {report['perplexity']:,.2f} per token, {report['perplexity_per_word']:,.2f} per word{bits}"


def recipe(config: Config) -> str:
    """The settings that are not the defaults, as TOML, without where things are kept and recorded."""
    own = config.model_dump(mode="json", exclude_defaults=True, exclude={"run": {"dir"}, "dataset": {"dir"}, "tracking": True})
    sections = [(name, values) for name, values in own.items() if values]
    return without_credentials("\n".join(line for name, values in sections for line in [f"[{name}]", *map(_setting, values.items())]))


def _setting(item: tuple[str, Any]) -> str:
    return f"{item[0]} = {toml_value(item[1])}"


def _data(config: Config) -> list[str]:
    try:
        manifest = dataset.read_manifest(config.dataset.dir)
    except PacklmError:  # not made yet
        return []
    splits = ", ".join(f"{name} {split.tokens:,}" for name, split in manifest.splits.items())
    return [f"- tokens: {splits}; vocabulary {manifest.vocab_size:,}; content `{manifest.digests['content'][:16]}`"]


def _training(config: Config) -> list[str]:
    summary = _read(config, "train/summary.json")
    if not summary:
        return []
    best = (summary["validation"] or {}).get("best")
    result = f"; validation perplexity {best['perplexity']:,.2f} at step {best['step']:,}" if best else ""
    return [f"- trained {summary['epochs']:.2g} epochs, {summary['steps']:,} steps in {summary['seconds'] / 60:.1f} min{result}"]


def _reports(config: Config) -> list[str]:
    found = [_read(config, f"evaluate/{split}.json") for split in dataset.SPLITS]
    return [f"- {in_a_line(report)}" for report in found if report]


def _read(config: Config, name: str) -> dict[str, Any]:
    """A file below the run's folder; nothing where there is none."""
    return files.read_json_if_there(config.run.dir / name)
