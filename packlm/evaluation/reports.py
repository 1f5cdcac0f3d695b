"""What an evaluation says: the numbers, how they follow from the summed loss, and how they are shown.

Losses are in nats. Per token: over N tokens, `<eos>` included. Per word: the same sum over the white-space words of the original text
plus one `<eos>` a sentence. Bits per byte: over the UTF-8 bytes of the original text, and only where the tokenizer loses
nothing; elsewhere it is null, and `unknown_rate` says what share of the tokens was `<unk>`.
"""

import math
from dataclasses import dataclass
from typing import Any

from packlm.base.errors import PacklmError
from packlm.evaluation.evaluate import Result

FORMAT = 3


@dataclass(frozen=True)
class TextCounts:
    """How much text was measured, whatever the model makes of it."""

    documents: int
    sentences: int
    tokens: int
    words: int
    bytes: int
    unknown: int
    lossless: bool


def report(result: Result, measured: TextCounts, origin: dict[str, Any], details: dict[str, Any] | None = None) -> dict[str, Any]:
    """The numbers of an evaluation, for JSON.

    Args:
        origin: what was measured, on what and how: model, data and context.
        details: what `packlm.evaluation.breakdown` makes of the parts.

    Raises:
        PacklmError: not every token was scored once, or a number is infinite.
    """
    if result.tokens != measured.tokens:
        found = f"{result.tokens:,} tokens were scored of {measured.tokens:,}"
        raise PacklmError(f"{found}; the dataset is damaged: `python -m preprocess verify` says where")
    words = measured.words + measured.sentences
    return {
        "format": FORMAT,
        **origin,
        "tokens": result.tokens,
        "documents": measured.documents,
        "sentences": measured.sentences,
        "words": measured.words,
        "bytes": measured.bytes,
        "nll": result.nll,
        "loss_per_token": result.nll / result.tokens,
        "perplexity": perplexity(result.nll / result.tokens),
        "loss_per_word": result.nll / words,
        "perplexity_per_word": perplexity(result.nll / words),
        "bits_per_byte": result.nll / math.log(2) / measured.bytes if measured.lossless else None,
        "unknown_rate": measured.unknown / result.tokens,
        **(details or {}),
    }


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats; `PacklmError` where it is not a finite number."""
    if not loss < math.log(1.7e308):
        raise PacklmError(f"a mean loss of {loss} nats has no finite perplexity: the weights are unusable, or dynamic_lr is too high")
    return math.exp(loss)


def table(values: dict[str, Any]) -> str:
    """A report for reading."""
    return "\n".join(f"{name:<16}{value}" for name, value in rows(values))


def rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    """What a report says in short: (name, value), no name where a value goes on."""
    bits, interval = values["bits_per_byte"], values["interval"]
    between = f", {interval['perplexity'][0]:.2f} to {interval['perplexity'][1]:.2f} had other documents been drawn" if interval else ""
    found = [
        ("model", values["model"]),
        ("measured on", values["data"]),
        ("context", values["context"] if values["context"] != "streams" else f"{values['streams']} stream(s), never reset"),
        *([("adapted by", values["adapted"])] if values["adapted"] else []),
        ("tokens (N)", f"{values['tokens']:,} in {values['sentences']:,} sentences of {values['documents']:,} documents"),
        ("loss per token", f"{values['loss_per_token']:.4f} nats"),
        ("perplexity", f"{values['perplexity']:.2f} per token{between}"),
        ("", f"{values['perplexity_per_word']:.2f} per word ({values['words']:,} words + {values['sentences']:,} <eos>)"),
        ("bits per byte", f"{bits:.4f}" if bits is not None else "not defined: the tokenizer does not keep the whole text"),
        ("unknown tokens", f"{values['unknown_rate']:.2%}; perplexity of the others {values['perplexity_known']:.2f}"),
        ("accuracy", f"{values['accuracy_at_1']:.1%} likeliest of all, {values['accuracy_at_5']:.1%} among the likeliest five"),
    ]
    if beside := values.get("baselines"):
        names = {"uniform": "all tokens alike", "unigram": "their frequencies", "kneser_ney_5": "Kneser-Ney 5-grams"}
        numbers = ", ".join(f"{beside[key]['perplexity']:,.1f} {name}" for key, name in names.items())
        found.append(("without a model", f"{numbers}; per token, each sentence by itself"))
    return found


def metrics(values: dict[str, Any], split: str) -> dict[str, float]:
    """The numbers of a report that MLflow keeps, as `SPLIT/name`."""
    names = (
        "loss_per_token", "perplexity", "perplexity_known", "loss_per_word", "perplexity_per_word", "bits_per_byte", "unknown_rate",
        "accuracy_at_1", "accuracy_at_5", "tokens",
    )  # fmt: skip
    found = {f"{split}/{name}": values[name] for name in names if values[name] is not None}
    if values["interval"]:
        low, high = values["interval"]["perplexity"]
        found |= {f"{split}/perplexity_low": low, f"{split}/perplexity_high": high}
    if "baselines" in values:
        found[f"{split}/perplexity_kneser_ney_5"] = values["baselines"]["kneser_ney_5"]["perplexity"]
    return found
