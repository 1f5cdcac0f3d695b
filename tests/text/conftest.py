"""A small corpus for these tests."""

from tests.small_corpus import corpus, made, settings  # noqa: F401
