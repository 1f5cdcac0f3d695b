"""Batch jobs of generation: one record for each line, in order, the same bytes on any number of processes."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from packlm.base import files
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Generate
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.generation import decoding
from serve.generate import batch_job, journal
from serve.generate.journal import Journal
from serve.generate.prompts import Request, open_requests, read_requests
from serve.generate.summary import Summary

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = Generate(strategy="sample", samples=2, max_tokens=8, batch_tokens=60)
LINES = [
    b'{"prompt": "the cat", "id": "first"}',
    b"{malformed",
    b'{"prompt": "a small dog quietly eats under", "id": 7}',
    b'{"prompt": 3, "id": 8}',
    b'{"prompt": ""}',
    b'["the cat"]',
    b'{"prompt": "a \xff"}',
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "the", "temprature": 2}',
    b"",
    b'{"prompt": "the", "id": NaN}',
    '{"prompt": "a naïve \'Ümlaut\'"}'.encode(),
    b'{"prompt": "the cat"}',
]


class ThreadRanks(Ranks):
    """One of several ranks, each a thread."""

    def __init__(self, rank: int, world: int, waiting: threading.Barrier, board: list[Any]):
        super().__init__(rank, world, torch.device("cpu"))
        self.__dict__ |= {"waiting": waiting, "board": board}

    def barrier(self) -> None:
        self.waiting.wait(60)

    def sum(self, values: np.ndarray) -> np.ndarray:
        self.board[self.rank] = values
        self.barrier()
        total = sum(self.board)
        self.barrier()
        return total


def run(
    engine: Engine, requests: list[Request], out: Path, world: int = 1, settings: Generate = SETTINGS
) -> list[dict[str, Any]]:  # fmt: skip
    waiting, board = threading.Barrier(world), [None] * world
    with ThreadPoolExecutor(world) as pool:
        ranks = [ThreadRanks(rank, world, waiting, board) for rank in range(world)]
        list(pool.map(lambda one: batch_job.run(engine, requests, settings, 5, one, out), ranks))
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_every_line_has_one_record_in_order(engine: Engine, tmp_path: Path) -> None:
    records = run(engine, read_requests(io.BytesIO(b"\n".join(LINES) + b"\n"), "p.jsonl"), tmp_path / "out.jsonl")
    assert [record["line"] for record in records] == list(range(1, len(LINES) + 1))
    bad = {record["line"]: record["error"] for record in records if "error" in record}
    assert sorted(bad) == [2, 4, 6, 7, 8, 9, 10, 11]
    assert "not JSON" in bad[2] and "UTF-8" in bad[7] and "did you mean temperature?" in bad[9]
    assert all(record.keys() >= {"prompt", "generations"} for record in records if record["line"] not in bad)
    assert [record.get("id") for record in records[:5]] == ["first", None, 7, None, None]
    assert records[11]["prompt"] == "a naïve 'Ümlaut'"
    assert records[0]["generations"] == records[12]["generations"]  # the same prompt, seed and settings
    for record in records:
        for generation in record.get("generations", []):
            assert generation.keys() == {"text", "log_prob", "tokens", "finished"}
        assert len(record.get("generations", [0, 0])) == 2


def test_a_prompt_in_a_batch_gets_what_it_gets_alone(engine: Engine, tmp_path: Path) -> None:
    requests = read_requests(io.BytesIO(b"the cat\n\na small dog quietly\nthe\n"), "p.txt")
    together = run(engine, requests, tmp_path / "all.jsonl")
    for request, record in zip(requests, together, strict=True):
        (alone,) = run(engine, [request], tmp_path / "one.jsonl")
        assert alone["generations"] == record["generations"]


@pytest.mark.parametrize("strategy", ["greedy", "sample", "beam"])
def test_the_bytes_do_not_depend_on_the_number_of_ranks(engine: Engine, tmp_path: Path, strategy: str) -> None:
    requests = read_requests(io.BytesIO(b"\n".join(LINES)), "p.jsonl")
    settings = SETTINGS.model_copy(update={"strategy": strategy})
    for world in (1, 2, 3):
        run(engine, requests, tmp_path / f"{world}.jsonl", world, settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.jsonl", "2.jsonl", "3.jsonl"]  # no parts left
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_two_processes_of_torchrun_write_the_bytes_of_one(engine: Engine, made: Any, tmp_path: Path) -> None:
    model, prompts = made("bpe").run.dir / "model", tmp_path / "p.jsonl"
    prompts.write_bytes(b"\n".join(LINES))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "serve")]
    command += ["generate", "--model", str(model), "--prompts", str(prompts), "--generate.batch_tokens", "60"]
    command += ["--strategy", "sample", "--samples", "2", "--max-tokens", "8", "--seed", "5", "--out", "two"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("8 of 13 lines are not prompts") == 1
    run(engine, open_requests(prompts), tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "p.jsonl", "two"]


def test_several_processes_need_a_file(engine: Engine) -> None:
    with pytest.raises(RequestError, match="--out FILE"):
        batch_job.write(engine, [Request(1)], SETTINGS, 1, Ranks(0, 2, torch.device("cpu")), io.StringIO())


def test_a_line_of_text_is_a_prompt() -> None:
    read = read_requests(io.BytesIO(b"\xef\xbb\xbf the cat\r\n\n\xff\n{a dog}"), "p.txt")
    assert [request.prompt for request in read] == ["the cat", "", "", "{a dog}"]
    assert [bool(request.error) for request in read] == [False, False, True, False]
    assert read_requests(io.BytesIO(b""), "p.txt") == []


def test_generation_uses_one_thread_and_restores_their_number(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last bits of products depend on the number of threads, so that is the same under torchrun and without."""
    before, seen, original = torch.get_num_threads(), [], decoding.generate
    monkeypatch.setattr(decoding, "generate", lambda *arguments: seen.append(torch.get_num_threads()) or original(*arguments))
    torch.set_num_threads(3)
    try:
        run(engine, [Request(1, "the")], tmp_path / "out")
        assert (seen, torch.get_num_threads()) == ([1], 3)
    finally:
        torch.set_num_threads(before)


def test_a_line_may_have_settings_of_its_own(engine: Engine, tmp_path: Path) -> None:
    lines = [
        {"prompt": "the cat"},
        {"prompt": "the cat", "strategy": "beam", "beams": 3, "max_tokens": 4},
        {"prompt": "the cat", "seed": 9},
        {"prompt": "the cat", "top_p": 2, "samples": 0},
    ]
    stream = io.BytesIO("\n".join(map(json.dumps, lines)).encode())
    plain, beams, other, wrong = run(engine, read_requests(stream, "p.jsonl"), tmp_path / "out.jsonl")
    (expected,) = engine.generate(["the cat"], 5, strategy="beam", beams=3, samples=2, max_tokens=4)
    assert [item["text"] for item in beams["generations"]] == [item.text for item in expected]
    assert other["generations"] != plain["generations"] and len(plain["generations"]) == 2
    assert "generate.top_p" in wrong["error"] and "generate.samples" in wrong["error"]


def test_parquet_holds_what_jsonl_holds(engine: Engine, tmp_path: Path) -> None:
    requests = read_requests(io.BytesIO(b"\n".join(LINES)), "p.jsonl")
    records = run(engine, requests, tmp_path / "out.jsonl")
    batch_job.run(engine, requests, SETTINGS, 5, Ranks(0, 1, torch.device("cpu")), tmp_path / "out.parquet")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["id"] for row in rows[:3]] == ["first", None, "7"]
    for row, record in zip(rows, records, strict=True):
        assert {name: value for name, value in row.items() if name != "id" and value is not None} == {
            name: value for name, value in record.items() if name != "id"
        }


class Killed(BaseException):
    """Stands for the end of a process."""


@pytest.mark.parametrize("worlds", [(1, 1), (1, 3)])
def test_a_killed_job_generates_only_the_missing_records(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worlds: tuple[int, int]
) -> None:
    requests = read_requests(io.BytesIO(b"\n".join(LINES)), "p.jsonl")
    run(engine, requests, tmp_path / "whole.jsonl")
    batch_sizes: list[int] = []
    original = engine.continue_batch

    def counted(prompts: Any, *others: Any) -> Any:
        batch_sizes.append(len(prompts))
        return original(prompts, *others)

    def killed(prompts: Any, *others: Any) -> Any:
        if len(batch_sizes) == 2:
            raise Killed
        return counted(prompts, *others)

    out = tmp_path / "killed.jsonl"
    monkeypatch.setattr(engine, "continue_batch", killed)
    with pytest.raises(Killed):
        batch_job.run(engine, requests, SETTINGS, 5, Ranks(0, 1, torch.device("cpu")), out)
    assert not out.exists()
    journal = tmp_path / ".killed.jsonl.parts" / "rank-00000"
    journal.write_bytes(journal.read_bytes()[:-5])  # the last line was cut short: its batch is generated again
    (tmp_path / ".killed.jsonl.123.tmp").write_text("half")  # of a job that was killed while it merged its records
    before, batch_sizes[:] = batch_sizes[:], []
    monkeypatch.setattr(engine, "continue_batch", counted)
    run(engine, requests, out, worlds[1])
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(before) == 2 and len(batch_sizes) > 0
    batches_of_resumed = list(batch_sizes)
    run(engine, requests, tmp_path / "undisturbed.jsonl")
    assert len(batch_sizes) - len(batches_of_resumed) == len(batches_of_resumed) + 1  # one batch was in the journal
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.jsonl", "undisturbed.jsonl", "whole.jsonl"]


def test_a_signal_ends_a_job_and_keeps_its_records(made: Any, tmp_path: Path) -> None:
    prompts = tmp_path / "p.txt"
    prompts.write_text("".join(f"the cat {number}\n" for number in range(300)))
    command = [sys.executable, str(ROOT / "serve"), "generate", "--model", str(made("bpe").run.dir / "model"), "--prompts", str(prompts)]
    command += ["--generate.batch_tokens", "200", "--samples", "2", "--max-tokens", "20", "--seed", "5", "--strategy", "sample"]
    with subprocess.Popen([*command, "--out", "out.jsonl"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) as job:
        journal_file = tmp_path / ".out.jsonl.parts" / "rank-00000"
        while not (journal_file.exists() and journal_file.stat().st_size) and job.poll() is None:
            time.sleep(0.01)
        job.terminate()
        assert job.stderr is not None and "resume by running the same command again" in job.stderr.read()
    assert job.returncode == 75 and not (tmp_path / "out.jsonl").exists()
    assert 0 < len(Journal(tmp_path / "out.jsonl").done()) < 300


def test_records_of_other_settings_are_dropped(engine: Engine, tmp_path: Path) -> None:
    job_journal = Journal(tmp_path / "out.jsonl")
    job_journal.begin({"weights": "other"})
    with job_journal.writer(0) as stream:
        journal.append(stream, [(1, '{"line": 1, "prompt": "stale"}')])
    (record,) = run(engine, [Request(1, "the")], tmp_path / "out.jsonl")
    assert record["prompt"] == "the"


def test_the_speed_is_that_of_the_model_whatever_is_repeated(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal prompts are generated once, and their records written many times."""
    seconds, continue_batch, append = [0.0], engine.continue_batch, journal.append

    def lasting(duration: float, function: Any) -> Any:
        def run(*arguments: Any) -> Any:
            seconds[0] += duration
            return function(*arguments)

        return run

    monkeypatch.setattr(batch_job.time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(engine, "continue_batch", lasting(0.5, continue_batch))
    monkeypatch.setattr(journal, "append", lasting(100, append))
    requests = [Request(number, "the cat") for number in range(1, 200)]
    values = batch_job.run(engine, requests, SETTINGS, 5, Ranks(0, 1, torch.device("cpu")), tmp_path / "out.jsonl")
    assert values is not None and values["prompts"] == 199
    assert values["tokens_per_second"] == pytest.approx(values["tokens"] / 199 / 0.5)


def test_two_jobs_cannot_write_one_file(engine: Engine, tmp_path: Path) -> None:
    with files.lock(tmp_path / ".out.jsonl.lock"), pytest.raises(PacklmError, match=r"out.jsonl: in use by process \d+"):
        run(engine, [Request(1, "the")], tmp_path / "out.jsonl")


def test_the_summary_equals_counting_by_hand(engine: Engine, tmp_path: Path) -> None:
    summary = Summary()
    for text, log_prob, tokens in (("a b a b a b", -8.0, 7), ("a b", -2.0, 3)):
        summary.add({"generations": [{"text": text, "log_prob": log_prob, "tokens": tokens, "finished": tokens == 7}]})
    summary.add({"error": "no"})
    values = summary.values()
    assert (values["prompts"], values["refused"], values["generations"], values["finished"], values["tokens"]) == (2, 1, 2, 1, 10)
    assert values["self_perplexity"] == pytest.approx(np.exp(1.0)) and values["tokens_per_generation"]["p50"] == 5.0
    assert values["distinct_1"] == 2 / 8 and values["distinct_2"] == 2 / 6 and values["distinct_4"] == 2 / 3
    assert values["repetition"] == 1 / 3  # a b a b, b a b a, a b a b
    assert Summary().values()["self_perplexity"] is None
