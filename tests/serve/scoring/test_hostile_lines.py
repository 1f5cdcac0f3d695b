"""A line that is no prompt, sentence, pair or n-best list, whatever it is, becomes its own record; the others are answered."""

import io
import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from packlm.base.errors import PacklmError, RequestError
from packlm.config import Config, Generate
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.generation import decoding
from packlm.model.finite import NotFinite
from serve import lines
from serve.generate import batch_job
from serve.generate.prompts import read_requests
from serve.rescore.formats import jsonl

ALONE = Ranks(0, 1, torch.device("cpu"))
FIELDS: dict[str, dict[str, Any]] = {
    "generate": {"prompt": "the cat"}, "score": {"text": "the cat"}, "pairs": {"sentence_good": "the cat", "sentence_bad": "a dog"},
    "rescore": {"id": "u", "hypotheses": [{"text": "the cat", "score": -1.5}]},
}  # fmt: skip
NUMBERS = [
    "1e400",
    "-1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "1" * 5_000,
    "[" * 100_000 + "]" * 100_000,
    "[" * 200 + "]" * 200,
    '"\\ud800"',
]
"""Values of a field that make any line wrong."""
OTHERS = [
    b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5_000, b"nul", b"null", b"[]", b'"', b"{}",
    b'{"prompt": 1, "text": 1, "sentence_good": 1, "id": 1}', b"a" * (lines.MAX_BYTES + 1), b"\x1b[2J",
]  # fmt: skip
OVERRIDES = [
    '"max_tokens": 1000000000', '"max_tokens": 1e300', '"samples": 1000000', '"samples": 100000, "max_tokens": 100000', '"beams": -1',
    '"strategy": "beam", "beams": 100000, "max_tokens": 1000000', '"temperature": 1e-300', '"temperature": 0', '"length_penalty": 1e9',
    '"banned": ["' + '", "'.join(map(str, range(10_001))) + '"]', '"stop": {"a": 1}', '"seed": 1' + "0" * 400, '"seed": -1', '"top_p": "x"',
    '"no_repeat_ngram": 100000', '"strategy": "sample\\n"', '"temprature' + "e" * 100_000 + '": 1', '"prompts": ["a"]', '"batch_tokens": 1',
]  # fmt: skip


def line_of(command: str, extra: str = "") -> bytes:
    text = json.dumps(FIELDS[command])
    return (text[:-1] + f", {extra}}}" if extra else text).encode()


def hostile_lines(command: str) -> list[bytes]:
    fields = [line_of(command, f'"other": {value}') for value in NUMBERS]
    if command == "generate":
        fields = [line_of(command, f'"id": {value}') for value in NUMBERS] + [line_of(command, override) for override in OVERRIDES]
        fields.append(json.dumps({"prompt": "a" * 1_000_001}).encode())
    return OTHERS + fields


@pytest.mark.parametrize("command", FIELDS)
def test_each_line_has_its_record_and_the_good_ones_are_answered(
    command: str, made: Callable[[str], Config], tmp_path: Path, command_line: Callable[..., tuple[int, str, str]]
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    bad = hostile_lines(command)
    random.Random(seed).shuffle(bad)
    cut = len(bad) // 2
    good = [line_of(command), line_of(command).replace(b'"u"', b'"v"'), line_of(command).replace(b'"u"', b'"w"')]
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(b"\n".join([good[0], *bad[:cut], good[1], *bad[cut:], good[2]]) + b"\n")
    option = {"generate": "--prompts", "rescore": "--nbest"}.get(command, "--input")
    more = ["--lm-weight", "1"] if command == "rescore" else ["--max-tokens", "3"] if command == "generate" else []
    status, _, err = command_line("serve", command, "--model", made("bpe").run.dir / "model", option, path, "--out", out, *more)
    assert status == 0 and "Traceback" not in err, err[-2000:]
    assert all(len(line) < 2000 for line in err.splitlines())

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = out.read_text(encoding="utf-8")
    records = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert len(records) == len(bad) + 3 and all(len(line) < 5_000 for line in text.splitlines())
    answered = [number for number, record in enumerate(records) if "error" not in record]
    assert answered == [0, cut + 1, len(bad) + 2]
    assert records[0].get("generations") == records[cut + 1].get("generations")


def test_a_line_of_any_length_takes_the_memory_of_the_longest_that_is_read() -> None:
    stream = io.BytesIO(b"x" * (10 * lines.MAX_BYTES) + b"\nthe cat\n")
    tracemalloc.start()
    first, second = map(lines.decode, lines.read(stream))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert first == ("", "longer than 8 MiB") and second == ("the cat", "")
    assert peak < 4 * lines.MAX_BYTES
    longest = b"x" * (lines.MAX_BYTES - 1) + b"\n"
    assert [lines.decode(line)[1] for line in lines.read(io.BytesIO(longest + longest))] == ["", ""]


@pytest.mark.parametrize("depth", [lines.MAX_DEPTH - 1, lines.MAX_DEPTH, 10_000])
def test_what_is_nested_less_deeply_is_passed_through(depth: int) -> None:
    value, error = lines.json_value('{"id": ' + "[" * depth + "]" * depth + "}")
    assert (error == "" and bool(value)) == (depth < lines.MAX_DEPTH)


@pytest.mark.parametrize("failure", [MemoryError("cannot allocate"), RuntimeError("can't allocate memory: you tried"), NotFinite("nan")])
def test_a_batch_that_fails_names_its_lines(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*arguments: Any) -> None:
        raise failure

    monkeypatch.setattr(decoding, "generate", fail)
    requests = read_requests(io.BytesIO(b'{"prompt": "the"}\n{\n{"prompt": "a"}\n'), "p.jsonl")
    with pytest.raises((MemoryError, PacklmError), match="lines 3, 1"):
        batch_job.run(engine, requests, Generate(), 1, ALONE, tmp_path / "out.jsonl")


def test_rows_times_vocabulary_are_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "MAX_PROBABILITIES", 1000)
    with pytest.raises(RequestError, match=r"generate\.beams = 100: at most 3 with a vocabulary of 270"):
        engine.generate(["the"], strategy="beam", beams=100)


def test_scores_that_overflow_are_problems(tmp_path: Path) -> None:
    path = tmp_path / "n.jsonl"
    path.write_text("".join(f'{{"id": "{n}", "hypotheses": [{{"text": "a", "score": {n}}}]}}\n' for n in ("1e101", "-1e308", "1e99")))
    lists = jsonl.read(path, "cost", 10.0)
    assert [one.id for one in lists.utterances] == ["1e99"] and len(lists.problems) == 2
