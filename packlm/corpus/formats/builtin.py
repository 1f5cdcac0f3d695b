"""The built-in corpus: English prose extracted from the documentation that ships with Python.

One document per help topic (`topics/assert`, from `pydoc_data.topics`) and per module of the standard library (`stdlib/argparse`, its
docstrings in the order of the source, which is parsed and never imported). Only paragraphs of prose are kept, each on one line and each
once: doctests, code, tables, signatures and lists are dropped. The same Python gives the same documents.
"""

import ast
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from packlm.base.errors import RequestError
from packlm.corpus.formats.text import Text
from packlm.corpus.sources import Source

_EXCLUDED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__", "pydoc_data", "turtledemo", "this"}
_MIN_WORDS = 5
_MIN_PROSE = 0.8
"""Least share of a paragraph's words that look like words; code, tables and signatures have less."""

_STATEMENTS = ("body", "handlers", "orelse", "finalbody", "cases")
"""Fields of a syntax tree's nodes that hold statements, in the order of the source."""

_WORD = re.compile(r"[\"'“‘(]*[A-Za-z]+(?:[-'’/][A-Za-z]+)*[.,;:!?)\"'”’]*")
_NOT_PROSE = re.compile(r">>>|^\.\.|::=|^\s*[-+*|=~^#]|^\s*[A-Za-z0-9]{1,2}[.)]\s|\s--\s|->|={3,}|-{3,}|\s{4,}\S|^:\w+|^@", re.MULTILINE)
_MARKUP = re.compile(r"[:.]\w+:`~?([^`<]*)[^`]*`|``?([^`]*)``?|(?<!\w)\*{1,2}(\w[^*]*?)\*{1,2}(?!\w)")


class Builtin(Text):
    """Text made when it is asked for; the location `python` names Python's own documentation."""

    def sources(self, locations: Sequence[str]) -> list[Source]:
        if tuple(locations) != ("python",):
            raise RequestError(f'corpus.format = "builtin" has one corpus, "python"; got {", ".join(locations)}')
        return [Source(name, data=text.encode(), format="builtin") for name, text in documents()]


def documents() -> list[tuple[str, str]]:
    """All documents as (name, text), in order; a text is its paragraphs with a blank line between two."""
    texts = {f"topics/{name}": [text] for name, text in sorted(import_module("pydoc_data.topics").topics.items())}
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(_modules(root)):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] not in _EXCLUDED and not parts[0].startswith("config-"):
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            texts[f"stdlib/{name}"] = _docstrings(path)
    paragraphs: dict[str, str] = {}
    """Paragraph -> name of the first document that has it."""
    for name, sections in texts.items():
        for section in sections:
            for paragraph in prose(section):
                paragraphs.setdefault(paragraph, name)
    by_name: dict[str, list[str]] = {}
    for paragraph, name in paragraphs.items():
        by_name.setdefault(name, []).append(paragraph)
    if not any(name.startswith("stdlib/") for name in by_name):
        raise RequestError(f"{root}: this Python has no sources of its standard library, which the built-in corpus is extracted from")
    return [(name, "\n\n".join(lines) + "\n") for name, lines in by_name.items()]


def _modules(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _EXCLUDED]  # skips installed packages, which are thousands of files
        yield from (Path(folder) / name for name in names if name.endswith(".py"))


def prose(text: str) -> Iterator[str]:
    """The paragraphs of `text` that are English prose, each on one line, without reStructuredText's markup."""
    for paragraph in re.split(r"\n\s*\n", text.expandtabs()):
        if paragraph[:1].isspace() or _NOT_PROSE.search(paragraph):
            continue
        line = " ".join(_MARKUP.sub(lambda match: match[1] or match[2] or match[3] or "", paragraph).split())
        line = line.removesuffix("::") + (":" if line.endswith("::") else "")
        words = line.split()
        plain = sum(1 for word in words if _WORD.fullmatch(word))
        if len(words) >= _MIN_WORDS and plain >= _MIN_PROSE * len(words) and line[0].isupper() and line[-1] in ".!?:":
            yield line


def _docstrings(path: Path) -> list[str]:
    """The docstrings of a source file, in order; none if it cannot be parsed (the library has a few such templates)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in the library's source
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    return [inspect.cleandoc(text) for text in _docstrings_below(tree)]


def _docstrings_below(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node, clean=False)
        if text:
            yield text
    for field in _STATEMENTS:
        for child in getattr(node, field, ()):
            yield from _docstrings_below(child)
