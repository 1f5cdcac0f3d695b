"""N-best lists as Kaldi writes them: `lattice-to-nbest`, then `nbest-to-linear` with its archives as text (`ark,t:`).

    words        utt-1 the cat sees         the key is the utterance's, a hyphen, and the rank; the words by `int2sym.pl`
    ac costs     utt-1 7421.3               costs are negative natural logarithms, unscaled: the weight of a language model that goes
    lm costs     utt-1 31.2                 with them is about what Kaldi calls the LM weight, often 7 to 17

The lm costs are graph costs: the old language model with pronunciations and transitions. References and `segments` files are those of a
Kaldi data folder (`utt words`; `utt recording begin end`), for the other forms too.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from packlm.base import files
from packlm.base.errors import RequestError

from .nbest import Hypothesis, NbestLists, Problem, Utterance, keyed, number_of


def read(words: Path, ac_costs: Path, lm_costs: Path | None) -> NbestLists:
    """Reads the lists of three archives; a hypothesis that lacks a cost, or whose key has no rank, becomes a problem."""
    problems: list[Problem] = []
    costs = [_costs(path, problems) for path in (ac_costs, lm_costs) if path]
    names = [path for path in (ac_costs, lm_costs) if path]
    found: dict[str, list[Hypothesis]] = {}
    starts: dict[str, int] = {}
    for number, key, text in keyed(words, problems):
        utterance, _, rank = key.rpartition("-")
        lacking = [str(path) for path, own in zip(names, costs, strict=True) if key not in own]
        if not utterance or not rank.isascii() or not rank.isdigit():
            problems.append(Problem(f"{words} line {number}", number, f"the key {key!r} does not end in a hyphen and a rank"))
        elif lacking:
            problems.append(Problem(f"{words} line {number}", number, f"{key} has no cost in {' and '.join(lacking)}"))
        else:
            own = [-table.pop(key) for table in costs]
            found.setdefault(utterance, []).append(Hypothesis(text, int(rank), own[0], own[1] if lm_costs else None))
            starts.setdefault(utterance, number)
    for path, table in zip(names, costs, strict=True):
        problems += [Problem(str(path), 0, f"{key} has a cost, but no usable words") for key in table]
    utterances = [Utterance(id, sorted(own, key=lambda one: one.rank), starts[id]) for id, own in found.items()]
    return NbestLists("kaldi", utterances, problems)


def _costs(path: Path, problems: list[Problem]) -> dict[str, float]:
    found = {}
    for number, key, text in keyed(path, problems):
        value = number_of(text)
        if value is None:
            problems.append(Problem(f"{path} line {number}", number, f"{key}: {text!r} is not a number"))
        else:
            found[key] = value
    return found


def write(folder: Path, ranked: Sequence[tuple[Utterance, np.ndarray, Sequence[int], np.ndarray]]) -> None:
    """Writes re-ranked lists: `words`, `ac_cost`, `lm_cost`, `total_cost` with keys `utt-1`, ... in the new order; `text`, the best of
    each; and `new_lm_cost`, -log P under the new model with the *input's* keys, for `linear-to-nbest` beside the input's alignments.

    Args:
        ranked: utterances with [K] log P, the hypotheses' new order and [K] totals, in nats.
    """
    parts: dict[str, list[str]] = {name: [] for name in ("words", "ac_cost", "lm_cost", "total_cost", "text", "new_lm_cost")}
    for utterance, log_probs, order, totals in ranked:
        parts["text"].append(f"{utterance.id} {utterance.hypotheses[order[0]].text}".rstrip())
        for rank, index in enumerate(order, 1):
            one, key = utterance.hypotheses[index], f"{utterance.id}-{rank}"
            parts["words"].append(f"{key} {one.text}".rstrip())
            parts["ac_cost"].append(f"{key} {-one.score:.10g}")
            parts["total_cost"].append(f"{key} {-totals[index]:.10g}")
            if one.lm_score is not None:
                parts["lm_cost"].append(f"{key} {-one.lm_score:.10g}")
        for one, log_prob in zip(utterance.hypotheses, log_probs.tolist(), strict=True):
            parts["new_lm_cost"].append(f"{utterance.id}-{one.rank} {-log_prob:.10g}")
    for name, lines in parts.items():
        if lines:
            files.write_text(folder / name, "".join(f"{line}\n" for line in lines))


def read_text(path: Path) -> dict[str, str]:
    """A file of `utt words`; `RequestError` naming the first line that is none."""
    problems: list[Problem] = []
    found = {key: text for _, key, text in keyed(path, problems)}
    if problems:
        raise RequestError(f"{problems[0].where}: {problems[0].why}")
    return found


def with_recordings(utterances: Sequence[Utterance], segments: Path) -> list[Utterance]:
    """Utterances in the order of a `segments` file: recording by recording, each by the time it begins.

    One that the file lacks is a recording by itself, after the others.

    Raises:
        RequestError: a line that is not `utt recording begin end`.
    """
    places: dict[str, tuple[str, float]] = {}
    for key, rest in read_text(segments).items():
        cells = rest.split()
        begin = number_of(cells[1]) if len(cells) == 3 else None
        if begin is None:
            raise RequestError(f"{segments}: {key}: expected `utt recording begin end`, found {f'{key} {rest}'!r}")
        places[key] = cells[0], begin
    known = [replace(one, recording=places[one.id][0]) for one in utterances if one.id in places]
    known.sort(key=lambda one: places[one.id])
    return [*known, *(replace(one, recording=None) for one in utterances if one.id not in places)]
