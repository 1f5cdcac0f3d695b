"""Every number among the settings has bounds: an absurd one is refused before any work, and named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packlm import config as configuration
from packlm.base.errors import RequestError
from packlm.config import Config

ABSURD = ["1e300", "1" + "0" * 30, "-1e300", "inf", "-inf", "nan", "9" * 5000]
TOML = ["1e300", "-1e300", "inf", "nan", "0x" + "f" * 5000]


def _numbers(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The numbers that a JSON schema allows, at any depth."""
    inner = [schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ()), *schema.get("oneOf", ())]
    numbers = [number for each in inner if isinstance(each, dict) for number in _numbers(each)]
    return [schema, *numbers] if schema.get("type") in ("integer", "number") else numbers


def _numeric_settings() -> dict[str, list[dict[str, Any]]]:
    settings: dict[str, list[dict[str, Any]]] = {}
    for section, field in Config.model_fields.items():
        schema = field.annotation.model_json_schema()["properties"]  # type: ignore[union-attr]
        settings |= {f"{section}.{key}": numbers for key, value in schema.items() if (numbers := _numbers(value))}
    return settings


NUMERIC = _numeric_settings()


def test_all_of_them_are_found() -> None:
    assert len(NUMERIC) > 60
    assert {"model.hidden", "train.lr", "rescore.lm_weight", "rescore.log_base", "dataset.slurm", "dataset.workers"} <= NUMERIC.keys()


@pytest.mark.parametrize("key", NUMERIC)
def test_it_has_a_lower_and_an_upper_bound(key: str) -> None:
    for number in NUMERIC[key]:
        assert {"maximum", "exclusiveMaximum"} & number.keys() and {"minimum", "exclusiveMinimum"} & number.keys(), number


@pytest.mark.parametrize("key", sorted(NUMERIC.keys() - {"dataset.slurm"}))
def test_absurd_values_are_refused_with_the_key(key: str, tmp_path: Path) -> None:
    section, name = key.split(".")
    for value in ABSURD:
        with pytest.raises(RequestError, match=key.replace(".", r"\.") + ": ") as caught:
            configuration.load(arguments=[f"--{key}={value}"], environment={})
        assert len(str(caught.value)) < 500
    for value in TOML:
        (tmp_path / "absurd.toml").write_text(f"[{section}]\n{name} = {value}\n")
        with pytest.raises(RequestError, match=key.replace(".", r"\.") + ": "):
            configuration.load(tmp_path / "absurd.toml", environment={})


@pytest.mark.parametrize("value", ["1e300", "1" + "0" * 30, "inf", "nan"])
def test_all_are_named_at_once_with_status_2(command_line: Callable[..., tuple[int, str, str]], value: str) -> None:
    keys = sorted(NUMERIC.keys() - {"dataset.slurm"})
    status, out, err = command_line("pipeline", "config", *(f"--{key}={value}" for key in keys))
    assert (status, out) == (2, "")
    assert {line.split(":")[0].strip() for line in err.splitlines()[1:]} == set(keys)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("--model.layers=100000", "model.layers: Input should be less than or equal to 1000, got 100000"),
        ("--model.hidden=1000000000", "model.hidden: Input should be less than or equal to 1000000"),
        ("--model.layers=1000 --model.hidden=1000000", "layers and hidden make about 8e+15 weights"),
        ("--train.epochs=100000000", "train.epochs: Input should be less than or equal to 1000000"),
        ("--train.accumulate=1000000", "train.accumulate: Input should be less than or equal to 100000"),
    ],
)
def test_the_bound_is_said(arguments: str, part: str) -> None:
    with pytest.raises(RequestError) as caught:
        configuration.load(arguments=arguments.split(), environment={})
    assert part in str(caught.value)


def test_large_but_possible_values_are_accepted() -> None:
    """The largest recurrent networks: 8,192 units, 800,000 words (Jozefowicz et al. 2016), 10**11 words of text (Shazeer et al. 2017)."""
    large = {
        "model.layers": 2, "model.hidden": 65_536, "tokenizer.vocab_size": 5_000_000, "train.streams": 100_000, "train.max_steps": 10**9,
        "train.global_batch_tokens": 10**8, "dataset.shards": 50_000, "train.lr": 1000.0, "corpus.max_document_bytes": 1 << 36,
        "generate.max_tokens": 500_000, "train.timeout_seconds": 86_400.0,
    }  # fmt: skip
    config = configuration.load(arguments=[f"--{key}={json.dumps(value)}" for key, value in large.items()], environment={})
    for key, value in large.items():
        section, name = key.split(".")
        assert getattr(getattr(config, section), name) == value
