"""`packlm states`: a vector of each layer for every word, equal to reading the sentence token by token."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from packlm.config import Config
from packlm.engine import Engine
from packlm.scoring import states as scoring_states
from tests.small_models import trained_on

CommandLine = Callable[..., tuple[int, str, str]]
SENTENCES = ["the cat sees  a naïve dog.", "", "Ümlaut eats", "unseen zebra often."]


def reference(engine: Engine, sentences: list[str], documents: bool) -> list[tuple[int, int, str, list[np.ndarray]]]:
    """(sentence, position, word, vector of each layer), by reading token after token."""
    expected, state = [], None
    for number, text in enumerate(sentences, 1):
        (reading,) = engine.read(text, state if documents else None)
        state = reading.state
        starts, ends = engine.encoder.offsets([text])
        words, position = text.split(), 0
        for index, word in enumerate(words):
            position = text.index(word, position) + len(word)
            last = int(
                (starts[: int(ends[0]) - 1] < position).sum()
            )  # tokens that begin before the end of the word; `<eos>` is before them
            expected.append((number, index + 1, word, [layer[last].numpy() for layer in reading.layers]))
    return expected


@pytest.mark.parametrize("name", ["bpe", "character"])
@pytest.mark.parametrize("documents", [False, True])
def test_a_words_vector_is_the_state_after_its_last_token(
    command_line: CommandLine, made: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, documents: bool
) -> None:
    monkeypatch.setattr(scoring_states, "CHUNK_SENTENCES", 2)
    model = made(name).run.dir / "model"
    engine = Engine.load(model)
    (tmp_path / "in.tsv").write_text("item\ttext\n" + "".join(f"a\t{text}\n" for text in SENTENCES), encoding="utf-8")
    options = ["--score.context", "document" if documents else "sentence", "--evaluate.batch_tokens", "7"]
    for suffix in ("parquet", "npz"):
        status, _, errors = command_line(
            "serve", "states", "--model", model, "--input", tmp_path / "in.tsv", "--out", tmp_path / f"out.{suffix}", *options
        )
        assert status == 0, errors
    table, arrays = pq.read_table(tmp_path / "out.parquet").to_pydict(), np.load(tmp_path / "out.npz")
    expected = reference(engine if not documents else trained_on(engine, "streams"), SENTENCES, documents)
    assert list(zip(table["sentence"], table["position"], table["word"], strict=True)) == [row[:3] for row in expected]
    assert table["item"] == ["a"] * len(expected)
    layers = engine.info.model.layers + 1
    assert [key for key in table if key.startswith("layer_")] == [f"layer_{layer}" for layer in range(layers)]
    for layer in range(layers):
        vectors = np.array(table[f"layer_{layer}"], np.float32)
        np.testing.assert_allclose(vectors, [row[3][layer] for row in expected], rtol=1e-4, atol=1e-6)
        assert arrays[f"layer_{layer}"].dtype == np.float32 and np.array_equal(arrays[f"layer_{layer}"], vectors)
    for key in ("item", "sentence", "position", "word"):
        assert arrays[key].tolist() == table[key]


def test_tokens_some_layers_several_files_and_lines_that_are_wrong(
    command_line: CommandLine, made: Callable[[str], Config], tmp_path: Path
) -> None:
    model = made("bpe").run.dir / "model"
    (tmp_path / "a.jsonl").write_text('{"text": "the cat", "item": 7}\n{"text": 3}\n{"text": "a dog"}\n')
    (tmp_path / "b.txt").write_text("eats\n")
    out = tmp_path / "out.parquet"
    words = ["--model", model, "--input", tmp_path / "a.jsonl", tmp_path / "b.txt", "--out", out, "--unit", "token", "--layers", "2,0"]
    status, _, errors = command_line("serve", "states", *words)
    assert status == 0 and "1 of 4 lines are not sentences" in errors
    table, engine = pq.read_table(out), Engine.load(model)
    readings = engine.read(["the cat", "a dog", "eats"])
    assert table["token"].to_pylist() == [token for reading in readings for token in reading.tokens[1:]]
    expected = np.concatenate([reading.layers[2][1:].numpy() for reading in readings])
    np.testing.assert_allclose(np.array(table["layer_2"].to_pylist()), expected, rtol=1e-4, atol=1e-6)
    assert [name for name in table.schema.names if "layer" in name] == ["layer_2", "layer_0"]
    assert set(zip(table["file"].to_pylist(), table["item"].to_pylist(), table["sentence"].to_pylist(), strict=True)) == {
        (str(tmp_path / "a.jsonl"), "7", 1), (str(tmp_path / "a.jsonl"), "3", 3), (str(tmp_path / "b.txt"), "1", 1)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--out", "x.csv"], "ends in .parquet or .npz"),
        (["--out", "x.npz", "--layers", "1,a"], "--layers 1,a: expected all"),
        (["--out", "x.npz", "--layers", "1,1"], "--layers 1,1: expected all"),
        (["--out", "x.npz", "--layers", "0,9"], "the model has layers 0 (the embedding) to 2"),
        ([], "--out"),
    ],
)
def test_a_wrong_request_is_named(
    command_line: CommandLine, made: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[Any], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("the cat\n")
    status, _, errors = command_line("serve", "states", "--model", made("bpe").run.dir / "model", "--input", "in.txt", *words)
    assert status == 2 and named in errors and len(errors.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_an_empty_input_is_an_empty_table(command_line: CommandLine, made: Callable[[str], Config], tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("")
    for suffix in ("parquet", "npz"):
        out = tmp_path / f"out.{suffix}"
        status, _, errors = command_line(
            "serve", "states", "--model", made("bpe").run.dir / "model", "--input", tmp_path / "in.txt", "--out", out
        )
        assert status == 0 and "the input is empty" in errors
        assert len(pq.read_table(out) if suffix == "parquet" else np.load(out)["layer_1"]) == 0
