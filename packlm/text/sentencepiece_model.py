"""Converts a SentencePiece model to a tokenizer of the `tokenizers` library, and compares both on probe texts.

SentencePiece normalizes text by a table of its own (`precompiled_charsmap`), may strip whitespace at both ends and all but one space
within, may prepend or append a space, writes every space as U+2581, and segments the result: into the most likely pieces (unigram) or by
merging the best pair first (bpe). Each step has an equivalent in `tokenizers`; both libraries encode the same probes, and a model for
which they differ is refused. What may still differ: a combining mark after a character that the table rewrites without it (such as an
accent after a ligature), which `tokenizers` drops; segmentations of equal likelihood up to rounding; overlapping merges of equal rank.
"""

import base64
import json
import re
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from packlm.base import regular_files
from packlm.base.errors import RequestError
from packlm.dataset import EOS, UNK

MAX_BYTES = 1 << 28
"""Largest model that is read (256 MiB)."""
_SPACE = "\u2581"
_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6  # ModelProto.SentencePiece.Type
_UNIGRAM, _BPE = 1, 2  # TrainerSpec.ModelType
_OTHER_TYPES = {3: "word", 4: "char"}
_PROBES = (
    "",
    " ",
    "a",
    "The cat sat on the mat.",
    " two  spaces,  and three   at the end   ",
    "tab\tand\r\n line feed \n",
    "ﬁne ½ Å e\u0301 ǆ ㍿",
    "Ünïcödé Straße ΑΒΓ где 你好，世界。 こんにちは ｱｲｳ 한국어 שלום مرحبا हिन्दी",
    "😀 👩‍👩‍👧 🇩🇪",
    "1234567890 3.14 1,000",
    "a\u00a0b\u200bc\u3000d\u2581e \u2581",
    "<s> </s> <unk> <pad> <0x41> <eos>",
    "aaaaaaaaaaaa abababab",
    "x\x00y\x07z",
    "don't we'll CAPITALS camelCase snake_case",
    "https://a.example/b?c=d&e=f",
)


def convert(path: Path) -> str:
    """The JSON of a tokenizer that gives the ids of the SentencePiece model in `path`.

    Raises:
        RequestError: sentencepiece is not installed; not a SentencePiece model; a feature without an equivalent; ids that differ.
    """
    try:
        from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
    except ImportError:
        raise RequestError(f"{path}: reading a SentencePiece model needs another package: pip install 'packlm[sentencepiece]'") from None
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        data = regular_files.read(path, MAX_BYTES)
        proto.ParseFromString(data)
        reference = SentencePieceProcessor(model_proto=data)
    except Exception as error:  # of protobuf and sentencepiece
        raise RequestError(f"{path}: not a SentencePiece model: {str(error) or type(error).__name__}") from None
    if not proto.pieces:
        raise RequestError(f"{path}: not a SentencePiece model: it has no pieces")
    tokenizer = _build(proto, path)
    _compare(tokenizer, reference, path)
    return tokenizer.to_str()


def _build(proto: Any, path: Path) -> Tokenizer:
    trained, rules = proto.trainer_spec, proto.normalizer_spec
    pieces = [(piece.piece, piece.score, piece.type) for piece in proto.pieces]
    kinds = {kind for _, _, kind in pieces}
    unsupported = {
        f"a {_OTHER_TYPES.get(trained.model_type)} model": trained.model_type not in (_UNIGRAM, _BPE),
        "whitespace that is not escaped": not rules.escape_whitespaces,
        "unused pieces": _UNUSED in kinds,
        "text that is altered on decoding": bool(proto.denormalizer_spec.precompiled_charsmap),
    }
    if reasons := [reason for reason, applies in unsupported.items() if applies]:
        raise RequestError(f"{path}: cannot be converted: {', '.join(reasons)}; give a tokenizer.json")
    model = _unigram(pieces) if trained.model_type == _UNIGRAM else _bpe(pieces, path)
    tokenizer = Tokenizer(model)
    suffix = trained.treat_whitespace_as_suffix
    tokenizer.normalizer = normalizers.Sequence(_normalizers(rules, suffix))
    if steps := _pre_tokenizers(pieces, trained.model_type == _UNIGRAM, suffix):
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    after = [decoders.Replace(_SPACE, " "), *([decoders.ByteFallback()] if _BYTE in kinds else []), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*after, *([decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else [])])
    values = json.loads(tokenizer.to_str())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    values["added_tokens"] = [
        {"id": id, "content": piece, **plain, "special": True} for id, (piece, _, kind) in enumerate(pieces) if kind in (_UNKNOWN, _CONTROL)
    ]
    return Tokenizer.from_str(json.dumps(values))


def _normalizers(rules: Any, suffix: bool) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if rules.precompiled_charsmap:
        # From JSON: the library's constructor takes the table in another form.
        table = base64.b64encode(rules.precompiled_charsmap).decode()
        mapped = _from_json({"type": "Precompiled", "precompiled_charsmap": table})
        if mapped.normalize_str("\r") == mapped.normalize_str("\n"):
            steps.append(normalizers.Replace("\r\n", "\n\n"))  # which `tokenizers` would treat as one character
        steps.append(mapped)
    if rules.remove_extra_whitespaces:
        # At the end SentencePiece strips spaces after they are written as U+2581, so a U+2581 of the text is stripped as well.
        steps += [normalizers.Replace(Regex(rf"\A +|[ {_SPACE}]+\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if rules.add_dummy_prefix:
        steps.append(normalizers.Replace(Regex(r"(?<=[\s\S])\z"), _SPACE) if suffix else normalizers.Prepend(_SPACE))
    return [*steps, normalizers.Replace(" ", _SPACE)]


def _from_json(value: dict[str, Any]) -> normalizers.Normalizer:
    values = json.loads(Tokenizer(models.BPE()).to_str()) | {"normalizer": value}
    return Tokenizer.from_str(json.dumps(values)).normalizer


def _pre_tokenizers(pieces: list[tuple[str, float, int]], unigram: bool, suffix: bool) -> list[pre_tokenizers.PreTokenizer]:
    steps: list[pre_tokenizers.PreTokenizer] = []
    known = {piece for piece, _, kind in pieces if kind in (_NORMAL, _USER)}
    hidden = [piece for piece, _, kind in pieces if kind in (_UNKNOWN, _CONTROL, _BYTE) and len(piece) > 1]
    hidden = list(dict.fromkeys([*hidden, EOS, UNK]))
    if symbols := sorted((piece for piece, _, kind in pieces if kind == _USER), key=len, reverse=True):
        # Those of the user are found wherever they are in normalized text, the longest first; by themselves they are a piece to the model.
        steps.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, symbols))), "isolated"))
    if unigram or symbols:
        # In the vocabulary, but never found in text by SentencePiece: a split inside hides them. It is next to a known character, so that
        # it does not separate two unknown ones, which are one token.
        cuts = [next((at for at in range(1, len(piece)) if {piece[at - 1], piece[at]} & known), 1) for piece in hidden]
        guards = [f"{re.escape(piece[:at])}(?={re.escape(piece[at:])})" for piece, at in zip(hidden, cuts, strict=True)]
        steps.append(pre_tokenizers.Split(Regex("|".join(guards)), "merged_with_previous"))
    if _SPACE in known and not any(_SPACE in (piece[:-1] if suffix else piece[1:]) for piece in known):
        # Neither pieces nor runs of unknown characters extend past a space: words are encoded one by one, which is faster.
        steps.append(pre_tokenizers.Split(_SPACE, "merged_with_previous" if suffix else "merged_with_next"))
    return steps


def _unigram(pieces: list[tuple[str, float, int]]) -> models.Model:
    unknown = next(id for id, (_, _, kind) in enumerate(pieces) if kind == _UNKNOWN)
    fallback = any(kind == _BYTE for _, _, kind in pieces)
    return models.Unigram([(piece, score) for piece, score, _ in pieces], unknown, fallback)


def _bpe(pieces: list[tuple[str, float, int]], path: Path) -> models.Model:
    vocabulary = {piece: id for id, (piece, _, _) in enumerate(pieces)}
    merged = {piece: score for piece, score, kind in pieces if kind == _NORMAL}
    merges = []
    for piece, score in merged.items():
        for at in range(1, len(piece)):
            if piece[:at] in merged and piece[at:] in merged:
                merges.append((-score, vocabulary[piece], at, (piece[:at], piece[at:])))
    unknown = next(piece for piece, _, kind in pieces if kind == _UNKNOWN)
    fallback = any(kind == _BYTE for _, _, kind in pieces)
    pairs = [pair for *_, pair in sorted(merges)]
    has_symbols = any(kind == _USER for *_, kind in pieces)  # which no merges give: a word that is a piece is taken as it is
    model = models.BPE(vocabulary, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=fallback, ignore_merges=False)
    if has_symbols:
        if (unreachable := next((piece for piece in merged if len(model.tokenize(piece)) > 1), None)) is not None:
            raise RequestError(
                f"{path}: cannot be converted: user-defined symbols in a bpe model with a piece that no merges give ({unreachable!r}); "
                "give a tokenizer.json"
            )
        model.ignore_merges = True
    return model


def _compare(tokenizer: Tokenizer, reference: Any, path: Path) -> None:
    """Raises `RequestError` unless both give the same ids for every probe, every piece, and rows of pieces."""
    tokenizer.encode_special_tokens = True
    pieces = [reference.id_to_piece(id).replace(_SPACE, " ") for id in range(reference.get_piece_size())]
    rows = ["".join(pieces[start : start + 40]) for start in range(0, len(pieces), 40)]
    probes = [*_PROBES, *pieces, *rows, *(" ".join(reversed(row.split())) for row in rows)]
    encodings = tokenizer.encode_batch_fast(probes, add_special_tokens=False)
    for probe, encoding, expected in zip(probes, encodings, reference.encode(probes), strict=True):
        if encoding.ids != expected:
            difference = f"for {probe[:60]!r} SentencePiece gives ids {expected[:20]}, the conversion {encoding.ids[:20]}"
            raise RequestError(f"{path}: cannot be converted: {difference}; give a tokenizer.json")
