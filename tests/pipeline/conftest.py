"""Settings and metrics files for these tests."""

from tests.records import make_config, store_folder, write_metrics  # noqa: F401
