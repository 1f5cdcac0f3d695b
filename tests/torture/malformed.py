"""Gives commands malformed input: corpora, prompts, sentences, pairs, n-best lists, tokenizers and configurations that are none."""

import contextlib
import gzip
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from .verdict import Outcome, Verdict, judge
from .world import World

_LARGE = 300_000
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "line feeds": b"\n" * 100,
    "NUL": b"a\x00b\nc d\n",
    "invalid UTF-8": b"the cat \xff\xfe sat\n\xc3\n",
    "UTF-16": "the cat\n".encode("utf-16"),
    "a BOM": b"\xef\xbb\xbfthe cat\n",
    "CR alone": b"the cat\rthe dog\r",
    "one long line": b"the cat " * (_LARGE // 8),
    "a long word": b"x" * _LARGE,
    "no letters": bytes(range(1, 32)) * 9,
    "random bytes": random.Random(5).randbytes(5000),
    "combining marks": ("e" + "\u0301" * 20_000 + "\n").encode(),
    "spelled tokens": b"<eos> <unk> <pad> </s>\n",
    "surrogates as UTF-8": b"a \xed\xa0\x80 b\n",
    "right to left": "\u202ethe cat\u202c\n".encode(),
}
JSON_LINES: dict[str, bytes] = {
    "nested 100,000 deep": b"[" * 100_000 + b"\n",
    "an object nested deep": b'{"prompt":' * 50_000 + b"\n",
    "5,000 digits": b'{"prompt": "a", "id": ' + b"9" * 5000 + b"}\n",
    "NaN": b'{"prompt": "a", "id": NaN}\n',
    "1e400": b'{"prompt": "a", "id": 1e400, "text": 1e400}\n',
    "an unpaired surrogate": b'{"prompt": "\\ud800", "text": "\\ud800"}\n',
    "wrong types": b'{"prompt": 1}\n{"prompt": null}\n[]\n1\n"a"\nnull\ntrue\n',
    "a huge number of tokens": b'{"prompt": "a", "max_tokens": 1000000000}\n',
    "a negative count": b'{"prompt": "a", "samples": -1, "beams": 0}\n',
    "huge beams": b'{"prompt": "a", "strategy": "beam", "beams": 100000000}\n',
    "an unknown key": b'{"prompt": "a", "promt": 1}\n',
    "a doubled key": b'{"prompt": "a", "prompt": "b"}\n',
    "cut": b'{"prompt": "a"',
    "a list as seed": b'{"prompt": "a", "seed": [1]}\n',
    "a huge seed": b'{"prompt": "a", "seed": 99999999999999999999999}\n',
    "single quotes": b"{'prompt': 'a'}\n",
    "a long prompt": b'{"prompt": "' + b"the cat " * 100_000 + b'"}\n',
    "infinite temperature": b'{"prompt": "a", "temperature": 1e308}\n',
    "stop of all kinds": b'{"prompt": "a", "stop": ["", null, 1]}\n',
}


class Case(NamedTuple):
    """An input that is malformed, and the command that reads it."""

    name: str
    words: tuple[str, ...]
    make: Callable[[Path], object]
    """Makes the input at a path."""
    path: str


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _preprocess(name: str, path: str, make: Callable[[Path], object], *more: str) -> Case:
    words = ("preprocess", "--config", "config.toml", "--dataset.dir", "new", "--corpus.train", path.split("/")[0], *more)
    return Case(f"preprocess: {name}", words, make, path)


def _gzip_bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(b"the cat sat on the mat. " * (1 << 19)))


def _parquet(table: pa.Table) -> Callable[[Path], object]:
    return lambda path: pq.write_table(table, path)


_MODEL = ("--model", "run/model")
_FILE = ("--corpus.train", "corpus", "--tokenizer.kind", "file", "--tokenizer.file")
_NESTED = '{"a":' * 5000 + "1" + "}" * 5000
CASES = (
    *(_preprocess(name, "bad/a.txt", _bytes(content)) for name, content in CONTENTS.items()),
    *(_preprocess(f"JSONL with {name}", "bad/a.jsonl", _bytes(content)) for name, content in list(JSON_LINES.items())[:8]),
    _preprocess("gzip bomb", "bad/a.txt.gz", _gzip_bomb),
    _preprocess("cut gzip", "bad/a.txt.gz", _bytes(gzip.compress(b"the cat " * 9999)[:-40])),
    _preprocess("no gzip", "bad/a.txt.gz", _bytes(b"the cat")),
    _preprocess("zstd of nothing", "bad/a.txt.zst", _bytes(b"\x28\xb5\x2f\xfd")),
    _preprocess("no Parquet", "bad/a.parquet", _bytes(b"PAR1" + bytes(99) + b"PAR1")),
    _preprocess("Parquet of numbers", "bad/a.parquet", _parquet(pa.table({"text": [1, 2, 3]}))),
    _preprocess("Parquet without text", "bad/a.parquet", _parquet(pa.table({"number": [1, 2, 3]}))),
    _preprocess("CSV with an open quote", "bad/a.csv", _bytes(b'text\n"the cat\nthe dog\n')),
    _preprocess("CSV with other columns", "bad/a.csv", _bytes(b"a,b\n1,2,3\n")),
    _preprocess("a tokenizer that is none", "bad.json", _bytes(b"{}"), *_FILE, "bad.json"),
    _preprocess("a tokenizer nested deep", "bad.json", _bytes(_NESTED.encode()), *_FILE, "bad.json"),
    _preprocess("a SentencePiece model that is none", "bad.model", _bytes(b"\x0a\x05abc"), *_FILE, "bad.model"),
    *(
        Case(
            f"generate: {name}", ("serve", "generate", *_MODEL, "--prompts", "bad.jsonl", "--max-tokens", "5"), _bytes(content), "bad.jsonl"
        )
        for name, content in JSON_LINES.items()
    ),
    *(
        Case(
            f"generate: text with {name}",
            ("serve", "generate", *_MODEL, "--prompts", "bad.txt", "--max-tokens", "3"),
            _bytes(content[:200_000]),
            "bad.txt",
        )
        for name, content in CONTENTS.items()
    ),
    *(
        Case(f"score: {name}", ("serve", "score", *_MODEL, "--input", "bad.txt"), _bytes(content[:200_000]), "bad.txt")
        for name, content in CONTENTS.items()
    ),
    *(
        Case(
            f"score: JSONL with {name}",
            ("serve", "score", *_MODEL, "--input", "bad.jsonl", "--format", "jsonl"),
            _bytes(content),
            "bad.jsonl",
        )
        for name, content in JSON_LINES.items()
    ),
    *(
        Case(f"evaluate: {name}", ("serve", "evaluate", *_MODEL, "--text", "bad.txt", "--out", "-"), _bytes(content[:200_000]), "bad.txt")
        for name, content in CONTENTS.items()
    ),
    *(
        Case(
            f"{verb}: {name}",
            ("serve", verb, *_MODEL, option, "bad.jsonl"),
            _bytes(content.replace(b'"prompt"', key)),
            "bad.jsonl",
        )
        for verb, option, key in (("pairs", "--input", b'"sentence_good"'), ("rescore", "--nbest", b'"utterance"'))
        for name, content in JSON_LINES.items()
    ),
    *(
        Case(f"config: {name}", ("pipeline", "config", "--config", "bad.toml"), _bytes(content), "bad.toml")
        for name, content in CONTENTS.items()
    ),
    Case("config: nested deep", ("pipeline", "config", "--config", "bad.toml"), _bytes(b"a = " + b"[" * 100_000), "bad.toml"),
    Case("config: 5,000 digits", ("pipeline", "config", "--config", "bad.toml"), _bytes(b"[train]\nepochs = " + b"9" * 5000), "bad.toml"),
    Case("argument: nested deep", ("pipeline", "config", "--corpus.drop_lines", "[" * 20_000), os.fspath, "bad"),
    Case("argument: 5,000 digits", ("pipeline", "config", "--train.epochs", "9" * 5000), os.fspath, "bad"),
)


def trial(world: World, number: int, generator: random.Random) -> Verdict:
    """One malformed input. Status 0 is right if every record of it is answered or counted, which the rest of the table compares."""
    case = CASES[number % len(CASES)]
    path = world.folder / case.path
    path.parent.mkdir(exist_ok=True)
    case.make(path)
    ended = world.run([*case.words])
    verdict = judge(ended, _not_finite(ended.out), f"{case.name}: {' '.join(word[:60] for word in case.words)}")
    lines = path.read_bytes().removesuffix(b"\n").count(b"\n") + 1 if path.suffix == ".jsonl" and path.stat().st_size else 0
    if verdict.outcome is Outcome.OK and case.words[1] == "generate" and lines and len(ended.out.splitlines()) != lines:
        return Verdict(Outcome.LOST, f"{case.name}: {lines} lines, {len(ended.out.splitlines())} records\n{ended.errors[-500:]}")
    return verdict


def _not_finite(text: str) -> list[str]:
    """What standard output has that no JSON has."""
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith(("{", "[")):
            with contextlib.suppress(ValueError):
                json.loads(line, parse_constant=problems.append)
            if problems:
                return [f"line {number} holds {problems[0]}"]
    return []
