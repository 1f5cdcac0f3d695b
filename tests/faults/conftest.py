"""The model and the corpus on which commands are disturbed."""

from tests.small_models import _one_thread, corpus, made  # noqa: F401
