"""What is asked of a model is checked by one validation: the command line, a line of JSONL, Python and MLflow get the same words."""

import io
import json
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from packlm import tracking
from packlm.base.errors import RequestError
from packlm.config import Config, Generate
from packlm.engine import Engine
from serve.generate import batch_job
from serve.generate.prompts import read_requests
from tests.serve.test_main import (
    Command,
    command,  # noqa: F401
)

BAD = [None, -3, 2**64, 1.5, float("nan"), True, "\ud800", "many", "", [], {}]
ALLOWED: dict[str, list[Any]] = {
    "seed": [], "samples": [], "max_tokens": [], "top_k": [], "no_repeat_ngram": [], "beams": [], "top_p": [], "temperature": [1.5],
    "length_penalty": [1.5], "strategy": [], "stop_at_eos": [True], "replacement": [True],
}  # fmt: skip
"""The settings of a request, each with the values of `BAD` that it may have."""


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """What MLflow calls."""
    monkeypatch.setattr(tracking, "declare_model", lambda *functions: None)
    served = import_module("serve.registry.mlflow_model")
    return lambda engine, rows, params: served.predict(served.ServedModel(engine), rows, params)


def as_word(value: Any) -> str:
    """A value as the command line has it."""
    if isinstance(value, str):
        return value
    return "null" if value is None else "true" if value is True else str(value)


def refusal(function: Callable[..., object], *arguments: Any, **settings: Any) -> str:
    """The message of a call that is refused, in one line."""
    with pytest.raises(RequestError) as refused:
        function(*arguments, **settings)
    return " ".join(str(refused.value).split())


@pytest.mark.parametrize("key", ALLOWED)
def test_four_roads_refuse_a_wrong_setting_in_the_same_words(
    key: str, command: Command, made: Callable[[str], Config], engine: Engine, predict: Callable[..., object]  # noqa: F811
) -> None:  # fmt: skip
    model, name = made("bpe").run.dir / "model", f"{'run' if key == 'seed' else 'generate'}.{key}"
    for value in BAD:
        if value in ALLOWED[key]:
            continue
        message = refusal(engine.generate, ["the"], **{key: value})
        assert f" {name}: " in message and "unable to" not in message
        assert refusal(predict, engine, {"prompt": ["the"]}, {key: value}) == message
        line = json.dumps({"prompt": "the", key: value}).encode()
        _, [(_, record)] = batch_job._plan(engine, read_requests(io.BytesIO(line), "p.jsonl"), Generate(), 1)
        in_json = value == value and value not in ("\ud800", 2**64)  # the others are no JSON, or none that is read
        assert json.loads(record)["error"] == message if in_json else "not JSON: " in record
        status, _, err = command("generate", "--model", model, "--prompt", "the", f"--{name}", as_word(value))
        assert status == 2 and " ".join(err.removeprefix("error: ").split()) == message


@pytest.mark.parametrize("value", [-3, 0, 1.5, float("nan"), True, None, "many", 2**64])
def test_a_wrong_number_of_next_tokens(value: Any, command: Command, made: Callable[[str], Config], engine: Engine) -> None:  # noqa: F811
    message = refusal(engine.next, "the", value)
    assert message.startswith("top: Input should be ")
    if value is not None:  # an option has no None
        status, _, err = command("next", "--model", made("bpe").run.dir / "model", "--prompt", "the", "--top", as_word(value))
        assert (status, err) == (2, f"error: {message}\n")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, ": a text or a list of texts is expected, got None"),
        (b"the cat", ": a text or a list of texts is expected"),
        ({"a": 1}, ": a text or a list of texts is expected"),
        ([None], ".0: Input should be a valid string, got None"),
        (["the", 3], ".1: Input should be a valid string, got 3"),
        ([b"the"], ".0: Input should be a valid string"),
        (["\ud800"], ".0: not text: character 1 is half of a surrogate pair"),
        ("a\udfff", ".0: not text: character 2 is half of a surrogate pair"),
        ([float("nan")], ".0: Input should be a valid string, got nan"),
        ([["the"]], ".0: Input should be a valid string"),
    ],
)
def test_what_is_no_text_is_named(engine: Engine, predict: Callable[..., object], value: Any, message: str) -> None:
    for function in (engine.score, engine.perplexity, engine.evaluate, engine.generate):
        assert re.match(rf"(texts|prompts){re.escape(message)}", refusal(function, value))
    if isinstance(value, list):
        for task in ("score", "generate"):
            assert message in refusal(predict, engine, {"prompt": value}, {"task": task})


def test_a_bare_string_is_one_text(engine: Engine) -> None:
    text, settings = "the cat sees. a dog", {"strategy": "greedy", "max_tokens": 3}
    assert engine.perplexity(text) == engine.perplexity([text])
    assert [score.text for score in engine.score(text)] == [text] and engine.score(text)[0].log_prob == engine.score([text])[0].log_prob
    assert engine.generate(text, **settings) == engine.generate([text], **settings)
    for several in (np.array(["the", "a"]), pd.Series(["the", "a"]), (word for word in ("the", "a")), {"the": 1, "a": 2}.keys()):
        assert len(engine.score(several)) == 2


def test_a_wrong_model_says_what_would_be_right(command: Command, made: Callable[[str], Config], tmp_path: Path) -> None:  # noqa: F811
    run = made("bpe").run.dir
    for name, message in ((run, f"give {run / 'model'}"), (tmp_path, "no model here"), ("models:x@champion", "models:/NAME@ALIAS")):
        status, _, err = command("next", "--model", name, "--prompt", "the")
        assert status == 2 and message in err and message in refusal(Engine.load, name)
