"""The commands as they are typed: exit statuses, what goes to standard output, and what a stage does when it is run again."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from packlm.config import Config, to_toml

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(command_line: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs `python -m serve WORDS` from an empty folder: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    return partial(command_line, "serve")


@pytest.fixture
def recipe(made: Callable[[str], Config], tmp_path: Path) -> Path:
    """A configuration file of the tiny run, with a copy of its model below a run folder of its own."""
    config = made("bpe")
    target = tmp_path / "runs" / "model"
    target.mkdir(parents=True)
    for path in (config.run.dir / "model").iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(config.model_copy(update={"run": config.run.model_copy(update={"dir": tmp_path / "runs"})})), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evalaute"], "did you mean evaluate?"),
        (["generate", "--prompt", "a", "--strategi", "beam"], "did you mean --strategy?"),
        (["score", "--prompt", "a"], "unknown option '--prompt'; it belongs to next"),
        (["next"], "missing option '--prompt'"),
        (["next", "--prompt", "a", "--top", "0"], "top: Input should be greater than or equal to 1, got 0"),
        (["next", "--prompt", "a", "--precision", "int4"], "--precision"),
        (["generate", "--prompt", "a", "--prompts", "f"], "not allowed with"),
        (["generate", "--prompt", "a", "--top-k", "many"], "generate.top_k"),
        (["generate", "--generate.sampels", "3"], "did you mean generate.samples?"),
        (["evaluate", "--split", "dev"], "evaluate.split"),
        (["evaluate", "--model", "M"], "--data DIR"),
        (["evaluate", "a.txt"], "text files are given as --text FILE..."),
        (["evaluate", "--data", "d", "--text", "a.txt", "b.txt"], "--text: not allowed with --data"),
        (["evaluate", "--model", "nowhere", "--data", "d"], "nowhere: no model here"),
        (["score", "--model", "nowhere", "--input", "missing.txt"], "missing.txt: cannot be read"),
        (["generate", "--model", "nowhere", "--prompt", "a"], "nowhere: no model here"),
        (["next", "--model", "models:x@champion", "--prompt", "a"], "models:/NAME@ALIAS"),
        (["generate", "--run.dir", "r"], "torchrun"),
        (["evaluate", "--run.dir", "r"], "torchrun"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_request_is_one_line_and_status_2(command: Command, words: list[str], message: str) -> None:
    status, out, err = command(*words)
    assert (status, out) == (2, "")
    assert message in err and err.startswith("error: ")
    assert len(err.strip().splitlines()) == (2 if "wrong configuration" in err else 1)


def test_without_a_verb_all_verbs_are_listed(command: Command) -> None:
    status, out, _ = command()
    assert status == 0 and all(
        f"\n  {verb} " in out
        for verb in ("evaluate", "score", "pairs", "rescore", "states", "next", "generate", "interpolate", "server", "export", "push")
    )
    assert command("--help")[1] == out


@pytest.mark.parametrize(
    "verb", ["evaluate", "score", "pairs", "rescore", "states", "next", "generate", "interpolate", "server", "export", "push"]
)
def test_help_of_a_verb_has_its_options_with_defaults_its_sections_and_an_example(command: Command, verb: str) -> None:
    status, out, err = command(verb, "--help")
    assert (status, err) == (0, "") and f"Usage: python -m serve {verb} " in out
    assert "--model" in out and "[default: full]" in out and "  name, dir, seed\n" in out and f"\n  packlm {verb} --" in out
    assert command(verb, "-h") == command("help", verb) == (0, out, "")


def test_an_option_that_names_a_setting_is_explained_by_it(command: Command) -> None:
    out = " ".join(command("generate", "--help")[1].split())
    assert "--strategy greedy|sample|beam " in out and "--temperature FLOAT " in out and "[default: 1.0]" in out
    assert "--lm-weight FLOAT|tune " in " ".join(command("rescore", "--help")[1].split())


def test_the_commands_answer_on_standard_output(
    command: Command, made: Callable[[str], Config], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = made("bpe")
    model = config.run.dir / "model"
    status, out, _ = command("evaluate", "--model", model, "--data", config.dataset.dir, "--out", "d.json")
    assert status == 0 and "perplexity" in out
    status, out, _ = command("evaluate", "--model", model, "--text", corpus / "validation", "--out", "-")
    report = json.loads((tmp_path / "d.json").read_text(encoding="utf-8"))
    assert json.loads(out)["nll"] == pytest.approx(report["nll"], rel=1e-6) and json.loads(out)["tokens"] == report["tokens"]
    one, two = sorted((corpus / "validation").iterdir())[:2]
    tokens = [
        json.loads(command("evaluate", "--model", model, "--text", *texts, "--out", "-")[1])["tokens"]
        for texts in ([one], [two], [one, two])
    ]
    assert tokens[0] + tokens[1] == tokens[2] > 0
    status, out, _ = command("evaluate", "--model", model, "--data", config.dataset.dir, "--split", "all", "--out", "-")
    assert [part["split"] for part in json.loads(out)] == ["train", "validation"] and json.loads(out)[1]["nll"] == report["nll"]
    assert command("evaluate", "--model", model, "--data", config.dataset.dir, "--out", "page.md")[0] == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8").startswith("# tiny-bpe on validation\n") and (tmp_path / "page.svg").exists()
    status, _, err = command("evaluate", "--model", model, "--data", config.dataset.dir, "--split", "all", "--out", "page.md")
    assert status == 2 and "a page holds one split" in err
    status, out, _ = command("next", "--model", model, "--prompt", "the", "--top", "4")
    assert status == 0 and len(out.splitlines()) == 5
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"the cat\na dog\n")))
    status, out, err = command("score", "--model", model)
    assert (status, err) == (0, "context: each sentence by itself, as the model was trained\n") and out.startswith("item\tsentence\t")
    (tmp_path / "in.txt").write_bytes(b"the cat\na dog\n")
    assert command("score", "--model", model, "--input", "in.txt", "--out", "s.tsv", "--html", "s.html")[:2] == (0, "")
    assert (tmp_path / "s.html").read_text(encoding="utf-8").count("surprisal ") >= 4
    assert (tmp_path / "s.tsv").read_text(encoding="utf-8") == out
    status, out, _ = command("generate", "--model", model, "--prompt", "the", "--strategy", "beam", "--samples", "2", "--max-tokens", "3")
    (record,) = map(json.loads, out.splitlines())
    assert len(record["generations"]) == 2 and max(item["tokens"] for item in record["generations"]) <= 3
    rules = ("--replacement", "false", "--samples", "3", "--banned", '["the", "a"]', "--stop", ".", "--min-tokens", "2", "--beams", "2")
    status, out, err = command("generate", "--model", model, "--prompt", "the", *rules)
    (record,) = map(json.loads, out.splitlines())
    assert len({item["text"] for item in record["generations"]}) == 3 and min(item["tokens"] for item in record["generations"]) >= 2
    assert err == "warning: generate.beams is for strategy = beam, not sample\n"
    status, out, _ = command("generate", "--model", model)  # text from nothing, as the model's folder says
    assert json.loads(out)["prompt"] == "" and json.loads(out)["generations"][0]["tokens"] <= 12


def test_lines_that_are_no_sentences_are_named_and_the_others_scored(
    command: Command, made: Callable[[str], Config], tmp_path: Path
) -> None:  # fmt: skip
    model = made("bpe").run.dir / "model"
    (tmp_path / "in.txt").write_bytes(b"the cat\na \xff dog\n" + b"\xff\n" * 20)
    status, out, err = command("score", "--model", model, "--input", "in.txt", "--rows", "sentence", "--context", "document")
    assert status == 0 and len(out.splitlines()) == 2
    assert "warning: line 2: not UTF-8 at byte 3" in err and "21 of 22 lines are not sentences" in err and "line 12" not in err
    assert "context: each sentence after those before it in its document\n" in err
    assert "context document: the model was trained on single sentences and has never seen one" in err
    assert "has never seen" not in command("score", "--model", model, "--input", "in.txt")[2]
    (tmp_path / "text.txt").write_bytes(b"the cat\na dog\n")
    for context in ("documents", "streams", "sentences"):
        err = command("evaluate", "--model", model, "--text", "text.txt", "--context", context)[2]
        assert (f"context {context}: the model was trained on single sentences" in err) == (context != "sentences")
    (tmp_path / "none.txt").write_bytes(b"")
    assert "nothing was scored" in command("score", "--model", model, "--input", "none.txt")[2]
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\0")
    status, _, err = command("score", "--model", model, "--input", "binary", "--out", "b.tsv")
    assert status == 2 and "binary: not a text file: looks like a binary file" in err and not (tmp_path / "b.tsv").exists()


def test_the_stages_do_their_work_once(command: Command, recipe: Path, tmp_path: Path) -> None:
    status, out, err = command("evaluate", "--config", recipe)
    report = json.loads((tmp_path / "runs" / "evaluate" / "validation.json").read_text(encoding="utf-8"))
    assert status == 0 and "perplexity" in out and report["split"] == "validation"
    beside = {path.name for path in (tmp_path / "runs" / "evaluate").iterdir()} - {"validation.json", "validation.inputs.json"}
    assert beside == {"validation.md", "validation.svg", "validation.surprisal.html"}
    assert "up to date" not in err and "up to date" in command("evaluate", "--config", recipe)[2]
    assert command("generate", "--config", recipe)[0] == 0
    samples = tmp_path / "runs" / "generate" / "samples.jsonl"
    (record,) = map(json.loads, samples.read_text(encoding="utf-8").splitlines())
    assert record["prompt"] == "" and record["generations"][0]["text"] is not None
    assert "up to date" in command("generate", "--config", recipe)[2]
    # What it is made of has changed: other settings, other prompts; a result that was damaged.
    assert "up to date" not in command("generate", "--config", recipe, "--generate.samples", 2)[2]
    prompts = tmp_path / "prompts.txt"
    for text in ("the\n", "a\n"):
        prompts.write_text(text)
        assert "up to date" not in command("generate", "--config", recipe, "--generate.prompts", prompts)[2]
        assert json.loads(samples.read_text(encoding="utf-8"))["prompt"] == text.strip()
    samples.write_text("")
    assert "up to date" not in command("generate", "--config", recipe, "--generate.prompts", prompts)[2]
    assert samples.read_text(encoding="utf-8")


def test_a_stage_that_lacks_its_dataset_names_the_command(command: Command, recipe: Path) -> None:
    status, _, err = command("evaluate", "--config", recipe, "--dataset.dir", "nowhere")
    assert status == 2 and "packlm preprocess" in err


def test_it_runs_from_anywhere(made: Callable[[str], Config], tmp_path: Path) -> None:
    words = ["next", "--model", str(made("bpe").run.dir / "model"), "--prompt", "the"]
    (tmp_path / "logging.py").write_text("raise RuntimeError('the wrong module')")  # of the current folder, which is no part of us
    done = subprocess.run([sys.executable, str(ROOT / "serve"), *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("token\tprobability\n"), done.stderr
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "serve", "nxet"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "did you mean next?" in done.stderr
