"""Many prompts to many continuations: a file of prompts in (`prompts`), JSONL or Parquet out, one record for every line, in order.

    {"line": 1, "id": ..., "prompt": ..., "generations": [{"text", "log_prob", "tokens", "finished"}, ...]}
    {"line": 2, "error": ...}    a line that is no prompt does not stop the others

`unknown` tokens of a prompt, where it has any, are counted beside it. Prompts that ask for the same are continued once. The others are
sorted by length and cut into batches of about `generate.batch_tokens`; under torchrun the ranks share the batches. What a batch made is
kept in a journal before the next begins, so that a job that was killed goes on where it was and ends with the same bytes, on any number
of ranks: each computes with one thread, since the last bits of a matrix product may depend on their number.
"""

import heapq
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from packlm import config as configuration
from packlm.base import files
from packlm.base import log as logs
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Generate
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.generation.prompt_batches import batches_of

from . import journal
from .journal import Journal
from .prompts import Request
from .record_files import write_records
from .summary import Summary

log = logging.getLogger("packlm")

FORMAT = 1
"""Of the journal's records: a job that an older version began is begun anew."""


@dataclass(frozen=True)
class _Asked:
    """What some lines ask for alike."""

    prompt: tuple[np.ndarray, np.ndarray]
    """As of `Engine.prompt`."""
    settings: Generate
    seed: int
    indices: list[int]
    """Of the requests."""


def run(engine: Engine, requests: Sequence[Request], settings: Generate, seed: int, ranks: Ranks, out: Path) -> dict[str, Any] | None:
    """All ranks: writes the record of every request to `out`, in order, whole or not at all; returns the job's summary, on rank 0.

    Raises:
        PacklmError: another job writes to `out`.
    """
    kept = Journal(out)
    lock = out.with_name(f".{out.name}.lock")
    with files.lock(lock, out) if ranks.first else nullcontext():
        if ranks.first:
            kept.begin(_key(engine, requests, settings, seed))
        ranks.barrier()
        done = kept.done()
        ranks.barrier()  # all have read before one writes
        if done and ranks.first:
            log.info("%s: %d of %d prompts were done before; going on", out, len(done), len(requests))
        batches, errors = _plan(engine, requests, settings, seed)
        left = [batch for batch in batches if any(requests[index].line not in done for asked in batch for index in asked.indices)]
        began, made = time.monotonic(), 0
        with kept.writer(ranks.rank) as stream:
            for records, tokens in _made(engine, requests, left[ranks.rank :: ranks.world]):
                journal.append(stream, records)
                made += tokens
        seconds = time.monotonic() - began
        ranks.barrier()
        made_by_all = int(ranks.sum(np.array([float(made)]))[0])
        summary = None
        if ranks.first:
            _refusals(requests, errors)
            counted = Summary()
            write_records(out, _merged(kept.records(), errors), counted.add)
            kept.remove()
            lock.unlink()
            summary = counted.values() | {"tokens_per_second": made_by_all / seconds if made_by_all else None}
        ranks.barrier()
    return summary


def write(engine: Engine, requests: Sequence[Request], settings: Generate, seed: int, ranks: Ranks, stream: IO[str]) -> None:
    """Writes the record of every request to a stream; for one process."""
    if ranks.world > 1:
        raise RequestError("several processes cannot share standard output: give --out FILE")
    batches, errors = _plan(engine, requests, settings, seed)
    _refusals(requests, errors)
    made = [record for records, _ in _made(engine, requests, batches) for record in records]
    stream.writelines(f"{record}\n" for _, record in sorted([*made, *errors]))


def tell(summary: dict[str, Any]) -> None:
    """Says in two lines what a job came to."""
    lengths, perplexity = summary["tokens_per_generation"], summary["self_perplexity"]
    if lengths:
        repeated = "" if summary["repetition"] is None else f", {summary['repetition']:.1%} of 4-grams repeated"
        distinct = "" if summary["distinct_2"] is None else f", {summary['distinct_2']:.1%} of bigrams different"
        log.info(
            "%s generations of %s prompts, %.0f tokens in the middle (%.0f to %.0f), perplexity %.1f%s%s",
            f"{summary['generations']:,}", f"{summary['prompts']:,}", lengths["p50"], lengths["p5"], lengths["p95"], perplexity, distinct,
            repeated,
        )  # fmt: skip
    if summary["tokens_per_second"]:
        log.info("%s tokens a second", f"{summary['tokens_per_second']:,.0f}")


def _refusals(requests: Sequence[Request], errors: list[tuple[int, str]]) -> None:
    if errors:
        total = len(requests)
        log.warning("%d of %d lines are no prompts, line %d first; their records say why", len(errors), total, errors[0][0])


def _plan(
    engine: Engine, requests: Sequence[Request], settings: Generate, seed: int
) -> tuple[list[list[_Asked]], list[tuple[int, str]]]:  # fmt: skip
    """The batches, a function of the requests alone, and the records of the requests that cannot be met."""
    errors: list[tuple[int, str]] = []
    asked: dict[tuple[str, bytes], _Asked] = {}
    chosen: dict[str, tuple[Generate, int] | str] = {}
    for index, request in enumerate(requests):
        own = json.dumps(request.settings, sort_keys=True)
        if own not in chosen:
            chosen[own] = _settings(settings, seed, request.settings)
        found, error = chosen[own], request.error
        if isinstance(found, str):
            error = error or found
        elif not error:
            try:
                prompt = engine.prompt(request.prompt)
                asked.setdefault((own, prompt[0].tobytes()), _Asked(prompt, *found, [])).indices.append(index)
            except PacklmError as refused:
                error = str(refused)
        if error:
            errors.append((request.line, _json(request, {"error": error})))
    alike: dict[tuple[str, int], list[_Asked]] = {}
    for one in asked.values():
        alike.setdefault((one.settings.model_dump_json(), one.seed), []).append(one)
    batches = [
        [group[number] for number in batch]
        for group in alike.values()
        for batch in batches_of([one.prompt[0] for one in group], group[0].settings)
    ]
    return batches, errors


def _settings(settings: Generate, seed: int, own: dict[str, Any]) -> tuple[Generate, int] | str:
    """The settings of a request and its seed; or what is wrong with its own."""
    changed = {name: value for name, value in own.items() if name != "seed"}
    try:
        resolved = configuration.resolve({"generate": settings.model_dump() | changed, "run": {"seed": own.get("seed", seed)}})
    except RequestError as error:
        return " ".join(str(error).split())
    return resolved.generate, resolved.run.seed


def _made(engine: Engine, requests: Sequence[Request], batches: list[list[_Asked]]) -> Iterator[tuple[list[tuple[int, str]], int]]:
    """For each batch ((line, JSON) of its requests, tokens generated)."""
    total = sum(len(asked.indices) for batch in batches for asked in batch)
    with _one_thread(), logs.progress(total=total, unit="prompt") as bar:
        for batch in batches:
            records, tokens = [], 0
            continued = engine.continue_([asked.prompt for asked in batch], batch[0].settings, batch[0].seed)
            for asked, continuations in zip(batch, continued, strict=True):
                generations = [asdict(item) | {"log_prob": round(item.log_prob, 6)} for item in continuations]
                tokens += sum(item.tokens for item in continuations)
                unknown = int((asked.prompt[0] == engine.encoder.unk).sum()) if engine.encoder.unk is not None else 0
                for index in asked.indices:
                    values = {"prompt": requests[index].prompt} | ({"unknown": unknown} if unknown else {}) | {"generations": generations}
                    records.append((requests[index].line, _json(requests[index], values)))
            bar.update(len(records))
            yield records, tokens


def _merged(made: Iterator[tuple[int, str]], errors: list[tuple[int, str]]) -> Iterator[str]:
    """All records in the order of their lines."""
    yield from (record for _, record in heapq.merge(made, errors))


def _key(engine: Engine, requests: Sequence[Request], settings: Generate, seed: int) -> str:
    asked = files.digest([vars(request) for request in requests])
    about = [FORMAT, engine.about.weights, engine.about.tokenizer, asked, settings.model_dump(mode="json"), seed]
    return files.digest(about)


def _json(request: Request, values: dict[str, Any]) -> str:
    named = {"line": request.line} | ({} if request.id is None else {"id": request.id})
    return json.dumps(named | values, ensure_ascii=False)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
