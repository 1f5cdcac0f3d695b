"""The model folder: whatever is wrong in its JSON files is one line that names file and key."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packlm import config
from packlm.base import files
from packlm.base.errors import PacklmError
from packlm.model import folder as model_folder
from packlm.model.language_model import build
from tests.small_models import tokenizer_files

WRONG: tuple[Any, ...] = (None, -1, 0.5, "wrong", True, ["wrong"], {"wrong": "wrong"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in model_folder.TOKENIZER_FILES:
        (tmp_path / name).write_text("{}")
    settings = config.Model(hidden=(4, 6), embedding=6)
    about = {
        "name": "tiny", "model": settings.model_dump(mode="json"), "vocab_size": 9, "text": config.Corpus().model_dump(mode="json"),
        "segments": "streams", "reset": "none", "lossless": False, "dataset": {"content": "0" * 64},
        "numbers": {
            "steps": 3, "tokens": 50, "seconds": 1.5, "validation": {"best": {"perplexity": 8.5, "tokens": 20, "step": 3}},
            "data": {"train": {"documents": 2, "sentences": 5, "tokens": 50, "words": 1234, "unknown": 1}},
        },
    }  # fmt: skip
    weights = model_folder.weights_of(build(settings, 9, seed=1))
    model_folder.save(tmp_path / "model", weights, about, config.Generate(top_k=3, stop="."), tokenizer_files(tmp_path))
    return tmp_path / "model"


def entries(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys that lead to every entry, at any depth."""
    for key, value in values.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from entries(value, (*path, key))


def replaced(values: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return values | {path[0]: replaced(values[path[0]], path[1:], value) if path[1:] else value}


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_wrong_value_is_an_error_of_one_line_that_names_file_and_key(folder: Path, name: str) -> None:
    original, refused = files.read_json(folder / name), set()
    for path in entries(original):
        for value in WRONG:
            files.write_json(folder / name, replaced(original, path, value))
            try:
                model_folder.load(folder)
                model_folder.read_generation_config(folder)
            except PacklmError as error:
                assert "\n" not in str(error) and str(folder) in str(error)
                assert path[0] in str(error) or "config.json: edited or damaged" in str(error), str(error)
                refused.add(path)
    assert set(entries(original)) == refused


def test_a_model_of_format_1_which_has_no_digest_is_read(folder: Path) -> None:
    values = files.read_json(folder / "config.json")
    del values["digest"]
    files.write_json(folder / "config.json", values | {"format": 1})
    model_folder.load(folder)
    files.write_json(folder / "config.json", values)
    with pytest.raises(PacklmError, match=r"config\.json: edited or damaged: it has no digest"):
        model_folder.load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b'{"format": 1}', b'{"format": 1, "wrong": 2}'])
def test_content_of_another_kind_is_an_error(folder: Path, content: bytes) -> None:
    for name in ("config.json", "generation_config.json"):
        original = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(PacklmError, match=f"{name}: "):
            model_folder.load(folder)
            model_folder.read_generation_config(folder)
        (folder / name).write_bytes(original)


def test_what_is_read_is_what_was_saved(folder: Path) -> None:
    info = model_folder.read(folder)
    assert info.model == config.Model(hidden=(4, 6), embedding=6) and info.text == config.Corpus() and info.context == "streams"
    settings = model_folder.read_generation_config(folder)
    assert settings == files.read_json(folder / "generation_config.json") and settings["top_k"] == 3 and settings["stop"] == ["."]
    (folder / "generation_config.json").write_text(json.dumps({"top_k": 5}))
    assert model_folder.read_generation_config(folder) == {"top_k": 5}
