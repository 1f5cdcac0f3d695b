"""Commands of README and docs: each parses, and each that reads a file of `examples/` runs."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from packlm.base.errors import RequestError
from packlm.commands import verbs
from packlm.config import Config
from tests.documentation import pages
from tests.documentation.pages import PAGES, ROOT

PLACEHOLDER = re.compile(r"[A-Z_]+(\.[a-z]+)?|[a-z]+\.toml|.*\.\.\.|.*\|.*")
"""Words that a reader replaces: `FOLDER`, `C.toml`, `M`, `document|none`; and recipes that `packlm new` has written for the reader."""

COMMANDS = sorted(
    (pages.name(page), command.removeprefix("packlm "))
    for page in PAGES
    for command in set(pages.commands(page))
    if command.startswith("packlm ")
)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_a_documented_command_has_known_options_and_settings(page: str, command: str) -> None:
    words = [word for word in shlex.split(command) if word != "..."]
    with click.Context(verbs.cli, info_name="packlm") as parent:
        name, found, rest = verbs.cli.resolve_command(parent, words)
        assert found is not None, command
        while isinstance(found, click.Group) and rest and rest[0] in found.commands:
            found, rest = found.commands[rest[0]], rest[1:]
        if isinstance(found, click.Group):
            return
        try:
            context = found.make_context(name, rest, parent=parent)
        except RequestError as error:
            assert "there is no such folder" in str(error)  # a dataset or model that the reader has
            return
        arguments = context.params.get("arguments")
        values = (*arguments.settings[1::2], str(arguments.file)) if arguments else ()
        if arguments and not any(PLACEHOLDER.fullmatch(value) for value in values):
            arguments.load()


@pytest.mark.parametrize("command", sorted({command for page in PAGES for command in pages.commands(page, "make")}))
def test_a_documented_target_of_make_exists(command: str) -> None:
    done = subprocess.run(["make", "--dry-run", *shlex.split(command)[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command", sorted({command for page in PAGES for command in pages.commands(page, "python") if "benchmarks/" in command})
)
def test_a_documented_benchmark_has_these_options(command: str) -> None:
    _, script, *words = shlex.split(command)
    source = (ROOT / script).read_text(encoding="utf-8")
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in source] == []


@pytest.mark.parametrize("command", sorted({command for _, command in COMMANDS if "examples/" in command}))
def test_a_command_with_examples_runs(
    command: str,
    made: Callable[[str], Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart" / "model").symlink_to(made("bpe").run.dir / "model")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["packlm", *shlex.split(command)])
    verbs.main()
    outputs = [path for path in tmp_path.iterdir() if path.name not in ("runs", "examples")]
    assert capsys.readouterr().out or outputs
    assert all(path.stat().st_size for path in outputs)


@pytest.mark.parametrize("page", ["README.md", "docs/scoring.md", "docs/states.md"])
def test_the_python_of_a_page_runs(page: str, made: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart" / "model").symlink_to(made("bpe").run.dir / "model")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block, line in pages.python(ROOT / page):
        exec(compile("\n" * line + block, page, "exec"), names)
    assert names


def test_every_example_is_used_by_a_command() -> None:
    names = {f"examples/{path.name}" for path in (ROOT / "examples").iterdir() if path.suffix in (".tsv", ".jsonl", ".txt")}
    assert names == {word for _, command in COMMANDS for word in shlex.split(command) if word.startswith("examples/")}


def test_every_link_between_pages_leads_somewhere() -> None:
    wrong = []
    for page in [*PAGES, *sorted((ROOT / "benchmarks").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
            if "://" in target:
                continue
            path = page.parent / target if target else page
            if not path.exists():
                wrong.append(f"{page.name}: {target}")
            elif anchor and anchor not in {_anchor(line) for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")}:
                wrong.append(f"{page.name}: {target}#{anchor}")
    assert wrong == []


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower())
    return text.replace(" ", "-")
