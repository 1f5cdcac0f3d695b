"""The results in a run's folder, as the run note, `pipeline compare` and the pipeline's summary read them back.

Only the keys that are read back are listed; a wrong type is a `PacklmError` that names file and key, and so is a file that is not as it was
when its stage was complete.
"""

from pathlib import Path

from pydantic import BaseModel

from packlm import dataset
from packlm.base import completion, json_lines, json_models


class BaselinePerplexity(BaseModel):
    """What `evaluate/SPLIT.json` says of a baseline."""

    perplexity: float


class NgramBaselines(BaseModel):
    """Models without a network on the same tokens."""

    kneser_ney_5: BaselinePerplexity
    interpolated: BaselinePerplexity | None = None
    """Of the model and the 5-grams; None in a report of an older version."""


class EvaluationReport(BaseModel):
    """`evaluate/SPLIT.json`, written by the stage `evaluate`; `packlm.evaluation.reports` explains the numbers."""

    split: str
    tokens: int
    documents: int
    words: int
    bytes: int
    context: str
    streams: int | None
    perplexity: float
    perplexity_per_word: float
    bits_per_byte: float | None
    unknown_rate: float
    tokenizer_digest: str
    ids_digest: str | None = None
    """None in a report of an older version."""
    baselines: NgramBaselines | None = None

    @property
    def line(self) -> str:
        """`validation: perplexity 93.20 per token, 141.00 per word, 1.3210 bits per byte`."""
        bits = f", {self.bits_per_byte:.4f} bits per byte" if self.bits_per_byte is not None else ""
        return f"{self.split}: perplexity {self.perplexity:,.2f} per token, {self.perplexity_per_word:,.2f} per word{bits}"


class ValidationRecord(BaseModel):
    """One validation in training."""

    perplexity: float
    step: int


class Validations(BaseModel):
    """The validations before the first step and after the best one."""

    before: ValidationRecord | None = None
    best: ValidationRecord | None = None


class TrainingSummary(BaseModel):
    """`train/summary.json`, written by the stage `train`."""

    epochs: float
    steps: int
    tokens: int
    seconds: float
    validation: Validations


class Comparison(BaseModel):
    """`evaluate/champion.json`: a new version of a registered model compared with the champion."""

    model: str
    """Name in the registry."""
    version: str
    champion: str
    """The version that was champion before; empty if there was none."""
    by: str | None
    """The metric: `perplexity` or `bits_per_byte`, lower is better; None if nothing was measured."""
    new: float | None
    old: float | None
    context: str
    """The context of a prediction: sentences, documents or streams."""
    data: str
    """Digest of the dataset."""
    won: bool
    reason: str
    """The outcome as a sentence."""


class SavedGeneration(BaseModel):
    text: str
    log_prob: float


class GenerationRecord(BaseModel):
    """A line of `generate/samples.jsonl`, written by the stage `generate`; one with an error has no generations."""

    prompt: str = ""
    generations: list[SavedGeneration] = []


def reports(folder: Path) -> dict[str, EvaluationReport]:
    """The reports of a run's folder, by split, in the order of the splits."""
    paths = {split: folder / "evaluate" / f"{split}.json" for split in dataset.SPLITS}
    records = {split: path.with_suffix(".inputs.json") for split, path in paths.items()}
    return {
        split: completion.read_output(records[split], path, EvaluationReport)
        for split, path in paths.items()
        if path.exists() or records[split].exists()
    }


def training_summary(folder: Path) -> TrainingSummary | None:
    """The summary of a run's training, if it has one."""
    path, record = folder / "train" / "summary.json", folder / "train" / "complete.json"
    return completion.read_output(record, path, TrainingSummary) if path.exists() or record.exists() else None


def comparison(folder: Path) -> Comparison | None:
    """The comparison of a run's model with the champion, if there was one."""
    path = folder / "evaluate" / "champion.json"
    return json_models.read(path, Comparison) if path.exists() else None


def generations(folder: Path, count: int) -> list[tuple[str, SavedGeneration]]:
    """(prompt, generation) of the first `count` generations of a run."""
    path = folder / "generate" / "samples.jsonl"
    records = [GenerationRecord.model_validate(values) for _, values in json_lines.read(path, GenerationRecord)]
    return [(record.prompt, generation) for record in records for generation in record.generations][:count]
