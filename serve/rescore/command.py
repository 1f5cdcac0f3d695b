"""The command `rescore`: which lists, references and weights; what is written and said."""

import logging
import math
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from packlm.base import files
from packlm.base.errors import RequestError
from packlm.config import Config, Rescore
from packlm.distributed import Ranks
from packlm.engine import Engine
from packlm.scoring import context as context_scores
from packlm.scoring.context import Context

from ..score.command import NAMED
from ..score.files import free
from . import nbest, nbest_espnet, nbest_kaldi, rescore
from .nbest import NbestLists, Utterance
from .rescore import WEIGHTS, Rescored

log = logging.getLogger("packlm")


def run(model: str | Path, asked: Namespace, config: Config, ranks: Ranks) -> None:
    """Re-ranks the lists that the options `asked` name; see `serve.__main__`.

    Raises:
        RequestError: no such model, an input that is wrong as a whole, no references to tune on, or several processes.
    """
    if ranks.world > 1:
        raise RequestError("rescore runs in one process: weights are tuned on all lists together; start it without torchrun")
    settings = config.rescore
    lists = read(asked, settings)
    for problem in lists.problems[:NAMED]:
        log.warning("%s: %s", problem.where, problem.why)
    if lists.problems:
        log.warning("%d parts of the input were left out", len(lists.problems))
    if not lists.utterances:
        raise RequestError(f"{asked.nbest}: there is no n-best list in it")
    utterances = with_references(lists, asked.references)
    if asked.segments:
        utterances = nbest_kaldi.with_recordings(utterances, asked.segments)
    tune_on = _ids(asked.tune_on) if asked.tune_on else None
    check(utterances, settings, tune_on)
    engine = Engine.load(model, ranks.device, config.tracking, asked.precision)
    if settings.context and engine.isolated_sentences:
        log.warning("the model was trained on single sentences: what precedes one is foreign to it, and --context may well harm")

    def score(texts: Sequence[tuple[Context, str]]) -> tuple[np.ndarray, np.ndarray]:
        return context_scores.log_probs(engine.model, engine.encoder, texts, config.evaluate.batch_tokens)

    scored, weights = rescore.rescore(utterances, score, settings, tune_on)
    scored.sort(key=lambda one: one.utterance.number)
    made = {"model": engine.info.name, "weights_digest": engine.info.weights, "lists": str(asked.nbest)}
    made |= summary(lists, scored, weights, settings, tune_on)
    write(lists, scored, weights, asked.out)
    if asked.summary:
        files.write_json(asked.summary, made)
    to_people = "\n".join(table(made))
    if asked.out and asked.out != "-":
        print(to_people)
    else:
        log.info("%s", to_people)


def read(asked: Namespace, settings: Rescore) -> NbestLists:
    """The lists of `--nbest`: a folder is ESPnet's, a file that goes with `--ac-cost` Kaldi's, any other JSONL."""
    path, kaldi = Path(asked.nbest), asked.ac_cost or asked.lm_cost
    inputs = [given.resolve() for given in (path, asked.ac_cost, asked.lm_cost) if given]
    if asked.out and Path(asked.out).resolve() in [*inputs, *(given.parent for given in inputs if kaldi)]:
        raise RequestError(f"--out {asked.out} would write over the input: give another place")
    if kaldi and not asked.ac_cost:
        raise RequestError("--lm-cost goes with --ac-cost: give both archives, or only that one")
    if (path.is_dir() or kaldi) and (settings.sign, settings.log_base) != ("log-prob", "e"):
        raise RequestError("--sign and --log-base are about JSONL: Kaldi's files hold costs, and ESPnet's log-probabilities, in nats")
    if path.is_dir():
        return nbest_espnet.read(path)
    if kaldi:
        return nbest_kaldi.read(path, asked.ac_cost, asked.lm_cost)
    if path.suffix != ".jsonl":
        raise RequestError(f"{path}: lists are a .jsonl file, ESPnet's folder, or Kaldi's words with --ac-cost FILE; it is none of these")
    return nbest.read_jsonl(path, settings.sign, math.e if settings.log_base == "e" else settings.log_base)


def with_references(lists: NbestLists, path: Path | None) -> list[Utterance]:
    """The utterances with the references of a file, where it is given; what does not match is said."""
    references = nbest_kaldi.read_text(path) if path else {}
    utterances = nbest.with_references(lists, references)
    there = {one.id for one in utterances}
    without = [one.id for one in utterances if one.reference is None]
    unused = [id for id in references if id not in there]
    gaps = [one.id for one in utterances if [hypothesis.rank for hypothesis in one.hypotheses] != [*range(1, len(one.hypotheses) + 1)]]
    if len(without) < len(utterances) and without:
        log.warning("%d lists have no reference, %s first; they are rescored and count in no error rate", len(without), without[0])
    if unused:
        log.warning("%d references have no list, %s first; they count in no error rate", len(unused), unused[0])
    if gaps:
        log.warning("%d lists lack some rank, %s first; the hypotheses that are there are rescored", len(gaps), gaps[0])
    return utterances


def check(utterances: Sequence[Utterance], settings: Rescore, tune_on: set[str] | None) -> None:
    """Refuses what cannot be done with these lists, before the model is read."""
    tuned = [name for name in WEIGHTS if getattr(settings, name) == "tune"]
    words = {one.id: len(one.reference.split()) for one in utterances if one.reference is not None}
    if tuned and not words:
        raise RequestError(f"{tuned[0]} = tune needs references: give --references FILE, or --{tuned[0].replace('_', '-')} NUMBER")
    if words and not sum(words.values()):
        raise RequestError("the references hold no word, so that there is no word error rate")
    if tune_on is not None and not tuned:
        raise RequestError("--tune-on goes with a weight that is tuned: none is")
    if tune_on is not None and not tune_on & set(words):
        raise RequestError("--tune-on names no utterance that has a list and a reference")
    if settings.old_lm_weight != 0.0 and not any(hypothesis.lm_score is not None for one in utterances for hypothesis in one.hypotheses):
        raise RequestError("old_lm_weight: the lists hold no score of the old language model (Kaldi: --lm-cost FILE; JSONL: lm_score)")
    if settings.context and not any(one.recording is not None for one in utterances):
        raise RequestError("--context needs to know recordings: give --segments FILE (Kaldi's), or a field `recording` in JSONL")


def _ids(path: Path) -> set[str]:
    """The first word of each line of a file."""
    return set(nbest_kaldi.read_text(path))


def summary(
    lists: NbestLists, scored: Sequence[Rescored], weights: np.ndarray, settings: Rescore, tune_on: set[str] | None
) -> dict[str, Any]:
    """What was done, and the word error rates where there are references."""
    sign, base = {"kaldi": ("cost", "e"), "espnet": ("log-prob", "e")}.get(lists.form, (settings.sign, settings.log_base))
    unknown = [count > 0 for one in scored for count in one.unknown.tolist()]
    made = {
        "form": lists.form, "scores_read_as": {"sign": sign, "log_base": base},
        "utterances": len(scored), "hypotheses": len(unknown), "hypotheses_with_unknown_words": sum(unknown),
        "left_out": len(lists.problems),
        "context": {"utterances": settings.context, "from": settings.context_from} if settings.context else None,
        "weights": dict(zip(WEIGHTS, weights.tolist(), strict=True)),
        "tuned": [name for name in WEIGHTS if getattr(settings, name) == "tune"],
    }  # fmt: skip
    parts = {"all": rescore.judged(scored)}
    if tune_on is not None:
        parts["tuned_on"] = [one for one in parts["all"] if one.utterance.id in tune_on]
        parts["the_rest"] = [one for one in parts["all"] if one.utterance.id not in tune_on]
    made["word_error_rates"] = {}
    for name, part in parts.items():
        rates = rescore.rates(part, weights)
        if rates["before"].words:
            found = {when: {"rate": round(rate.rate, 6), "errors": rate.errors, "words": rate.words} for when, rate in rates.items()}
            made["word_error_rates"][name] = {"utterances": len(part)} | found
    return made


def table(made: dict[str, Any]) -> Iterator[str]:
    """A summary for people."""
    read_as = made["scores_read_as"]
    yield f"{made['utterances']:,} lists, {made['hypotheses']:,} hypotheses; scores read as {read_as['sign']}, base {read_as['log_base']}."
    yield "Weights: " + ", ".join(
        f"{name} {value:.6g}{' (tuned)' if name in made['tuned'] else ''}" for name, value in made["weights"].items()
    )  # fmt: skip
    if made["hypotheses_with_unknown_words"]:
        yield f"{made['hypotheses_with_unknown_words']:,} hypotheses hold words unknown to the model, which takes them for one word."
    if made["word_error_rates"]:
        yield f"{'word error rate':<16}{'lists':>9}{'before':>10}{'after':>10}{'oracle':>10}"
    for name, found in made["word_error_rates"].items():
        rates = "".join(f"{100 * found[when]['rate']:>8.2f} %" for when in ("before", "after", "oracle"))
        yield f"{name.replace('_', ' '):<16}{found['utterances']:>9,}{rates}"
    if made["tuned"] and made["word_error_rates"]:
        where = "`tuned on` and `all`: only `the rest` says" if "tuned_on" in made["word_error_rates"] else "here: other lists would say"
        yield f"A rate on lists that the weights were tuned on is too good, as {where} what the weights are worth."


def write(lists: NbestLists, scored: Sequence[Rescored], weights: np.ndarray, out: str | None) -> None:
    """Writes the lists re-ranked: JSONL to a file or standard output; Kaldi's and ESPnet's form, and all scores as JSONL, to a folder."""
    made = ((one.utterance.number, record(one, weights, lists.form)) for one in scored)
    text = nbest.records(lists.problems, made)
    if out in (None, "-"):
        sys.stdout.writelines(text)
        return
    path = Path(str(out))
    if lists.form == "jsonl":
        with files.atomic(path, "w") as stream:
            stream.writelines(text)
        return
    ranked = [(one.utterance, one.log_probs, one.order(weights), one.totals(weights)) for one in scored]
    (nbest_kaldi if lists.form == "kaldi" else nbest_espnet).write(path, ranked)
    with files.atomic(path / "scores.jsonl", "w") as stream:
        stream.writelines(text)


def record(one: Rescored, weights: np.ndarray, form: str) -> dict[str, Any]:
    """A list as it is written, best first. `log_prob`, `total` and, but for JSONL's own, all scores are log-probabilities in nats."""
    totals = one.totals(weights)
    errors = None if one.utterance.reference is None else one.errors
    hypotheses = []
    for index in one.order(weights):
        hypothesis = one.utterance.hypotheses[index]
        given = {} if form == "jsonl" else {"score": hypothesis.score, "lm_score": hypothesis.lm_score}
        own = {
            "rank": hypothesis.rank, "log_prob": round(float(one.log_probs[index]), 6), "words": len(hypothesis.text.split()),
            "unknown_tokens": int(one.unknown[index]), "total": round(float(totals[index]), 6),
        } | ({} if errors is None else {"errors": int(errors[index])})  # fmt: skip
        others = {free(name, own): value for name, value in hypothesis.others.items()}
        hypotheses.append({"text": hypothesis.text} | given | others | own)
    reference = {} if one.utterance.reference is None else {"reference": one.utterance.reference}
    return {"id": one.utterance.id} | one.utterance.others | reference | {"hypotheses": hypotheses}
