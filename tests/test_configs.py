"""Every recipe loads; sources of settings in their order; every wrong key is named at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from packlm import config as configuration
from packlm.base.errors import RequestError
from packlm.config.reading import DEFAULT_CONFIG as RECIPE_OF_THE_TOUR
from packlm.config.reading import HELD_OUT

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted((ROOT / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_and_is_named_after_its_file(path: Path) -> None:
    config = configuration.load(path, environment={})
    assert config.run.name == path.stem
    assert config.run.dir == Path("runs") / path.stem


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_printed_configuration_reads_back_equal(path: Path, tmp_path: Path) -> None:
    others = {
        "tracking.uri": "http://127.0.0.1:5000",
        "model.hidden": "[64, 200]",
        "model.layers": "2",
        "model.tied": "false",
        "model.residual": "none",
        "model.cutoffs": "[100, 2000]",
    }
    config = configuration.load(path, [word for key, value in others.items() for word in (f"--{key}", value)], {})
    for explain in (False, True):
        printed = tmp_path / "printed.toml"
        printed.write_text(configuration.to_toml(config, explain))
        assert configuration.load(printed, environment={}) == config


def test_every_setting_is_explained() -> None:
    for _, section in configuration.Config():
        meanings = configuration.explanations(type(section))
        assert list(meanings) == list(type(section).model_fields) and all(meanings.values())


def test_file_then_environment_then_command_line(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('[train]\nlr = 1.0\nepochs = 2\nwindow = 5\n[tracking]\nuri = "sqlite:///file.db"\n')
    environment = {"PACKLM_TRAIN__LR": "2.0", "PACKLM_TRAIN__EPOCHS": "3", "MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "PACKLM_HOME": "/"}
    config = configuration.load(file, ["--train.lr", "3.0"], environment)
    assert (config.train.lr, config.train.epochs, config.train.window, config.train.clip) == (3.0, 3, 5, 0.25)
    assert config.tracking.uri == "http://127.0.0.1:1"
    assert configuration.load(file, ["--tracking.uri="], environment).tracking.uri == ""
    assert (
        configuration.load(file, environment=environment | {"PACKLM_TRACKING__URI": "sqlite:///ours.db"}).tracking.uri
        == "sqlite:///ours.db"
    )


def test_the_recipe_of_the_tour_is_read_by_bare_commands_only(tmp_path: Path) -> None:
    lr = ["--train.lr", "0.5"]
    for arguments in ([], lr):
        assert configuration.load(None, arguments, {}) == configuration.load(RECIPE_OF_THE_TOUR, arguments, {})
    (tmp_path / "mine.toml").write_text('[run]\nname = "mine"\n')
    plain = configuration.resolve({"run": {"name": "mine"}, "train": {"lr": 0.5}})
    assert configuration.load(None, ["--run.name=mine", *lr], {}) == plain
    assert configuration.load(None, lr, {"PACKLM_RUN__NAME": "mine"}) == plain
    assert configuration.load(tmp_path / "mine.toml", lr, {}) == plain
    corpus = configuration.load(None, ["--corpus.train=folder", "--dataset.dir=mine"], {})
    assert corpus == configuration.resolve({"corpus": {"train": "folder", **HELD_OUT}, "dataset": {"dir": "mine"}})
    model_only = configuration.load(None, lr, {"PACKLM_CORPUS__TRAIN": "folder"}, model_only=True)
    assert model_only == configuration.resolve({"corpus": {"train": "folder", **HELD_OUT}, "train": {"lr": 0.5}})


def test_a_corpus_without_a_name_for_its_run_is_refused(tmp_path: Path) -> None:
    """It would meet the tour's dataset and training."""
    (tmp_path / "mine.toml").write_text('[corpus]\ntrain = "folder"\n')
    for path, arguments in ((None, ["--corpus.train", "folder"]), (tmp_path / "mine.toml", [])):
        with pytest.raises(RequestError, match="a corpus of your own needs a name for its run: add --run"):
            configuration.load(path, arguments, {})
        assert configuration.load(path, [*arguments, "--run.name=mine"], {}).dataset.dir == Path("data/mine")
        assert configuration.load(path, [*arguments, "--dataset.dir=mine"], {}).dataset.dir == Path("mine")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (0.05, 0.05)),
        ({"validation_fraction": "0"}, (0, 0)),
        ({"test_fraction": "0.2"}, (0, 0.2)),
        ({"validation": "held-out"}, (0, 0)),
    ],
)
def test_documents_are_held_out_of_a_corpus_unless_the_configuration_says_which(
    settings: dict[str, str], expected: tuple[float, float]
) -> None:
    arguments = [f"--corpus.{key}={value}" for key, value in settings.items()]
    corpus = configuration.load(None, ["--run.name=mine", "--corpus.train=folder", *arguments], {}).corpus
    assert (corpus.validation_fraction, corpus.test_fraction) == expected


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_spells_the_size_of_its_vocabulary(path: Path) -> None:
    """So that a change of defaults changes no published result."""
    config = configuration.load(path, environment={})
    assert {"kind", "vocab_size"} <= config.tokenizer.model_fields_set
    assert config.tokenizer.kind != "word" or config.tokenizer.min_count == 1


def test_every_wrong_key_is_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text('[model]\nhiden = 3\ndropout = 1.5\n[trian]\nlr = 1\n[train]\noptimizer = "adam"\nvocab_size = 9\n')
    with pytest.raises(RequestError) as caught:
        configuration.load(file, ["--train.epochs", "none"], {"PACKLM_DATASET__LENGTH": "0"})
    message = str(caught.value)
    for part in (
        "model.hiden: there is no such setting; did you mean model.hidden?",
        "model.dropout: ",
        "trian: there is no such setting; did you mean train?",
        "train.optimizer: ",
        "train.vocab_size: there is no such setting; did you mean tokenizer.vocab_size?",
        "train.epochs: ",
        "dataset.length: ",
    ):
        assert part in message


def command(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )


def test_config_command_prints_what_can_be_read_back(tmp_path: Path) -> None:
    done = command(
        "config", "--config", "configs/ptb-tied-200.toml", "--explain", "--train.lr", "7", PACKLM_TRACKING__URI="http://me:pw@localhost"
    )
    assert done.returncode == 0 and done.stderr == ""
    assert "# Learning rate." in done.stdout and "pw" not in done.stdout
    (tmp_path / "printed.toml").write_text(done.stdout)
    assert configuration.load(tmp_path / "printed.toml", environment={}).train.lr == 7


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["run", "--train.lr", "-1"], "train.lr: "),
        (["run", "--rebiuld"], "unknown option '--rebiuld'"),
        (["config", "--config", "nowhere.toml"], "the configuration file nowhere.toml: cannot be read"),
        (["rnu"], "unknown command 'rnu'"),
    ],
)
def test_wrong_request_exits_with_2_in_one_message(words: list[str], part: str) -> None:
    done = command(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr and "Traceback" not in done.stderr


def test_a_table_is_read_from_every_source_and_printed_as_one(tmp_path: Path) -> None:
    expected = {"partition": "cpu", "time": "1:00:00", "mem_per_cpu_gb": 4}
    table = '{partition = "cpu", time = "1:00:00", mem_per_cpu_gb = 4}'
    (tmp_path / "a.toml").write_text(f"[dataset]\nslurm = {table}\n")
    (tmp_path / "b.toml").write_text("")
    assert configuration.load(tmp_path / "a.toml", [], {}).dataset.slurm == expected
    assert configuration.load(tmp_path / "b.toml", [], {"PACKLM_DATASET__SLURM": table}).dataset.slurm == expected
    config = configuration.load(tmp_path / "b.toml", ["--dataset.slurm", table], {})
    assert config.dataset.slurm == expected
    (tmp_path / "c.toml").write_text(configuration.to_toml(config))
    assert configuration.load(tmp_path / "c.toml", [], {}) == config
    with pytest.raises(RequestError, match=r"dataset\.slurm: "):
        configuration.load(tmp_path / "b.toml", ["--dataset.slurm", "{partition: cpu}"], {})
