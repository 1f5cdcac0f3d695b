"""The `packlm` command finds the module behind each word."""

import sys

import pytest

from packlm import commands


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[str, list[str]]:
    """The module that is run, and the arguments it sees."""
    seen: list[tuple[str, list[str]]] = []
    monkeypatch.setattr(sys, "argv", ["packlm", *words])
    monkeypatch.setattr("runpy.run_module", lambda name, **_: seen.append((name, sys.argv[1:])))
    commands.main()
    return seen[0]


@pytest.mark.parametrize(
    ("words", "module", "arguments"),
    [
        (["train", "--train.lr", "1"], "packlm.stages.train", ["--train.lr", "1"]),
        (["run", "--rebuild"], "packlm.stages.pipeline", ["run", "--rebuild"]),
        (["score", "--input", "-"], "packlm.stages.serve", ["score", "--input", "-"]),
    ],
)
def test_a_word_runs_its_module(monkeypatch: pytest.MonkeyPatch, words: list[str], module: str, arguments: list[str]) -> None:
    assert run(monkeypatch, *words) == (module, arguments)


def test_an_unknown_word_is_a_wrong_request(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(monkeypatch, "evalaute")
    assert caught.value.code == 2
    assert "did you mean evaluate?" in capsys.readouterr().err


def test_without_a_word_the_usage_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["packlm"])
    commands.main()
    assert "packlm run|config|sync" in capsys.readouterr().out
