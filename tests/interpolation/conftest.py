"""Small models for these tests."""

from tests.small_models import _one_thread, corpus, engine, made, word_engine  # noqa: F401
