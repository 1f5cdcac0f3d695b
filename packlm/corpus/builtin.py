"""The built-in corpus: English prose from the documentation that ships with Python, made on the spot.

One document a help topic (`topics/assert`, from `pydoc_data.topics`) and one a module of the standard library
(`stdlib/argparse`, its docstrings in the order of the source, which is parsed and never imported). Only paragraphs of prose
are kept, each on one line and each once: doctests, code, tables, signatures and lists are left out. The same Python gives
the same documents.
"""

import ast
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from packlm.base.errors import RequestError

_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__", "pydoc_data", "turtledemo", "this"}
_MIN_WORDS = 5
_MIN_PROSE = 0.8
"""Share of a paragraph's words that must look like words; code, tables and signatures have less."""

_STATEMENTS = ("body", "handlers", "orelse", "finalbody", "cases")
"""Where a node of a syntax tree has statements, in the order of the source."""

_WORD = re.compile(r"[\"'“‘(]*[A-Za-z]+(?:[-'’/][A-Za-z]+)*[.,;:!?)\"'”’]*")
_NOT_PROSE = re.compile(r">>>|^\.\.|::=|^\s*[-+*|=~^#]|^\s*[A-Za-z0-9]{1,2}[.)]\s|\s--\s|->|={3,}|-{3,}|\s{4,}\S|^:\w+|^@", re.MULTILINE)
_SPELLING = re.compile(r"[:.]\w+:`~?([^`<]*)[^`]*`|``?([^`]*)``?|(?<!\w)\*{1,2}(\w[^*]*?)\*{1,2}(?!\w)")


def documents() -> list[tuple[str, str]]:
    """All documents as (name, text), in order; a text is its paragraphs with a blank line between two."""
    sources = {f"topics/{name}": [text] for name, text in sorted(import_module("pydoc_data.topics").topics.items())}
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(_sources(root)):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[-1] not in _LEFT_OUT and not parts[0].startswith("config-"):
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            sources[f"stdlib/{name}"] = _docstrings(path)
    seen: set[str] = set()
    made = []
    for name, texts in sources.items():
        paragraphs = [paragraph for text in texts for paragraph in prose(text) if paragraph not in seen and not seen.add(paragraph)]  # type: ignore[func-returns-value]
        if paragraphs:
            made.append((name, "\n\n".join(paragraphs) + "\n"))
    if not any(name.startswith("stdlib/") for name, _ in made):
        raise RequestError(f"{root}: this Python came without the sources of its standard library, so the built-in corpus cannot be made")
    return made


def _sources(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]  # installed packages are thousands of files
        yield from (Path(folder) / name for name in names if name.endswith(".py"))


def prose(text: str) -> Iterator[str]:
    """The paragraphs of `text` that are English prose, each on one line, without reStructuredText's mark-up."""
    for paragraph in re.split(r"\n\s*\n", text.expandtabs()):
        if paragraph[:1].isspace() or _NOT_PROSE.search(paragraph):
            continue
        line = " ".join(_SPELLING.sub(lambda found: found[1] or found[2] or found[3] or "", paragraph).split())
        line = line.removesuffix("::") + (":" if line.endswith("::") else "")
        words = line.split()
        alike = sum(1 for word in words if _WORD.fullmatch(word))
        if len(words) >= _MIN_WORDS and alike >= _MIN_PROSE * len(words) and line[0].isupper() and line[-1] in ".!?:":
            yield line


def _docstrings(path: Path) -> list[str]:
    """The docstrings of a source file, in order; none where it cannot be parsed (the library keeps a few such templates)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return []
    return [inspect.cleandoc(text) for text in _strings(tree)]


def _strings(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node, clean=False)
        if text:
            yield text
    for field in _STATEMENTS:
        for child in getattr(node, field, ()):
            yield from _strings(child)
