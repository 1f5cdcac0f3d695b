"""A model as Hugging Face transformers load it with `trust_remote_code`: weights, `config.json`, their code (`modeling_packlm.py`, which
does not need packlm), and the tokenizer, which puts `<eos>` before a text as packlm does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as serialize
from torch import Tensor

from packlm.base import files
from packlm.dataset import EOS
from packlm.generation.decoding import resolve
from packlm.model.folder import card, weights_of
from packlm.model.info import ModelInfo
from packlm.model.language_model import LanguageModel

from .tokenizer_files import write_tokenizer

CODE = "modeling_packlm.py"


def write(folder: Path, model: LanguageModel, info: ModelInfo, tokenizer: str, decoding: Mapping[str, Any], dtype: torch.dtype) -> None:
    """Writes the files into an empty folder.

    Args:
        tokenizer: the text of `tokenizer.json`.
        decoding: the decoding settings that the model recommends.
        dtype: of the weights.
    """
    eos = write_tokenizer(folder, tokenizer)
    weights = {name: tensor.to(dtype) for name, tensor in weights_of(model).items()}
    with files.atomic(folder / "model.safetensors") as stream:
        stream.write(serialize(weights, {"format": "pt"}))
    files.write_json(folder / "config.json", _config(info, eos, weights))
    files.write_json(folder / "generation_config.json", _generation_config(decoding, info.vocab_size) | _special_tokens(eos))
    files.write_text(folder / CODE, Path(__file__).with_name(CODE).read_text(encoding="utf-8"))
    files.write_text(folder / "README.md", card(info, USE))


def _config(info: ModelInfo, eos: int, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    shape, module = info.model, Path(CODE).stem
    return {
        "model_type": "packlm", "architectures": ["PacklmForCausalLM"],
        "auto_map": {"AutoConfig": f"{module}.PacklmConfig", "AutoModelForCausalLM": f"{module}.PacklmForCausalLM"},
        "cell": shape.cell, "vocab_size": info.vocab_size, "embedding_size": shape.embedding_width, "hidden_sizes": list(shape.widths),
        "residual": shape.residual != "none", "cutoffs": list(shape.cutoffs), "tie_word_embeddings": shape.tied,
        "dtype": str(next(iter(weights.values())).dtype).removeprefix("torch."), **_special_tokens(eos),
        "packlm": info.model_dump(mode="json", include={"name", "dataset", "segments", "reset", "text", "numbers"}),
    }  # fmt: skip


def _special_tokens(eos: int) -> dict[str, int]:
    return {"bos_token_id": eos, "eos_token_id": eos, "pad_token_id": eos}


def _generation_config(decoding: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """The recommended settings that `generate` of transformers has too."""
    settings, _ = resolve(decoding, 1, vocab_size)
    common = {"max_new_tokens": settings.max_tokens}
    if settings.strategy == "sample":
        sampling = {"temperature": settings.temperature, "top_k": settings.top_k, "top_p": settings.top_p, "typical_p": settings.typical_p}
        return common | {"do_sample": True} | sampling | ({"min_p": settings.min_p} if settings.min_p else {})
    beams = {"num_beams": settings.beams, "length_penalty": settings.length_penalty} if settings.strategy == "beam" else {}
    return common | {"do_sample": False, "no_repeat_ngram_size": settings.no_repeat_ngram} | beams


USE = f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("THIS_FOLDER", trust_remote_code=True)
inputs = tokenizer("TEXT", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs)[0], skip_special_tokens=True))
```

The model runs the code of `{CODE}`, which needs torch and transformers (5 or newer) only. The tokenizer puts `{EOS}` before a text,
as the model was trained; write `{EOS}` after a sentence to have its end predicted, and between sentences if the model has read more
than single ones.
"""
