"""The tokenizer of an exported model, for programs that know nothing of packlm."""

from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from packlm.base import files
from packlm.dataset import EOS
from packlm.text import tokenizer


def write_tokenizer(folder: Path, text: str) -> int:
    """Writes `tokenizer.json` and `tokenizer_config.json` of a tokenizer that puts `<eos>` before a text, as a model reads it.

    Args:
        text: the model's `tokenizer.json`.

    Returns the id of `<eos>`.
    """
    exported = Tokenizer.from_str(text)
    eos = exported.get_vocab(with_added_tokens=True)[EOS]
    exported.post_processor = TemplateProcessing(single=f"{EOS} $A", pair=f"{EOS} $A {EOS} $B", special_tokens=[(EOS, eos)])
    tokenizer.save(exported.to_str(pretty=True), folder)
    path = folder / "tokenizer_config.json"
    inputs = ["input_ids", "attention_mask"]  # transformers 4 adds token types, which the model does not take
    files.write_json(path, files.read_json(path) | {"pad_token": EOS, "padding_side": "left", "model_input_names": inputs})
    return eos
