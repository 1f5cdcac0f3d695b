"""The built-in corpus is prose, and the same every time."""

import inspect

from packlm.corpus.formats import builtin


def test_prose_is_kept_and_the_rest_is_not():
    text = """Return the *first* word of ``text``, and
    see :func:`other.thing` for more.

    name(x, y) -> z

        indented = code

    >>> doctest()

    - a bullet of several words here.

    ======  =====
    a        b

    This is used as follows::
    """
    expected = ["Return the first word of text, and see other.thing for more.", "This is used as follows:"]
    assert list(builtin.prose(inspect.cleandoc(text))) == expected


def test_documents_are_paragraphs_of_prose_each_once():
    documents = builtin.documents()
    names = [name for name, _ in documents]
    assert len(set(names)) == len(names) and "topics/assert" in names and "stdlib/argparse" in names
    assert 100_000 < sum(len(text.split()) for _, text in documents) < 400_000
    paragraphs = [paragraph for _, text in documents for paragraph in text.strip().split("\n\n")]
    assert len(set(paragraphs)) == len(paragraphs)
    assert not any("\n" in paragraph or ">>>" in paragraph for paragraph in paragraphs)
