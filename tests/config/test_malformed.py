"""Malformed configurations, arguments and environments: each is status 2 and one error, at once; none is a traceback, none blocks."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from packlm.base.errors import did_you_mean
from packlm.config import recipes

ROOT = Path(__file__).resolve().parents[2]
DEEP = 10_000
FILES: dict[str, str | bytes] = {
    "lists": "[train]\nlr = " + "[" * DEEP + "]" * DEEP,
    "lists below the limit": "[train]\nlr = " + "[" * 200 + "]" * 200,
    "tables": "[train]\nlr = " + "{a = " * DEEP + "1" + "}" * DEEP,
    "dotted key": "[train]\n" + ".".join(["a"] * DEEP) + " = 1",
    "dotted table": "[" + ".".join(["train"] * DEEP) + "]\nx = 1",
    "digits": "[train]\nepochs = " + "9" * 5_000,
    "hexadecimal digits": "[train]\nepochs = 0x" + "f" * 5_000,
    "digits of a float": "[train]\nlr = " + "9" * 5_000 + ".0",
    "exponent": "[train]\nlr = 1e" + "9" * 5_000,
    "infinity": "[train]\nlr = inf",
    "not a number": "[train]\nlr = nan",
    "infinity in a table": '[dataset]\nslurm = {partition = "a", time = inf}',
    "date": "[train]\nlr = 2020-01-01",
    "boolean for text": "[run]\nname = true",
    "list for text": '[run]\nname = ["a"]',
    "table for a path": "[run]\ndir = {a = 1}",
    "text for a section": 'train = "x"',
    "list for a section": "train = [1]",
    "list of sections": "[[train]]\nlr = 1",
    "NUL in a folder": '[run]\ndir = "a\\u0000b"',
    "NUL in a location": '[corpus]\ntrain = ["a", "a\\u0000b"]',
    "NUL in a tokenizer": '[tokenizer]\nkind = "file"\nfile = "a\\u0000b"',
    "NUL in the prompts": '[generate]\nprompts = "a\\u0000b"',
    "NUL in the codec": '[corpus]\nencoding = "a\\u0000b"',
    "NUL in a pattern": '[corpus]\ndrop_lines = "a\\u0000b"',
    "NUL in a table": '[dataset]\nslurm = {partition = "a\\u0000b"}',
    "NUL in the store": '[tracking]\nuri = "sqlite:///a\\u0000b"',
    "NUL in a key": '[train]\n"a\\u0000b" = 1',
    "line feed in a key": '[train]\n"a\\nerror: forged" = 1',
    "long key": '[train]\n"' + "k" * 100_000 + '" = 1',
    "wrong keys": "[train]\n" + "".join(f"key{number} = 1\n" for number in range(20_000)),
    "wrong values": "[corpus]\ntrain = [" + "1, " * 100_000 + "]",
    "name ..": '[run]\nname = ".."',
    "name /": '[run]\nname = "/"',
    "no name": '[run]\nname = ""',
    "name of 300 characters": '[run]\nname = "' + "a" * 300 + '"',
    "line feed in the name": '[run]\nname = "a\\n"',
    "name not ASCII": '[run]\nname = "\u00e4"',
    "pattern": '[corpus]\ndrop_lines = ["("]',
    "deep pattern": '[corpus]\ndrop_lines = ["' + "(" * DEEP + ")" * DEEP + '"]',
    "pattern of many": '[corpus]\ndrop_lines = ["a{1,99999999999999999999}"]',
    "codec": '[corpus]\nencoding = "base64"',
    "address as corpus": '[corpus]\ntrain = "https://example.org/a.txt"',
    "address as folder": '[run]\ndir = "s3://bucket/run"',
    "credentials for Slurm": '[dataset]\nslurm = {partition = "a", time = "1", secret_key = "x"}',
    "empty list of units": "[model]\nhidden = []",
    "a million layers": "[model]\nhidden = [" + "1," * 100_000 + "]\nlayers = 1",
    "not TOML": "{" * DEEP,
    "open string": '[run]\nname = "' + "a" * 1_000_000,
    "bytes": b"\xff\xfe\x00",
    "NUL byte": b"[run]\nname = \x00",
    "binary": bytes(range(256)) * 1000,
}
ARGUMENTS = {
    "deep list": ["--train.lr", "[" * DEEP],
    "closed deep list": ["--model.hidden", "[" * DEEP + "]" * DEEP],
    "deep table": ["--dataset.slurm", "{a=" * DEEP],
    "digits": ["--train.epochs", "9" * 5_000],
    "infinity": ["--train.lr", "inf"],
    "infinity in a list": ["--model.hidden", "[1, inf]"],
    "surrogate in a folder": ["--run.dir", "a\udcff"],
    "surrogate in a name": ["--run.name", "a\udcff"],
    "surrogate in a corpus": ["--corpus.train", "\udcff"],
    "surrogate in an option": ["--\udcff"],
    "surrogate in the file": ["--config", "\udcff.toml"],
    "no value": ["--train.lr"],
    "empty value": ["--train.lr="],
    "empty setting": ["--.", "1"],
    "dots": ["--train.lr.x.y", "1"],
    "unknown option": ["--" + "x" * 100_000],
    "extra argument": ["x" * 100_000],
    "no file": ["--config", "nowhere.toml"],
    "empty file name": ["--config", ""],
    "long file name": ["--config", "x" * 5_000],
    "long path": ["--config", "x/" * 100 + "x" * 300 + ".toml"],
    "endless": ["--config", "/dev/zero"],
    "random": ["--config", "/dev/random"],
    "terminal": ["--config", "/dev/tty"],
    "folder": ["--config", "/"],
}
ENVIRONMENTS = {
    "no section": {"PACKLM___LR": "1"},
    "no key": {"PACKLM_TRAIN__": "1"},
    "nothing": {"PACKLM___": "1"},
    "unknown section": {"PACKLM_NOTHING__X": "1"},
    "unknown key": {"PACKLM_TRAIN__LRR": "1"},
    "deeper": {"PACKLM_TRAIN__LR__X": "1"},
    "not a letter": {"PACKLM_TRAIN__\udcff": "1"},
    "bytes": {"PACKLM_RUN__DIR": "\udcff"},
    "deep": {"PACKLM_MODEL__HIDDEN": "[" * 100_000},
    "empty": {"PACKLM_TRAIN__LR": ""},
}

Run = Callable[..., tuple[int, str, str]]


def check(done: tuple[int, str, str], seconds: float) -> None:
    status, out, err = done
    assert (status, out) == (2, ""), err[:1000]
    lines = err.splitlines()
    assert lines[0].startswith("error: ") and all(line.startswith("  ") for line in lines[1:]), err[:1000]
    assert "Traceback" not in err and "unexpected:" not in err and max(map(len, lines)) < 700, err[:1000]
    assert seconds < 5


@pytest.fixture
def run(command_line: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> None:
        start = time.process_time()
        check(command_line("pipeline", "run", *words), time.process_time() - start)
        assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists()

    return run


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, run: Callable[..., None]) -> None:
    content = FILES[name]
    Path("a.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    run("--config", "a.toml")


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name: str, run: Callable[..., None]) -> None:
    run(*ARGUMENTS[name])


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environments(name: str, run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in ENVIRONMENTS[name].items():
        monkeypatch.setenv(variable, value)
    run()


@pytest.mark.parametrize("kind", ["fifo", "socket", "huge", "loop", "unreadable"])
def test_what_is_no_regular_file(kind: str, run: Callable[..., None]) -> None:
    path = Path("a.toml")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "huge":  # 2 GB, none of them on the disk
        path.touch()
        os.truncate(path, 1 << 31)
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.touch(0)
        if os.access(path, os.R_OK):
            pytest.skip("root reads every file")
    run("--config", "a.toml")


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ([b"--run.dir", b"a\xff"], {}),
        ([b"--config", b"fifo"], {}),
        ([b"--config", b"./fifo"], {}),
        ([b"--config", b"/dev/random"], {}),
        ([b"--config", b"/dev/stdin"], {}),
        ([b"--train.lr", b"[" * 100_000], {}),
        ([], {"PACKLM_RUN__NAME": b"\xff", "LC_ALL": b"C"}),
        ([], {"PACKLM_TRAIN__LR": b"nan"}),
    ],
)
def test_real_processes(words: list[bytes], environment: dict[str, bytes], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    start = time.monotonic()
    done = subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"pipeline", b"run", *words],
        cwd=tmp_path,
        env=os.environb | {b"PYTHONPATH": os.fsencode(ROOT)} | {os.fsencode(name): value for name, value in environment.items()},
        stdin=subprocess.PIPE,
        capture_output=True,
        timeout=60,
    )
    check((done.returncode, done.stdout.decode(), done.stderr.decode()), (time.monotonic() - start) / 4)  # other tests run beside it


def test_damaged_recipes_are_listed_and_named(
    command_line: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from packlm.commands import verbs

    monkeypatch.setattr(recipes, "folder", lambda: tmp_path)
    (tmp_path / "whole.toml").write_text("# A whole one\n")
    (tmp_path / "bytes.toml").write_bytes(b"# \xff")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "gone.toml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo.toml")
    monkeypatch.setattr(sys, "argv", ["packlm", "recipes"])
    verbs.main()
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() == {"whole", "bytes", "folder", "gone", "fifo"} and lines["whole"].endswith(" A whole one")
    assert "not UTF-8" in lines["bytes"] and "a FIFO" in lines["fifo"]
    for name in lines.keys() - {"whole"}:
        check(command_line("pipeline", "config", "--config", name), 0)
    assert did_you_mean("wole", recipes.names()) == "did you mean whole?"


@pytest.mark.parametrize(
    "environment",
    [
        {"_PACKLM_COMPLETE": "bash_complete"},
        {"_PACKLM_COMPLETE": "bash_complete", "COMP_WORDS": "packlm train", "COMP_CWORD": "x"},
        {"_PACKLM_COMPLETE": "bash_complete", "COMP_WORDS": 'packlm "train', "COMP_CWORD": "1"},
        {"_PACKLM_COMPLETE": "bash_complete", "COMP_WORDS": "packlm", "COMP_CWORD": "99"},
        {"_PACKLM_COMPLETE": "zsh_complete", "COMP_WORDS": "packlm --train.lr [[[ --config", "COMP_CWORD": "-1"},
        {"_PACKLM_COMPLETE": "rubbish"},
    ],
)
def test_completion_of_rubbish(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from packlm.commands import verbs

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        verbs.main()
    captured = capsys.readouterr()
    assert ended.value.code in (0, 1, 2) and len(captured.err.splitlines()) <= 1
    assert "Traceback" not in captured.err and "unexpected:" not in captured.err
