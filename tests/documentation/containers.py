"""Runs the commands of docs/compose.md in their order, on real containers and in a copy of the sources: `make containers`.

The copy is a compose project of its own, whose containers and volumes are removed at the end. The quickstart trains for 200 steps. Between
the backup and its restoration all volumes are deleted; afterwards MLflow must have the same runs, and the champion give the same answer.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.documentation import pages
from tests.documentation.pages import ROOT
from tests.small_models import made_up_lines

PAGE = ROOT / "docs" / "compose.md"
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".env", ".*_cache", "__pycache__", "data", "runs", "corpora", "mlflow.db", "site")
CURL = "curl -sS --fail-with-body --retry 90 --retry-delay 2 --retry-all-errors"
STAND_INS = {
    "make up ": 'make up ARGS="--train.max_steps 200" ', "curl ": f"{CURL} ",
    "docker-compose run --rm upgrade": "echo delete | make clean-volumes && docker-compose run --rm upgrade",
}  # fmt: skip
"""What runs in place of a part of a line."""


def lines_of_page() -> list[str]:
    return [line.strip() for line in pages.lines(PAGE) if line.startswith("    ")]


def write_texts(folder: Path) -> None:
    """The files that the commands name: a corpus for the recipe `wsj-articles`, and sentences to score."""
    generator = np.random.default_rng(1)
    articles = folder / "corpora" / "wsj_articles"
    articles.mkdir(parents=True)
    for number in range(60):
        (articles / f"{number}.txt").write_text(made_up_lines(generator, 20), encoding="utf-8")
    (folder / "sentences.txt").write_text(made_up_lines(generator, 3), encoding="utf-8")


def run(line: str, folder: Path, environment: dict[str, str]) -> str:
    """Runs a line in a shell, and returns what it prints."""
    for part, stand_in in STAND_INS.items():
        line = re.sub(rf"^{re.escape(part)}", lambda _, text=stand_in: text, f"{line} ").strip()
    print(f"\n$ {line}", flush=True)
    began = time.monotonic()
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    print(f"{done.stdout[-1500:]}({time.monotonic() - began:.0f} s)", flush=True)
    if done.returncode:
        subprocess.run(["docker-compose", "logs", "--tail", "30"], cwd=folder, env=environment)
        raise SystemExit(f"status {done.returncode}")
    return done.stdout


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="packlm-containers-")) / "packlm"
    shutil.copytree(ROOT, folder, ignore=LEFT_OUT, symlinks=True)
    write_texts(folder)
    project = {"COMPOSE_PROJECT_NAME": f"packlm-{secrets.token_hex(4)}", "POSTGRES_PASSWORD": secrets.token_hex(24)}
    environment = os.environ | project  # which have precedence over the file .env
    search = '-X POST http://127.0.0.1:5000/api/2.0/mlflow/runs/search -H "Content-Type: application/json" -d'

    def state() -> Any:
        """The runs that MLflow has, with parameters and metrics, and what the champion answers."""
        found = json.loads(run(f"""curl {search} '{{"experiment_ids": ["1"]}}'""", folder, environment))["runs"]
        (ask,) = (line for line in lines_of_page() if line.startswith("curl"))
        return sorted(json.dumps(one, sort_keys=True) for one in found), json.loads(run(ask, folder, environment))

    try:
        before = None
        for line in lines_of_page():
            if "pg_dump" in line:
                before = state()
            run(line, folder, environment)
        after = state()
        if before != after or not before[0]:
            raise SystemExit(f"restored, MLflow or the champion differs:\n{before}\n{after}")
        print(f"{len(after[0])} runs and the champion's answer are the same after the restoration")
    finally:
        subprocess.run("echo delete | make clean-volumes", shell=True, cwd=folder, env=environment)
        shutil.rmtree(folder.parent, ignore_errors=True)  # files that containers wrote may belong to others


if __name__ == "__main__":
    main()
