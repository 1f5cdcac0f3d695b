"""N-best lists as ESPnet's `asr_inference` writes them: a folder for each rank, with a line for each utterance in each file.

    1best_recog/text     utt the cat sees
    1best_recog/score    utt tensor(-9.1234)      a log-probability in nats; some decoders write a plain number
    2best_recog/...

`token` and `token_int` are passed through. Folders of several jobs (`output.1/`, `output.2/`, ... below) are read together; the merged
ones, which the recipe makes afterwards, hold the best hypothesis only.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from packlm.base import files
from packlm.base.errors import RequestError

from ..keyed_files import finite_number, keyed_lines
from ..nbest import Hypothesis, NbestFormat, NbestLists, Problem, RankedList, Utterance

PASSED_THROUGH = ("token", "token_int")


def read(folder: Path) -> NbestLists:
    """Reads all lists below a folder; a text without a score, or a score without a text, becomes a problem.

    Raises:
        RequestError: there is no folder `Nbest_recog`.
    """
    pattern = re.compile(r"(\d+)best_recog")
    ranks = [(int(match[1]), path) for path in [*folder.glob("*best_recog"), *folder.glob("output.*/*best_recog")]
             if (match := pattern.fullmatch(path.name))]  # fmt: skip
    if not ranks:
        raise RequestError(f"{folder}: no folder 1best_recog here or below output.*; give the folder that the decoder wrote")
    problems: list[Problem] = []
    utterances: dict[str, Utterance] = {}
    for rank, path in sorted(ranks):
        scores = {key: (number, text) for number, key, text in keyed_lines(path / "score", problems)}
        extra_files = {
            name: {key: text for _, key, text in keyed_lines(path / name, problems)} for name in PASSED_THROUGH if (path / name).exists()
        }
        for number, key, text in keyed_lines(path / "text", problems):
            line, score_text = scores.pop(key, (0, ""))
            score = finite_number(re.sub(r"^tensor\((\S+?)(, .*)?\)$", r"\1", score_text))
            utterance = utterances.get(key, Utterance(key, [], 0))
            if score is None:
                reason = f"{key}: {score_text!r} is not a number" if line else f"{key} has a text, but no score"
                problems.append(Problem(str(path / "score") + (f" line {line}" if line else ""), number, reason))
            elif utterance.hypotheses and utterance.hypotheses[-1].rank == rank:
                problems.append(Problem(f"{path / 'text'} line {number}", number, f"{key} has its hypothesis {rank} in another folder"))
            else:
                extra = {name: texts[key] for name, texts in extra_files.items() if key in texts}
                hypothesis = Hypothesis(text, rank, score, None, extra)
                utterances[key] = replace(utterance, hypotheses=[*utterance.hypotheses, hypothesis])
        for key, (line, _) in scores.items():
            problems.append(Problem(f"{path / 'score'} line {line}", line, f"{key} has a score, but no usable text"))
    return NbestLists([replace(utterances[id], number=number) for number, id in enumerate(sorted(utterances), 1)], problems)


def write(folder: Path, ranked: Sequence[RankedList]) -> None:
    """Writes lists as folders of this format; the score is the total."""
    parts: dict[str, list[str]] = {}
    for utterance, _, order, totals in ranked:
        for rank, index in enumerate(order, 1):
            hypothesis = utterance.hypotheses[index]
            for name, text in {"text": hypothesis.text, "score": f"{totals[index]:.10g}", **hypothesis.extra}.items():
                parts.setdefault(f"{rank}best_recog/{name}", []).append(f"{utterance.id} {text}\n")
    for name, lines in parts.items():
        files.write_text(folder / name, "".join(lines))


FORMAT = NbestFormat(
    name="espnet",
    description="an ESPnet folder",
    unit=("log-prob", "e"),
    recognizes=lambda source: source.path.is_dir(),
    read=lambda source: read(source.path),
    write=write,
)
