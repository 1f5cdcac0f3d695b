"""Pretrained tokenizers: a `tokenizer.json`, a SentencePiece model, or one from the Hugging Face hub, fitted to the dataset's contract.

The contract: the token that ends a sentence is called `<eos>` and no text encodes to it, the unknown token is called `<unk>`, ids go from
0 to V - 1 without gaps, and the same text always gives the same ids. Ids stay as they are; only the two tokens are renamed.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from packlm import config
from packlm.base.errors import RequestError
from packlm.dataset import EOS, UNK
from packlm.text import sentencepiece_model, tokenizer_json
from packlm.text.tokenizer_kind import TokenizerKind

HUB = "hub:"


class Pretrained(TokenizerKind):
    """The tokenizer that `tokenizer.file` names."""

    settings = ("eos",)

    def pretrained(self, settings: config.Tokenizer) -> str:
        name = settings.file or ""
        if name.startswith(HUB):
            text = tokenizer_json.read(_download(name.removeprefix(HUB)))
        elif not Path(name).is_file():
            raise RequestError(f"{name}: no such tokenizer; give a tokenizer.json, a SentencePiece .model, or {HUB}NAME")
        elif name.endswith(".model"):
            text = sentencepiece_model.convert(Path(name))
        else:
            text = tokenizer_json.read(Path(name))
        tokenizer = tokenizer_json.parse(text, name)
        vocabulary = json.loads(text)["model"]["vocab"]
        if isinstance(vocabulary, dict):  # of two tokens of an id, the library knows only one
            tokenizer_json.check_distinct_ids(vocabulary, name)
        return _fit(json.loads(tokenizer.to_str()), settings.eos, name)


def identity(text: str | None) -> str | None:
    """SHA-256 of the JSON of a pretrained tokenizer; None for None (a tokenizer that is trained)."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def _download(name: str) -> Path:
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except errors.LocalEntryNotFoundError:
        problem = "the hub cannot be reached, and no copy is in the local cache; give the path of a tokenizer.json"
    except errors.EntryNotFoundError:
        problem = "there is no tokenizer.json in it; download its tokenizer, and give the path"
    except errors.GatedRepoError:
        problem = "its owner has to grant access first: ask for it on the hub, and log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        problem = "no such name on the hub, or a private one: check the name, or log in with `hf auth login`"
    except errors.HFValidationError:
        problem = f"not a name that the hub knows; give {HUB}OWNER/NAME"
    except Exception as error:  # of the HTTP client
        problem = f"cannot be downloaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    raise RequestError(f"{HUB}{name}: {problem}") from None


def _fit(values: dict[str, Any], eos: str, name: str) -> str:
    """Renames the special tokens of a tokenizer (its JSON as `values`) and checks the contract; returns the new JSON."""
    model = values["model"]
    values |= {"truncation": None, "padding": None}
    if model.get("dropout"):
        raise RequestError(f"{name}: dropout = {model['dropout']} in its model makes ids random; set it to null in the file")
    tokens = {token["content"]: token for token in values["added_tokens"]}
    ids = tokenizer_json.parse(json.dumps(values), name).get_vocab(with_added_tokens=True)
    tokenizer_json.check_no_gaps(ids, name)
    if eos not in ids:
        special = ", ".join(content for content, token in tokens.items() if token["special"]) or "none"
        remedy = f"name the token that ends a sentence with --tokenizer.eos. Special tokens: {special}"
        raise RequestError(f"{name}: no {eos} in its vocabulary; {remedy}")
    if eos != EOS and EOS in ids:
        raise RequestError(f"{name}: {EOS} is in its vocabulary already, so {eos} cannot be renamed to it; use --tokenizer.eos {EOS}")
    unknown = model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else model.get("unk_token")
    if unknown == eos:
        _remove_unknown(model, name, eos)
        unknown = None
    _rename(values, eos, EOS)
    if unknown in ids and UNK not in ids:
        _rename(values, unknown, UNK)
    eos_tokens = [token for token in values["added_tokens"] if token["content"] == EOS]
    if not eos_tokens:
        eos_tokens = [{"id": ids[eos], "content": EOS, "single_word": False, "lstrip": False, "rstrip": False}]
        values["added_tokens"] = sorted([*values["added_tokens"], *eos_tokens], key=lambda token: token["id"])
    # Special, so that with `encode_special_tokens` text which spells it stays text.
    eos_tokens[0] |= {"special": True, "normalized": False}
    tokenizer = tokenizer_json.parse(json.dumps(values), name)
    assert tokenizer.token_to_id(EOS) == ids[eos] and len(tokenizer.get_vocab()) == len(ids)
    return tokenizer.to_str(pretty=True)


def _remove_unknown(model: dict[str, Any], name: str, eos: str) -> None:
    """Removes the unknown token of a model that uses the end of a sentence for it, if every byte is in the vocabulary."""
    if model["type"] != "BPE" or not set(pre_tokenizers.ByteLevel.alphabet()) <= set(model["vocab"]):
        problem = f"{eos} is its unknown token as well, so that unknown text would end sentences"
        raise RequestError(f"{name}: {problem}; name another with --tokenizer.eos")
    model["unk_token"] = None


def _rename(values: dict[str, Any], old: str, new: str) -> None:
    """Renames a token wherever it occurs."""
    model = values["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {new if token == old else token: id for token, id in model["vocab"].items()}
    else:
        model["vocab"] = [[new if token == old else token, score] for token, score in model["vocab"]]
    if model.get("unk_token") == old:
        model["unk_token"] = new
    for token in values["added_tokens"]:
        if token["content"] == old:
            token["content"] = new
    values["post_processor"] = _renamed(values["post_processor"], old, new)


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {new if key == old else key: _renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, old, new) for item in value]
    return new if value == old else value


KINDS = {"file": Pretrained()}
