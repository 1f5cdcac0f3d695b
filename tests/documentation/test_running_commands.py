"""The commands of README and docs run, in the order of their pages, then the Python: on made-up text, with narrow models, in two steps."""

import gzip
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.documentation import pages
from tests.documentation.pages import PAGES, ROOT
from tests.fake_hub import TOKEN, Hub
from tests.small_models import made_up_lines

pytestmark = pytest.mark.long

SMALL = {
    "PACKLM_MODEL__HIDDEN": "8", "PACKLM_MODEL__CUTOFFS": "[]", "PACKLM_TRAIN__MAX_STEPS": "2",
    "PACKLM_TRAIN__VALIDATE_EVERY": "1", "PACKLM_TRAIN__KEEP": "3", "PACKLM_GENERATE__MAX_TOKENS": "5", "PACKLM_DATASET__WORKERS": "1",
}  # fmt: skip
"""What makes every command take seconds."""

STAND_INS = {
    "[--rows N] [--split S] [--view fixed|sentences]": "--rows 3 --split train --view sentences", "[--private]": "--private",
    ', "hub:NAME"': "", "PATH ...": "articles", "OTHER": "quickstart", "1|2|3": "1", "--trials 30": "--trials 2",
}  # fmt: skip
"""Parts of a command that a reader replaces, and those that would take long."""
WORDS_FOR = {
    "C": "reader.toml", "M": "runs/quickstart/model", "DIR": "data/reader", "FOLDER": "articles", "FILE": "ptb.train.txt",
    "F": "examples/prompts.txt", "F.jsonl": "out.jsonl", "NAME.toml": "articles.toml",
}  # fmt: skip
"""Words that a reader replaces."""

ELSEWHERE = {
    "ray": "tests/preprocess/executors/test_clusters.py", "slurm": "tests/preprocess/executors/test_clusters.py",
    "s3://BUCKET/data/news": "tests/dataset/test_fetch.py", "--nnodes": "tests/torture/hosts.py",
    "http://127.0.0.1:8000/invocations": "tests/documentation/containers.py",
}  # fmt: skip
"""Words of commands that need a cluster or containers, and the test that runs the like of them."""

LECTURE = ROOT / "docs" / "lecture.md"
"""Its Python runs in `test_lecture.py`."""

BEFORE = {
    "docs/interpolation.md": ["preprocess --config ptb-15min", "train --config ptb-15min"],
    "docs/recipes.md": [f"preprocess --config {name}" for name in ("ptb-5min", "shakespeare-chars")],
    "docs/sweep.md": ["preprocess --config ptb-5min"],
    "docs/training.md": [
        "preprocess --dataset.dir data/news --corpus.train articles",
        "preprocess --run.name mine --corpus.train articles --corpus.validation_fraction 0.2",
        "train --run.name mine --train.keep 5 --train.max_steps 5",
    ],
}  # fmt: skip
"""What a page's reader has done before."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that commands name, and a small tour: `data/quickstart`, `runs/quickstart`."""
    folder, generator = tmp_path_factory.mktemp("home"), np.random.default_rng(5)
    for name, lines in (
        ("ptb.train.txt", 500), ("ptb.valid.txt", 60), ("corpora/ptb/ptb.train.txt", 500), ("corpora/ptb/ptb.valid.txt", 60),
        ("corpora/shakespeare/tinyshakespeare.txt", 800),
        *((f"{kind}/{number}.txt", 20) for kind in ("articles", "speech") for number in range(40)),
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(made_up_lines(generator, lines), encoding="utf-8")
    (folder / "more.jsonl.gz").write_bytes(gzip.compress(b'{"text": "The cat sees a dog."}\n'))
    for name in ("examples", "configs", "train"):
        (folder / name).symlink_to(ROOT / name)
    for copy, example in (("items.tsv", "items.tsv"), ("pairs.tsv", "pairs.tsv"), ("nbest.jsonl", "nbest.jsonl"), ("dev", "tune.txt")):
        shutil.copy(ROOT / "examples" / example, folder / copy)
    (folder / "space.toml").write_text("[train]\nlr = {low = 1e-3, high = 3e-2, log = true}\n[model]\nlayers = {low = 1, high = 2}\n")
    (folder / "reader.toml").write_text('[run]\nname = "reader"\n[corpus]\ntrain = "articles"\n[train]\nsamples = 0\n')
    for command in ("preprocess", "train", "evaluate", "preprocess --config reader.toml"):
        run(f"packlm {command}", folder, {})
    for name in ("wide", "gru"):
        shutil.copytree(folder / "runs" / "quickstart", folder / "runs" / name)
    return folder


def words_of(command: str) -> list[str]:
    for shown, stand_in in STAND_INS.items():
        command = command.replace(shown, stand_in)
    program, *words = [WORDS_FOR.get(word, word) for word in shlex.split(command)]
    if program == "curl":  # waits for its server to start
        words = ["--fail-with-body", "--retry", "90", "--retry-delay", "1", "--retry-connrefused", *words]
    ours = Path(sys.executable).with_name(program)
    return [str(ours) if ours.exists() else program, *words]


def environment(variables: dict[str, str]) -> dict[str, str]:
    bin = Path(sys.executable).parent
    return {**os.environ, **SMALL, "OMP_NUM_THREADS": "1", "PATH": f"{bin}:{os.environ['PATH']}", **variables}


def run(command: str, folder: Path, variables: dict[str, str]) -> None:
    """Runs a command as a reader would. What an earlier command has made with other settings is replaced."""
    for suffix in ([], ["--rebuild"]):
        line = [*words_of(command), *suffix]
        done = subprocess.run(line, cwd=folder, env=environment(variables), capture_output=True, text=True)
        if done.returncode == 0 or "--rebuild" not in done.stderr:
            break
    assert done.returncode == 0, f"{shlex.join(line)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def commands_to_run(page: Path) -> list[str]:
    found = pages.commands(page, "packlm", "torchrun", "mlflow", "curl")
    return [command for command in found if not ELSEWHERE.keys() & set(shlex.split(command))]


@pytest.mark.parametrize("page", [page for page in PAGES if commands_to_run(page) or any(pages.python(page))], ids=pages.name)
def test_a_page_runs(page: Path, home: Path, tmp_path: Path, hub: Hub) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(home, folder, symlinks=True)
    variables = {"HF_ENDPOINT": hub.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
    servers = []
    try:
        for command in [*(f"packlm {words}" for words in BEFORE.get(pages.name(page), [])), *commands_to_run(page)]:
            if re.match("packlm server|mlflow models serve", command):
                servers.append(subprocess.Popen(words_of(command), cwd=folder, env=environment(variables), start_new_session=True))
            else:
                run(command, folder, variables)
        if page != LECTURE:
            (folder / "page.py").write_text("\n".join(block for block, _ in pages.python(page)), encoding="utf-8")
            run("python page.py", folder, variables)
    finally:
        for server in servers:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def test_commands_tested_elsewhere_are_documented() -> None:
    words = {word for page in PAGES for command in pages.commands(page, "packlm", "torchrun", "curl") for word in shlex.split(command)}
    assert ELSEWHERE.keys() <= words
    assert all((ROOT / test).exists() for test in ELSEWHERE.values())
    assert all(any(part in page.read_text(encoding="utf-8") for page in PAGES) for part in STAND_INS)
