"""Many prompts to many continuations: a file of prompts in, JSONL out, one record for every line, in their order.

    in     a prompt a line, or JSON objects {"prompt": ..., "id": ...}, the id being optional
    out    {"line": 1, "id": ..., "prompt": ..., "generations": [{"text", "log_prob", "tokens", "finished"}, ...]}
           {"line": 2, "error": ...}    a line that is no prompt does not stop the others

Equal prompts are continued once. The others are sorted by length and cut into batches, which depend on the file and
`generate.batch_prompts` alone; under torchrun rank r of W takes the batches r, r + W, ...
Each process computes with one thread, since the last bits of a matrix product may depend on their number: so the bytes
that come out are the same on one process or many.
"""

import heapq
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch

from pipeline import files, log
from pipeline.config import Generate
from pipeline.errors import PacklmError, RequestError
from serve import decoding
from serve.engine import Engine
from train.distributed import Ranks


@dataclass(frozen=True)
class Request:
    """A line of the file of prompts: a prompt, or why it is none."""

    line: int
    """Counts from 1."""
    prompt: str = ""
    id: Any = None
    error: str = ""


def read_requests(stream: IO[bytes], name: str) -> list[Request]:
    """Reads a file of prompts: JSONL where its name ends in `.jsonl` or the first line begins with a brace, else a prompt a line."""
    lines = stream.read().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if lines[-1] == b"":  # what follows the last line feed is no line
        lines.pop()
    structured = name.endswith(".jsonl") or (not name.endswith(".txt") and bool(lines) and lines[0].lstrip().startswith(b"{"))
    return [_request(number, line, structured) for number, line in enumerate(lines, 1)]


def open_requests(path: Path) -> list[Request]:
    """`read_requests` of a file; `RequestError` where it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return read_requests(stream, str(path))
    except OSError as error:
        raise RequestError(f"{path}: the prompts cannot be read: {error.strerror}") from None


def _request(number: int, line: bytes, structured: bool) -> Request:
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return Request(number, error=f"not UTF-8 at byte {error.start + 1}")
    if not structured:
        return Request(number, text.strip())
    try:
        value = json.loads(text, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # fails on half a surrogate pair, which JSON can spell but no file can hold
    except (ValueError, RecursionError) as error:
        return Request(number, error=f"not JSON: {error}")
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        return Request(number, error='not an object with a "prompt" that is a string')
    if unknown := sorted(set(value) - {"prompt", "id"}):
        return Request(number, id=value.get("id"), error=f"unknown fields {', '.join(unknown)}; there are prompt and id")
    return Request(number, value["prompt"], value.get("id"))


def run(engine: Engine, requests: Sequence[Request], settings: Generate, seed: int, ranks: Ranks, out: Path) -> None:
    """All ranks: writes the record of every request to `out`, in order, whole or not at all."""
    parts = [out.with_name(f".{out.name}.part-{rank:05d}") for rank in range(ranks.world)]
    with files.atomic(parts[ranks.rank], "w") as stream:
        stream.writelines(f"{number:012d}\t{record}\n" for number, record in sorted(_records(engine, requests, settings, seed, ranks)))
    ranks.barrier()
    if ranks.first:
        with ExitStack() as stack:
            streams = [stack.enter_context(open(part, encoding="utf-8", newline="\n")) for part in parts]
            with files.atomic(out, "w") as whole:
                whole.writelines(line.partition("\t")[2] for line in heapq.merge(*streams))
        for part in parts:
            part.unlink()
    ranks.barrier()


def write(engine: Engine, requests: Sequence[Request], settings: Generate, seed: int, ranks: Ranks, stream: IO[str]) -> None:
    """Writes the record of every request to a stream; for one process."""
    if ranks.world > 1:
        raise RequestError("several processes cannot share standard output: give --out FILE")
    stream.writelines(f"{record}\n" for _, record in sorted(_records(engine, requests, settings, seed, ranks)))


def _records(engine: Engine, requests: Sequence[Request], settings: Generate, seed: int, ranks: Ranks) -> Iterator[tuple[int, str]]:
    """(line, JSON) of this rank's share of the requests."""
    read, good = [], []
    for request in requests:
        error = request.error
        if not error:
            try:
                read.append(engine.prompt(request.prompt))
                good.append(request)
            except PacklmError as refused:
                error = str(refused)
        if error and ranks.first:
            yield request.line, _json(request, {"error": error})
    batches = decoding.by_length([ids for ids, _ in read], settings.batch_prompts)[ranks.rank :: ranks.world]
    with _one_thread(), log.progress(total=sum(len(group) for batch in batches for group in batch), unit="prompt") as bar:
        for batch in batches:
            continued = engine.continue_([read[group[0]] for group in batch], settings, seed)
            for group, continuations in zip(batch, continued, strict=True):
                generations = [asdict(item) | {"log_prob": round(item.log_prob, 6)} for item in continuations]
                for index in group:
                    yield good[index].line, _json(good[index], {"prompt": good[index].prompt, "generations": generations})
                bar.update(len(group))


def _json(request: Request, values: dict[str, Any]) -> str:
    named = {"line": request.line} | ({} if request.id is None else {"id": request.id})
    return json.dumps(named | values, ensure_ascii=False)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON value")


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
