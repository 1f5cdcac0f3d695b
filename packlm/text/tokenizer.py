"""The file `tokenizer.json`: saving, loading, and properties of a tokenizer (how one is trained: `packlm.text.tokenizers`).

`<eos>` is a special token of every tokenizer; in those trained here it has the id 0, and `<unk>`, except in BPE, the id 1. Lower case and
normal form are the tokenizer's own normalizer, so text is treated alike wherever it is encoded.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from packlm.base import files
from packlm.base.errors import RequestError
from packlm.dataset import EOS
from packlm.text import tokenizer_json
from packlm.text.tokenizers.bpe import ALPHABET

NAME = "tokenizer.json"


def save(text: str, folder: Path) -> None:
    """Writes a tokenizer's JSON, and the `tokenizer_config.json` that transformers' `PreTrainedTokenizerFast` needs."""
    files.write_text(folder / NAME, text)
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": EOS, "eos_token": EOS, "clean_up_tokenization_spaces": False}
    tokenizer = Tokenizer.from_str(text)
    token = unknown(tokenizer)
    if token is not None and tokenizer.token_to_id(token) is not None:
        settings["unk_token"] = token
    files.write_json(folder / "tokenizer_config.json", settings)


def load(path: Path | str) -> Tokenizer:
    """Loads a `tokenizer.json`, so that text which spells a special token stays text; without truncation and padding.

    Raises:
        RequestError: no such file, not a tokenizer, one whose ids have gaps or stand for two tokens, or one without `<eos>`.
    """
    return parse(tokenizer_json.read(Path(path)), str(path))


def parse(text: str, name: str) -> Tokenizer:
    """Like `load`, from the JSON itself; `name` is its name in messages."""
    tokenizer = tokenizer_json.parse(text, name)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    tokenizer_json.check_distinct_ids(ids, name)
    tokenizer_json.check_no_gaps(ids, name)
    if tokenizer.token_to_id(EOS) is None:
        raise RequestError(f"{name}: no {EOS} in its vocabulary; add it with `Tokenizer.add_special_tokens([{EOS!r}])` and save it again")
    tokenizer.encode_special_tokens = True  # not saved in the file
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def unknown(tokenizer: Tokenizer) -> str | None:
    """The token for what is not in the vocabulary; None if there is none."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("unk_id") is not None:
        return tokenizer.id_to_token(model["unk_id"])
    return model.get("unk_token")


def lossless(tokenizer: Tokenizer) -> bool:
    """Whether decoding reproduces any text exactly: byte-level BPE with all 256 bytes, and nothing that alters the text."""
    parts: dict[str, Any] = json.loads(tokenizer.to_str())
    pre_tokenizer = parts["pre_tokenizer"] or {}
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return (
        parts["model"]["type"] == "BPE"
        and parts["normalizer"] is None
        and any(step["type"] == "ByteLevel" for step in steps if step)
        and all(_keeps_text(step) for step in steps)
        and (parts["decoder"] or {}).get("type") == "ByteLevel"
        and all(token["special"] for token in parts["added_tokens"])
        and all(byte in parts["model"]["vocab"] for byte in ALPHABET)
    )


def _keeps_text(step: dict[str, Any]) -> bool:
    if step.get("type") == "ByteLevel":
        return not step["add_prefix_space"]
    return step.get("type") == "Digits" or (step.get("type") == "Split" and step["behavior"] != "Removed")
