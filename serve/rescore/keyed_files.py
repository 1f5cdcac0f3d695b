"""Text files with a `key text` line for each utterance, as Kaldi and ESPnet write them: lists, scores, references and segments."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from packlm.base.errors import RequestError
from packlm.corpus import file_kinds

from ..lines import decode, read
from .nbest import MAX_SCORE, Problem, Utterance


def lines(path: Path) -> Iterator[tuple[int, str, str]]:
    """(number from 1, text, what is wrong with it) of each line of a file; `RequestError` if it cannot be read or is binary."""
    try:
        with open(path, "rb") as stream:
            kind = file_kinds.kind(path.name, stream.read(file_kinds.HEAD_BYTES)) if stream.seekable() else file_kinds.Kind("text")
            stream.seek(0)
            if kind.problem or kind.format not in ("text", "jsonl"):
                problem = kind.problem or f"its name says {kind.format}"
                raise RequestError(f"{path}: not lines of text: {problem}; write Kaldi archives as text (ark,t:), and lists as .jsonl")
            for number, line in enumerate(read(stream), 1):
                if number == 1 and kind.format == "text" and (offset := line.find(b"\0")) >= 0:
                    raise RequestError(f"{path}: not a text file: byte {offset + 1} is NUL; write Kaldi archives as text (ark,t:)")
                yield number, *decode(line)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None


def keyed_lines(path: Path, problems: list[Problem]) -> Iterator[tuple[int, str, str]]:
    """(number, key, text) of each line; empty lines and repeated keys become problems."""
    seen: dict[str, int] = {}
    for number, line, error in lines(path):
        key, text = [*line.split(maxsplit=1), "", ""][:2]
        if not error and not key:
            error = "an empty line"
        if not error and key in seen:
            error = f"duplicate key {key!r}, first on line {seen[key]}"
        if error:
            problems.append(Problem(f"{path} line {number}", number, error))
            continue
        seen[key] = number
        yield number, key, text.strip()


def finite_number(text: str) -> float | None:
    """The number that a text is; None if it is none, or is beyond `MAX_SCORE`."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) <= MAX_SCORE else None


def read_texts(path: Path) -> dict[str, str]:
    """Reads a file of `utterance words`, such as references; `RequestError` naming the first wrong line."""
    problems: list[Problem] = []
    texts = {key: text for _, key, text in keyed_lines(path, problems)}
    if problems:
        raise RequestError(f"{problems[0].source}: {problems[0].reason}")
    return texts


def with_recordings(utterances: Sequence[Utterance], segments: Path) -> list[Utterance]:
    """The utterances in the order of a Kaldi `segments` file: by recording, then by the time they begin.

    An utterance that the file lacks is a recording of its own, after the others.

    Raises:
        RequestError: a line is not `utterance recording begin end`.
    """
    starts: dict[str, tuple[str, float]] = {}
    for key, text in read_texts(segments).items():
        cells = text.split()
        begin = finite_number(cells[1]) if len(cells) == 3 else None
        if begin is None:
            raise RequestError(f"{segments}: {key}: expected `utterance recording begin end`, found {f'{key} {text}'!r}")
        starts[key] = cells[0], begin
    listed = [replace(utterance, recording=starts[utterance.id][0]) for utterance in utterances if utterance.id in starts]
    listed.sort(key=lambda utterance: starts[utterance.id])
    return [*listed, *(replace(utterance, recording=None) for utterance in utterances if utterance.id not in starts)]
