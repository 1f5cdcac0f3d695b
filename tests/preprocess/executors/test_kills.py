"""Processes of preprocessing killed at random moments: the dataset, hidden files included, and what is beside it end as undisturbed."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from packlm.base import files
from tests.preprocess.executors.tasks import children

ROOT = Path(__file__).resolve().parents[3]
SEED = int(os.environ.get("PACKLM_SEED", time.time_ns() % 10**6))
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks processes up in /proc")


def start(folder: Path, corpus: Path) -> "subprocess.Popen[str]":
    settings = {
        "corpus.format": "auto", "corpus.train": corpus, "corpus.document": "line", "corpus.sentences": "none", "tokenizer.kind": "word",
        "tokenizer.vocab_size": "500", "dataset.dir": folder / "data", "dataset.workers": "2", "dataset.shards": "4", "tracking.uri": "",
    }  # fmt: skip
    words = [f"--{key}={value}" for key, value in settings.items()]
    return subprocess.Popen([sys.executable, "-m", "preprocess", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> str:
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0, errors
    return errors


def tree(folder: Path) -> dict[str, str]:
    """Every file in a folder and its digest, and every folder."""
    return {str(path.relative_to(folder)): files.sha256(path) if path.is_file() else "" for path in sorted(folder.rglob("*"))}


def test_a_killed_worker_leaves_nothing(tmp_path):
    """Kills worker processes alone while their shards are half written, which the same run makes anew."""
    generator = random.Random(SEED)
    corpus = tmp_path / "text.txt"
    words = ["".join(generator.choices("abcdefgh", k=5)) for _ in range(400)]
    corpus.write_text("".join(" ".join(generator.choices(words, k=12)) + "\n" for _ in range(40_000)))
    (tmp_path / "undisturbed").mkdir()
    finish(start(tmp_path / "undisturbed", corpus))
    expected = tree(tmp_path / "undisturbed")
    (tmp_path / "killed").mkdir()
    process, num_killed, halves = start(tmp_path / "killed", corpus), 0, []
    while process.poll() is None and num_killed < 2:
        halves = [*(tmp_path / "killed").glob(".data.building/*/dataset/fixed/.*.tmp")]
        if halves and (workers := children(process.pid)):
            time.sleep(generator.uniform(0, 0.05))
            os.kill(generator.choice(workers), signal.SIGKILL)
            num_killed += 1
            time.sleep(0.2)
        time.sleep(0.002)
    errors = finish(process)
    print(f"PACKLM_SEED={SEED}: killed {num_killed} workers")
    assert num_killed and "its process was killed by SIGKILL" in errors, errors
    assert tree(tmp_path / "killed") == expected


@pytest.mark.parametrize("moment", ["replaced", "half removed", "repair"])
def test_what_a_killed_run_left_is_gone_after_the_next(made, settings, moment):
    """A kill between the renames of the folders, in the removal of the old one, and while a repair writes into the dataset."""
    from preprocess.build.stage import build, repair

    folder, _ = made()
    expected = tree(folder.parent)
    aside = folder.with_name(f".{folder.name}.replaced")
    if moment == "replaced":
        folder.rename(aside)
    elif moment == "half removed":
        (aside / "fixed").mkdir(parents=True)
        (aside / "fixed" / "old.parquet").write_text("old")
    else:
        (folder / "fixed" / ".train-00000-of-00003.parquet.tmp").write_text("half")
        (folder / ".manifest.json.tmp").write_text("half")
        assert repair(settings(), folder) == []
        assert tree(folder.parent) == expected
        (folder / ".manifest.json.77.tmp").write_text("half, of an older version")
    folder.with_name(f".{folder.name}.lock").write_text("process 1 on a machine that is gone")
    assert build(settings()).seconds is None
    assert tree(folder.parent) == expected


def test_a_dataset_behind_a_symbolic_link_is_replaced_where_it_is(settings, corpus, tmp_path):
    from preprocess.build.stage import build

    (tmp_path / "elsewhere").mkdir()
    folder = settings().dataset.dir
    folder.parent.mkdir()
    folder.symlink_to(tmp_path / "elsewhere" / "real")
    for text in ("One. Two.", "Three. Four."):
        (corpus / "a.txt").write_text(text)
        build(settings(), rebuild=True)
        assert folder.is_symlink() and [path.name for path in folder.parent.iterdir()] == ["small"]
        assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["real"]
        assert (folder / "manifest.json").exists()
