"""The built-in corpus is prose, the same every time, without sentences that share eight words in a row; it is made once."""

import inspect
import os
from pathlib import Path

import pytest

from packlm.corpus.formats import builtin

LONG = (
    "Return the *first* word of ``text``, and see :func:`other.thing` for more, which is what every paragraph here needs to be long enough "
    "for the corpus"
)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of two modules, without packages; the cache is in a folder of its own."""
    (tmp_path / "a.py").write_text(f'"""{LONG}."""\n')
    (tmp_path / "b.py").write_text(f'"""{LONG}. This one is new, and short."""\n')
    monkeypatch.setattr(builtin.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    monkeypatch.setattr(builtin, "PACKAGES", ("no_such_package",))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_prose_is_kept_and_the_rest_is_not():
    text = f"""{LONG}.

    name(x, y) -> z

    A short paragraph is a label.

        indented = code

    >>> doctest()

    - a bullet of several words here.

    ======  =====
    a        b

    {LONG} as follows::
    """
    plain = LONG.replace("*", "").replace("``", "").replace(":func:`other.thing`", "other.thing")
    assert list(builtin.prose(inspect.cleandoc(text))) == [f"{plain}.", f"{plain} as follows:"]


def test_docstrings_are_found_without_parsing(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text('''"""Module, with "quotes" and \\\\ escapes."""
x = """
not a docstring"""  # """ neither
def f():
    r\'\'\'Raw: \\d.

        Indented.
    \'\'\'
    return f"""{x}""", '"""', "it's"
class C: # isn't
    b"""bytes"""
    u"""unicode"""
''')
    assert builtin._docstrings(path) == ['Module, with "quotes" and \\ escapes.', "Raw: \\d.\n\nIndented.", "unicode"]


def test_sentences_that_share_eight_words_are_dropped(library: Path) -> None:
    documents = dict(builtin.documents())
    assert "other.thing" in documents["stdlib/a"] and documents["stdlib/b"] == "This one is new, and short.\n"


def test_documents_are_made_again_only_when_files_change(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = [], builtin.documents
    monkeypatch.setattr(builtin, "documents", lambda: made.append(1) or real())
    first = builtin.cached_documents()
    assert builtin.cached_documents() == first == real() and len(made) == 1
    (cached,) = (library / "cache" / "packlm").iterdir()
    cached.write_text(cached.read_text().replace("new", "old"))
    assert builtin.cached_documents() == first and len(made) == 2
    os.utime(library / "a.py", (1, 1))
    assert builtin.cached_documents() == first and len(made) == 3
    (library / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(library / "file"))
    assert builtin.cached_documents() == first and len(made) == 4


def test_documents_are_paragraphs_of_prose_each_once() -> None:
    documents = builtin.cached_documents()
    names = [name for name, _ in documents]
    assert len(set(names)) == len(names) and {"topics/assert", "stdlib/argparse", "packages/scipy.optimize._root"} <= set(names)
    assert 300_000 < sum(len(text.split()) for _, text in documents) < 1_000_000
    paragraphs = [paragraph for _, text in documents for paragraph in text.strip().split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs)
    assert not any("\n" in paragraph or ">>>" in paragraph for paragraph in paragraphs)
