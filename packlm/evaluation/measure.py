"""Measuring a model on text: a split of a dataset, or plain text files read by the model's own rules. Both give the same numbers."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from packlm import dataset
from packlm.base.errors import RequestError
from packlm.config import Corpus, Evaluate
from packlm.corpus import documents
from packlm.dataset.views import Sentences, Stream
from packlm.distributed import Ranks
from packlm.evaluation.baselines import TOKENS, Baselines, baselines
from packlm.evaluation.breakdown import breakdown
from packlm.evaluation.details import DetailedScorer, by_document, by_sentence_length, by_token
from packlm.evaluation.dynamic_evaluation import DynamicScorer, mean_squares
from packlm.evaluation.evaluate import ModelScorer, Result, Scorer, evaluate, first_targets, resolve_context
from packlm.evaluation.neural_cache import CachedScorer
from packlm.evaluation.reports import TextCounts, report
from packlm.model.folder import ModelInfo
from packlm.model.language_model import LanguageModel
from packlm.model.quantized import QuantizedModel
from packlm.text.document_block import DocumentBlock
from packlm.text.encoder import Encoder, encode_documents

_RULES = (
    "text_field", "encoding", "document", "document_pattern", "sentences", "language", "max_tokens", "on_overlong", "drop_lines",
    "on_bad_text", "on_control", "line_ends", "on_empty", "max_document_bytes",
)  # fmt: skip
"""The settings that say how files become documents, and documents sentences."""


def rules_of(about: ModelInfo) -> Corpus:
    """The rules by which the model's text became sentences; where its own files were is no part of them."""
    return Corpus.model_validate({name: about.text[name] for name in _RULES if name in about.text})


def measure_dataset(model: LanguageModel, about: ModelInfo, folder: Path, settings: Evaluate, ranks: Ranks) -> dict[str, Any]:
    """All ranks: the report of one split of a dataset, `settings.split`.

    Raises:
        RequestError: no dataset there, no such split, or ids of another tokenizer than the model's.
    """
    manifest = dataset.read_manifest(folder)
    split = manifest.split(settings.split)
    if manifest.digests["tokenizer"] != about.tokenizer:
        raise RequestError(
            f"{folder}: its ids are of another tokenizer ({manifest.digests['tokenizer'][:16]}) than the model's ({about.tokenizer[:16]}); "
            "measure the text itself with --text, or make the dataset with the model's tokenizer.json (--tokenizer.kind file)"
        )
    sentences, stream = Sentences.open(folder, manifest, settings.split), Stream.open(folder, manifest, settings.split)
    training = Sentences.open(folder, manifest, "train") if "train" in manifest.splits else None
    ranks.barrier()  # opening may take long where one rank prepares what all of them read
    seen = ranks.sum(training.counts(manifest.vocab_size, ranks.rank, ranks.world)) if training is not None else None
    text = _Text(sentences, stream, Encoder.load(folder), seen)
    learned = Stream.open(folder, manifest, "train") if training is not None and settings.dynamic_lr else None
    beside = None
    # On the training split n-grams would have seen the answers; and they hold several numbers for every token in memory.
    if settings.baselines and ranks.first and training is not None and settings.split != "train" and sentences.tokens <= TOKENS:
        beside = baselines(training, sentences, manifest.vocab_size)

    def names(numbers: Sequence[int]) -> list[str]:
        opening = np.searchsorted(first_targets(sentences), stream.opens[list(numbers)])
        return dataset.document_names(folder, manifest, settings.split, opening)

    result, details = _measure(_scorer(model, about, settings, learned), about, text, settings, ranks, beside, names)
    measured = TextCounts(split.documents, split.sentences, split.tokens, split.words, split.bytes, split.unknown, manifest.lossless)
    ids = sentences.read(np.arange(len(sentences)))[1] if ranks.first else np.zeros(0, np.int64)
    origin = {"data": f"{settings.split} of {folder}", "split": settings.split, "data_digest": manifest.digests["content"]}
    origin |= {"ids_digest": dataset.ids_digest(ids)}
    made = report(result, measured, _origin(about, settings) | origin, details)
    return made | ({"baselines": beside.summary()} if beside else {})


def measure_text(
    model: LanguageModel, about: ModelInfo, encoder: Encoder, places: Sequence[str], settings: Evaluate, ranks: Ranks
) -> tuple[dict[str, Any], "Counter[str]"]:
    """All ranks: the report of plain text files (files, folders, globs), and what was skipped, replaced or dropped in them, counted.

    Raises:
        RequestError: there is no text.
        PacklmError: text that is not UTF-8, where the model's rules do not say what to do with it.
    """
    rules, changes = rules_of(about), Counter[str]()
    found = documents.texts(places, rules, encoder.spelled_eos, changes)
    result, measured, ids_digest, details = measure_documents(model, about, encoder, found, settings, ranks)
    origin = {"data": " ".join(places), "split": None, "data_digest": ids_digest, "ids_digest": ids_digest}
    return report(result, measured, _origin(about, settings) | origin, details), changes


def measure_documents(
    model: LanguageModel, about: ModelInfo, encoder: Encoder, found: Iterable[DocumentBlock], settings: Evaluate, ranks: Ranks
) -> tuple[Result, TextCounts, str, dict[str, Any]]:
    """All ranks: measures blocks of documents; returns (result, how much was measured, digest of the ids, its parts)."""
    rules = rules_of(about)
    blocks, document_names = [], []
    for texts in found:
        block = encode_documents(texts, rules, encoder)
        opening = np.searchsorted(block.ends, block.document_starts, side="right")
        document_names += texts.names.take(pa.array(block.documents[opening])).to_pylist()
        blocks.append(block)
    if not any(len(block.ids) for block in blocks):
        raise RequestError("there is no text to measure: nothing but empty documents")
    ids = np.concatenate([block.ids for block in blocks])
    before = np.cumsum([0, *(len(block.ids) for block in blocks)]).tolist()
    ends = np.concatenate([block.ends + start for block, start in zip(blocks, before, strict=False)])
    opens = np.concatenate([block.document_starts + start for block, start in zip(blocks, before, strict=False)])
    text = _Text(Sentences.from_arrays(ids, ends), Stream.from_arrays(ids, opens, encoder.eos), encoder, None)

    def names(numbers: Sequence[int]) -> list[str]:
        return [document_names[number] for number in numbers]

    result, details = _measure(_scorer(model, about, settings, None), about, text, settings, ranks, None, names)
    unknown = int((ids == encoder.unk).sum()) if encoder.unk is not None else 0
    words, num_bytes = sum(block.num_words for block in blocks), sum(block.num_bytes for block in blocks)
    measured = TextCounts(len(opens), len(ends), len(ids), words, num_bytes, unknown, encoder.lossless)
    return result, measured, dataset.ids_digest(ids), details


@dataclass(frozen=True)
class _Text:
    """What is measured: a text in both views."""

    sentences: Sentences
    stream: Stream
    encoder: Encoder
    seen: np.ndarray | None
    """[V] how often each id occurs in training, where that is known."""


def _scorer(model: LanguageModel, about: ModelInfo, settings: Evaluate, training: Stream | None) -> Scorer:
    """The model, with what `settings` add to it; `training`: the split that it was trained on."""
    if not (settings.cache or settings.dynamic_lr):
        return ModelScorer(model)
    if resolve_context(settings.context, about.context) == "sentences":
        raise RequestError("a cache and dynamic evaluation learn from the text before: give --context documents or streams")
    if settings.cache:
        return CachedScorer(model, settings.cache, settings.cache_theta, settings.cache_share)
    if isinstance(model, QuantizedModel):
        raise RequestError("dynamic evaluation trains the model further: leave --precision at full")
    if training is None:
        raise RequestError("dynamic evaluation goes by the size of gradients in training: measure a dataset that has a training split")
    squares = mean_squares(model, training, settings.dynamic_window)
    return DynamicScorer(model, squares, settings.dynamic_lr, settings.dynamic_decay, settings.dynamic_window)


def _measure(
    scorer: Scorer, about: ModelInfo, text: _Text, settings: Evaluate, ranks: Ranks, beside: Baselines | None,
    names: Callable[[Sequence[int]], list[str]],
) -> tuple[Result, dict[str, Any]]:  # fmt: skip
    """All ranks: (the whole, its parts)."""
    groupings = {
        "document": by_document(text.stream.opens),
        "sentence_length": by_sentence_length(text.sentences.lengths),
        "token": by_token(about.vocab_size, text.encoder.eos, text.encoder.unk, text.seen),
    }
    detailed = DetailedScorer(scorer, groupings)
    context = resolve_context(settings.context, about.context)
    result = evaluate(detailed, text.sentences, text.stream, context, settings.streams, settings.batch_tokens, ranks)
    sums = detailed.sums(ranks)
    ids = text.sentences.read(np.arange(len(text.sentences)))[1] if beside else np.zeros(0, np.int64)
    return result, breakdown(sums, groupings, ids, beside, names)


def _origin(about: ModelInfo, settings: Evaluate) -> dict[str, Any]:
    context = resolve_context(settings.context, about.context)
    return {
        "model": about.name,
        "weights_digest": about.weights,
        "tokenizer_digest": about.tokenizer,
        "context": context,
        "streams": settings.streams if context == "streams" else None,
        "adapted": _adapted(settings),
    }


def _adapted(settings: Evaluate) -> str | None:
    """How the model goes on learning from the text that it is measured on."""
    if settings.cache:
        return f"neural cache of {settings.cache:,} tokens, theta {settings.cache_theta:g}, share {settings.cache_share:g}"
    if settings.dynamic_lr:
        return f"dynamic evaluation, lr {settings.dynamic_lr:g}, decay {settings.dynamic_decay:g}, window {settings.dynamic_window}"
    return None
