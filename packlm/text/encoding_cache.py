"""What chunks become: each distinct one is encoded by `tokenizers` once, as long as there is room to remember it.

Shapes: K distinct chunks, N ids, S sentences.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from packlm.text.growing_array import GrowingArray
from packlm.text.hash_table import HashTable
from packlm.text.pretokens import Chunks, gather, steps

_BATCH_CHARACTERS = 1 << 19  # text encoded at a time: what tokenizers returns takes some hundred bytes a token
_MOST_CHUNKS, _MOST_BYTES = 1 << 20, 1 << 24
_LONG = 64  # bytes of a chunk that is hardly ever met again
_GROUP = 256
_OFTEN = 1 << 14

Flat = tuple[np.ndarray, np.ndarray]
"""[N] ids end to end, and [K] int64 how many of them belong to each text."""

_OPENING = "\t\n\v\f\r "
_ODD_SPACE = np.zeros(256, bool)
_ODD_SPACE[list(b"\t\n\v\f\r")] = True
_SPACE = r"[\t-\r ]"
_LETTER = r"[!-~\p{L}]"
_WHITE = r"\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"


class EncodingCache:
    """From chunks to ids. What it remembers changes how fast it is, and nothing else."""

    def __init__(self, tokenizer: Tokenizer, eos: int, clean: Callable[[np.ndarray], np.ndarray], dtype: "np.dtype"):
        """`clean` is what all ids of text go through; `dtype` that of the ids."""
        self._encode = _joining(tokenizer)
        self._words = WordLookup.of(tokenizer)
        self._eos, self._clean, self._dtype = eos, clean, dtype
        self._forget()

    _often: pa.StringArray
    """[F] the chunks to look for first."""
    _often_rows: np.ndarray
    """[F] int64: their rows."""
    _all_often: bool
    """Whether every word of the vocabulary is one of them, at the beginning of a sentence and after a space."""

    def __len__(self) -> int:
        """Chunks that are remembered."""
        return len(self._known)

    def ids(self, chunks: Chunks) -> Flat:
        """[N] ids of all sentences, `<eos>` after each; [S] int64 ids of each sentence."""
        if len(self._known) > _MOST_CHUNKS or self._known.num_bytes > _MOST_BYTES:
            self._forget()
        place, others = self._among_often(chunks)
        rows, often_rows = self._rows_of_words(chunks, others), self._often_rows
        ids, lengths = self._ids.values, self._lengths.values
        if (left := np.flatnonzero(rows < 0)).size:
            rest = chunks.values.take(pa.array(others[left]))
            rows[left], ids, lengths = self._rows_of_others(rest)
            if 2 * len(left) > len(place):
                self._choose(np.delete(place, others), rest, rows[left])
        if (lengths == 1).all():
            found = ids[often_rows][place]
            found[others] = ids[rows]
            return found, np.diff(chunks.ends, prepend=0)
        every = often_rows[place]
        every[others] = rows
        counts = lengths[every]
        after = np.cumsum(counts)[chunks.ends - 1]
        return gather(ids, (np.cumsum(lengths) - lengths)[every], counts), np.diff(after, prepend=0)

    def _among_often(self, chunks: Chunks) -> tuple[np.ndarray, np.ndarray]:
        """([C] int32 place of each chunk among those looked for first, 0 for an end and for the others; indices of the others)."""
        found = pc.index_in(chunks.values, value_set=self._often)
        known = np.ones(len(found), np.uint8)
        if found.null_count:
            known = np.unpackbits(np.frombuffer(found.buffers()[0], np.uint8), count=len(found), bitorder="little")
        known[chunks.ends - 1] = 1
        others = np.flatnonzero(known == 0)
        place = np.frombuffer(found.buffers()[1], np.int32)[: len(found)].copy()
        place[chunks.ends - 1] = place[others] = 0
        return place, others

    def _rows_of_words(self, chunks: Chunks, others: np.ndarray) -> np.ndarray:
        """int64: the rows of those of `others`, which are not looked for first, that are one word each; of what else there is, -1."""
        rows = np.full(len(others), -1)
        if not len(self._words.ids) or not len(others):
            return rows
        asked = np.arange(len(others))
        if self._all_often and chunks.are_words:
            # Words that are known would have been found, but for those behind a tab or a line end.
            rows[:] = self._words.unknown
            asked = np.flatnonzero(_ODD_SPACE[chunks.first_bytes(others)])
        if len(asked):
            rows[asked] = self._words.rows(chunks.values.take(pa.array(others[asked])), chunks.are_words)
        return rows

    def _rows_of_others(self, values: pa.StringArray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """int64: the rows of chunks, in ids and lengths that until the next call hold those as well which will not be remembered."""
        rows = self._known.find(values)
        missing = np.flatnonzero(rows < 0)
        rows += self._num_words
        new = values.take(pa.array(missing)).dictionary_encode()
        is_long = pc.greater(pc.binary_length(new.dictionary), _LONG)
        long, others = new.dictionary.filter(is_long), new.dictionary.filter(pc.invert(is_long))
        first = len(self._lengths.values)
        self._remember(others)
        more, more_lengths = self._encoded(long.to_pylist())
        place = np.argsort(np.argsort(is_long.to_numpy(zero_copy_only=False), kind="stable"))  # long ones after all others
        rows[missing] = first + place[new.indices.to_numpy()]
        self._ids.add(more)
        self._lengths.add(more_lengths)
        ids, lengths = self._ids.values, self._lengths.values
        self._ids.drop(len(more))
        self._lengths.drop(len(more_lengths))
        return rows, ids, lengths

    def _choose(self, place: np.ndarray, others: pa.StringArray, rows: np.ndarray) -> None:
        """Chooses anew which chunks to look for first: those that this text has most often.

        `place`: which of the present ones this text has; the `others` that it has, and their rows.

        A small table is quick to look into: most chunks of a text are among its 16,384 most frequent ones.
        """
        distinct = others.dictionary_encode()
        codes, values = distinct.indices.to_numpy(), distinct.dictionary
        texts = pa.concat_arrays([self._often, values])
        counts = np.concatenate([np.bincount(place, minlength=len(self._often)), np.bincount(codes, minlength=len(values))])
        of_distinct = np.empty(len(values), np.int64)
        of_distinct[codes] = rows
        every = np.concatenate([self._often_rows, of_distinct])
        counts[every >= len(self._lengths.values)] = 0  # these are not remembered
        best = np.argsort(-counts[1:], kind="stable")[:_OFTEN] + 1
        best = np.append(0, best[counts[best] > 0])
        self._often = texts.take(pa.array(best))
        self._often_rows = every[best]
        self._all_often = False

    def _forget(self) -> None:
        self._known = HashTable()
        # First the end of a sentence, then the words that need not be remembered.
        self._ids = GrowingArray(np.append(self._eos, self._clean(self._words.ids.copy())).astype(self._dtype))
        self._num_words = len(self._ids.values)  # what is remembered follows these
        self._lengths = GrowingArray(np.ones(self._num_words, np.int64))
        first = self._words.entries[:_OFTEN]
        first = pa.concat_arrays([pc.binary_join_element_wise(" ", first, ""), first])
        rows = self._words.rows(first, False)
        self._often = pa.concat_arrays([pa.array([None], pa.string()), first.filter(pa.array(rows > 0))])  # null: the end of a sentence
        self._often_rows = np.append(0, rows[rows > 0])
        self._all_often = self._words.between_spaces and len(self._words.entries) <= _OFTEN

    def _remember(self, texts: pa.StringArray) -> None:
        ids, lengths = self._encoded(texts.to_pylist())
        self._known.add(texts)
        self._ids.add(ids)
        self._lengths.add(lengths)

    def _encoded(self, texts: list[str]) -> Flat:
        ids, lengths = self._encode(texts)
        return self._clean(ids).astype(self._dtype), lengths


@dataclass(frozen=True)
class WordLookup:
    """Which chunks are one word each, found in the vocabulary all at once; none, where a tokenizer does not simply look words up.

    Entries come by their ids: those of this project have the most frequent first.
    """

    pattern: str
    """What a chunk that is one word matches in whole."""
    entries: pa.StringArray
    ids: np.ndarray
    """[V + 1] int64 id of each entry, and of any other word."""
    between_spaces: bool
    """Whether whatever stands between white space is a word."""

    @property
    def unknown(self) -> int:
        """What `rows` says of any other word."""
        return len(self.ids)

    @cached_property
    def _table(self) -> HashTable:
        made = HashTable()
        made.add(self.entries)
        return made

    @staticmethod
    def of(tokenizer: Tokenizer) -> "WordLookup":
        """Words as the tokenizer has them."""
        model, kinds = type(tokenizer.model).__name__, [step["type"] for step in steps(tokenizer.pre_tokenizer)]
        if model == "WordLevel" and tokenizer.normalizer is None and (letter := _letter(kinds, normalized=False)):
            vocabulary = tokenizer.get_vocab(with_added_tokens=False)
            if (unknown := vocabulary.get(tokenizer.model.unk_token)) is not None:
                entries = sorted(vocabulary, key=vocabulary.__getitem__)
                ids = np.array([*map(vocabulary.__getitem__, entries), unknown], np.int64)
                return WordLookup(f"^{_SPACE}?{letter}+$", pa.array(entries, pa.string()), ids, kinds == ["WhitespaceSplit"])
        return WordLookup("", pa.array([], pa.string()), np.empty(0, np.int64), False)

    def rows(self, values: pa.StringArray, are_words: bool) -> np.ndarray:
        """[K] int64: 1 + the place in `ids` for a word, -1 for anything else; `are_words`: all are what stands between white space."""
        place = self._table.find(pc.ascii_ltrim(values, _OPENING))
        place[place < 0] = len(self.entries)
        if are_words and self.between_spaces:
            return place + 1
        one = pc.match_substring_regex(values, self.pattern).to_numpy(zero_copy_only=False).astype(bool)
        return np.where(one, place + 1, -1)


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Flat:
    """The ids of texts, each encoded by itself; int64."""
    runs, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for batch in _batches(texts):
        encodings = [encoding.ids for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]
        lengths.append(np.fromiter(map(len, encodings), np.int64, len(encodings)))
        runs.append(np.fromiter(chain.from_iterable(encodings), np.int64, int(lengths[-1].sum())))
    return np.concatenate(runs), np.concatenate(lengths)


def _joining(tokenizer: Tokenizer) -> Callable[[list[str]], Flat]:
    """`encode` of a tokenizer that is safe to encode chunks with, for lists of short texts.

    An encoding costs far more than the few characters of a chunk do. So where it is certain how the ids of texts can be told apart
    again, some hundred texts are encoded as one.
    """
    model, kinds = type(tokenizer.model).__name__, [step["type"] for step in steps(tokenizer.pre_tokenizer)]
    if model == "BPE" and kinds == ["ByteLevel"]:
        # Alone between two characters that are no white space (or one, which then opens a word), a line feed is a token by itself,
        # and no other token has one in it.
        line_feed = tokenizer.encode("\n", add_special_tokens=False).ids
        pattern = rf"^{_SPACE}?{_LETTER}([^\n]*{_LETTER})?$".replace(_SPACE, r"[\t\x0b-\r ]")

        def separated(ids: np.ndarray, count: int) -> Flat | None:
            at = np.flatnonzero(ids == line_feed[0])
            lengths = np.diff(at, prepend=-1, append=len(ids)) - 1
            return (np.delete(ids, at), lengths) if len(lengths) == count else None

        if len(line_feed) == 1:
            return lambda texts: _grouped(tokenizer, texts, pattern, "\n", separated)
    elif model == "WordLevel" and (letter := _letter(kinds, tokenizer.normalizer is not None)):
        # One word, one id.
        def counted(ids: np.ndarray, count: int) -> Flat | None:
            return (ids, np.ones(count, np.int64)) if len(ids) == count else None

        return lambda texts: _grouped(tokenizer, texts, f"^{_SPACE}?{letter}+$", " ", counted)
    return lambda texts: encode(tokenizer, texts)


def _letter(kinds: list[str], normalized: bool) -> str | None:
    """What words consist of that are one word for pre-tokenizers of these kinds, as a regular expression; None for others.

    A normalizer, and those that cut at punctuation, may make several words of what is no plain one.
    """
    if kinds == ["WhitespaceSplit"]:
        return "[!-~]" if normalized else f"[^{_WHITE}]"
    return "[0-9A-Za-z]" if kinds in (["Whitespace"], ["BertPreTokenizer"]) else None


def _grouped(tokenizer: Tokenizer, texts: list[str], pattern: str, separator: str, apart: Callable[[np.ndarray, int], Flat | None]) -> Flat:
    """Encodes those texts that match `pattern` some hundred at a time, joined, and takes their ids `apart`; others one by one."""
    plain = np.flatnonzero(pc.match_substring_regex(pa.array(texts, pa.string()), pattern).to_numpy(zero_copy_only=False))
    groups = np.split(plain, range(_GROUP, len(plain), _GROUP))
    joined = [separator.join([texts[index] for index in group]) for group in groups]
    ids, lengths = encode(tokenizer, joined)
    found: list[tuple[np.ndarray, Flat]] = []
    for group, (start, end) in zip(groups, pairwise([0, *np.cumsum(lengths).tolist()]), strict=True):
        if len(group) and (split := apart(ids[start:end], len(group))) is not None:
            found.append((group, split))
    done = np.zeros(len(texts), bool)
    for group, _ in found:
        done[group] = True
    rest = np.flatnonzero(~done)
    found.append((rest, encode(tokenizer, [texts[index] for index in rest])))
    order = np.concatenate([group for group, _ in found])
    ids, lengths = (np.concatenate([flat[part] for _, flat in found]) for part in (0, 1))
    back = np.argsort(order)
    return gather(ids, (np.cumsum(lengths) - lengths)[back], lengths[back]), lengths[back]


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of texts of about `_BATCH_CHARACTERS` together, at least one each."""
    start = size = 0
    for index, text in enumerate(texts):
        if index > start and size + len(text) > _BATCH_CHARACTERS:
            yield texts[start:index]
            start, size = index, 0
        size += len(text)
    if start < len(texts):
        yield texts[start:]
