"""Kills a batch job of generation at random times, resumes it, and compares its result with that of an undisturbed job, byte for byte.

    python benchmarks/kill_generation.py --times 50
    python benchmarks/kill_generation.py --times 500 --seed 7 --worlds 1 2

A kill is kill -9 of the job and all its ranks after a random time, up to 1.2 times that of an undisturbed job; the same command then
resumes it on a random number of ranks, until it finishes before its kill. The model has random weights: the test is about the job.
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
from packlm import dataset
from packlm.model import folder as model_folder
from packlm.model import language_model as models
from preprocess.build.stage import build as build_dataset

PROMPTS = 600
WORDS = ("a", "the", "returns", "list", "of", "values", "if", "object", "is", "file", "default", "string", "None", "type")
STRATEGIES = ({}, {"strategy": "beam", "beams": 4}, {"strategy": "greedy"}, {"temperature": 0.7, "samples": 3})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="kills")
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2], help="numbers of ranks to choose from")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_model(folder)
        make_prompts(folder / "prompts.jsonl", generator)
        start_time = time.monotonic()
        finish(start(folder, "expected.jsonl", 1))
        seconds = time.monotonic() - start_time
        expected = (folder / "expected.jsonl").read_bytes()
        print(f"undisturbed: {seconds:.1f} s, {len(expected.splitlines())} records", flush=True)
        kills = jobs = failures = resumed = 0
        while kills < arguments.times:
            jobs += 1
            out = f"killed-{jobs}.jsonl"
            while kills < arguments.times:
                process = start(folder, out, generator.choice(arguments.worlds))
                try:
                    process.wait(generator.uniform(0, 1.2 * seconds))
                    break
                except subprocess.TimeoutExpired:
                    kill(process, False, generator)
                    kills += 1
                    resumed += any(path.stat().st_size for path in (folder / f".{out}.parts").glob("rank-*"))
            finish(start(folder, out, generator.choice(arguments.worlds)))
            leftovers = sorted(path.name for path in folder.glob(f".{out}*"))
            if (folder / out).read_bytes() != expected or leftovers:
                failures += 1
                print(f"{out}: {'leftover files: ' + ', '.join(leftovers) if leftovers else 'DIFFERS'}", flush=True)
        print(f"{kills} kills in {jobs} jobs, {resumed} of them with records in the journal; failed jobs: {failures}", flush=True)
    sys.exit(failures > 0)


def make_model(folder: Path) -> None:
    """Builds a dataset of the built-in corpus, and a model folder with random weights for it."""
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
    tokenizer = dataset.read_files(config.dataset.dir, manifest, model_folder.TOKENIZER_FILES)
    model_folder.save(config.run.dir / "model", model_folder.weights_of(model), about, config.generate, tokenizer)


def make_prompts(path: Path, generator: random.Random) -> None:
    """Writes prompts of random words and lengths, some with settings of their own, some with errors."""
    with open(path, "w", encoding="utf-8") as lines:
        for number in range(PROMPTS):
            prompt = " ".join(generator.choice(WORDS) for _ in range(generator.randint(0, 12)))
            lines.write("{broken\n" if number % 50 == 49 else json.dumps({"prompt": prompt} | STRATEGIES[number % 4]) + "\n")


def start(folder: Path, out: str, world: int) -> "subprocess.Popen[bytes]":
    """Starts the command in a session of its own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)] if world > 1 else []
    words = ["generate", "--model", "run/model", "--prompts", "prompts.jsonl", "--out", out, "--max-tokens", "40"]
    command = [sys.executable, *torchrun, str(ROOT / "serve"), *words, "--generate.batch_tokens", "1000"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Waits for the command; exits if it fails."""
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"generate ended with {process.returncode}:\n{errors.decode()}")


if __name__ == "__main__":
    main()
