"""The report of an evaluation: its numbers, as they follow from the summed loss, and how they are printed.

Losses are in nats. Per token: the sum divided by N tokens, `<eos>` included. Per word: the same sum divided by the whitespace-separated
words of the original text plus one `<eos>` per sentence. Bits per byte: by the UTF-8 bytes of the original text, only with a lossless
tokenizer, else null; `unknown_rate` is the share of `<unk>` among the tokens.
"""

import math
from dataclasses import dataclass
from typing import Any

from packlm.base.errors import PacklmError
from packlm.base.escape import one_line
from packlm.evaluation.evaluate import Result
from packlm.model.finite import named, perplexity

FORMAT = 3


@dataclass(frozen=True)
class TextCounts:
    """Size of the evaluated text."""

    documents: int
    sentences: int
    tokens: int
    words: int
    bytes: int
    unknown: int
    lossless: bool


def report(result: Result, counts: TextCounts, provenance: dict[str, Any], details: dict[str, Any] | None = None) -> dict[str, Any]:
    """The numbers of an evaluation, as a JSON object.

    Args:
        provenance: model, data and context.
        details: the result of `packlm.evaluation.breakdown`.

    Raises:
        PacklmError: not every token was scored once.
        NotFinite: a mean loss has no finite perplexity.
    """
    if result.tokens != counts.tokens:
        scored = f"{result.tokens:,} of {counts.tokens:,} tokens were scored"
        raise PacklmError(f"{scored}; the dataset is damaged: run `packlm preprocess verify`")
    words = counts.words + counts.sentences
    with named(f"{provenance.get('model')} on {provenance.get('data')}"):
        perplexities = {"token": perplexity(result.nll / result.tokens), "word": perplexity(result.nll / words)}
    return {
        "format": FORMAT,
        **provenance,
        "tokens": result.tokens,
        "documents": counts.documents,
        "sentences": counts.sentences,
        "words": counts.words,
        "bytes": counts.bytes,
        "nll": result.nll,
        "loss_per_token": result.nll / result.tokens,
        "perplexity": perplexities["token"],
        "loss_per_word": result.nll / words,
        "perplexity_per_word": perplexities["word"],
        "bits_per_byte": result.nll / math.log(2) / counts.bytes if counts.lossless else None,
        "unknown_rate": counts.unknown / result.tokens,
        **(details or {}),
    }


def table(values: dict[str, Any]) -> str:
    """A report as a table for the terminal."""
    return "\n".join(f"{name:<16}{value}" for name, value in rows(values))


def rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    """The main numbers of a report: (name, value); an empty name continues the one before."""
    bits, interval = values["bits_per_byte"], values["interval"]
    limits = f" (95 % confidence interval {interval['perplexity'][0]:.2f} to {interval['perplexity'][1]:.2f})" if interval else ""
    lines = [
        ("model", one_line(values["model"])),
        ("data", one_line(values["data"])),
        ("context", values["context"] if values["context"] != "streams" else f"{values['streams']} stream(s), never reset"),
        *([("adaptation", values["adapted"])] if values["adapted"] else []),
        ("tokens (N)", f"{values['tokens']:,} in {values['sentences']:,} sentences of {values['documents']:,} documents"),
        ("loss per token", f"{values['loss_per_token']:.4f} nats"),
        ("perplexity", f"{values['perplexity']:.2f} per token{limits}"),
        ("", f"{values['perplexity_per_word']:.2f} per word ({values['words']:,} words + {values['sentences']:,} <eos>)"),
        ("bits per byte", f"{bits:.4f}" if bits is not None else "undefined: the tokenizer is not lossless"),
        ("unknown tokens", f"{values['unknown_rate']:.2%}; perplexity of the other tokens {values['perplexity_known']:.2f}"),
        ("accuracy", f"{values['accuracy_at_1']:.1%} top 1, {values['accuracy_at_5']:.1%} top 5"),
    ]
    if baselines := values.get("baselines"):
        names = {"uniform": "uniform", "unigram": "unigrams", "kneser_ney_5": "Kneser-Ney 5-grams"}
        numbers = ", ".join(f"{baselines[key]['perplexity']:,.1f} {name}" for key, name in names.items())
        lines.append(("baselines", f"{numbers}; per token, context: {baselines['context']}"))
        mixture = baselines["interpolated"]
        parts = f"{mixture['weight']:.2f} of the model, {1 - mixture['weight']:.2f} of the 5-grams"
        lines.append(("interpolated", f"{mixture['perplexity']:.2f} per token: {parts} (best for the other half of the text)"))
        if baselines["advice"]:
            lines.append(("", baselines["advice"]))
    return lines


def metrics(values: dict[str, Any], split: str) -> dict[str, float]:
    """The metrics of a report for MLflow, as `SPLIT/name`."""
    names = (
        "loss_per_token", "perplexity", "perplexity_known", "loss_per_word", "perplexity_per_word", "bits_per_byte", "unknown_rate",
        "accuracy_at_1", "accuracy_at_5", "tokens",
    )  # fmt: skip
    numbers = {f"{split}/{name}": values[name] for name in names if values[name] is not None}
    if values["interval"]:
        low, high = values["interval"]["perplexity"]
        numbers |= {f"{split}/perplexity_low": low, f"{split}/perplexity_high": high}
    if "baselines" in values:
        for name in ("kneser_ney_5", "interpolated"):
            numbers[f"{split}/perplexity_{name}"] = values["baselines"][name]["perplexity"]
    return numbers
