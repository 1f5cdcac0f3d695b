"""JSON: a document is the string in the field `corpus.text_field` of an object, in an array or by itself."""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from packlm.base.errors import PacklmError
from packlm.config import Corpus
from packlm.corpus import streams
from packlm.corpus.file_kinds import looks_like
from packlm.corpus.format import Format
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.records import DocumentBuffer, skip_record, text_of
from packlm.corpus.sources import Part

_BETWEEN = re.compile(r"[\s,\[\]\ufeff]*")
"""What stands around the objects: brackets of arrays, commas, whitespace."""


class Json(Format):
    """A file with an array of objects, an object, or several objects one after another. A part is a file, read an object at a time."""

    def read(self, part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
        buffer = DocumentBuffer(part.source, rules, "record")
        errors = "strict" if rules.on_bad_text == "error" else "surrogateescape"
        for number, record in enumerate(_values(part, rules, counts, errors), 1):
            document, problem = text_of(record, rules.text_field, errors)
            if document is None:
                skip_record(part.source, f"record {number}", problem, rules, counts)
                continue
            buffer.add(document, number)
            if buffer.size >= streams.BLOCK:
                yield buffer.flush()
        yield buffer.flush()


def _values(part: Part, rules: Corpus, counts: Counter[str], errors: str) -> Iterator[Any]:
    """The values in the file; of its text, no more is held than one value and a block.

    Raises:
        PacklmError: it is not JSON from some value on, which none of the rules can skip.
    """
    decode, blocks, end_of_file = json.JSONDecoder().raw_decode, _text(part, rules, counts, errors), False
    text, start, number, depth = "", 0, 1, 0
    while True:
        end = _BETWEEN.match(text, start).end()  # type: ignore[union-attr]
        depth += text.count("[", start, end) - text.count("]", start, end)
        start, problem, value = end, "", None
        if start < len(text):
            try:
                value, end = decode(text, start)
            except RecursionError:
                end_of_file, problem = True, "JSON nested too deeply"
            except ValueError as error:
                problem = f"not JSON ({error})"
        if start < end and (end < len(text) or end_of_file):  # at the end of what is read, a number could continue
            yield value
            start, number = end, number + 1
        elif not end_of_file:
            if len(text) - start > rules.max_document_bytes + streams.BLOCK:
                raise streams.too_long(part.source, f"record {number}", rules)
            block = next(blocks, None)
            text, start, end_of_file = text[start:] + (block or ""), 0, block is None
        elif problem or depth:
            problem = problem or "not JSON (an array is not closed)"
            problem += looks_like(text[start : start + 99].encode(errors="surrogateescape"))
            raise PacklmError(f"{part.source.where}: record {number}: {problem}; correct the file, or remove it from the corpus")
        else:
            return


def _text(part: Part, rules: Corpus, counts: Counter[str], errors: str) -> Iterator[str]:
    """The text of the file in blocks; `NotEncoded` for invalid bytes if `errors` is "strict"."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    offset, blocks = streams.utf8(part, rules, counts)
    for block in blocks:
        pending = decoder.getstate()[0]
        try:
            yield decoder.decode(block)
        except UnicodeDecodeError as error:
            position = f"byte offset {(offset or 0) - len(pending) + error.start:,}"
            raise streams.not_encoded(part.source, position, error.object[error.start : error.end], pending + block) from None
        offset = (offset or 0) + len(block)
    yield decoder.decode(b"", errors != "strict")


FORMATS = {"json": Json()}
