"""Gives commands malicious folders: pickles, links out of the folder, FIFOs, sockets and devices, huge headers, crafted tokenizers."""

import json
import os
import pickle
import random
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import world as worlds
from .verdict import Outcome, Verdict, judge
from .world import World

_NEXT = ("serve", "next", "--model", "run/model", "--prompt", "the cat")
_EVALUATE = ("serve", "evaluate", "--model", "run/model", "--data", "data", "--config", "config.toml", "--out", "-")
_RESUME = ("train", "--config", "config.toml", "--run.dir", "stopped")
_WEIGHTS, _TOKENIZER, _CONFIG = (f"run/model/{name}" for name in ("model.safetensors", "tokenizer.json", "config.json"))
MARK = "executed"
"""A file of this name in the working folder means that something in a malicious file was executed."""


class Touch:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(MARK),)


class Case(NamedTuple):
    """Something malicious at a path, and the commands that meet it."""

    name: str
    path: str
    make: Callable[[Path], object]
    commands: tuple[tuple[str, ...], ...] = (_NEXT,)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{folder}/{path.name}")  # a path of a socket has at most 107 bytes
    os.close(folder)


def _link(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def _pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Touch()))


def _header(size: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(struct.pack("<Q", size) + b"{" * 100)


def _shapes(path: Path) -> None:
    header = json.dumps({"embedding.weight": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))


def _edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """Changes a tokenizer.json, and the digests that tell of it, as an attacker would."""

    def make(path: Path) -> None:
        values = json.loads((path.parents[2] / "data" / "tokenizer.json").read_text())
        change(values)
        path.write_text(json.dumps(values))

    return make


def _merges(values: dict[str, Any]) -> None:
    values["model"]["merges"] = [["\u0120", "missing"]]


def _ids(values: dict[str, Any]) -> None:
    values["model"]["vocab"] = {token: 2**32 - 1 - id for token, id in values["model"]["vocab"].items()}


def _gaps(values: dict[str, Any]) -> None:
    values["model"]["vocab"]["x"] = 10**9


def _same_id(values: dict[str, Any]) -> None:
    values["model"]["vocab"] |= dict.fromkeys(list(values["model"]["vocab"])[-5:], 1)


def _slow_pattern(values: dict[str, Any]) -> None:
    values["pre_tokenizer"] = {"type": "Split", "pattern": {"Regex": "(?:(?:a+)+)+$|(.*.*.*.*)*x"}, "behavior": "Isolated", "invert": False}


def _bad_pattern(values: dict[str, Any]) -> None:
    values["normalizer"] = {"type": "Replace", "pattern": {"Regex": "(((("}, "content": ""}


def _recursive(values: dict[str, Any]) -> None:
    step: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(300):
        step = {"type": "Sequence", "normalizers": [step]}
    values["normalizer"] = step


def _growing(values: dict[str, Any]) -> None:
    grow = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaaaaaaaaaaaaaa"}
    values["normalizer"] = {"type": "Sequence", "normalizers": [grow] * 4}


def _no_eos(values: dict[str, Any]) -> None:
    values["added_tokens"] = []
    values["model"]["vocab"].pop("<eos>", None)


def _charsmap(values: dict[str, Any]) -> None:
    values["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA////"}


def _template(values: dict[str, Any]) -> None:
    single = [{"SpecialToken": {"id": "missing", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    values["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": {}}


def _truncated(values: dict[str, Any]) -> None:
    values["truncation"] = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 5}


_FILE_TOKENIZER = (
    "preprocess",
    "--config",
    "config.toml",
    "--dataset.dir",
    "new",
    "--tokenizer.kind",
    "file",
    "--tokenizer.file",
    "bad/x/tokenizer.json",
    "--tokenizer.vocab_size",
    "2000",
)
_TOKENIZERS = (_merges, _ids, _gaps, _same_id, _slow_pattern, _bad_pattern, _recursive, _growing, _no_eos, _charsmap, _template, _truncated)
_SPECIAL = {
    "FIFO": _fifo,
    "socket": _socket,
    "endless device": _link("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "link to itself": _link("loop"),
    "link out of the folder": _link("/etc/passwd"),
    "link to a terminal": _link("/dev/tty"),
    "unreadable memory": _link("/proc/self/mem"),
}
_READ = {
    _WEIGHTS: (_NEXT,),
    _TOKENIZER: (_NEXT,),
    _CONFIG: (_NEXT,),
    "run/model/generation_config.json": (("serve", "generate", "--model", "run/model", "--prompt", "a"),),
    "data/manifest.json": (_EVALUATE, ("preprocess", "--config", "config.toml")),
    "data/tokenizer.json": (_RESUME, ("preprocess", "inspect", "data"), ("preprocess", "verify", "data")),
    "stopped/train/settings.json": (_RESUME,),
    "stopped/train/metrics.jsonl": (_RESUME,),
    "stopped/train/samples.jsonl": (_RESUME,),
    "stopped/train/checkpoints/step-00000006/tensors.safetensors": (_RESUME,),
    "stopped/train/checkpoints/step-00000006/state.json": (_RESUME,),
    "stopped/train/checkpoints/step-00000006": (_RESUME,),
    "run/train/complete.json": (("train", "--config", "config.toml"),),
    "run/train/summary.json": (("pipeline", "compare", "run", "stopped"),),
    "run/evaluate/validation.json": (("serve", "evaluate", "--config", "config.toml"), ("pipeline", "compare", "run", "stopped")),
    "run/generate/samples.jsonl": (("serve", "generate", "--config", "config.toml"),),
    ".job.jsonl.parts/rank-00000": ((*worlds.GENERATE, "job.jsonl"),),
    "prompts.jsonl": ((*worlds.GENERATE, "-"),),
    "corpus/1.txt": (
        ("preprocess", "--config", "config.toml", "--dataset.dir", "new"),
        ("serve", "score", "--model", "run/model", "--input", "corpus/1.txt"),
        ("serve", "evaluate", "--model", "run/model", "--text", "corpus/1.txt", "--out", "-"),
    ),
    "config.toml": (("pipeline", "config", "--config", "config.toml"),),
    "data": (_EVALUATE, ("preprocess", "--config", "config.toml")),
    "run/model": (_NEXT,),
}
CASES = (
    *(Case(f"{kind} as {path}", path, make, commands) for path, commands in _READ.items() for kind, make in _SPECIAL.items()),
    *(
        Case(f"pickle as {path}", path, _pickle, _READ[path])
        for path in (_WEIGHTS, "stopped/train/checkpoints/step-00000006/tensors.safetensors")
    ),
    *(Case(f"pickle beside the weights: {name}", f"run/model/{name}", _pickle) for name in ("pytorch_model.bin", "model.pt", "model.ckpt")),
    *(Case(f"safetensors header of {size:,} bytes", _WEIGHTS, _header(size)) for size in (0, 2**31, 2**63 - 1, 2**64 - 1)),
    Case("safetensors of impossible shapes", _WEIGHTS, _shapes),
    *(Case(f"tokenizer with {change.__name__.strip('_')}", _TOKENIZER, _edited(change)) for change in _TOKENIZERS),
    *(
        Case(f"tokenizer file with {change.__name__.strip('_')}", "bad/x/tokenizer.json", _edited(change), (_FILE_TOKENIZER,))
        for change in _TOKENIZERS
    ),
    *(
        Case(f"checkpoint called {name!r}", f"stopped/train/checkpoints/{name}", lambda path: path.mkdir(), (_RESUME,))
        for name in ("step-abc", "step-", "step-99999999999999999999", "step--1", "step-00000007", "other", "step-0x10", "step-٣")
    ),
    Case("checkpoint that is a file", "stopped/train/checkpoints/step-00000007", lambda path: path.write_text("x"), (_RESUME,)),
    Case("module of ours in the working folder", "torch.py", lambda path: path.write_text(f"open('{MARK}', 'w')"), (_NEXT, _EVALUATE)),
)
_HONEST = {_TOKENIZER, _WEIGHTS}
"""Files whose digest in the model's `config.json` an attacker corrects."""


def trial(world: World, number: int, generator: random.Random) -> Verdict:
    """One malicious folder; anything that is executed counts as lost."""
    case = CASES[number % len(CASES)]
    path = world.folder / case.path
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = Path("/etc/passwd").read_text(encoding="utf-8").split("\n")[0]
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    case.make(path)
    if case.path in _HONEST and path.is_file() and not path.is_symlink():
        _correct_digest(world, case.path)
    verdict = Verdict(Outcome.OK, case.name)
    for words in case.commands:
        ended = world.run([*words], deadline=40)
        verdict = judge(ended, [], f"{case.name}: {' '.join(words)}")
        if (world.folder / MARK).exists():
            return Verdict(Outcome.LOST, f"{case.name}: {' '.join(words)}: code was executed")
        if secret in ended.out + ended.errors:
            return Verdict(Outcome.LOST, f"{case.name}: {' '.join(words)}: a file outside of the folder was printed")
        if verdict.outcome not in (Outcome.OK, Outcome.NAMED):
            return verdict
    return verdict


def _correct_digest(world: World, name: str) -> None:
    """Makes the model's `config.json` agree with a changed file."""
    from packlm.base import files

    config = world.folder / _CONFIG
    values = json.loads(config.read_text())
    values["weights" if name == _WEIGHTS else "tokenizer"] = files.sha256(world.folder / name)
    try:
        from packlm.base import sealed_json
    except ImportError:
        files.write_json(config, values)
    else:
        sealed_json.write(config, {key: value for key, value in values.items() if key != "digest"})
