"""A tokenizer.json of unknown origin is a tokenizer, or one error: no panic, no loop, no memory for ids that are not there."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packlm import config
from packlm.base.errors import RequestError
from packlm.text import tokenizer, tokenizer_json, tokenizers


def nested(depth: int) -> dict[str, Any]:
    step: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(depth):
        step = {"type": "Sequence", "normalizers": [step]}
    return step


PANICS = {"type": "Precompiled", "precompiled_charsmap": "AAAA////"}
NO_PATTERN = {"type": "Replace", "pattern": {"Regex": "(("}, "content": ""}
FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a table that panics": (lambda values: values.update(normalizer=PANICS), "Precompiled"),
    "nested": (lambda values: values.update(normalizer=nested(300)), "recursion"),
    "a pattern that is none": (lambda values: values.update(normalizer=NO_PATTERN), "Oniguruma"),
    "merges of missing tokens": (lambda values: values["model"].update(merges=[["x", "missing"]]), "missing"),
    "a huge id": (lambda values: values["model"]["vocab"].update(x=4_000_000_000), "gaps: no token has id"),
    "a negative id": (lambda values: values["model"]["vocab"].update(x=-1), "not a tokenizer"),
    "an id of two tokens": (lambda values: values["model"]["vocab"].update(x1=5, x2=5), "two tokens have the id 5|gaps"),
    "no eos": (lambda values: values.update(added_tokens=[]) or values["model"]["vocab"].pop("<eos>"), "no <eos>|gaps"),
    "no model": (lambda values: values.pop("model"), "not a tokenizer"),
    "a model of a wrong type": (lambda values: values.update(model=[1]), "not a tokenizer"),
}  # fmt: skip


@pytest.fixture(scope="module")
def text() -> str:
    return tokenizers.train(config.Tokenizer(kind="bpe", vocab_size=270), ["the cat sat", "a dog"] * 9).to_str()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_crafted_tokenizer_is_one_error_and_prints_nothing(
    text: str, tmp_path: Path, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change, message = FAULTS[fault]
    values = json.loads(text)
    change(values)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(values))
    with pytest.raises(RequestError, match=f"tokenizer.json: .*({message})"):
        tokenizer.load(path)
    with pytest.raises(RequestError, match=f"tokenizer.json: .*({message})"):
        settings = config.Tokenizer(kind="file", file=str(path))
        tokenizers.KINDS["file"].pretrained(settings)
    assert capfd.readouterr() == ("", ""), "a panic prints a message of its own"


@pytest.mark.parametrize(
    "content", ["", "[" * 100_000, '{"a":' * 100_000, "{}", "null", '{"version": "1.0", "version": "1.0"}', "9" * 5000]
)
def test_what_is_no_tokenizer_is_one_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(RequestError, match=r"tokenizer\.json: not a tokenizer\.json: "):
        tokenizer.load(tmp_path / "tokenizer.json")


def test_a_fifo_or_a_device_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.json")
    for path in (tmp_path / "tokenizer.json", Path("/dev/zero"), Path("/proc/self/mem")):
        with pytest.raises(RequestError, match=str(path)):
            tokenizer.load(path)
        with pytest.raises(RequestError, match=str(path)):
            tokenizers.KINDS["file"].pretrained(config.Tokenizer(kind="file", file=str(path)))


def test_the_library_never_sees_ids_far_beyond_the_vocabulary(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would allocate for all ids below the highest one."""
    values = json.loads(text)
    values["model"]["vocab"]["x"] = 4_000_000_000
    monkeypatch.setattr(tokenizer_json, "Tokenizer", None)
    with pytest.raises(RequestError, match="gaps: no token has id"):
        tokenizer_json.parse(json.dumps(values), "tokenizer.json")
