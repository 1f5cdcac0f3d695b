"""Continues many prompts: a file of prompts in (`prompts`), JSONL or Parquet out, one record for every line, in order.

    {"line": 1, "id": ..., "settings": {...}, "prompt": ..., "generations": [{"text", "log_prob", "tokens", "finished"}, ...]}
    {"line": 2, "error": ...}    a line that is not a prompt does not stop the others

`settings` are those that the prompt's line has of its own; `unknown` counts the unknown tokens of a prompt that has any. Equal requests are
generated once. The others are sorted by length and cut into batches of about `generate.batch_tokens`, which the ranks share under torchrun.
The records of a batch are in a journal before the next one begins, so a killed job resumes after its last batch, and ends with the same
bytes on any number of ranks: each rank computes with one thread, because the last bits of a matrix product may depend on the number of
threads.
"""

import heapq
import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from packlm.base import errors, files, json_text
from packlm.base import log as logs
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Generate
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.generation import decoding
from packlm.generation.decoding import prompt_batches
from packlm.model.finite import NotFinite

from . import journal
from .journal import Journal
from .prompts import Request
from .record_files import write_records
from .summary import Summary

log = logging.getLogger("packlm")

FORMAT = 2
"""Format of the journal's records: a job that another version began starts over."""

NAMED_LINES = 8
"""Lines of a batch that a message names."""
LineRecord = tuple[int, str]
"""(line number, record as JSON)."""


@dataclass(frozen=True)
class _PromptGroup:
    """A prompt with its settings, for all requests that are equal."""

    prompt: tuple[np.ndarray, np.ndarray]
    """From `Engine.encode_prompt`."""
    settings: Generate
    seed: int
    indices: list[int]
    """The requests."""


@errors.resumable()
def run(engine: Engine, requests: Sequence[Request], settings: Generate, seed: int, ranks: Ranks, out: Path) -> dict[str, Any] | None:
    """All ranks: writes the record of every request to `out`, in order and atomically; returns the summary on rank 0.

    Raises:
        PacklmError: another job is writing `out`.
    """
    out = files.followed(out)
    job_journal = Journal(out)
    lock = out.with_name(f".{out.name}.lock")
    with files.lock(lock, out) if ranks.first else nullcontext():
        if ranks.first:
            job_journal.begin(_inputs(engine, requests, settings, seed))
        ranks.barrier()
        done = job_journal.done()
        ranks.barrier()  # all ranks have read the journal before one appends to it
        if done and ranks.first:
            log.info("%s: resuming, %d of %d prompts are done", out, len(done), len(requests))
        batches, errors = _plan(engine, requests, settings, seed)
        remaining = [batch for batch in batches if any(requests[index].line not in done for task in batch for index in task.indices)]
        tokens, seconds = 0, 0.0
        with job_journal.writer(ranks.rank) as stream:
            for records, batch_tokens, batch_seconds in _generate(engine, requests, remaining[ranks.rank :: ranks.world]):
                journal.append(stream, records)
                tokens, seconds = tokens + batch_tokens, seconds + batch_seconds
        ranks.barrier()
        speed = float(ranks.sum(np.array([tokens / seconds if tokens else 0.0]))[0])
        values = None
        if ranks.first:
            _warn_of_errors(requests, errors)
            summary = Summary()
            write_records(out, _add_to(summary, heapq.merge(job_journal.records(), errors)))
            job_journal.remove()
            values = summary.values() | {"tokens_per_second": speed or None}
        ranks.barrier()
    return values


def write(engine: Engine, requests: Sequence[Request], settings: Generate, seed: int, ranks: Ranks, stream: IO[str]) -> None:
    """Writes the record of every request to a stream; for a single process."""
    if ranks.world > 1:
        raise RequestError("several processes cannot share standard output: give --out FILE")
    batches, errors = _plan(engine, requests, settings, seed)
    _warn_of_errors(requests, errors)
    records = [record for batch, *_ in _generate(engine, requests, batches) for record in batch]
    stream.writelines(f"{record}\n" for _, record in sorted([*records, *errors]))


def log_summary(summary: dict[str, Any]) -> None:
    """Logs the summary of a job in one line, and its speed in another."""
    lengths, repetition, distinct = summary["tokens_per_generation"], summary["repetition"], summary["distinct_2"]
    if lengths:
        log.info(
            "%s generations of %s prompts: %.0f tokens in the median (5 %% to 95 %%: %.0f to %.0f), perplexity %.1f%s%s",
            f"{summary['generations']:,}", f"{summary['prompts']:,}", lengths["p50"], lengths["p5"], lengths["p95"],
            summary["self_perplexity"],
            "" if repetition is None else f", {repetition:.1%} of 4-grams repeated",
            "" if distinct is None else f", {distinct:.1%} of bigrams distinct",
        )  # fmt: skip
    if summary["tokens_per_second"]:
        log.info("%s tokens/s", f"{summary['tokens_per_second']:,.0f}")


def _add_to(summary: Summary, records: Iterable[LineRecord]) -> Iterator[str]:
    for _, record in records:
        summary.add(json_text.loads(record))
        yield record


def _warn_of_errors(requests: Sequence[Request], errors: list[LineRecord]) -> None:
    if errors:
        total, first = len(requests), errors[0][0]
        log.warning("%d of %d lines are not prompts (the first is line %d); their records say why", len(errors), total, first)


def _plan(engine: Engine, requests: Sequence[Request], settings: Generate, seed: int) -> tuple[list[list[_PromptGroup]], list[LineRecord]]:
    """The batches, a function of the requests alone, and the records of the requests with errors."""
    errors: list[LineRecord] = []
    tasks: dict[tuple[str, bytes], _PromptGroup] = {}
    resolved: dict[str, tuple[Generate, int] | str] = {}
    for index, request in enumerate(requests):
        overrides = json_text.dumps(dict(sorted(request.settings.items())))
        if overrides not in resolved:
            resolved[overrides] = _resolve(engine, settings, seed, request.settings)
        request_settings, error = resolved[overrides], request.error
        if isinstance(request_settings, str):
            error = error or request_settings
        elif not error:
            try:
                prompt = engine.encode_prompt(request.prompt)
                key = (overrides, prompt[0].tobytes())
                tasks.setdefault(key, _PromptGroup(prompt, *request_settings, [])).indices.append(index)
            except PacklmError as refusal:
                error = str(refusal)
        if error:
            errors.append((request.line, _record(request, {"error": error})))
    groups: dict[tuple[str, int], list[_PromptGroup]] = {}
    for task in tasks.values():
        groups.setdefault((task.settings.model_dump_json(), task.seed), []).append(task)
    batches = [
        [group[number] for number in batch]
        for group in groups.values()
        for batch in prompt_batches([task.prompt[0] for task in group], group[0].settings)
    ]
    return batches, errors


def _resolve(engine: Engine, settings: Generate, seed: int, overrides: dict[str, Any]) -> tuple[Generate, int] | str:
    """The settings and seed of a request; or what is wrong with its overrides."""
    changed = {name: value for name, value in overrides.items() if name != "seed"}
    try:
        return decoding.resolve(settings.model_dump() | changed, overrides.get("seed", seed), engine.info.vocab_size)
    except RequestError as error:
        return " ".join(str(error).split())


def _generate(
    engine: Engine, requests: Sequence[Request], batches: list[list[_PromptGroup]]
) -> Iterator[tuple[list[LineRecord], int, float]]:  # fmt: skip
    """(the records of its requests, number of generated tokens, seconds in the model) of each batch.

    What equal requests repeat is not generated, and what is done once for all batches takes no time of theirs.
    """
    total = sum(len(task.indices) for batch in batches for task in batch)
    with _one_thread(), logs.progress(total=total, unit="prompt") as bar:
        if batches:
            engine.stepper.invariant_widths()
        for batch in batches:
            records, tokens, start = [], 0, time.monotonic()
            with _naming_lines([requests[index].line for task in batch for index in task.indices]):
                batch_continuations = engine.continue_batch([task.prompt for task in batch], batch[0].settings, batch[0].seed)
            seconds = time.monotonic() - start
            for task, continuations in zip(batch, batch_continuations, strict=True):
                generations = [asdict(item) | {"log_prob": round(item.log_prob, 6)} for item in continuations]
                tokens += sum(item.tokens for item in continuations)
                unknown = int((task.prompt[0] == engine.encoder.unk).sum()) if engine.encoder.unk is not None else 0
                for index in task.indices:
                    own = {"settings": requests[index].settings} if requests[index].settings else {}
                    values = (
                        own | {"prompt": requests[index].prompt} | ({"unknown": unknown} if unknown else {}) | {"generations": generations}
                    )
                    records.append((requests[index].line, _record(requests[index], values)))
            bar.update(len(records))
            yield records, tokens, seconds


def _inputs(engine: Engine, requests: Sequence[Request], settings: Generate, seed: int) -> dict[str, Any]:
    """What the records of a job depend on."""
    return {
        "format": FORMAT, "weights": engine.info.weights, "tokenizer": engine.info.tokenizer,
        "requests": files.digest([vars(request) for request in requests]), "generate": settings.model_dump(mode="json"), "seed": seed,
    }  # fmt: skip


def _record(request: Request, values: dict[str, Any]) -> str:
    head = {"line": request.line} | ({} if request.id is None else {"id": request.id})
    return json_text.dumps(head | values)


@contextmanager
def _naming_lines(lines: list[int]) -> Iterator[None]:
    """Names the lines of a batch that memory does not suffice for, or that the model has no finite probabilities for."""
    named = f"lines {', '.join(map(str, lines[:NAMED_LINES]))}{' and others' if len(lines) > NAMED_LINES else ''}"
    try:
        yield
    except NotFinite as error:
        raise NotFinite(f"{named}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not errors.lacks_memory(error):
            raise
        raise MemoryError(f"in the batch of {named}") from error


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
