"""A small dataset of random ids, made once."""

import os
from pathlib import Path

import pytest
import torch

from packlm import dataset
from tests import made_up

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`datasets` keeps its cache with the test's files, in this process and those it starts."""
    import datasets

    cache = tmp_path_factory.mktemp("cache")
    os.environ["HF_DATASETS_CACHE"] = str(cache)
    datasets.config.HF_DATASETS_CACHE = cache


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dataset.Manifest]:
    """(folder, manifest) of a dataset of 30 random documents in two shards, and 8 for validation."""
    folder = tmp_path_factory.mktemp("made")
    return folder, made_up.write(folder)
