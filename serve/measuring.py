"""Measuring a model on text: a split of a dataset, or plain text files read by the model's own rules. Both give the same numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import dataset
from pipeline.config import Corpus, Evaluate
from pipeline.errors import RequestError
from preprocess import documents
from preprocess.encoding import Encoder, encode_documents
from preprocess.texts import Texts
from serve.baselines import baselines
from serve.reports import Measured, report
from train.distributed import Ranks
from train.evaluation import Plain, Result, chosen_context, evaluate
from train.model import LanguageModel
from train.model_folder import About
from train.views import Sentences, Stream

_RULES = (
    "text_field", "encoding", "document", "document_pattern", "sentences", "language", "max_tokens", "on_overlong", "drop_lines",
    "on_bad_text", "on_control", "line_ends", "on_empty", "max_document_bytes",
)  # fmt: skip
"""The settings that say how files become documents, and documents sentences."""


def rules_of(about: About) -> Corpus:
    """The rules by which the model's text became sentences; where its own files were is no part of them."""
    return Corpus.model_validate({name: about.text[name] for name in _RULES if name in about.text})


def measure_dataset(model: LanguageModel, about: About, folder: Path, settings: Evaluate, ranks: Ranks) -> dict[str, Any]:
    """All ranks: the report of `settings.split` of a dataset.

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
    context = chosen_context(settings.context, about.context)
    sentences, stream = Sentences.open(folder, manifest, settings.split), Stream.open(folder, manifest, settings.split)
    result = evaluate(Plain(model), sentences, stream, context, settings.streams, settings.batch_tokens, ranks)
    measured = Measured(split.documents, split.sentences, split.tokens, split.words, split.bytes, split.unknown, manifest.lossless)
    origin = {"data": f"{settings.split} of {folder}", "split": settings.split, "data_digest": manifest.digests["content"]}
    made = report(result, measured, _origin(about, settings) | origin)
    if settings.baselines and ranks.first and "train" in manifest.splits:
        made["baselines"] = baselines(Sentences.open(folder, manifest, "train"), sentences, manifest.vocab_size)
    return made


def measure_text(
    model: LanguageModel, about: About, encoder: Encoder, places: Sequence[str], settings: Evaluate, ranks: Ranks
) -> tuple[dict[str, Any], "Counter[str]"]:
    """All ranks: the report of plain text files (files, folders, globs), and what was skipped, replaced or dropped in them, counted.

    Raises:
        RequestError: there is no text.
        PacklmError: text that is not UTF-8, where the model's rules do not say what to do with it.
    """
    rules, counts = rules_of(about), Counter[str]()
    found = documents.texts(places, rules, encoder.spelled_eos, counts)
    result, measured, ids_digest = measure_documents(model, about, encoder, found, settings, ranks)
    origin = {"data": " ".join(places), "split": None, "data_digest": ids_digest}
    return report(result, measured, _origin(about, settings) | origin), counts


def measure_documents(
    model: LanguageModel, about: About, encoder: Encoder, found: Iterable[Texts], settings: Evaluate, ranks: Ranks
) -> tuple[Result, Measured, str]:
    """All ranks: measures blocks of documents; returns (result, how much was measured, digest of the ids)."""
    rules = rules_of(about)
    blocks = [encode_documents(texts, rules, encoder) for texts in found]
    if not any(len(block.ids) for block in blocks):
        raise RequestError("there is no text to measure: nothing but empty documents")
    ids = np.concatenate([block.ids for block in blocks])
    before = np.cumsum([0, *(len(block.ids) for block in blocks)]).tolist()
    ends = np.concatenate([block.ends + start for block, start in zip(blocks, before, strict=False)])
    opens = np.concatenate([block.document_starts + start for block, start in zip(blocks, before, strict=False)])
    context = chosen_context(settings.context, about.context)
    sentences, stream = Sentences.from_arrays(ids, ends), Stream.from_arrays(ids, opens, encoder.eos)
    result = evaluate(Plain(model), sentences, stream, context, settings.streams, settings.batch_tokens, ranks)
    unknown = int((ids == encoder.unk).sum()) if encoder.unk is not None else 0
    words, num_bytes = sum(block.num_words for block in blocks), sum(block.num_bytes for block in blocks)
    measured = Measured(len(opens), len(ends), len(ids), words, num_bytes, unknown, encoder.lossless)
    return result, measured, dataset.ids_digest(ids)


def _origin(about: About, settings: Evaluate) -> dict[str, Any]:
    context = chosen_context(settings.context, about.context)
    return {
        "model": about.name,
        "weights_digest": about.weights,
        "tokenizer_digest": about.tokenizer,
        "context": context,
        "streams": settings.streams if context == "streams" else None,
    }
