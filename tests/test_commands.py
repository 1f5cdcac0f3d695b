"""The `packlm` command: the verbs of all stages, help, recipes, completion."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from packlm.commands import verbs as packlm
from packlm.config import Config, recipes

ROOT = Path(__file__).resolve().parents[1]
Packlm = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Packlm:
    """Runs `packlm WORDS` in this process: (exit status, standard output, standard error)."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["packlm", *words])
        status = 0
        try:
            packlm.main()
        except SystemExit as exit:
            status = int(exit.code or 0)
        return status, *capsys.readouterr()

    return run


def test_every_verb_is_listed_and_has_help_with_an_example(command: Packlm) -> None:
    status, out, err = command("--help")
    assert (status, err) == (0, "") and command() == (0, out, "")
    for verb in (*packlm.STAGES, "recipes", "completion"):
        assert f"\n  {verb} " in out
        status, said, _ = command(verb, "--help")
        assert status == 0 and f"Usage: packlm {verb} " in said
        assert verb == "preprocess" or "\nExample:\n  " in said  # preprocess has verbs of its own
        assert command("help", verb)[1] == said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("evalaute", "unknown command 'evalaute'; did you mean evaluate?"),
        ("--train.lr 1", "a command is missing; there are new, run, config, "),
        ("--verison", "unknown option '--verison'; did you mean --version?"),
        ("train --rebiuld", "unknown option '--rebiuld'; did you mean --rebuild?"),
        ("export --rebuild", "unknown option '--rebuild'; settings are given as --section.key value"),
        ("--rebuild", "unknown option '--rebuild'; known: --version, "),
        ("export", "missing option '--to'. Choose from: transformers, onnx; see `packlm export --help`"),
        ("train --train.lrr 1", "train.lrr: there is no such setting; did you mean train.lr?"),
        ("train --train.lr", "--train.lr needs a value"),
        ("train --config ptb-fats", "--config ptb-fats: neither a file nor a recipe; did you mean ptb-fast?"),
        ("--config ptb-fast train --train.lr x", "train.lr: Input should be a valid number"),
        ("preprocess verfy d", "unknown command 'verfy'; did you mean verify?"),
        ("completion zhs", "'zhs' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_a_wrong_request_is_refused_with_a_hint(command: Packlm, words: str, message: str) -> None:
    status, out, err = command(*words.split())
    assert (status, out) == (2, "") and err.startswith("error: ") and message in err


def test_a_recipe_is_listed_with_its_title_and_found_by_name(command: Packlm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = command("recipes")[1].splitlines()
    assert [line.split()[0] for line in lines] == recipes.names() and all(len(line.split()) > 3 for line in lines)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ptb-fast").mkdir()  # not a file
    assert 'name = "ptb-fast"' in command("config", "--config", "ptb-fast")[1]
    (tmp_path / "mine.toml").write_text('[run]\nname = "mine"\n')
    assert 'name = "mine"' in command("config", "--config=mine.toml")[1]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(command: Packlm, shell: str) -> None:
    status, out, _ = command("completion", shell)
    assert status == 0 and packlm.COMPLETION_VARIABLE in out


@pytest.mark.parametrize(
    ("line", "incomplete", "expected"),
    [
        ("packlm", "ev", {"evaluate"}),
        ("packlm preprocess", "ver", {"verify"}),
        ("packlm train", "--reb", {"--rebuild"}),
        ("packlm train --rebuild", "--train.lr", {f"--train.{key}" for key in Config().train.model_dump() if key.startswith("lr")}),
        ("packlm generate --train.lr 1", "--temp", {"--temperature"}),
        ("packlm train --config", "ptb-f", {"ptb-fast"}),
    ],
)
def test_a_shell_completes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, incomplete: str, expected: set[str]
) -> None:
    monkeypatch.setenv(packlm.COMPLETION_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"{line} {incomplete}")
    monkeypatch.setenv("COMP_CWORD", str(len(line.split())))
    with pytest.raises(SystemExit) as ended:
        packlm.main()
    assert ended.value.code == 0
    assert {item.partition(",")[2] for item in capsys.readouterr().out.split()} == expected


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        "train --help",
        "evaluate --strategy beam",
        "train --train.lr x",
        "preprocess verify nowhere",
        "evalaute",
        "recipes",
        "generate --model nowhere --prompt a",
        "next --model nowhere --prompt a",
        "evaluate --model . --text a.txt",
        "score --model nowhere",
        "pairs --model models:x",
        "rescore --model nowhere --nbest a.jsonl",
        "next --model . --prompt a --top 1.5",
    ],
)
def test_help_and_refusals_import_nothing_heavy(words: str, tmp_path: Path) -> None:
    program = (
        "import sys; from packlm.commands import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'mlflow', 'pyarrow', 'numpy', 'tokenizers'} & sys.modules.keys(), 'too early'"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words.split()],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (0 if "help" in words or words == "recipes" else 2) and "too early" not in done.stderr, done.stderr


def test_the_version_is_printed(command: Packlm) -> None:
    status, out, _ = command("--version")
    assert status == 0 and out.startswith("packlm, version ")
