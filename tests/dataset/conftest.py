"""A small dataset of random ids for these tests."""

from tests.random_dataset import random_data  # noqa: F401
from tests.small_models import corpus, made  # noqa: F401
