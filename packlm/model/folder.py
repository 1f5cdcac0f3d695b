"""The model folder: all that is needed to use a trained model, and nothing that is executed on opening.

config.json               shape, how text becomes ids, what context it was trained with, where it comes from, its numbers
model.safetensors         the weights that were validated
tokenizer.json, tokenizer_config.json
generation_config.json    how `serve generate` draws from it unless told otherwise
README.md                 card
"""

import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize
from torch import Tensor

from packlm import config
from packlm.base import files
from packlm.base.errors import PacklmError, RequestError
from packlm.config.generate import DRAWING
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import Layout

FORMAT = 1
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
PICKLES = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")
"""Endings of files in which others keep weights as a pickle."""


@dataclass(frozen=True)
class ModelInfo:
    """What a model folder says of its model, as `config.json`."""

    name: str
    """The run that trained it."""
    model: dict[str, Any]
    """The `model.*` settings."""
    vocab_size: int
    text: dict[str, Any]
    """The `corpus.*` rules by which text becomes sentences."""
    segments: str
    """`train.segments`: sentences, rows or streams."""
    reset: str
    """`train.reset`: where the state was zeroed, with streams."""
    lossless: bool
    """Whether decoding gives every text back to the letter."""
    dataset: dict[str, str]
    """Digests of the dataset it learned from."""
    weights: str
    """SHA-256 of `model.safetensors`."""
    tokenizer: str
    """SHA-256 of `tokenizer.json`."""
    numbers: dict[str, Any]
    """Steps, tokens and validation results of the training; how much its dataset held, by split."""
    format: int = FORMAT

    @property
    def context(self) -> str:
        """What preceded a prediction in training, as `evaluate.context` calls it."""
        return trained_context(self.segments, self.reset)


def trained_context(segments: str, reset: str) -> str:
    """What precedes a prediction in training on such `train.segments` with such a `train.reset`."""
    if segments == "sentences":
        return "sentences"
    return "streams" if segments == "streams" and reset == "none" else "documents"


def save(
    folder: Path, weights: dict[str, Tensor], about: dict[str, Any], generation: config.Generate, tokenizer_from: Path
) -> ModelInfo:  # fmt: skip
    """Writes a model folder, in whole or not at all. `about` holds the entries of `ModelInfo` but for the digests."""
    work = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with files.atomic(work / "model.safetensors") as stream:
        stream.write(serialize(weights))
    for name in TOKENIZER_FILES:
        files.write_text(work / name, (tokenizer_from / name).read_text(encoding="utf-8"))
    about |= {"weights": files.sha256(work / "model.safetensors"), "tokenizer": files.sha256(work / "tokenizer.json")}
    complete = ModelInfo(**about)
    files.write_json(work / "config.json", asdict(complete))
    files.write_json(work / "generation_config.json", generation.model_dump(mode="json", include=set(DRAWING)))
    files.write_text(work / "README.md", card(complete))
    files.recover_folder(folder)
    files.replace_folder(work, folder)
    return complete


def read(folder: Path) -> ModelInfo:
    """Reads a model folder's `config.json`; `RequestError` where there is none or of another format."""
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise RequestError(f"{folder}: no model here (no config.json); `make train` or `torchrun --nproc-per-node N train` makes one")
    values = files.read_json(path)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else values
        raise RequestError(f"{path}: model format {found!r}, this program reads {FORMAT}")
    differing = {item.name for item in fields(ModelInfo)} ^ set(values)
    if differing:
        raise RequestError(f"{path}: missing or unknown entries: {', '.join(sorted(differing))}")
    return ModelInfo(**values)


def load(folder: Path, layout: Layout = "auto") -> tuple[LanguageModel, ModelInfo]:
    """Opens a model folder for use (evaluation mode, CPU).

    Raises:
        RequestError: a file is missing, or belongs to another version or model.
        PacklmError: a file's digest is not the one in `config.json`.
    """
    folder = Path(folder)
    about = read(folder)
    for name, expected in (("model.safetensors", about.weights), ("tokenizer.json", about.tokenizer)):
        path = folder / name
        if not path.is_file():
            pickles = [other.name for other in sorted(folder.iterdir()) if other.suffix in PICKLES]
            instead = f"; {pickles[0]} may be a pickle, which can run any code and is never opened" if pickles else ""
            raise RequestError(f"{path}: missing; a model folder holds it beside config.json{instead}")
        found = files.sha256(path)
        if found != expected:
            raise PacklmError(f"{path}: damaged or exchanged: expected sha256 {expected}, got {found}")
    try:
        settings = config.Model.model_validate(about.model)
    except ValidationError as error:
        raise RequestError(f"{folder / 'config.json'}: model: {error.errors()[0]['msg']}") from None
    try:
        weights = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise PacklmError(f"{folder / 'model.safetensors'}: not a safetensors file: {error}") from None
    model = LanguageModel(settings, about.vocab_size, layout).to(next(iter(weights.values())).dtype)
    restore_weights(model, weights, folder / "model.safetensors")
    return model.eval(), about


def weights_of(model: LanguageModel) -> dict[str, Tensor]:
    """The model's weights as they are stored: contiguous, on the CPU, tied ones once."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if model.settings.tied:
        del state["projection.weight"]
    return state


def restore_weights(model: LanguageModel, weights: dict[str, Tensor], source: Path) -> None:
    """Puts weights into the model; `RequestError` naming the first that is missing, unknown or of another shape."""
    own = weights_of(model)
    for name in sorted({*own, *weights}):
        found, wanted = (tuple(known[name].shape) if name in known else None for known in (weights, own))
        if found != wanted:
            raise RequestError(f"{source}: {name}: expected shape {wanted}, found {found}; the weights belong to another model")
    model.load_state_dict(weights | ({"projection.weight": weights["embedding.weight"]} if model.settings.tied else {}))


def card(about: ModelInfo) -> str:
    """The model card: what it is, what it learned from, what was measured, what it cannot do."""
    shape = about.model
    validation = about.numbers.get("validation") or {}
    best = validation.get("best")
    measured = "It was not validated: the dataset has no validation split."
    if best:
        measured = (
            f"Validation: perplexity {best['perplexity']:.2f} per token over {best['tokens']:,} tokens (context: {about.context}), "
            f"after {best['step']:,} steps."
        )
    rules = config.Corpus.model_validate({name: about.text[name] for name in ("document", "sentences", "language") if name in about.text})
    cut = {"none": "not cut into sentences", "line": "a sentence a line"}.get(rules.sentences, f"sentences by sentencex ({rules.language})")
    kind = "keeps every text to the letter" if about.lossless else "does not keep every text to the letter"
    return (
        f"---\nlibrary_name: packlm\ntags: [language-model, rnn]\n---\n\n# {about.name}\n\n"
        f"A recurrent language model: {shape['layers']} {shape['cell'].upper()} layer(s), hidden {shape['hidden']}, "
        f"{about.vocab_size:,} tokens{', tied softmax' if shape['tied'] else ''}.\n\n"
        f"## Data\n\nDataset {about.dataset['content'][:16]}: documents by {rules.document}, {cut}; its tokenizer {kind}.\n\n"
        f"{_data(about.numbers.get('data') or {})}"
        f"## Training\n\nOn {about.segments}, for {about.numbers['steps']:,} steps ({about.numbers['tokens']:,} tokens). {measured}\n\n"
        "## Limits\n\nPerplexities per token compare models of the same tokenizer only. The model knows the text it was trained on and no "
        "other;\nit repeats the biases of that text and states nothing reliably. "
        f"{CONTEXT_LIMITS[about.context]}\n\n"
        "## Use\n\n`python -m serve generate --model THIS_FOLDER --prompt TEXT`, or `packlm.load(THIS_FOLDER)`.\n"
    )


CONTEXT_LIMITS = {
    "sentences": "It has read single sentences: what precedes a sentence means nothing to it.",
    "documents": "It has read documents from their beginning, so a sentence out of its context is unusual to it.",
    "streams": "It has read text without an end: its first predictions, with nothing before them, are its worst.",
}
"""What a model cannot do that was trained with such a context, for the card."""


def _data(splits: dict[str, dict[str, int]]) -> str:
    """A table of how much there was."""
    if not splits:
        return ""
    lines = [
        f"| {name} | {split['documents']:,} | {split['sentences']:,} | {split['tokens']:,} | {split['words']:,} "
        f"| {split['unknown'] / max(split['tokens'], 1):.2%} |"
        for name, split in splits.items()
    ]
    return "\n".join(["| split | documents | sentences | tokens | words | unknown |", "|---|--:|--:|--:|--:|--:|", *lines]) + "\n\n"
