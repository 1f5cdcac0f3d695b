"""Names of files, folders and models that would be markup, links or lines of the log: through all stages they are text, and no more.

Real commands, each a process; every HTML and Markdown file that they write is parsed.
"""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from packlm.base import sealed_json
from packlm.config import Config, load
from packlm.model import folder as model_folder
from packlm.tracking import run_note

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    "<img src=x onerror=alert(1)>", "<script>alert(1)<", "[x](javascript:alert(1))", "![x](http:x.png)", "a\nerror: forged", "plain",
    "a\r\n  forged", "\x1b[2K\x1b[31merror: forged", "a | b \\| c", "`tick`", "$\\frac{$", "quote'\"><b>", "\u202efdp.txt", "# forged",
    "&lt;b&gt;", "www.forged.example", "\x85error: forged", "--- forged",
]  # fmt: skip
HOSTILE = "r\nerror: forged <img src=x onerror=alert(1)> [x](javascript:alert(1)) $\\frac{ | ` \x1b[31m"
"""The name of a folder and of a model."""


class Tags(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str, str]] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {(tag, name, value or "") for name, value in attributes}

    def handle_comment(self, data):
        raise AssertionError(data)


def run(folder: Path, stage: str, *words: object, status: int = 0) -> str:
    """Runs a stage in a folder; returns its standard output. Checks that each line of its log is ours."""
    command = [sys.executable, str(ROOT / stage), *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(folder / "cache"), "PYTHONWARNINGS": "error:Glyph"}
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == status, result.stderr
    check_lines(result.stderr)
    assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == (status > 0)
    return result.stdout


def check_lines(text: str) -> None:
    """No line begins within a name, and none has a control character."""
    for line in text.split("\n"):
        assert line.isprintable() and not re.match(r"\s*(error: )?forged", line), line


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A corpus of hostile names, its dataset, and a model trained on it, which then gets a hostile name too."""
    folder = tmp_path_factory.mktemp("hostile")
    for split in ("train", "validation"):
        (folder / "corpus" / split).mkdir(parents=True)
        for number, name in enumerate(NAMES):
            text = f"<b>the</b> cat {number} sees | $x$ [a](javascript:b) `it`.\nA dog eats <script>.\n"
            (folder / "corpus" / split / f"{name}.txt").write_text(text, encoding="utf-8")
    values = {
        "run.name": "tiny", "run.dir": folder / HOSTILE / "run", "dataset.dir": folder / HOSTILE / "data", "dataset.shards": 2,
        "dataset.workers": 1, "corpus.train": folder / "corpus" / "train", "corpus.validation": folder / "corpus" / "validation",
        "corpus.validation_fraction": 0, "corpus.test_fraction": 0, "corpus.format": "text",
        "corpus.sentences": "line", "tokenizer.kind": "word", "model.hidden": 8, "train.epochs": 2, "train.device": "cpu",
        "train.global_batch_tokens": 60, "tracking.uri": "", "evaluate.split": "validation",
    }  # fmt: skip
    settings = [f"--{key}={value}" for key, value in values.items()]
    config = load(None, [word for key, value in values.items() for word in (f"--{key}", str(value))], {})
    (folder / "settings.json").write_text(json.dumps(settings))
    for stage in ("preprocess", "train"):
        run(folder, stage, *settings)
    model = config.run.dir / "model"
    values = json.loads((model / "config.json").read_text())
    info = model_folder.read(model)
    (model / "README.md").write_text(model_folder.card(info.model_copy(update={"name": HOSTILE})), encoding="utf-8")
    sealed_json.write(model / "config.json", {key: values[key] for key in model_folder.ModelInfo.model_fields} | {"name": HOSTILE})
    return config


@pytest.mark.long
def test_pages_reports_and_logs_are_ours(made: Config) -> None:
    folder = made.run.dir.parents[1]
    settings = json.loads((folder / "settings.json").read_text())
    model, hostile = ["--model", made.run.dir / "model"], folder / HOSTILE
    run(folder, "serve", "evaluate", *settings)
    page = hostile / "a](javascript:alert(1)) page.md"
    table = run(folder, "serve", "evaluate", *model, "--data", made.dataset.dir, "--out", page)
    text = hostile / "in.txt"
    text.write_text("<b>the</b> cat\n\x00\nA dog\n", encoding="utf-8")
    run(folder, "serve", "score", *model, "--input", text, "--out", hostile / "out.jsonl", "--html", hostile / "heat.html")
    run(folder, "serve", "generate", *model, "--prompts", text, "--out", hostile / "generated.jsonl", "--max-tokens", 3)
    pairs = hostile / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"sentence_good": "the cat", "sentence_bad": "cat", "g": name}) + "\n" for name in NAMES))
    table += run(folder, "serve", "pairs", *model, "--input", pairs, "--out", hostile / "p.jsonl", "--group", "g")
    run(folder, "serve", "pairs", *model, "--input", pairs, "--out", "-", "--group", "g")
    table += run(folder, "pipeline", "compare", made.run.dir, made.run.dir)
    check_lines(table)
    run(folder, "serve", "evaluate", *model, "--data", hostile / "no\nerror: forged", status=2)

    pages = [path for path in folder.rglob("*.html") if path.is_file()]
    assert len(pages) == 3
    for path in pages:
        found = Tags(path.read_text(encoding="utf-8"))
        assert found.tags <= {"html", "meta", "title", "style", "h1", "p", "b", "span", "table", "tr", "th", "td"}, found.tags
        assert {name for _, name, _ in found.attributes} <= {"lang", "charset", "class", "style", "title"}
        assert all(re.fullmatch(r"surprisal [\d., a-z-]+", value) for _, name, value in found.attributes if name == "title")
    written = [path.read_text(encoding="utf-8") for path in folder.rglob("*.md")]
    assert len(written) == 4  # two pages and two cards
    for markdown in [*written, run_note.note(made)]:
        markdown = re.sub(r"\A---\n.*?\n---\n", "", markdown, flags=re.DOTALL)
        found = Tags(MarkdownIt("commonmark").enable("table").render(markdown))
        tags = {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "code", "pre", "img"}
        assert found.tags <= tags, found.tags - tags
        links = {value for _, name, value in found.attributes if name not in ("alt", "style", "class")}
        assert links <= {"validation.svg", "a%5D%28javascript%3Aalert%281%29%29%20page.svg"}, links
    for path in [*folder.rglob("*.json"), *folder.rglob("*.jsonl")]:
        texts = [path.read_text(encoding="utf-8")] if path.suffix == ".json" else path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        assert all(json.loads(text) is not None for text in texts)
