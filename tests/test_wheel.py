"""The wheel: complete, and undisturbed by files of the current folder that are called like a stage."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("packlm", "pipeline", "preprocess", "train", "serve", "configs", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, built from a copy of the sources (setuptools writes beside them)."""
    source, wheels, site = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(wheels),
        str(source),
    ]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose files are called like the stages, and fail where they are imported."""
    for name in ("train", "serve", "pipeline", "preprocess"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported from the current folder')\n")
    return tmp_path


def run(site: Path, folder: Path, *words: str) -> str:
    """Runs a module of the unpacked wheel; returns its standard output."""
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_installs_nothing_beside_packlm(site: Path) -> None:
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"packlm"}
    assert {path.name for path in (site / "packlm" / "recipes").iterdir()} == {path.name for path in (ROOT / "configs").glob("*.toml")}
    assert (site / "packlm" / "py.typed").exists()


def test_the_command_runs_from_the_wheel(site: Path, hostile: Path) -> None:
    commands = "packlm.commands"
    assert "\n  preprocess " in run(site, hostile, commands, "--help")
    assert "\nptb-fast " in run(site, hostile, commands, "recipes")
    assert "lr = 0.5\n" in run(site, hostile, commands, "config", "--config", "ptb-fast", "--train.lr", "0.5")
    (hostile / "corpus").mkdir()
    for number in range(8):
        (hostile / "corpus" / f"{number}.txt").write_text(f"The cat number {number} sat. A dog saw it, and left.\n" * 9)
    settings = ["--run.name", "mine", "--tracking.uri", "", "--model.hidden", "8"]
    corpus = ["--corpus.format", "text", "--corpus.train", "corpus", "--corpus.validation_fraction", "0.3", "--tokenizer.vocab_size", "280"]
    run(site, hostile, commands, "preprocess", *corpus, *settings, "--dataset.workers", "2")
    assert run(site, hostile, commands, "preprocess", "verify", "data/mine") == "data/mine: every file matches its digest\n"
    run(site, hostile, commands, "train", *settings, "--train.max_steps", "2", "--train.device", "cpu")
    assert run(site, hostile, commands, "next", "--model", "runs/mine/model", "--prompt", "The").startswith("token\tprobability\n")
    (module,) = run(site, hostile, "packlm.stages.train", "--help").splitlines()[:1]
    assert module.startswith("Usage: python train ")
