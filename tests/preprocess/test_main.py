"""The commands of preprocessing: what they accept, print, and record."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from packlm import dataset
from packlm.base import files
from packlm.commands import ConfigArguments
from packlm.config import Config
from packlm.dataset import Manifest
from packlm.text.encoder import Encoder
from preprocess import cli as command
from preprocess import inspect_dataset, record
from preprocess.build import stage as building
from tests.small_corpus import rows, tree

Make = Callable[..., tuple[Path, Manifest]]
Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(command_line: Run) -> Run:
    """Runs `python -m preprocess WORDS` in this process: (exit status, standard output, standard error)."""
    return partial(command_line, "preprocess")


@pytest.fixture
def dataset_d(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has a folder `d` that passes for a dataset."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "manifest.json").write_text("{}")


@pytest.mark.parametrize(
    ("words", "verb", "options", "arguments"),
    [
        ("", "build", {"rebuild": False}, ConfigArguments()),
        ("build --rebuild", "build", {"rebuild": True}, ConfigArguments()),
        ("--corpus.train a --rebuild", "build", {"rebuild": True}, ConfigArguments(None, ("--corpus.train", "a"))),
        ("verify d", "verify", {"folder": Path("d"), "repair": False}, ConfigArguments()),
        ("verify --repair d --config c", "verify", {"folder": Path("d"), "repair": True}, ConfigArguments(Path("c"))),
        ("--config c verify d --repair", "verify", {"folder": Path("d"), "repair": True}, ConfigArguments(Path("c"))),
        ("inspect d --rows 5 --view=fixed", "inspect", {"folder": Path("d"), "count": 5, "split": None, "view": "fixed"}, None),
        ("push --private d me/x", "push", {"folder": Path("d"), "repository": "me/x", "private": True}, None),
    ],
)
def test_a_command_line_is_parsed(
    run: Run,
    dataset_d: None,
    monkeypatch: pytest.MonkeyPatch,
    words: str,
    verb: str,
    options: dict[str, Any],
    arguments: ConfigArguments | None,
) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(command.cli.commands[verb], "callback", lambda **values: seen.append(values))
    assert run(*words.split()) == (0, "", "")
    assert seen == [options | ({"arguments": arguments} if arguments else {})]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rebiuld", "unknown option '--rebiuld'; did you mean --rebuild?"),
        ("verfy d", "unknown command 'verfy'; did you mean verify?"),
        ("xyz", "unknown command 'xyz'; there are build, verify, inspect, ngrams, push"),
        ("inspect d --row 3", "did you mean --rows?"),
        ("inspect d --rebuild", "it belongs to build"),
        ("inspect d --rows", "option '--rows' requires an argument"),
        ("inspect d --rows -3", "'--rows': -3 is not in the range x>=0"),
        ("inspect d --views", "did you mean --view?"),
        ("verify", "missing argument 'DIR'"),
        ("verify d d", "got unexpected extra argument (d)"),
        ("push d", "missing argument 'OWNER/NAME'"),
        ("build d", "got unexpected extra argument (d)"),
        ("--zzz", "settings are given as --section.key value"),
        ("inspect d --model.cell gru", "reads no configuration: remove --model.cell"),
        ("verify d --config c", "reads no configuration without --repair: remove --config"),
        ("inspect nowhere", "nowhere: there is no such folder"),
        ("push nowhere me/x", "nowhere: there is no such folder"),
    ],
)
def test_a_wrong_request_is_refused_with_a_hint(run: Run, dataset_d: None, words: str, message: str) -> None:
    status, out, err = run(*words.split())
    assert (status, out) == (2, "") and err.startswith("error: ") and message in err and len(err.splitlines()) == 1


def test_folders_that_are_not_datasets(run: Run, made: Make, tmp_path: Path) -> None:
    folder, _ = made()
    for path, message in (
        (folder.parent, f"no dataset here (no manifest.json); did you mean {folder}?"),
        (folder.with_name("smal"), f"there is no such folder; did you mean {folder}?"),
        (folder / "fixed", "`packlm preprocess` makes one"),
        (tmp_path / "elsewhere" / "deep", "there is no such folder; `packlm preprocess` makes a dataset"),
        (folder / "manifest.json", "there is no such folder"),
    ):
        for words in (("verify", path), ("inspect", path), ("push", path, "me/x")):
            status, _, err = run(*words)
            assert status == 2 and message in err and str(path) in err


def test_help_lists_the_verbs_and_each_has_its_own(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0 and run("-h")[1] == run("help")[1] == out
    for verb, about in command.cli.commands.items():
        assert f"\n  {verb} " in out
        words = [word for parameter in about.params for word in (parameter.opts if parameter.param_type_name == "option" else [])]
        arguments = [str(parameter.metavar) for parameter in about.params if parameter.param_type_name == "argument"]
        said = run(verb, "--help")[1]
        assert all(word in said for word in words + arguments) and "\nExample:\n  packlm preprocess " in said
        assert said == run("help", verb)[1]


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
def test_inspect_shows_the_first_rows(run: Run, made: Make, monkeypatch: pytest.MonkeyPatch, kind: str, size: int) -> None:
    monkeypatch.setattr(inspect_dataset, "MAX_TOKENS", 1000)
    folder, manifest = made(
        tokenizer__kind=kind, tokenizer__vocab_size=size, corpus__validation_fraction=0.4, corpus__on_bad_text="replace"
    )
    encoder = Encoder.load(folder)
    said = run("inspect", folder, "--rows", 6)[1]
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
                assert tokens == "    " + inspect_dataset.SEPARATOR.join(inspect_dataset._printable(encoder.token(id)) for id in row["ids"])
                if view == "sentences":
                    assert about.startswith(f"  {row['document']}, sentence {row['position']}: {len(row['ids']):,} token")
                    assert f"; words {row['words']}" in about and f"; bytes {row['bytes']}" in about
                    assert ("gap" in about) == bool(row["gap"])
                    assert lines[step * number + 1] == "    " + inspect_dataset._printable(encoder.decode(row["ids"]))
                else:
                    assert about.startswith(f"  row {number}: ") and f"num_targets {row['num_targets']}" in about


def test_inspect_shows_what_is_asked_for(run: Run, made: Make) -> None:
    folder, _ = made(corpus__validation_fraction=0.4)
    for words, shown in (
        (("--view", "fixed"), ["train, fixed", "validation, fixed"]),
        (("--split", "validation"), ["validation, fixed", "validation, sentences"]),
        (("--split", "train", "--view", "sentences", "--rows", 1), ["train, sentences"]),
        (("--rows", 0), []),
    ):
        sections = [line.partition(":")[0] for line in run("inspect", folder, *words)[1].splitlines() if line.endswith(" rows")]
        assert sections == shown
    for words in (("--split", "tset"), ("--view", "sentense")):
        status, out, err = run("inspect", folder, *words)
        assert (status, out) == (2, "") and words[1] in err


def test_any_column_is_shown_and_long_ones_are_cut(made: Make) -> None:
    folder, manifest = made()
    encoder, (path, *_) = Encoder.load(folder), dataset.shard_digests(folder, manifest, "sentences", "train")
    word = int(encoder.encode_open("a")[0])
    more: dict[str, list[Any]] = {
        "ids": [[word] * 1000, [*encoder.encode_open("\x1b\n").tolist(), encoder.eos]], "document": ["a\x1b[2J", "b"], "position": [0, 1],
        "joined": [True, False], "gap": ["\n" * 1000, ""], "marks": [list(range(100)), []], "score": [0.5, 0.0],
    }  # fmt: skip
    pq.write_table(pa.table(more), path)
    shards = manifest.splits["train"].files["sentences"]
    name = path.relative_to(folder).as_posix()
    shards[name] = dataclasses.replace(shards[name], sha256=files.sha256(path))
    first, second = inspect_dataset.rows(folder, manifest, encoder, "sentences", "train", 2)
    about, text, tokens = first.splitlines()
    assert about.startswith(r"a\x1b[2J, sentence 0: 1,000 tokens; joined; gap ") and about.endswith("score 0.5")
    assert "600 more characters" in about and "46, 47, 52 more; " in about
    assert text == "    " + "a" * inspect_dataset.MAX_CHARACTERS + " ... 600 more characters"
    shown = inspect_dataset.MAX_TOKENS
    assert tokens == "    " + inspect_dataset.SEPARATOR.join(["a"] * shown) + f" ... {1000 - shown} more tokens"
    assert second.splitlines() == ["b, sentence 1: 3 tokens; score 0.0", r"    \x1b\n", r"    \x1b│\n│<eos>"]


def test_verify_names_damaged_files(run: Run, made: Make) -> None:
    folder, _ = made()
    assert run("verify", folder) == (0, f"{folder}: every file matches its digest\n", "")
    path = next((folder / "fixed").iterdir())
    path.write_bytes(path.read_bytes() + b"x")
    (folder / "tokenizer.json").unlink()
    status, out, err = run("verify", folder)
    lines = err.removeprefix("error: ").splitlines()
    assert lines[0].startswith(f"{path}: expected sha256 ") and lines[1].endswith("got no such file")
    assert lines[2].startswith("2 files are damaged") and f"verify {folder} --repair" in lines[2]
    assert (status, out) == (1, "")


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
    record.record(config, built, fresh=False)
    client = MlflowClient(config.tracking.uri)
    run = client.get_run(json.loads((config.run.dir / "tracking.json").read_text())["stages"]["preprocess"])
    split = manifest.splits["train"]
    assert run.data.params["content_digest"] == manifest.digests["content"] and run.info.status == "FINISHED"
    assert (run.data.metrics["preprocess/train_tokens"], run.data.metrics["preprocess/train_unknown_rate"]) == (
        split.tokens,
        split.unknown / split.tokens,
    )
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("small", manifest.digests["content"][:32])
    arrived = tmp_path / "arrived"
    arrived.mkdir()
    for item in ("manifest.json", "report"):
        client.download_artifacts(run.info.run_id, item, str(arrived))
    assert tree(arrived) == {"manifest.json": tree(folder)["manifest.json"]} | {
        f"report/{name}": digest for name, digest in tree(folder / "report").items()
    }
    assert {"lengths.png", "frequency.png", "report.json", "overlap.json"} == tree(folder / "report").keys()


def test_unknown_is_a_share_of_the_tokens(made: Make) -> None:
    folder, manifest = made(tokenizer__kind="word", tokenizer__vocab_size=10, corpus__on_bad_text="replace")
    ids = [id for shard in rows(folder, manifest, "sentences", "train") for row in shard for id in row["ids"]]
    share = ids.count(Encoder.load(folder).unk) / len(ids)
    assert 0 < share < 1 and inspect_dataset.table(manifest).splitlines()[1].split()[-2] == f"{share:.2%}"
