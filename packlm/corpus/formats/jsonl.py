"""JSON Lines: a document is the string in the field `corpus.text_field` of a line. Blank lines are no records."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from packlm.config import Corpus
from packlm.corpus.format import Format
from packlm.corpus.line_cuts import line_cuts
from packlm.corpus.raw_documents import RawDocuments
from packlm.corpus.records import DocumentBuffer, decode_lines, field_of, skip_record, text_of
from packlm.corpus.sources import Part, Source
from packlm.corpus.streams import lines


class Jsonl(Format):
    """JSON Lines."""

    def cuts(self, source: Source, rules: Corpus, part_bytes: int) -> list[int]:
        return line_cuts(source, "line", rules, part_bytes)

    def read(self, part: Part, rules: Corpus, counts: Counter[str]) -> Iterator[RawDocuments]:
        source, field = part.source, rules.text_field
        decode = json.JSONDecoder().decode
        buffer = DocumentBuffer(source, rules, "line")
        for block in lines(part, rules, counts):
            for number, line in enumerate(decode_lines(block, source, rules).split("\n"), block.number):
                try:
                    document = field_of(decode(line), field).encode()
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    if not line or line.isspace():
                        continue
                    document, problem = _examine(line, field, decode)
                    if document is None:
                        skip_record(source, f"line {number}", problem, rules, counts, line)
                        continue
                buffer.add(document, number)
            yield buffer.flush()


def _examine(line: str, field: str, decode: Callable[[str], Any]) -> tuple[bytes | None, str]:
    """(the text of a record in UTF-8, "") or (None, what is wrong with the record)."""
    try:
        record = decode(line)
    except RecursionError:
        return None, "JSON nested too deeply"
    except ValueError as error:
        return None, f"not JSON ({error})"
    # Surrogates stand for invalid bytes (`decode_lines`) only if the line itself has some; otherwise it spells them (\ud800).
    return text_of(record, field, "strict" if _encodable(line) else "surrogateescape")


def _encodable(line: str) -> bool:
    try:
        line.encode()
    except UnicodeEncodeError:
        return False
    return True


FORMATS = {"jsonl": Jsonl()}
