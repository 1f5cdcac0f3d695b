"""From a file of prompts to JSONL: one record a line, in order, the same bytes on any number of processes."""

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Generate
from pipeline.errors import RequestError
from serve import batch_job, decoding
from serve.engine import Engine
from train.distributed import Ranks

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Generate(strategy="sample", samples=2, max_tokens=8, batch_prompts=2)
LINES = [
    b'{"prompt": "the cat", "id": "first"}',
    b"{malformed",
    b'{"prompt": "a small dog quietly eats under", "id": 7}',
    b'{"prompt": 3, "id": 8}',
    b'{"prompt": ""}',
    b'["the cat"]',
    b'{"prompt": "a \xff"}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "the", "temperature": 2}',
    b"",
    b'{"prompt": "the", "id": NaN}',
    "{\"prompt\": \"a naïve 'Ümlaut'\"}".encode(),
    b'{"prompt": "the cat"}',
]


@dataclass(frozen=True)
class FakeRanks(Ranks):
    """One of several ranks, run one after the other, rank 0 last."""

    def barrier(self) -> None: ...


def run(
    engine: Engine, requests: list[batch_job.Request], out: Path, world: int = 1, settings: Generate = SETTINGS
) -> list[dict[str, Any]]:  # fmt: skip
    for rank in reversed(range(world)):
        batch_job.run(engine, requests, settings, 5, FakeRanks(rank, world, torch.device("cpu")), out)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_every_line_has_one_record_in_order(engine: Engine, tmp_path: Path) -> None:
    records = run(engine, batch_job.read_requests(io.BytesIO(b"\n".join(LINES) + b"\n"), "p.jsonl"), tmp_path / "out.jsonl")
    assert [record["line"] for record in records] == list(range(1, len(LINES) + 1))
    bad = {record["line"]: record["error"] for record in records if "error" in record}
    assert sorted(bad) == [2, 4, 6, 7, 8, 9, 10, 11]
    assert "not JSON" in bad[2] and "UTF-8" in bad[7] and "temperature" in bad[9]
    assert all(record.keys() >= {"prompt", "generations"} for record in records if record["line"] not in bad)
    assert [record.get("id") for record in records[:5]] == ["first", None, 7, None, None]
    assert records[11]["prompt"] == "a naïve 'Ümlaut'"
    assert records[0]["generations"] == records[12]["generations"]  # the same prompt, seed and settings
    for record in records:
        for generation in record.get("generations", []):
            assert generation.keys() == {"text", "log_prob", "tokens", "finished"}
        assert len(record.get("generations", [0, 0])) == 2


def test_each_prompt_gets_what_it_gets_alone(engine: Engine, tmp_path: Path) -> None:
    requests = batch_job.read_requests(io.BytesIO(b"the cat\n\na small dog quietly\nthe\n"), "p.txt")
    together = run(engine, requests, tmp_path / "all.jsonl")
    for request, record in zip(requests, together, strict=True):
        (alone,) = run(engine, [request], tmp_path / "one.jsonl")
        for own, other in zip(alone["generations"], record["generations"], strict=True):
            assert own["text"] == other["text"] and own["log_prob"] == pytest.approx(other["log_prob"], abs=1e-4)


@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam"])
def test_the_bytes_do_not_depend_on_the_number_of_ranks(engine: Engine, tmp_path: Path, strategy: str) -> None:
    requests = batch_job.read_requests(io.BytesIO(b"\n".join(LINES)), "p.jsonl")
    settings = SETTINGS.model_copy(update={"strategy": strategy})
    for world in (1, 2, 3):
        run(engine, requests, tmp_path / f"{world}.jsonl", world, settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jsonl", "2.jsonl", "3.jsonl"]  # no parts left
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_two_processes_of_torchrun_write_the_bytes_of_one(engine: Engine, made: Any, tmp_path: Path) -> None:
    model, prompts = made("bpe").run.dir / "model", tmp_path / "p.jsonl"
    prompts.write_bytes(b"\n".join(LINES))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "serve")]
    command += ["generate", "--model", str(model), "--prompts", str(prompts), "--generate.batch_prompts", "2"]
    command += ["--strategy", "sample", "--samples", "2", "--max-tokens", "8", "--seed", "5", "--out", "two"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("8 of 13 lines are no prompts") == 1
    run(engine, batch_job.open_requests(prompts), tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "p.jsonl", "two"]


def test_several_processes_need_a_file(engine: Engine) -> None:
    with pytest.raises(RequestError, match="--out FILE"):
        batch_job.write(engine, [batch_job.Request(1)], SETTINGS, 1, FakeRanks(0, 2, torch.device("cpu")), io.StringIO())


def test_text_is_a_prompt_a_line() -> None:
    read = batch_job.read_requests(io.BytesIO(b"\xef\xbb\xbf the cat\r\n\n\xff\n{a dog}"), "p.txt")
    assert [request.prompt for request in read] == ["the cat", "", "", "{a dog}"]
    assert [bool(request.error) for request in read] == [False, False, True, False]
    assert batch_job.read_requests(io.BytesIO(b""), "p.txt") == []


def test_one_thread_computes_and_then_all_do_again(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last bits of products depend on the number of threads, so that is the same under torchrun and without."""
    before, seen, original = torch.get_num_threads(), [], decoding.generate
    monkeypatch.setattr(decoding, "generate", lambda *arguments: seen.append(torch.get_num_threads()) or original(*arguments))
    torch.set_num_threads(3)
    try:
        run(engine, [batch_job.Request(1, "the")], tmp_path / "out")
        assert (seen, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)
