"""The command `rescore`: reads n-best lists and references, re-ranks the lists, writes them and a summary."""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from packlm.base import escape, files, json_text, output_paths
from packlm.base.errors import RequestError
from packlm.config import Config, Rescore
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.scoring import context as context_scores
from packlm.scoring.context import Context

from ..score.command import MAX_WARNINGS
from ..score.files import passed_through
from . import formats, rescore
from .keyed_files import read_texts, with_recordings
from .nbest import NbestFormat, NbestInput, NbestLists, RankedList, Utterance
from .rescore import WEIGHTS, RescoredList

log = logging.getLogger("packlm")


@dataclass(frozen=True)
class RescoreOptions:
    """The options of `rescore` that are not settings."""

    nbest: str
    ac_cost: Path | None
    lm_cost: Path | None
    references: Path | None
    tune_on: Path | None
    segments: Path | None
    out: str | None
    summary: Path | None
    precision: str


def run(model: str | Path, options: RescoreOptions, config: Config, ranks: Ranks) -> None:
    """Re-ranks the lists of `--nbest`.

    Raises:
        RequestError: there is no such model, the input as a whole is wrong, there are no references to tune on, or several processes.
    """
    if ranks.world > 1:
        raise RequestError("rescore runs in one process, since weights are tuned on all lists together: start it without torchrun")
    settings = config.rescore
    source = NbestInput(Path(options.nbest), options.ac_cost, options.lm_cost, settings.sign, settings.log_base)
    format = formats.find(source)
    check_paths(source, format, options)
    lists = format.read(source)
    for problem in lists.problems[:MAX_WARNINGS]:
        log.warning("%s: %s", problem.source, problem.reason)
    if lists.problems:
        log.warning("%d parts of the input were skipped", len(lists.problems))
    if not lists.utterances:
        raise RequestError(f"{options.nbest}: no n-best list found")
    utterances = with_references(lists, options.references)
    if options.segments:
        utterances = with_recordings(utterances, options.segments)
    tune_on = set(read_texts(options.tune_on)) if options.tune_on else None
    check(utterances, settings, tune_on)
    engine = Engine.load(model, ranks.device, config.tracking, options.precision)
    if settings.context and engine.isolated_sentences:
        log.warning("the model was trained on single sentences: it has never seen a context, and --context may increase errors")

    def score(texts: Sequence[tuple[Context, str]]) -> tuple[np.ndarray, np.ndarray]:
        return context_scores.log_probs(engine.model, engine.encoder, texts, config.evaluate.batch_tokens)

    rescored, weights = rescore.rescore(utterances, score, settings, tune_on)
    rescored.sort(key=lambda one: one.utterance.number)
    values = {"model": engine.info.name, "weights_digest": engine.info.weights, "lists": str(options.nbest)}
    values |= summary(lists, format, rescored, weights, settings, tune_on)
    write(lists, format, rescored, weights, options.out)
    if options.summary:
        files.write_json(options.summary, values)
    text = escape.lines(*table(values))
    if options.out and options.out != "-":
        print(text)
    else:
        log.info("%s", text)


def check_paths(source: NbestInput, format: NbestFormat, options: RescoreOptions) -> None:
    """Refuses to write over the input or where nothing can be written, and units that the format fixes."""
    out, in_folder = options.out, bool(format.write)
    inputs = [*source.files, options.references, options.tune_on, options.segments]
    output_paths.check({"--out": None if in_folder else out, "--summary": options.summary}, inputs)
    if in_folder and out not in (None, "-"):
        output_paths.check_folder("--out", str(out))
    folders = [path.parent for path in source.files if path.is_file()] if format.write else []
    if out and Path(out).resolve() in [path.resolve() for path in [*source.files, *folders]]:
        raise RequestError(f"--out {out} would write over the input: give another path")
    if format.unit and (source.sign, source.log_base) != ("log-prob", "e"):
        raise RequestError(f"--sign and --log-base are about JSONL: scores of {format.description} are {format.unit[0]}s in nats")


def with_references(lists: NbestLists, path: Path | None) -> list[Utterance]:
    """The utterances with the references of a file, if one is given; logs what does not match."""
    references = read_texts(path) if path else {}
    utterances = [replace(utterance, reference=references.get(utterance.id, utterance.reference)) for utterance in lists.utterances]
    ids = {utterance.id for utterance in utterances}
    without = [utterance.id for utterance in utterances if utterance.reference is None]
    unused = [id for id in references if id not in ids]
    gaps = [
        utterance.id for utterance in utterances
        if [hypothesis.rank for hypothesis in utterance.hypotheses] != [*range(1, len(utterance.hypotheses) + 1)]
    ]  # fmt: skip
    if len(without) < len(utterances) and without:
        log.warning("%d lists have no reference (%s first); they are rescored, but count in no error rate", len(without), without[0])
    if unused:
        log.warning("%d references have no list (%s first); they count in no error rate", len(unused), unused[0])
    if gaps:
        log.warning("%d lists lack a rank (%s first); their other hypotheses are rescored", len(gaps), gaps[0])
    return utterances


def check(utterances: Sequence[Utterance], settings: Rescore, tune_on: set[str] | None) -> None:
    """Refuses what these lists do not allow, before the model is loaded."""
    tuned = [name for name in WEIGHTS if getattr(settings, name) == "tune"]
    words = {utterance.id: len(utterance.reference.split()) for utterance in utterances if utterance.reference is not None}
    if tuned and not words:
        raise RequestError(f"{tuned[0]} = tune needs references: give --references FILE, or --{tuned[0].replace('_', '-')} NUMBER")
    if words and not sum(words.values()):
        raise RequestError("the references hold no words, so there is no word error rate")
    if tune_on is not None and not tuned:
        raise RequestError("--tune-on needs a weight that is tuned, such as --lm-weight tune")
    if tune_on is not None and not tune_on & set(words):
        raise RequestError("--tune-on names no utterance that has a list and a reference")
    if settings.old_lm_weight != 0.0 and all(one.lm_score is None for utterance in utterances for one in utterance.hypotheses):
        raise RequestError("old_lm_weight: the lists hold no score of the old language model (Kaldi: --lm-cost FILE; JSONL: lm_score)")
    if settings.context and all(utterance.recording is None for utterance in utterances):
        raise RequestError("--context needs recordings: give --segments FILE (Kaldi's), or a field `recording` in JSONL")


def summary(
    lists: NbestLists,
    format: NbestFormat,
    rescored: Sequence[RescoredList],
    weights: np.ndarray,
    settings: Rescore,
    tune_on: set[str] | None,
) -> dict[str, Any]:
    """Counts, weights, and word error rates if there are references."""
    sign, base = format.unit or (settings.sign, settings.log_base)
    unknown = [count > 0 for one in rescored for count in one.unknown.tolist()]
    values = {
        "form": format.name, "scores_read_as": {"sign": sign, "log_base": base},
        "utterances": len(rescored), "hypotheses": len(unknown), "hypotheses_with_unknown_words": sum(unknown),
        "left_out": len(lists.problems),
        "context": {"utterances": settings.context, "from": settings.context_from} if settings.context else None,
        "weights": dict(zip(WEIGHTS, weights.tolist(), strict=True)),
        "tuned": [name for name in WEIGHTS if getattr(settings, name) == "tune"],
    }  # fmt: skip
    parts = {"all": rescore.with_reference(rescored)}
    if tune_on is not None:
        parts["tuned_on"] = [one for one in parts["all"] if one.utterance.id in tune_on]
        parts["the_rest"] = [one for one in parts["all"] if one.utterance.id not in tune_on]
    values["word_error_rates"] = {}
    for name, part in parts.items():
        rates = rescore.rates(part, weights)
        if rates["before"].words:
            numbers = {when: {"rate": round(rate.rate, 6), "errors": rate.errors, "words": rate.words} for when, rate in rates.items()}
            values["word_error_rates"][name] = {"utterances": len(part)} | numbers
    return values


def table(values: dict[str, Any]) -> Iterator[str]:
    """The lines of a summary for people."""
    unit = values["scores_read_as"]
    yield f"{values['utterances']:,} lists, {values['hypotheses']:,} hypotheses; scores read as {unit['sign']}, base {unit['log_base']}."
    weights = (f"{name} {value:.6g}{' (tuned)' if name in values['tuned'] else ''}" for name, value in values["weights"].items())
    yield "Weights: " + ", ".join(weights)
    if values["hypotheses_with_unknown_words"]:
        yield f"{values['hypotheses_with_unknown_words']:,} hypotheses hold unknown words, which are all the same word to the model."
    if values["word_error_rates"]:
        yield f"{'word error rate':<16}{'lists':>9}{'before':>10}{'after':>10}{'oracle':>10}"
    for name, numbers in values["word_error_rates"].items():
        rates = "".join(f"{100 * numbers[when]['rate']:>8.2f} %" for when in ("before", "after", "oracle"))
        yield f"{name.replace('_', ' '):<16}{numbers['utterances']:>9,}{rates}"
    if values["tuned"] and values["word_error_rates"]:
        biased = "`tuned on` and `all` are; only `the rest` is not" if "tuned_on" in values["word_error_rates"] else "`all` is here"
        yield f"The rate after tuning is too low on lists that the weights were tuned on: {biased}."


def write(lists: NbestLists, format: NbestFormat, rescored: Sequence[RescoredList], weights: np.ndarray, out: str | None) -> None:
    """Writes the lists re-ranked: JSONL to a file or standard output; other formats to a folder, with all scores as JSONL beside."""
    skipped = [(problem.number, {"error": f"{problem.source}: {problem.reason}"}) for problem in lists.problems]
    records = [(one.utterance.number, record(one, weights, format)) for one in rescored]
    ordered = sorted([*skipped, *records], key=lambda pair: pair[0])  # in the order of the input
    lines = [json_text.dumps(values) + "\n" for _, values in ordered]
    if out in (None, "-"):
        sys.stdout.writelines(lines)
        return
    path = Path(str(out))
    if format.write:
        format.write(path, [RankedList(one.utterance, one.log_probs, one.order(weights), one.totals(weights)) for one in rescored])
        path /= "scores.jsonl"
    files.write_text(path, "".join(lines))


def record(one: RescoredList, weights: np.ndarray, format: NbestFormat) -> dict[str, Any]:
    """A list as it is written, best hypothesis first; all scores but those passed through from JSONL are log-probabilities in nats."""
    totals = one.totals(weights)
    errors = None if one.utterance.reference is None else one.errors
    hypotheses = []
    for index in one.order(weights):
        hypothesis = one.utterance.hypotheses[index]
        scores = {"score": hypothesis.score, "lm_score": hypothesis.lm_score} if format.unit else {}
        fields = {
            "rank": hypothesis.rank, "log_prob": round(float(one.log_probs[index]), 6), "words": len(hypothesis.text.split()),
            "unknown_tokens": int(one.unknown[index]), "total": round(float(totals[index]), 6),
        } | ({} if errors is None else {"errors": int(errors[index])})  # fmt: skip
        extra = passed_through(hypothesis.extra, ["text", *scores, *fields])
        hypotheses.append({"text": hypothesis.text} | scores | extra | fields)
    reference = {} if one.utterance.reference is None else {"reference": one.utterance.reference}
    return {"id": one.utterance.id} | one.utterance.extra | reference | {"hypotheses": hypotheses}
