"""A small corpus and a hub for these tests."""

from tests.fake_hub import hub  # noqa: F401
from tests.small_corpus import corpus, made, settings  # noqa: F401
