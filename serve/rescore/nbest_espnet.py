"""N-best lists as ESPnet's `asr_inference` writes them: a folder a rank, with a line an utterance in each file.

    1best_recog/text     utt the cat sees
    1best_recog/score    utt tensor(-9.1234)      a log-probability in nats; a plain number where the decoder gives one
    2best_recog/...

`token` and `token_int` are passed through. Folders of several jobs (`output.1/`, `output.2/`, ... below) are read together; the ones
that the recipe merges afterwards hold the best hypothesis alone.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from packlm.base import files
from packlm.base.errors import RequestError

from .nbest import Hypothesis, NbestLists, Problem, Utterance, keyed, number_of

PASSED_ON = ("token", "token_int")


def read(folder: Path) -> NbestLists:
    """Reads all lists below a folder; a text without a score, or a score without a text, becomes a problem.

    Raises:
        RequestError: no folder `Nbest_recog` with a `text` and a `score` there.
    """
    pattern = re.compile(r"(\d+)best_recog")
    ranks = [(int(match[1]), path) for path in [*folder.glob("*best_recog"), *folder.glob("output.*/*best_recog")]
             if (match := pattern.fullmatch(path.name))]  # fmt: skip
    if not ranks:
        raise RequestError(f"{folder}: no folder 1best_recog here, nor below output.*; give the one that the decoder wrote")
    problems: list[Problem] = []
    found: dict[str, Utterance] = {}
    for rank, path in sorted(ranks):
        scores = {key: (number, text) for number, key, text in keyed(path / "score", problems)}
        passed = {name: {key: text for _, key, text in keyed(path / name, problems)} for name in PASSED_ON if (path / name).exists()}
        for number, key, text in keyed(path / "text", problems):
            line, spelled = scores.pop(key, (0, ""))
            score = number_of(re.sub(r"^tensor\((\S+?)(, .*)?\)$", r"\1", spelled))
            utterance = found.get(key, Utterance(key, [], 0))
            if score is None:
                why = f"{key}: {spelled!r} is not a number" if line else f"{key} has a text, but no score"
                problems.append(Problem(str(path / "score") + (f" line {line}" if line else ""), number, why))
            elif utterance.hypotheses and utterance.hypotheses[-1].rank == rank:
                problems.append(Problem(f"{path / 'text'} line {number}", number, f"{key} has its hypothesis {rank} in another folder"))
            else:
                others = {name: own[key] for name, own in passed.items() if key in own}
                found[key] = replace(utterance, hypotheses=[*utterance.hypotheses, Hypothesis(text, rank, score, None, others)])
        for key, (line, _) in scores.items():
            problems.append(Problem(f"{path / 'score'} line {line}", line, f"{key} has a score, but no usable text"))
    return NbestLists("espnet", [replace(found[id], number=number) for number, id in enumerate(sorted(found), 1)], problems)


def write(folder: Path, ranked: Sequence[tuple[Utterance, np.ndarray, Sequence[int], np.ndarray]]) -> None:
    """Writes re-ranked lists as folders of that kind; the score is the total.

    Args:
        ranked: utterances with [K] log P, the hypotheses' new order and [K] totals, in nats.
    """
    parts: dict[str, list[str]] = {}
    for utterance, _, order, totals in ranked:
        for rank, index in enumerate(order, 1):
            one = utterance.hypotheses[index]
            for name, text in {"text": one.text, "score": f"{totals[index]:.10g}", **one.others}.items():
                parts.setdefault(f"{rank}best_recog/{name}", []).append(f"{utterance.id} {text}\n")
    for name, lines in parts.items():
        files.write_text(folder / name, "".join(lines))
