"""`packlm interpolate` and `packlm ngrams`: the new folder gives every command the mixture, with the weights that were tuned."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import packlm
from packlm import config as configuration
from packlm.base.errors import PacklmError
from packlm.config import Config
from packlm.dataset import read_manifest
from packlm.dataset.views import Sentences
from packlm.interpolation.kneser_ney import kneser_ney
from tests.small_models import write_model

CommandLine = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def streams(made: Callable[[str], Config], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A model as if trained on documents, so that a cache has something to remember."""
    config = made("word")
    documents = configuration.resolve(config.model_dump() | {"run": {"name": "documents", "dir": tmp_path_factory.mktemp("run")}})
    write_model(documents, "streams")
    return documents


@pytest.fixture(scope="module")
def seeds(made: Callable[[str], Config], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models of one dataset: the second of another seed, the third of another cell and width too."""
    config = made("word")
    folders = [config.run.dir / "model"]
    for seed, model in ((12, {}), (13, {"cell": "gru", "hidden": 20, "layers": 1})):
        changed = {"run": {"name": f"seed{seed}", "dir": tmp_path_factory.mktemp("run")}, "model": config.model.model_dump() | model}
        other = configuration.resolve(config.model_dump() | changed)
        write_model(other, seed=seed)
        folders.append(other.run.dir / "model")
    return folders


def held_out(config: Config) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """(ids and ends of the training split, those of the validation split, V)"""
    manifest = read_manifest(config.dataset.dir)
    views = [Sentences.open(config.dataset.dir, manifest, split) for split in ("train", "validation")]
    parts = [part for view in views for part in (view.read(np.arange(len(view)))[1], np.cumsum(view.lengths))]
    return *parts, manifest.vocab_size


def test_the_new_folder_gives_the_mixture_everywhere(command_line: CommandLine, made: Callable[[str], Config], tmp_path: Path) -> None:
    config, out = made("word"), tmp_path / "mixed"
    model = config.run.dir / "model"
    status, table, errors = command_line(
        "serve", "interpolate", "--model", model, "--data", config.dataset.dir, "--order", "3", "--out", out
    )
    assert status == 0, errors
    ids, ends, measured, measured_ends, vocab_size = held_out(config)
    ngrams = kneser_ney(ids, ends, vocab_size, 3)
    alone, mixed = packlm.load(model), packlm.load(out)
    weight = json.loads((out / "interpolation.json").read_text())["ngrams"]["weight"]
    assert 0.05 < weight < 1
    sentences = ["the cat sees a dog.", "Ümlaut  often"]
    for text, before, after in zip(sentences, alone.score(sentences), mixed.score(sentences), strict=True):
        encoded = mixed.encoder.encode_sentences([text])[0]
        of_ngrams = np.exp(ngrams.log_probs(encoded, np.array([len(encoded)])))
        expected = np.log((1 - weight) * np.exp(before.log_probs) + weight * of_ngrams)
        assert after.log_probs.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
        assert mixed.session(text).log_prob == pytest.approx(expected[:-1].sum(), rel=1e-5)
    # the table: each perplexity once more, from its definition
    names = [line.split()[0] for line in table.splitlines()]
    assert names == ["network", "3-grams", "interpolated", "each"]
    numbers = [float(line[44:54]) for line in table.splitlines()]
    assert numbers[1] == pytest.approx(math.exp(-ngrams.log_probs(measured, measured_ends).mean()), abs=0.01)
    report = tmp_path / "report.json"
    status, _, errors = command_line("serve", "evaluate", "--model", out, "--data", config.dataset.dir, "--out", report)
    assert status == 0, errors
    values = json.loads(report.read_text())
    assert values["perplexity"] == pytest.approx(numbers[2], abs=0.01)
    assert values["adapted"].startswith("interpolated with 3-grams")
    assert numbers[2] < min(numbers[:2]) and numbers[2] <= numbers[3]
    (continuation,) = mixed.generate("the cat", strategy="greedy", max_tokens=5)[0]
    assert (
        continuation.log_prob
        == pytest.approx(mixed.session("the cat" + continuation.text).log_prob - mixed.session("the cat").log_prob, rel=1e-4)
        or continuation.finished
    )


def test_a_cache_is_mixed_in_and_remembers_the_document(command_line: CommandLine, streams: Config, tmp_path: Path) -> None:
    out, arpa = tmp_path / "mixed", tmp_path / "lm.arpa"
    status, counted, errors = command_line("preprocess", "ngrams", streams.dataset.dir, "--order", "2", "--out", arpa)
    assert status == 0, errors
    *_, measured, measured_ends, _ = held_out(streams)
    expected = kneser_ney(*held_out(streams)[:2], held_out(streams)[4], 2).log_probs(measured, measured_ends)
    assert f"validation: perplexity {math.exp(-expected.mean()):.2f} over {len(measured)} tokens" in counted
    words = ["serve", "interpolate", "--model", streams.run.dir / "model", "--data", streams.dataset.dir, "--ngrams", arpa]
    status, table, errors = command_line(*words, "--cache", "20", "--out", out)
    assert status == 0, errors
    assert [line.split("  ")[0] for line in table.splitlines()][:2] == ["network", "2-grams"]
    mixed = packlm.load(out)
    report = mixed.evaluate("the cat sees.\n")
    assert "neural cache of 20 tokens" in report["adapted"]
    surprising = mixed.score(["zebra river under.", "zebra river under."], document=True)
    by_itself = mixed.score(["zebra river under.", "zebra river under."])
    assert surprising[1].log_prob > by_itself[1].log_prob + 0.1
    status, _, errors = command_line("serve", "evaluate", "--model", out, "--data", streams.dataset.dir, "--cache", "5")
    assert status == 2 and "has a cache already" in errors


def test_networks_are_mixed_by_their_probabilities(
    command_line: CommandLine, made: Callable[[str], Config], seeds: list[Path], tmp_path: Path
) -> None:
    data, out, sentences = made("word").dataset.dir, tmp_path / "ensemble", ["the cat sees a dog.", "Ümlaut  often"]
    words = ["serve", "interpolate", "--model", seeds[0], "--network", *seeds[1:], "--data", data, "--order", "0", "--out", out]
    status, table, errors = command_line(*words)
    assert status == 0, errors
    settings = json.loads((out / "interpolation.json").read_text())
    others = [each["weight"] for each in settings["networks"]]
    weights = [1 - sum(others), *others]
    assert all(0.01 < weight < 0.99 for weight in weights), weights
    models, mixed = [packlm.load(folder) for folder in seeds], packlm.load(out)
    for scores, together in zip(zip(*(model.score(sentences) for model in models), strict=True), mixed.score(sentences), strict=True):
        expected = np.log(sum(weight * np.exp(score.log_probs) for weight, score in zip(weights, scores, strict=True)))
        assert together.log_probs.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    for text in sentences:  # step by step, and together with other prompts
        steps = [model.next(text, top=mixed.info.vocab_size) for model in models]
        expected = {token: sum(weight * dict(step)[token] for weight, step in zip(weights, steps, strict=True)) for token, _ in steps[0]}
        assert dict(mixed.next(text, top=mixed.info.vocab_size)) == pytest.approx(expected, rel=1e-4)
    alone = [mixed.generate(text, seed=3, max_tokens=8) for text in sentences]
    assert [[found] for found in mixed.generate(sentences, seed=3, max_tokens=8)] == alone
    names = [line[:44].strip() for line in table.splitlines()]
    assert names == ["network", "network 2", "network 3", "interpolated", "each half with the weights of the other"]
    for folder, line in zip([*seeds, out], table.splitlines(), strict=False):
        _, measured, _ = command_line("serve", "evaluate", "--data", data, "--out", "-", "--model", folder)
        assert float(line[44:54]) == pytest.approx(json.loads(measured)["perplexity"], abs=0.01)
    small, precise = packlm.load(out, "bf16"), mixed.score(sentences)
    for one, other in zip(small.score(sentences), precise, strict=True):
        assert one.log_probs.tolist() == pytest.approx(other.log_probs.tolist(), abs=0.1)
    assert small.score(sentences)[0].log_probs.tolist() != precise[0].log_probs.tolist()


def test_a_network_that_does_not_fit_is_refused(
    command_line: CommandLine, made: Callable[[str], Config], streams: Config, seeds: list[Path], tmp_path: Path
) -> None:
    data, out = made("word").dataset.dir, tmp_path / "ensemble"
    words = ["serve", "interpolate", "--model", seeds[0], "--data", data, "--order", "0", "--out", out, "--network"]
    cases: dict[str, list[object]] = {
        "its ids are of another tokenizer": [made("bpe").run.dir / "model"],
        "it was trained with the context documents, and the model with sentences": [streams.run.dir / "model"],
        "nowhere: no model here": [tmp_path / "nowhere"],
    }
    for message, networks in cases.items():
        status, _, errors = command_line(*words, *networks)
        assert status == 2 and message in errors, (message, errors)
    status, _, errors = command_line(*words[:-3], "--out", seeds[1], "--network", seeds[2], seeds[1])
    assert status == 2 and "would write over the model" in errors
    status, _, errors = command_line(*words[:-1], seeds[1])
    assert status == 2 and "further networks are given as --network MODEL..." in errors
    assert command_line(*words, seeds[1], seeds[2])[0] == 0
    status, _, errors = command_line(*words[:-3], "--out", tmp_path / "twice", "--network", out)
    assert status == 2 and "interpolated already" in errors
    second, third = (out / "networks" / number for number in ("2", "3"))
    second.rename(out / "moved")
    third.rename(second)
    (out / "moved").rename(third)
    with pytest.raises(PacklmError, match=r"networks/2: another network than the one that the weights were tuned for"):
        packlm.load(out)
    weights = second / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(PacklmError, match=r"networks/2/model\.safetensors: damaged"):
        packlm.load(out)


def test_what_does_not_fit_is_refused(command_line: CommandLine, made: Callable[[str], Config], streams: Config, tmp_path: Path) -> None:
    config = made("word")
    model, data = config.run.dir / "model", config.dataset.dir
    cases: dict[str, list[object]] = {
        "a cache learns from the preceding text": ["--cache", "5"],
        "there is nothing to mix with": ["--order", "0"],
        "order: Input should be less than or equal to 20": ["--order", "21"],
        "weights are tuned on one split": ["--split", "all"],
        "has no split 'test'": ["--split", "test"],
        "another tokenizer": ["--data", made("bpe").dataset.dir],
        "missing.arpa": ["--ngrams", tmp_path / "missing.arpa"],
    }
    for message, options in cases.items():
        options = options if "--data" in options else ["--data", data, *options]
        status, _, errors = command_line("serve", "interpolate", "--model", model, *options, "--out", tmp_path / "mixed")
        assert status in (1, 2) and message in errors, (message, errors)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    status, _, errors = command_line("serve", "interpolate", "--model", model, "--data", data, "--out", tmp_path / "notes")
    assert status == 2 and "is no model folder" in errors
    status, _, errors = command_line("serve", "interpolate", "--model", model, "--data", data, "--out", model)
    assert status == 2 and "would write over the model" in errors
    assert not (tmp_path / "mixed").exists()


def test_a_damaged_or_mixed_folder_is_refused(command_line: CommandLine, made: Callable[[str], Config], tmp_path: Path) -> None:
    config, out = made("word"), tmp_path / "mixed"
    words = ["serve", "interpolate", "--data", config.dataset.dir, "--order", "2", "--out"]
    assert command_line(*words, out, "--model", config.run.dir / "model")[0] == 0
    status, _, errors = command_line(*words, tmp_path / "twice", "--model", out)
    assert status == 2 and "interpolated already" in errors
    ngrams = out / "ngrams.safetensors"
    content = ngrams.read_bytes()
    ngrams.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(PacklmError, match=r"ngrams\.safetensors: damaged"):
        packlm.load(out)
    ngrams.write_bytes(content)
    settings = out / "interpolation.json"
    settings.write_text(settings.read_text().replace('"weight": 0', '"weight": 1'))
    with pytest.raises(PacklmError, match=r"interpolation\.json: ngrams\.weight"):
        packlm.load(out)
