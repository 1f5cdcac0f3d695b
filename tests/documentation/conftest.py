"""Small models and a hub for these tests."""

from tests.fake_hub import hub  # noqa: F401
from tests.small_models import _one_thread, corpus, made  # noqa: F401
