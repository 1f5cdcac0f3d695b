"""Settings and metrics files for these tests."""

from tests.random_dataset import random_data  # noqa: F401
from tests.records import make_config, store_folder, write_metrics  # noqa: F401
