"""The model folder: all that is needed to use a trained model, and nothing that is executed on opening.

config.json               shape, how text becomes ids, context of the training, provenance, results
model.safetensors         the weights that were validated
tokenizer.json, tokenizer_config.json
generation_config.json    recommended decoding settings
README.md                 model card
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor

from packlm import config
from packlm.base import files, json_models, sealed_json, verified_files
from packlm.base.errors import PacklmError, RequestError
from packlm.base.escape import markdown
from packlm.config.generate import DECODING_SETTINGS
from packlm.model.finite import NotFinite, first_not_finite
from packlm.model.info import FORMAT, ModelInfo, read
from packlm.model.language_model import LanguageModel
from packlm.model.recurrence import Layout

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
PICKLE_SUFFIXES = (".bin", ".ckpt", ".pkl", ".pickle", ".pt", ".pth")
"""Suffixes of files in which other libraries keep weights as a pickle."""


def save(
    folder: Path, weights: dict[str, Tensor], about: dict[str, Any], generation: config.Generate, tokenizer: Mapping[str, str]
) -> None:
    """Writes a model folder atomically.

    Args:
        about: the entries of `config.json` as JSON values, without format and digests of files.
        generation: the decoding settings that the folder recommends.
        tokenizer: the text of each of `TOKENIZER_FILES`.
    """
    work = files.temporary_of(folder)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with files.atomic(work / "model.safetensors") as stream:
        stream.write(serialize(weights))
    for name in TOKENIZER_FILES:
        files.write_text(work / name, tokenizer[name])
    digests = {"weights": files.sha256(work / "model.safetensors"), "tokenizer": files.sha256(work / "tokenizer.json")}
    entries = about | digests | {"format": FORMAT}
    info = json_models.parse(entries, ModelInfo, folder / "config.json")
    sealed_json.write(work / "config.json", {key: entries[key] for key in ModelInfo.model_fields})
    files.write_json(work / "generation_config.json", generation.model_dump(mode="json", include=set(DECODING_SETTINGS)))
    files.write_text(work / "README.md", card(info))
    files.recover_folder(folder)
    files.replace_folder(work, folder)


def read_generation_config(folder: Path) -> dict[str, Any]:
    """Reads the decoding settings that a model folder recommends, as JSON values; those that it leaves out are not there.

    Raises:
        PacklmError: the file is missing, or a setting is unknown or has a wrong value.
    """
    settings = json_models.read(Path(folder) / "generation_config.json", config.Generate)
    return settings.model_dump(mode="json", exclude_unset=True)


def load(folder: Path, layout: Layout = "auto") -> tuple[LanguageModel, ModelInfo]:
    """Opens a model folder for inference (evaluation mode, CPU).

    Raises:
        RequestError: a file is missing, or belongs to another version or model.
        PacklmError: a file's digest is not the one in `config.json`, or an entry there is wrong.
    """
    folder = Path(folder)
    info = read(folder)
    contents: dict[str, bytes] = {}
    for name, expected in (("model.safetensors", info.weights), ("tokenizer.json", info.tokenizer)):
        path = folder / name
        if not path.is_file():
            pickles = [other.name for other in sorted(folder.iterdir()) if other.suffix in PICKLE_SUFFIXES]
            instead = f"; {pickles[0]} may be a pickle, which can run any code and is never opened" if pickles else ""
            raise RequestError(f"{path}: missing; a model folder holds it beside config.json{instead}")
        contents[name] = verified_files.read(path, expected)
    try:
        weights = deserialize(contents["model.safetensors"])
    except SafetensorError as error:
        raise PacklmError(f"{folder / 'model.safetensors'}: not a safetensors file: {error}") from None
    model = LanguageModel(info.model, info.vocab_size, layout).to(next(iter(weights.values())).dtype)
    restore_weights(model, weights, folder / "model.safetensors")
    return model.eval(), info


def weights_of(model: LanguageModel) -> dict[str, Tensor]:
    """The model's weights as they are stored: contiguous, on the CPU, tied ones once."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    if model.settings.tied:
        del state["projection.weight"]
    return state


def restore_weights(model: LanguageModel, weights: dict[str, Tensor], source: Path) -> None:
    """Loads weights into the model.

    Raises:
        RequestError: one is missing, unknown or of another shape.
        NotFinite: one holds NaN or an infinite number.
    """
    current = weights_of(model)
    for name in sorted({*current, *weights}):
        actual, expected = (tuple(tensors[name].shape) if name in tensors else None for tensors in (weights, current))
        if actual != expected:
            raise RequestError(f"{source}: {name}: expected shape {expected}, found {actual}; the weights belong to another model")
    if (wrong := first_not_finite(weights)) is not None:
        raise NotFinite(f"{source}: {wrong} holds NaN or an infinite number: its training diverged; use another model or checkpoint")
    model.load_state_dict(weights | ({"projection.weight": weights["embedding.weight"]} if model.settings.tied else {}))


USE = "`packlm generate --model THIS_FOLDER --prompt TEXT`, or `packlm.load(THIS_FOLDER)`.\n"


def card(info: ModelInfo, use: str = USE) -> str:
    """The model card: shape, data, training, limits, and `use`, how the folder is used."""
    shape, rules = info.model.model_dump(mode="json"), info.text
    measured = "It was not validated."
    if best := info.numbers.validation.get("best"):
        measured = (
            f"Validation: perplexity {best['perplexity']:.2f} per token over {best['tokens']:,} tokens (context: {info.context}), "
            f"after {best['step']:,} steps."
        )
    language = markdown(rules.language)
    cut = {"none": "not cut into sentences", "line": "a sentence a line"}.get(rules.sentences, f"sentences by sentencex ({language})")
    kind = "keeps every text to the letter" if info.lossless else "does not keep every text to the letter"
    return (
        f"---\nlibrary_name: packlm\ntags: [language-model, rnn]\n---\n\n# {markdown(info.name)}\n\n"
        f"A recurrent language model: {shape['layers']} {shape['cell'].upper()} layer(s), hidden {shape['hidden']}, "
        f"{info.vocab_size:,} tokens{', tied softmax' if shape['tied'] else ''}.\n\n"
        f"## Data\n\nDataset {info.dataset['content'][:16]}: documents by {rules.document}, {cut}; its tokenizer {kind}.\n\n"
        f"{_data_table(info.numbers.data)}"
        f"## Training\n\nOn {info.segments}, for {info.numbers.steps:,} steps ({info.numbers.tokens:,} tokens). {measured}\n\n"
        "## Limits\n\nPerplexities per token compare models of the same tokenizer only. The model knows the text it was trained on and no "
        "other;\nit repeats the biases of that text and states nothing reliably. "
        f"{_CONTEXT_LIMITS[info.context]}\n\n## Use\n\n{use}"
    )


_CONTEXT_LIMITS = {
    "sentences": "It has read single sentences: what precedes a sentence means nothing to it.",
    "documents": "It has read documents from their beginning, so a sentence out of its context is unusual to it.",
    "streams": "It has read text without an end: its first predictions, with nothing before them, are its worst.",
}


def _data_table(splits: dict[str, dict[str, int]]) -> str:
    if not splits:
        return ""
    lines = [
        f"| {name} | {split['documents']:,} | {split['sentences']:,} | {split['tokens']:,} | {split['words']:,} "
        f"| {split['unknown'] / max(split['tokens'], 1):.2%} |"
        for name, split in splits.items()
    ]
    return "\n".join(["| split | documents | sentences | tokens | words | unknown |", "|---|--:|--:|--:|--:|--:|", *lines]) + "\n\n"
