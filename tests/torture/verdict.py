"""How a trial ends, and how the end of a command is judged."""

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """The columns of the table."""

    OK = "ok"
    """Status 0, and the same result as without the fault."""
    NAMED = "named"
    """Status 1 or 2, and one line that names a file, a setting or a line."""
    DIFFERENT = "different"
    """Status 0, and another result: nobody would notice."""
    TRACEBACK = "traceback"
    """Neither: a traceback, an error that names nothing, several errors, or a process that died."""
    HANG = "hang"
    """Not done at the deadline."""
    LOST = "lost"
    """What the fault did not touch is gone: after the rerun something is missing, or something is left behind."""


FAILURES = (Outcome.DIFFERENT, Outcome.TRACEBACK, Outcome.HANG, Outcome.LOST)


@dataclass(frozen=True)
class Verdict:
    """The outcome of a trial, and what was done and seen."""

    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int | None
    """None: not done at the deadline; negative: killed by this signal."""
    out: str
    errors: str
    seconds: float


_ERROR = re.compile(r"^(error|critical): (.*(?:\n(?!\w+: |Traceback).+)*)", re.MULTILINE)
_NAME = re.compile(r"^\S+: |/|\.\w{2,}|line \d|\b[a-z]+\.[a-z_]+\b|--\w|'[^']*'|\bstep-\d|prompt")
"""What an error can name: something before a colon, a path, a file, a line, a setting, an option, or a quoted word."""
_TRACES = (
    "Traceback (most recent call last)",
    "panicked at",
    "unexpected: ",
    "Exception ignored",
    "terminate called",
    "Fatal Python error",
)

_PANIC = re.compile(r"\n?thread '[^']*'.* panicked at .*\n.*\n(note: .*\n)?")
"""What Rust prints of a panic, before our line; standard error cannot be kept from it while other threads write there."""


def of_failure(ended: Ended) -> str | None:
    """Why a command did not end as it must; None for status 0, and for status 1, 2 or 75 with one error line that names something."""
    text = _PANIC.sub("", ended.errors) if "the library failed while encoding text" in ended.errors else ended.errors
    for trace in _TRACES:
        if trace in text:
            return f"{trace.strip()!r} on standard error"
    if ended.status == 0:
        return None
    if ended.status not in (1, 2, 75):
        return f"exit status {ended.status}"
    errors = _ERROR.findall(text)
    if len(errors) != 1:
        return f"{len(errors)} error lines"
    return None if _NAME.search(errors[0][1]) else "an error that names nothing"


def judge(ended: Ended, differences: list[str], what: str) -> Verdict:
    """Judges a command by its end and, if its status is 0, by what differs from the undisturbed result."""
    tail = ended.errors.strip()[-1500:]
    if ended.status is None:
        return Verdict(Outcome.HANG, f"{what}: not done after {ended.seconds:.0f} s\n{tail}")
    if failure := of_failure(ended):
        return Verdict(Outcome.TRACEBACK, f"{what}: {failure}\n{tail}")
    if ended.status:
        return Verdict(Outcome.NAMED, f"{what}: {tail}")
    if differences:
        return Verdict(Outcome.DIFFERENT, f"{what}: status 0, but {'; '.join(differences[:5])}\n{tail}")
    return Verdict(Outcome.OK, f"{what}: {tail}")


def table(tallies: dict[str, Counter[Outcome]], seconds: dict[str, float]) -> str:
    """The outcomes of each part."""
    lines = [f"{'part':<18}{'trials':>8}" + "".join(f"{outcome:>11}" for outcome in Outcome) + f"{'s':>8}"]
    for part, tally in tallies.items():
        counts = "".join(f"{tally[outcome]:>11,}" for outcome in Outcome)
        lines.append(f"{part:<18}{tally.total():>8,}{counts}{seconds[part]:>8,.0f}")
    return "\n".join(lines)
