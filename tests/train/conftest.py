"""A small dataset of random ids for these tests."""

from tests.random_dataset import random_data  # noqa: F401
