"""Ready tokenizers: a `tokenizer.json`, a SentencePiece model, or one from the Hugging Face hub, made to fit the dataset's contract.

The contract: the token that ends a sentence is called `<eos>` and no text becomes it, the unknown token is called `<unk>`, ids go from
0 to V - 1 without a hole, and the same text gives the same ids every time. Ids stay what they were; only the two names change.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from packlm import config
from packlm.base.errors import RequestError
from packlm.dataset import EOS, UNK
from packlm.text import sentencepiece_model

HUB = "hub:"


def load_pretrained(settings: config.Tokenizer) -> str | None:
    """The JSON of the tokenizer that `settings.file` names, as the dataset will have it; None where one is to be trained.

    Raises:
        RequestError: there is none, it is no tokenizer, the token that `settings.eos` names is not in it, or it breaks the contract in
            a way that renaming cannot mend; the message says which.
    """
    if settings.kind != "file":
        return None
    name = settings.file or ""
    if name.startswith(HUB):
        text = _read(_download(name.removeprefix(HUB)), name)
    elif not Path(name).is_file():
        raise RequestError(f"{name}: there is no such tokenizer; give a tokenizer.json, a SentencePiece .model, or {HUB}NAME")
    elif name.endswith(".model"):
        text = sentencepiece_model.convert(Path(name))
    else:
        text = _read(Path(name), name)
    try:
        read = Tokenizer.from_str(text)
    except Exception as error:  # what tokenizers raises is a bare Exception
        raise RequestError(f"{name}: not a tokenizer.json: {error}") from None
    _unambiguous(json.loads(text)["model"]["vocab"], name)
    return _fitted(json.loads(read.to_str()), settings.eos, name)


def identity(ready: str | None) -> str | None:
    """SHA-256 of what `load_pretrained` found; None where a tokenizer is to be trained."""
    return None if ready is None else hashlib.sha256(ready.encode()).hexdigest()


def _read(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RequestError(f"{name}: not a tokenizer.json: {error}") from None


def _download(name: str) -> Path:
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, "tokenizer.json"))
    except errors.LocalEntryNotFoundError:
        found = "the hub cannot be reached, and no copy is in the local cache; give the path of a tokenizer.json"
    except errors.EntryNotFoundError:
        found = "there is no tokenizer.json in it; download what it has, and give the path of that"
    except errors.GatedRepoError:
        found = "its owner has to grant access first: ask for it on the hub, and log in with `hf auth login`"
    except errors.RepositoryNotFoundError:
        found = "no such name on the hub, or a private one: check the name, or log in with `hf auth login`"
    except errors.HFValidationError:
        found = f"not a name that the hub knows; give {HUB}OWNER/NAME"
    except Exception as error:  # from the HTTP client, whichever it is
        found = f"cannot be downloaded: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    raise RequestError(f"{HUB}{name}: {found}") from None


def _fitted(values: dict[str, Any], eos: str, name: str) -> str:
    """The tokenizer of these values with our names for its special tokens, once it is known to keep the contract."""
    model = values["model"]
    values |= {"truncation": None, "padding": None}
    if model.get("dropout"):
        raise RequestError(f"{name}: dropout = {model['dropout']} in its model makes ids random; set it to null in the file")
    tokens = {token["content"]: token for token in values["added_tokens"]}
    ids = Tokenizer.from_str(json.dumps(values)).get_vocab(with_added_tokens=True)
    _whole(ids, name)
    if eos not in ids:
        special = ", ".join(content for content, token in tokens.items() if token["special"]) or "none"
        remedy = f"name the token that ends a sentence with --tokenizer.eos. Special tokens: {special}"
        raise RequestError(f"{name}: no {eos} in its vocabulary; {remedy}")
    if eos != EOS and EOS in ids:
        raise RequestError(f"{name}: {EOS} is in its vocabulary already, so {eos} cannot be called that; use --tokenizer.eos {EOS}")
    unknown = model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else model.get("unk_token")
    if unknown == eos:
        _without_unknown(model, name, eos)
        unknown = None
    _rename(values, eos, EOS)
    if unknown in ids and UNK not in ids:
        _rename(values, unknown, UNK)
    ended = [token for token in values["added_tokens"] if token["content"] == EOS]
    if not ended:
        ended = [{"id": ids[eos], "content": EOS, "single_word": False, "lstrip": False, "rstrip": False}]
        values["added_tokens"] = sorted([*values["added_tokens"], *ended], key=lambda token: token["id"])
    # Special, so that with `encode_special_tokens` text which spells it stays text.
    ended[0] |= {"special": True, "normalized": False}
    made = Tokenizer.from_str(json.dumps(values))
    assert made.token_to_id(EOS) == ids[eos] and len(made.get_vocab()) == len(ids)
    return made.to_str(pretty=True)


def _whole(ids: dict[str, int], name: str) -> None:
    missing = set(range(max(ids.values(), default=-1) + 1)) - set(ids.values())
    if missing:
        found = f"its vocabulary has {len(missing):,} holes: no token has id {min(missing)}"
        raise RequestError(f"{name}: {found}; give the tokens ids from 0 on, without gaps")


def _unambiguous(vocabulary: Any, name: str) -> None:
    if isinstance(vocabulary, dict) and len(set(vocabulary.values())) < len(vocabulary):
        seen: dict[int, str] = {}
        first, second = next((seen[id], token) for token, id in vocabulary.items() if seen.setdefault(id, token) != token)
        raise RequestError(f"{name}: two tokens have the id {vocabulary[second]}: {first!r} and {second!r}; give each its own")


def _without_unknown(model: dict[str, Any], name: str, eos: str) -> None:
    """Takes the unknown token from a model that has the end of a sentence for it, where every byte is in the vocabulary."""
    if model["type"] != "BPE" or not set(pre_tokenizers.ByteLevel.alphabet()) <= set(model["vocab"]):
        found = f"{eos} is its unknown token as well, so that unknown text would end sentences"
        raise RequestError(f"{name}: {found}; name another with --tokenizer.eos")
    model["unk_token"] = None


def _rename(values: dict[str, Any], old: str, new: str) -> None:
    """Gives a token another name wherever it occurs."""
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
