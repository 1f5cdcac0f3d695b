"""What is found in a folder of text: its files, documents, sentences, language and overlap, and the beginnings of some sentences.

Large corpora are judged by a sample: the first documents of all files, in the order of a hash, up to `SAMPLE_BYTES`.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packlm.base.errors import RequestError
from packlm.config import Corpus
from packlm.corpus import documents, formats, streams
from packlm.corpus.sources import Source
from packlm.corpus.transcoding import label
from packlm.dataset import SPLITS
from packlm.text import sentences

from . import corpus_files, language, overlap, structure, text_field
from .corpus_files import CorpusFiles
from .overlap import Overlap
from .structure import Structure

SAMPLE_BYTES = 1 << 25
_SENTENCE_BYTES = 1 << 19
_LANGUAGE_CHARACTERS = 200_000
_HELD_OUT = ((2e6, 0.1), (2e7, 0.05), (1e9, 0.02), (float("inf"), 0.002))
"""(bytes, share): corpora up to this size hold out this share of their documents, for validation and as much again for testing."""
_NEVER_DROPPED = 12
"""Words of a line that is text, however often it occurs."""
_HELD_OUT_DOCUMENTS = 8
"""Documents that each held-out split should have at least."""
_SEEDS, _MAX_FACTOR = 50, 1.25
_PROMPTS, _PROMPT_WORDS = 4, 3


@dataclass(frozen=True)
class Findings:
    """What a recipe is written from."""

    files: CorpusFiles
    encodings: Counter[str]
    """Files by the name of their encoding."""
    structure: Structure
    corpus: Corpus
    """The settings that the text was read with, those of the recipe."""
    language: str
    """Code for sentencex; empty if it could not be told."""
    is_tokenized: bool
    """Whether words are separated from punctuation and rare ones replaced by `<unk>`, as in Penn Treebank."""
    file_bytes: int
    """Of all files; the other numbers are of the sample, where there is one."""
    sample: float
    """The share of the files' bytes that was read."""
    documents: int
    held_out: int
    """Documents of the validation split."""
    words: int
    text_bytes: int
    train_share: float
    """Share of the text that is for training."""
    sentence_words: list[int]
    """Words of each sentence of some documents, sorted."""
    sentences_per_document: float
    overlap: Overlap
    prompts: list[str]
    """Beginnings of sentences of validation documents."""

    @property
    def train_bytes(self) -> int:
        """About the bytes of the training split."""
        return int(self.text_bytes / self.sample * self.train_share)


def inspect(folder: str) -> Findings:
    """Looks at a folder, or a single file.

    Raises:
        RequestError: there is no such folder; it holds no text.
        PacklmError: a file that cannot be read.
    """
    files = corpus_files.look(folder)
    sources = sorted(files.sources, key=lambda source: zlib.crc32(source.name.encode()))
    file_bytes = sum(source.state()[0] for source in sources)
    rules, found = _rules(files, sources, file_bytes)
    counts = Counter[str]()
    texts = dict(_sample(sources, rules, counts))
    if not texts:
        raise RequestError(f"{folder}: all of its text is blank; give a folder of text, JSONL, CSV or Parquet files")
    rules = _held_out(rules, {name: text for name, text in texts.items() if _named_split(name, files) in ("", "train")}, file_bytes)
    split_of = {name: _named_split(name, files).removeprefix("train") or rules.split_of(name) for name in texts}
    read = {split: sum(len(text.encode()) for name, text in texts.items() if split_of[name] == split) for split in SPLITS}
    shared = overlap.measure([*texts.values()], [split_of[name] != "train" for name in texts])
    rules = rules.model_copy(
        update={
            "drop_lines": (*found.separators, *_furniture(shared, rules)),
            "duplicates": "skip" if shared.duplicates and rules.document not in ("line", "paragraph") else "keep",
            "on_bad_text": "replace" if any("U+FFFD" in reason for reason in counts) else "error",
            "on_control": "remove" if any("control characters removed" in reason for reason in counts) else "error",
        }
    )
    code = language.language("\n".join(texts.values())[:_LANGUAGE_CHARACTERS])
    rules = rules.model_copy(update={"language": code or rules.language})
    split = [_sentences(text, rules) for text in _up_to(texts.values(), _SENTENCE_BYTES)]
    held_out = [text for name, text in texts.items() if split_of[name] == "validation"]
    return Findings(
        files=files,
        encodings=Counter(label(source.encoding) for source in sources),
        structure=found,
        corpus=rules,
        language=code,
        is_tokenized=_is_tokenized([*_up_to(texts.values(), _SENTENCE_BYTES)]),
        file_bytes=file_bytes,
        sample=min(1.0, sum(read.values()) / max(1, file_bytes)) if sum(read.values()) >= SAMPLE_BYTES else 1.0,
        documents=len(texts),
        held_out=len(held_out),
        words=sum(len(text.split()) for text in texts.values()),
        train_share=read["train"] / sum(read.values()),
        text_bytes=sum(read.values()),
        sentence_words=sorted(len(sentence.split()) for document in split for sentence in document),
        sentences_per_document=sum(map(len, split)) / max(1, len(split)),
        overlap=shared,
        prompts=_prompts([_sentences(text, rules) for text in _up_to(held_out or texts.values(), _SENTENCE_BYTES // 8)]),
    )


def _rules(files: CorpusFiles, sources: list[Source], file_bytes: int) -> tuple[Corpus, Structure]:
    """The settings to read the sources with, and the structure that they follow from."""
    rules = Corpus(
        **{split: tuple(locations) for split, locations in files.locations.items()},
        encoding="utf-8" if all(source.encoding == "utf-8" for source in sources) else "auto",
        on_bad_text="replace", on_control="remove",
    )  # fmt: skip
    if records := [source for source in sources if source.format != "text"]:
        field = text_field.text_field(records[0])
        found = Structure(reason=f"records of {records[0].name}, with the text in {field!r}")
        rules = rules.model_copy(update={"text_field": field})
    else:
        found = structure.structure([*_beginnings(sources)], len(sources))
    changes = {
        "document": found.document, "document_pattern": found.pattern, "sentences": found.sentences, "drop_lines": found.separators,
    }  # fmt: skip
    return rules.model_copy(update=changes), found


def _held_out(rules: Corpus, texts: dict[str, str], file_bytes: int) -> Corpus:
    """The share to hold out, and a seed with which both held-out splits have about that share of the text.

    Documents are chosen one by one: of thirty, one in twenty may be none, and of unequal ones, most of the text.
    """
    share = next(share for size, share in _HELD_OUT if file_bytes <= size)
    share = min(0.1, max(share, round(_HELD_OUT_DOCUMENTS / len(texts), 2)))
    missing = [split for split in ("validation", "test") if not getattr(rules, split)]
    rules = rules.model_copy(update={f"{split}_fraction": share for split in missing})

    def farthest(seed: int) -> float:
        """How far, as a factor, the share of a held-out split is from what was asked for."""
        sizes = Counter[str]()
        seeded = rules.model_copy(update={"split_seed": seed})
        for name, text in texts.items():
            sizes[seeded.split_of(name)] += len(text)
        ratios = [max(1e-9, sizes[split] / max(1, sizes.total()) / share) for split in missing]
        return max((max(ratio, 1 / ratio) for ratio in ratios), default=1.0)

    factors = {1: farthest(1)}
    for seed in range(2, _SEEDS) if factors[1] > _MAX_FACTOR else ():
        factors[seed] = farthest(seed)
    seed = min(factors, key=factors.__getitem__)
    if factors[seed] > 1e6:
        return rules.model_copy(update={"validation_fraction": 0.0, "test_fraction": 0.0})
    return rules.model_copy(update={"split_seed": seed})


def _named_split(name: str, files: CorpusFiles) -> str:
    """The split of a document whose source says it; else empty."""
    return files.splits.get(name) or files.splits.get(name.rpartition(":")[0], "")


def _beginnings(sources: Iterable[Source]) -> Iterator[str]:
    """The text of the first files, `SAMPLE_BYTES` in all; of a file that is longer, its beginning."""
    remaining = SAMPLE_BYTES
    for source in sources:
        data = streams.head(source, remaining)
        yield data.decode(source.encoding, errors="replace")
        remaining -= len(data)
        if remaining <= 0:
            return


def _sample(sources: Iterable[Source], rules: Corpus, counts: Counter[str]) -> Iterator[tuple[str, str]]:
    """(name, text) of documents, until there are `SAMPLE_BYTES`."""
    size = 0
    for block in documents.read_all((formats.whole(source, rules) for source in sources), rules, "", counts):
        for name, text in block:
            yield name, text
            size += len(text.encode())
            if size >= SAMPLE_BYTES:
                return


def _up_to(texts: Iterable[str], size: int) -> Iterator[str]:
    """The first texts, with `size` characters in all; at least a part of the first one."""
    for text in texts:
        if size <= 0:
            return
        yield text[:size]
        size -= len(text)


def _sentences(text: str, rules: Corpus) -> list[str]:
    return [sentence for sentence, _ in sentences.split(text, rules.sentences, rules.language)[1]]


def _furniture(shared: Overlap, rules: Corpus) -> list[str]:
    """Patterns of the lines that so many documents share that they are no text of any."""
    if rules.document in ("line", "paragraph"):
        return []
    return [re.escape(line).replace("\\ ", " ") for line in shared.repeated_lines if len(line.split()) <= _NEVER_DROPPED]


def _is_tokenized(texts: list[str]) -> bool:
    """Whether unknown words are spelled `<unk>`, and marks stand by themselves."""
    words = Counter(word for text in texts for word in text.split())
    return words["<unk>"] > 0.001 * words.total()


def _prompts(documents: list[list[str]]) -> list[str]:
    """The first words of a sentence of each of some documents, spread over them, all different."""
    whole = [[sentence for sentence in document if sentence[0].isupper() and len(sentence.split()) >= 8] for document in documents]
    whole = [document for document in whole if document] or [document for document in documents if document]
    chosen = whole[:: max(1, len(whole) // _PROMPTS)] if len(whole) >= _PROMPTS else whole * _PROMPTS
    prompts: list[str] = []
    for index, document in enumerate(chosen):
        words = document[min(index, len(document) - 1)].split()
        prompt = " ".join(words[:_PROMPT_WORDS])
        if prompt not in prompts and len(words) > 1:
            prompts.append(prompt)
    return prompts[:_PROMPTS]
