"""N-best lists as Kaldi writes them: `lattice-to-nbest`, then `nbest-to-linear` with its archives as text (`ark,t:`).

    words        utt-1 the cat sees         the key is the utterance's, a hyphen and the rank; the words by `int2sym.pl`
    ac costs     utt-1 7421.3               costs are negative natural logarithms, unscaled: a language model's weight with them is about
    lm costs     utt-1 31.2                 Kaldi's LM weight, often 7 to 17

The lm costs are graph costs: the recognizer's language model with pronunciations and transitions.
"""

from collections.abc import Sequence
from pathlib import Path

from packlm.base import files
from packlm.base.errors import RequestError

from ..keyed_files import finite_number, keyed_lines
from ..nbest import Hypothesis, NbestFormat, NbestInput, NbestLists, Problem, RankedList, Utterance


def read(words: Path, ac_costs: Path, lm_costs: Path | None) -> NbestLists:
    """Reads the lists of three archives; a hypothesis that lacks a cost, or whose key has no rank, becomes a problem."""
    problems: list[Problem] = []
    costs = {path: _read_costs(path, problems) for path in (ac_costs, lm_costs) if path}
    hypotheses: dict[str, list[Hypothesis]] = {}
    first_lines: dict[str, int] = {}
    for number, key, text in keyed_lines(words, problems):
        utterance, _, rank = key.rpartition("-")
        lacking = [str(path) for path, values in costs.items() if key not in values]
        if not utterance or not rank.isascii() or not rank.isdigit():
            problems.append(Problem(f"{words} line {number}", number, f"the key {key!r} does not end in a hyphen and a rank"))
        elif lacking:
            problems.append(Problem(f"{words} line {number}", number, f"{key} has no cost in {' and '.join(lacking)}"))
        else:
            scores = [-values.pop(key) for values in costs.values()]
            hypotheses.setdefault(utterance, []).append(Hypothesis(text, int(rank), scores[0], scores[1] if lm_costs else None))
            first_lines.setdefault(utterance, number)
    for path, values in costs.items():
        problems += [Problem(str(path), 0, f"{key} has a cost, but no usable words") for key in values]
    utterances = [Utterance(id, sorted(own, key=lambda one: one.rank), first_lines[id]) for id, own in hypotheses.items()]
    return NbestLists(utterances, problems)


def write(folder: Path, ranked: Sequence[RankedList]) -> None:
    """Writes lists: `words`, `ac_cost`, `lm_cost`, `total_cost` with keys `utt-1`, ... in the new order; `text`, the best hypotheses; and
    `new_lm_cost`, -log P under the new model with the *input's* keys, for `linear-to-nbest` with the input's alignments.
    """
    parts: dict[str, list[str]] = {name: [] for name in ("words", "ac_cost", "lm_cost", "total_cost", "text", "new_lm_cost")}
    for utterance, log_probs, order, totals in ranked:
        parts["text"].append(f"{utterance.id} {utterance.hypotheses[order[0]].text}".rstrip())
        for rank, index in enumerate(order, 1):
            hypothesis, key = utterance.hypotheses[index], f"{utterance.id}-{rank}"
            parts["words"].append(f"{key} {hypothesis.text}".rstrip())
            parts["ac_cost"].append(f"{key} {-hypothesis.score:.10g}")
            parts["total_cost"].append(f"{key} {-totals[index]:.10g}")
            if hypothesis.lm_score is not None:
                parts["lm_cost"].append(f"{key} {-hypothesis.lm_score:.10g}")
        for hypothesis, log_prob in zip(utterance.hypotheses, log_probs.tolist(), strict=True):
            parts["new_lm_cost"].append(f"{utterance.id}-{hypothesis.rank} {-log_prob:.10g}")
    for name, lines in parts.items():
        if lines:
            files.write_text(folder / name, "".join(f"{line}\n" for line in lines))


def _read_costs(path: Path, problems: list[Problem]) -> dict[str, float]:
    costs = {}
    for number, key, text in keyed_lines(path, problems):
        cost = finite_number(text)
        if cost is None:
            problems.append(Problem(f"{path} line {number}", number, f"{key}: {text!r} is not a number"))
        else:
            costs[key] = cost
    return costs


def _read(source: NbestInput) -> NbestLists:
    if not source.ac_costs:
        raise RequestError("--lm-cost goes with --ac-cost: give both archives, or only --ac-cost")
    return read(source.path, source.ac_costs, source.lm_costs)


FORMAT = NbestFormat(
    name="kaldi",
    description="Kaldi words with --ac-cost FILE",
    unit=("cost", "e"),
    recognizes=lambda source: bool(source.ac_costs or source.lm_costs),
    read=_read,
    write=write,
)
