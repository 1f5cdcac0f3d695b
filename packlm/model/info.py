"""What a model folder's `config.json` says of its model; read without torch."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from packlm import config
from packlm.base import files, json_models, sealed_json
from packlm.base.errors import RequestError
from packlm.model import address

FORMAT = 2
"""Format of `config.json`. Format 1, which is still read, had no digest of its own content."""
DATASET_ONLY = frozenset({"format", "train", "validation", "test", "validation_fraction", "test_fraction", "split_seed", "duplicates"})
"""The `corpus.*` settings that choose the documents of a dataset. All others say how a document is read, and are kept with the model."""


def _reading_rules(values: Any) -> Any:
    return {key: value for key, value in values.items() if key not in DATASET_ONLY} if isinstance(values, dict) else values


class TrainingNumbers(BaseModel):
    """Results of the training; further entries are kept as they are."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    steps: int
    tokens: int
    validation: dict[str, dict[str, int | float] | None] = {}
    """`best` and `last` validation: loss, perplexity, tokens, step."""
    optimizer: str = ""
    lr: float | None = None
    """`train.optimizer` and `train.lr`; a model of an older version has none."""
    data: dict[str, dict[str, int]] = {}
    """Split -> documents, sentences, tokens, words, unknown of the dataset."""


class ModelInfo(BaseModel):
    """The content of `config.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    name: str
    """The run that trained it."""
    model: config.Model
    vocab_size: int = Field(ge=1)
    text: Annotated[config.Corpus, BeforeValidator(_reading_rules)]
    """The `corpus.*` rules by which text becomes sentences, without those of `DATASET_ONLY`."""
    segments: Literal["sentences", "rows", "streams"]
    """`train.segments`."""
    reset: Literal["document", "none"]
    """`train.reset`: where the state is zeroed, with streams."""
    lossless: bool
    """Whether decoding gives back every text exactly."""
    dataset: dict[str, str]
    """Digests of the dataset it was trained on."""
    weights: str
    """SHA-256 of `model.safetensors`."""
    tokenizer: str
    """SHA-256 of `tokenizer.json`."""
    numbers: TrainingNumbers
    format: int

    @property
    def context(self) -> str:
        """What preceded a prediction in training, as `evaluate.context` calls it."""
        return trained_context(self.segments, self.reset)


def trained_context(segments: str, reset: str) -> str:
    """What precedes a prediction in training with these `train.segments` and `train.reset`, as `evaluate.context` calls it."""
    if segments == "sentences":
        return "sentences"
    return "streams" if segments == "streams" and reset == "none" else "documents"


def read(folder: Path) -> ModelInfo:
    """Reads a model folder's `config.json`.

    Raises:
        RequestError: there is none, or it has another format.
        PacklmError: an entry is missing, unknown or of a wrong type.
    """
    path = Path(folder) / "config.json"
    address.check(folder)
    values = files.read_json(path)
    version = values.get("format") if isinstance(values, dict) else values
    if version not in (1, FORMAT):
        raise RequestError(f"{path}: model format {version!r}, this program reads 1 and {FORMAT}")
    if version == 1:
        return json_models.parse(values, ModelInfo, path)
    return sealed_json.parse(values, ModelInfo, path, "copy the model again, or train it anew")
