"""Kills a batch job of generation at random moments, starts it again, and compares what it made with an undisturbed one, byte for byte.

    python benchmarks/kill_generation.py --times 50
    python benchmarks/kill_generation.py --times 500 --seed 7 --worlds 1 2

A kill is kill -9 of the job and all its ranks after a time drawn from the length of an undisturbed one; a job is killed so often that it
never ends by itself sooner than it must, and each time the same command goes on, on a number of ranks drawn anew. The model has random
weights: what is tested is the job.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kill_training import kill

from packlm import config as configuration
from packlm.model import folder as model_folder
from packlm.model import language_model as models
from preprocess.build.stage import build as build_dataset
from serve.generate.prompts import SETTINGS

PROMPTS = 600
STRATEGIES = ({}, {"strategy": "beam", "beams": 4}, {"strategy": "greedy"}, {"temperature": 0.7, "samples": 3})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="kills")
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2], help="numbers of ranks to draw from")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    drawn = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_model(folder)
        make_prompts(folder / "prompts.jsonl", drawn)
        began = time.monotonic()
        finish(start(folder, "whole.jsonl", 1))
        length = time.monotonic() - began
        whole = (folder / "whole.jsonl").read_bytes()
        print(f"undisturbed: {length:.1f} s, {len(whole.splitlines())} records", flush=True)
        killed = jobs = wrong = resumed = 0
        while killed < given.times:
            jobs += 1
            out = f"killed-{jobs}.jsonl"
            while killed < given.times:
                process = start(folder, out, drawn.choice(given.worlds))
                try:
                    process.wait(drawn.uniform(0, 1.2 * length))
                    break
                except subprocess.TimeoutExpired:
                    kill(process, False, drawn)
                    killed += 1
                    resumed += any(path.stat().st_size for path in (folder / f".{out}.parts").glob("rank-*"))
            finish(start(folder, out, drawn.choice(given.worlds)))
            left = sorted(path.name for path in folder.glob(f".{out}*"))
            if (folder / out).read_bytes() != whole or left:
                wrong += 1
                print(f"{out}: {'left behind: ' + ', '.join(left) if left else 'DIFFERS'}", flush=True)
        print(f"killed {killed} times in {jobs} jobs, {resumed} of them with records kept; jobs that went wrong: {wrong}", flush=True)
    sys.exit(wrong > 0)


def make_model(folder: Path) -> None:
    """A dataset of the built-in corpus, and a model folder of random weights for it."""
    config = configuration.resolve(
        {
            "run": {"name": "killed", "dir": folder / "run"},
            "corpus": {"train": "python", "format": "builtin"},
            "dataset": {"dir": folder / "data"},
            "tokenizer": {"kind": "bpe", "vocab_size": 2000},
            "model": {"hidden": 200, "layers": 2},
        }
    )
    manifest = build_dataset(config).manifest
    model = models.build(config.model, manifest.vocab_size, seed=3)
    about = {
        "name": "killed", "model": config.model.model_dump(mode="json"), "vocab_size": manifest.vocab_size,
        "text": manifest.settings["corpus"], "segments": "sentences", "reset": "document", "lossless": manifest.lossless,
        "dataset": manifest.digests, "numbers": {"steps": 0, "tokens": 0},
    }  # fmt: skip
    model_folder.save(config.run.dir / "model", model_folder.weights_of(model), about, config.generate, config.dataset.dir)


def make_prompts(path: Path, drawn: random.Random) -> None:
    """Prompts of random words and lengths, some with settings of their own, some that are none."""
    with open(path, "w", encoding="utf-8") as lines:
        for number in range(PROMPTS):
            prompt = " ".join(drawn.choice(SETTINGS) for _ in range(drawn.randint(0, 12)))
            lines.write("{broken\n" if number % 50 == 49 else json.dumps({"prompt": prompt} | STRATEGIES[number % 4]) + "\n")


def start(folder: Path, out: str, world: int) -> "subprocess.Popen[bytes]":
    """The command, in a session of its own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
    words = ["generate", "--model", "run/model", "--prompts", "prompts.jsonl", "--out", out, "--max-tokens", "40"]
    command = [sys.executable, *torchrun, str(ROOT / "serve"), *words, "--generate.batch_tokens", "1000"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Waits for the command to end well."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"generate ended with {process.returncode}:\n{errors.decode()}")


if __name__ == "__main__":
    main()
