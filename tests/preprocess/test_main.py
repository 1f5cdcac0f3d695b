"""The command: what is asked of it, what it says, and what it records."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packlm import dataset
from packlm.base.errors import PacklmError, RequestError
from packlm.config import Config
from packlm.dataset import Manifest
from packlm.text.encoder import Encoder
from preprocess import cli as command
from preprocess import inspect_dataset
from preprocess.build import stage as building
from tests.small_corpus import rows, tree

Make = Callable[..., tuple[Path, Manifest]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the command with these words, in this process."""

    def run(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["preprocess", *map(str, words)])
        command.main()

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", command.Arguments("build", None, [])),
        ("build --rebuild", command.Arguments("build", None, [], flags={"--rebuild"})),
        ("--corpus.train a --rebuild", command.Arguments("build", None, ["--corpus.train", "a"], flags={"--rebuild"})),
        ("verify d", command.Arguments("verify", None, [], ["d"])),
        ("verify --repair d --config c", command.Arguments("verify", Path("c"), [], ["d"], {"--repair"})),
        ("--config c verify d --repair", command.Arguments("verify", Path("c"), [], ["d"], {"--repair"})),
        ("inspect d --rows 5 --view=fixed", command.Arguments("inspect", None, [], ["d"], values={"--rows": "5", "--view": "fixed"})),
        ("push --private d me/x", command.Arguments("push", None, [], ["d", "me/x"], {"--private"})),
    ],
)
def test_a_command_line_is_taken_apart(words: str, expected: command.Arguments) -> None:
    assert command.read(words.split()) == expected


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--rebiuld", "build: unknown argument '--rebiuld'; did you mean --rebuild?"),
        ("verfy d", "unknown command 'verfy'; did you mean verify?"),
        ("xyz", "unknown command 'xyz'; there are build, verify, inspect, push"),
        ("inspect d --row 3", "did you mean --rows?"),
        ("inspect d --rebuild", "it belongs to build"),
        ("inspect d --rows", "--rows needs a value"),
        ("inspect d --rows -3", "a whole number"),
        ("inspect d --views", "did you mean --view?"),
        ("verify", "verify takes DIR, got none"),
        ("verify a b", "verify takes DIR, got a b"),
        ("push d", "push takes DIR OWNER/NAME, got d"),
        ("build d", "build takes no argument, got d"),
        ("--zzz", "settings are given as --section.key value"),
        ("inspect d --model.cell gru", "reads no configuration: leave out --model.cell"),
        ("verify d --config c", "reads no configuration: leave out --config"),
        ("inspect nowhere", "nowhere: there is no such folder"),
        ("push nowhere me/x", "nowhere: there is no such folder"),
    ],
)
def test_nonsense_is_refused_with_a_hint(
    run: Callable[..., None], words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "manifest.json").write_text("{}")
    with pytest.raises(RequestError) as caught:
        run(*words.split())
    assert says in str(caught.value)


def test_folders_that_are_no_datasets(run: Callable[..., None], made: Make, tmp_path: Path) -> None:
    folder, _ = made()
    for place, says in (
        (folder.parent, f"no dataset here (no manifest.json); did you mean {folder}?"),
        (folder.with_name("smal"), f"there is no such folder; did you mean {folder}?"),
        (folder / "fixed", "`python -m preprocess` makes one"),
        (tmp_path / "elsewhere" / "deep", "there is no such folder; `python -m preprocess` makes a dataset"),
        (folder / "manifest.json", "there is no such folder"),
    ):
        for words in (("verify", place), ("inspect", place), ("push", place, "me/x")):
            with pytest.raises(RequestError) as caught:
                run(*words)
            assert says in str(caught.value) and str(place) in str(caught.value)


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["verify", "--help"], ["help"]])
def test_help(run: Callable[..., None], capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    run(*words)
    said = capsys.readouterr().out
    for name, about in command.COMMANDS.items():
        assert name in said and all(option in said for option in (*about.flags, *about.values, *about.places))


def test_a_run_ends_with_its_table(settings: Callable[..., Config], capfd: pytest.CaptureFixture[str], corpus: Path) -> None:
    config = settings(dataset__shards=1)
    words = ["--corpus.format", "text", "--corpus.train", corpus, "--corpus.drop_lines", r"\.START", "--run.name", "small"]
    words += ["--run.dir", config.run.dir, "--dataset.dir", config.dataset.dir, "--tokenizer.vocab_size", 280, "--tracking.uri", ""]
    words += ["--dataset.workers", 1]
    made = subprocess.run(
        [sys.executable, "-m", "preprocess", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=100, check=True
    )
    manifest = dataset.read_manifest(config.dataset.dir)
    split, lines = manifest.splits["train"], made.stderr.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("split "))
    assert lines[at].split() == ["split", *inspect_dataset.COLUMNS]
    numbers = [split.documents, split.sentences, split.tokens, split.words]
    assert lines[at + 1].split() == ["train", *(f"{number:,}" for number in numbers), "0.00%", f"{split.bytes:,}"]
    assert manifest.counts
    counted = {f"{reason}: {count:,}" for reason, count in manifest.counts.items()}
    assert set(lines[at + 2 : at + 2 + len(counted)]) == counted
    last = lines[at + 2 + len(counted)]
    assert last.startswith(f"{config.dataset.dir}: made in ") and last.endswith(" MB of text a second")
    assert made.stdout == ""


def test_rate_is_text_over_time(made: Make) -> None:
    _, manifest = made()
    total = sum(split.bytes for split in manifest.splits.values())
    assert inspect_dataset.rate(manifest, total / 1e6 / 12.5) == f"{total / 1e6 / 12.5:.1f} s, 12.50 MB of text a second"


def test_columns_are_aligned(made: Make) -> None:
    _, manifest = made(corpus__validation_fraction=0.4)
    lines = inspect_dataset.table(manifest).splitlines()[:3]
    assert len({len(line) for line in lines}) == 1 and [line.split()[0] for line in lines] == ["split", "train", "validation"]


@pytest.mark.parametrize(("kind", "size"), [("bpe", 280), ("word", 30), ("character", 40)])
def test_inspect_shows_the_first_rows(
    run: Callable[..., None], made: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str, size: int
) -> None:
    monkeypatch.setattr(inspect_dataset, "LONGEST_ROW", 1000)
    folder, manifest = made(
        tokenizer__kind=kind, tokenizer__vocab_size=size, corpus__validation_fraction=0.4, corpus__on_bad_text="replace"
    )
    encoder = Encoder.load(folder)
    run("inspect", folder, "--rows", 6)
    said = capsys.readouterr().out
    assert said.startswith(inspect_dataset.table(manifest))
    for split in manifest.splits:
        for view in dataset.VIEWS:
            there = [row for shard in rows(folder, manifest, view, split) for row in shard]
            section = said.partition(f"\n{split}, {view}: {min(6, len(there))} of {len(there):,} rows\n")[2].partition("\n\n")[0]
            lines = section.splitlines()
            step = 3 if view == "sentences" else 2
            assert len(lines) == step * min(6, len(there))
            for number, row in enumerate(there[:6]):
                about, tokens = lines[step * number], lines[step * number + step - 1]
                assert tokens == "    " + inspect_dataset.BETWEEN.join(inspect_dataset._printable(encoder.token(id)) for id in row["ids"])
                if view == "sentences":
                    assert about.startswith(f"  {row['document']}, sentence {row['position']}: {len(row['ids']):,} token")
                    assert f"; words {row['words']}" in about and f"; bytes {row['bytes']}" in about
                    assert ("gap" in about) == bool(row["gap"])
                    assert lines[step * number + 1] == "    " + inspect_dataset._printable(encoder.decode(row["ids"]))
                else:
                    assert about.startswith(f"  row {number}: ") and f"num_targets {row['num_targets']}" in about


def test_inspect_shows_what_is_asked_for(run: Callable[..., None], made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = made(corpus__validation_fraction=0.4)
    for words, shown in (
        (("--view", "fixed"), ["train, fixed", "validation, fixed"]),
        (("--split", "validation"), ["validation, fixed", "validation, sentences"]),
        (("--split", "train", "--view", "sentences", "--rows", 1), ["train, sentences"]),
        (("--rows", 0), []),
    ):
        run("inspect", folder, *words)
        sections = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if line.endswith(" rows")]
        assert sections == shown
    for words in (("--split", "tset"), ("--view", "sentense")):
        with pytest.raises(RequestError, match=words[1]):
            run("inspect", folder, *words)
    assert capsys.readouterr().out == ""


def test_any_column_is_shown_and_long_ones_are_cut(made: Make) -> None:
    folder, manifest = made()
    encoder, (path, *_) = Encoder.load(folder), dataset.paths(folder, manifest, "sentences", "train")
    word = int(encoder.encode_open("a")[0])
    more: dict[str, list[Any]] = {
        "ids": [[word] * 1000, [*encoder.encode_open("\x1b\n").tolist(), encoder.eos]], "document": ["a\x1b[2J", "b"], "position": [0, 1],
        "joined": [True, False], "gap": ["\n" * 1000, ""], "marks": [list(range(100)), []], "score": [0.5, 0.0],
    }  # fmt: skip
    pq.write_table(pa.table(more), path)
    first, second = inspect_dataset.rows(folder, manifest, encoder, "sentences", "train", 2)
    about, text, tokens = first.splitlines()
    assert about.startswith(r"a\x1b[2J, sentence 0: 1,000 tokens; joined; gap ") and about.endswith("score 0.5")
    assert "600 more characters" in about and "46, 47, 52 more; " in about
    assert text == "    " + "a" * inspect_dataset.LONGEST_TEXT + " ... 600 more characters"
    shown = inspect_dataset.LONGEST_ROW
    assert tokens == "    " + inspect_dataset.BETWEEN.join(["a"] * shown) + f" ... {1000 - shown} more tokens"
    assert second.splitlines() == ["b, sentence 1: 3 tokens; score 0.0", r"    \x1b\n", r"    \x1b│\n│<eos>"]


def test_verify_names_what_is_damaged(run: Callable[..., None], made: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = made()
    run("verify", folder)
    assert capsys.readouterr().out == f"{folder}: every file is as it was made\n"
    path = next((folder / "fixed").iterdir())
    path.write_bytes(path.read_bytes() + b"x")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(PacklmError) as caught:
        run("verify", folder)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}: expected sha256 ") and lines[1].endswith("got no such file")
    assert lines[2].startswith("2 files are damaged") and f"verify {folder} --repair" in lines[2]
    assert caught.value.status == 1 and capsys.readouterr().out == ""


@pytest.fixture
def _no_global_store() -> Iterator[None]:
    """mlflow puts the store it used last into the environment, from where our configuration would read it."""
    before = dict(os.environ)
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.update(before)


@pytest.mark.usefixtures("_no_global_store")
@pytest.mark.filterwarnings("ignore:::mlflow")
def test_mlflow_has_numbers_manifest_and_figures(settings: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    chosen = settings()
    config = chosen.model_copy(update={"tracking": chosen.tracking.model_copy(update={"uri": f"sqlite:///{tmp_path}/mlflow.db"})})
    built = building.build(config)
    folder, manifest = config.dataset.dir, built.manifest
    command.record(config, built, fresh=False)
    client = MlflowClient(config.tracking.uri)
    run = client.get_run(json.loads((config.run.dir / "tracking.json").read_text())["stages"]["preprocess"])
    split = manifest.splits["train"]
    assert run.data.params["content_digest"] == manifest.digests["content"] and run.info.status == "FINISHED"
    assert (run.data.metrics["train_tokens"], run.data.metrics["train_unknown_rate"]) == (split.tokens, split.unknown / split.tokens)
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("small", manifest.digests["content"][:32])
    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for item in ("manifest.json", "report"):
        client.download_artifacts(run.info.run_id, item, str(arrived))
    assert tree(arrived) == {"manifest.json": tree(folder)["manifest.json"]} | {
        f"report/{name}": digest for name, digest in tree(folder / "report").items()
    }
    assert {"lengths.png", "frequency.png", "report.json"} == tree(folder / "report").keys()


def test_unknown_is_a_share_of_the_tokens(made: Make) -> None:
    folder, manifest = made(tokenizer__kind="word", tokenizer__vocab_size=10, corpus__on_bad_text="replace")
    ids = [id for shard in rows(folder, manifest, "sentences", "train") for row in shard for id in row["ids"]]
    share = ids.count(Encoder.load(folder).unk) / len(ids)
    assert 0 < share < 1 and inspect_dataset.table(manifest).splitlines()[1].split()[-2] == f"{share:.2%}"
