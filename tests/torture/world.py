"""The files that trials damage: a corpus, a dataset, finished and interrupted runs, and their undisturbed results."""

import hashlib
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

from . import fork_server
from .verdict import Ended

CONFIG = """
[run]
name = "small"
dir = "run"
[corpus]
format = "auto"
train = "corpus"
validation_fraction = 0.2
[tokenizer]
kind = "bpe"
vocab_size = 290
[dataset]
dir = "data"
length = 8
shards = 2
workers = 1
[model]
hidden = 8
layers = 1
dropout = 0.1
[train]
segments = "streams"
streams = 4
window = 5
max_steps = 12
checkpoint_every = 3
validate_every = 6
log_every = 2
keep = 9
samples = 2
bitwise = 4
device = "cpu"
[evaluate]
split = "validation"
[generate]
prompts = ["the cat", "a river sees"]
max_tokens = 8
[tracking]
uri = ""
"""
WORDS = ["the", "a", "cat", "dog", "tree", "river", "sees", "eats", "under", "over", "small", "green", "Ümlaut", "naïve", "it", "who", "😀"]
KILLED = 9
"""Exit status of the commands that end in the middle while a world is made."""
_VOLATILE = {
    "time", "seconds", "train/tokens_per_second", "train/data_wait", "train/memory_mb", "tokens_per_second", "seconds_per_step",
    "digest", "train/seconds", "summary.json", "../model/config.json",
}  # fmt: skip
"""Keys of JSON objects whose values are times, or digests of files that hold times."""
_RECORDS_OF_RUNS = ("tracking.json", ".svg")
"""Ends of the names of files that hold ids or times of a run: only their existence is compared."""


class World:
    """A folder of its own; every trial finds it as it was made, at the same path."""

    def __init__(self, folder: Path):
        self.folder = folder / "world"
        self._pristine = folder / "pristine"
        self.expected: dict[str, dict[str, str]] = {}
        """Command -> undisturbed result."""

    def run(self, words: list[str], **options: Any) -> Ended:
        """Runs a command in the folder, to its end."""
        return self.start(words, **options).end()

    def start(self, words: list[str], **options: Any) -> fork_server.Command:
        """Starts a command in the folder."""
        return fork_server.Command(words, self.folder, **options)

    def must(self, *words: str, status: int = 0, **options: Any) -> Ended:
        """Runs a command that has to end with a status."""
        ended = self.run([*words], **options)
        if ended.status != status:
            raise RuntimeError(f"{' '.join(words)} ended with {ended.status}:\n{ended.errors}")
        return ended

    def make(self) -> None:
        """Makes everything, with the commands themselves."""
        self.folder.mkdir(parents=True)
        write_corpus(self.folder / "corpus", random.Random(1))
        (self.folder / "config.toml").write_text(CONFIG)
        prompts = [{"prompt": " ".join(random.Random(number).choices(WORDS, k=number % 5)), "id": number} for number in range(12)]
        (self.folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
        for stage in (["preprocess"], ["train"], ["serve", "evaluate"], ["serve", "generate"]):
            self.must(*stage, "--config", "config.toml")
        self._make_interrupted()
        shutil.copytree(self.folder, self._pristine, symlinks=True)

    def _make_interrupted(self) -> None:
        """A training, a preprocessing and a generation that were killed on their way."""
        stopped = self.folder / "stopped" / "train"
        shutil.copytree(self.folder / "run" / "train", stopped)
        for name in ("complete.json", "summary.json"):
            (stopped / name).unlink(missing_ok=True)
        for checkpoint in sorted((stopped / "checkpoints").glob("step-*"))[-2:]:
            shutil.rmtree(checkpoint)
        self.must("preprocess", "--config", "config.toml", "--dataset.dir", "data2", status=KILLED, before=_kill_at_the_swap)
        self.must(*GENERATE, "job.jsonl", status=KILLED, before=_kill_at_the_result)

    def restore(self) -> None:
        """Puts every file back; one that is unchanged keeps its inode and time."""
        names = {path.relative_to(self._pristine): path for path in sorted(self._pristine.rglob("*"))}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            original = names.get(path.relative_to(self.folder))
            if original is None or path.is_symlink() or path.is_dir() != original.is_dir() or not (path.is_dir() or path.is_file()):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        for name, original in names.items():
            path = self.folder / name
            if original.is_dir():
                path.mkdir(exist_ok=True)
            elif not path.exists() or path.stat().st_mtime_ns != original.stat().st_mtime_ns or path.read_bytes() != original.read_bytes():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(original.read_bytes())  # into the same inode
                shutil.copystat(original, path)

    def pristine_bytes(self, name: str) -> bytes:
        """The undamaged content of a file."""
        return (self._pristine / name).read_bytes()


GENERATE = ("serve", "generate", "--model", "run/model", "--prompts", "prompts.jsonl", "--generate.batch_tokens", "30", "--out")


def _kill_at_the_swap() -> None:
    from packlm.base import files

    files.replace_folder = lambda *arguments, **options: os._exit(KILLED)  # type: ignore[assignment]


def _kill_at_the_result() -> None:
    from serve.generate import batch_job

    batch_job.write_records = lambda *arguments, **options: os._exit(KILLED)  # type: ignore[assignment]


def write_corpus(folder: Path, generator: random.Random) -> None:
    """Ten files of random sentences."""
    folder.mkdir(parents=True)
    for number in range(10):
        lines = [" ".join(generator.choices(WORDS, k=generator.randint(1, 9))) + "." for _ in range(generator.randint(3, 9))]
        (folder / f"{number}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def fingerprint(folder: Path, names: tuple[str, ...], out: str = "") -> dict[str, str]:
    """File -> digest of its content without times, of all files in some folders (hidden ones included), and of standard output."""
    paths = [path for name in names for path in sorted((folder / name).rglob("*")) if path.is_file()]
    paths += [folder / name for name in names if (folder / name).is_file()]
    result = {str(path.relative_to(folder)): _digest(path) for path in paths}
    return result | {"standard output": _digest_of(out.encode(), ".jsonl")}


def differences(expected: dict[str, str], actual: dict[str, str]) -> list[str]:
    """What differs between two fingerprints."""
    names = sorted({*expected, *actual})
    how = {name: "missing" if name not in actual else "left behind" if name not in expected else "different" for name in names}
    return [f"{name} is {how[name]}" for name in names if expected.get(name) != actual.get(name)]


def _digest(path: Path) -> str:
    return "" if path.name.endswith(_RECORDS_OF_RUNS) else _digest_of(path.read_bytes(), path.suffix)


def _digest_of(content: bytes, suffix: str) -> str:
    if suffix in (".json", ".jsonl"):
        try:
            texts = [content.decode()] if suffix == ".json" else content.decode().splitlines()
            content = json.dumps([_without_times(json.loads(text)) for text in texts], sort_keys=True).encode()
        except (ValueError, RecursionError):
            pass
    return hashlib.sha256(content).hexdigest()


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in _VOLATILE}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value
