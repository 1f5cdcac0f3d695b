"""Small models and a hub for these tests."""

from tests.fake_hub import hub  # noqa: F401
from tests.small_models import _one_thread, corpus, engine, made, word_engine  # noqa: F401
