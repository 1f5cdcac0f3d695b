"""The formats of n-best lists, one file each: how one is recognized, read and written. A new format is a file and a line here."""

from packlm.base.errors import RequestError

from ..nbest import NbestFormat, NbestInput
from . import espnet, jsonl, kaldi

FORMATS: tuple[NbestFormat, ...] = (espnet.FORMAT, kaldi.FORMAT, jsonl.FORMAT)
"""In the order in which they are asked."""


def find(source: NbestInput) -> NbestFormat:
    """The first format that recognizes an input; `RequestError` if none does."""
    for format in FORMATS:
        if format.recognizes(source):
            return format
    known = ", ".join(format.description for format in FORMATS)
    raise RequestError(f"{source.path}: n-best lists are {known}; it is none of these")
