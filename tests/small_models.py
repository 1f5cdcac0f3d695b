"""A small corpus, datasets built from it, and model folders with random weights for them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from packlm import config as configuration
from packlm.config import Config
from packlm.engine import Engine
from packlm.model import folder as model_folder
from packlm.model import language_model as models
from packlm.model.language_model import LanguageModel
from preprocess.build.stage import build as build_dataset

WORDS = [
    "the", "a", "cat", "dog", "tree", "river", "sees", "eats", "under", "over", "small", "green", "quietly", "often", "Ümlaut", "naïve",
]  # fmt: skip


def made_up_lines(generator: np.random.Generator, count: int) -> str:
    """Sentences of 4 to 11 words, a line each."""
    return "".join(" ".join(generator.choice(WORDS, generator.integers(4, 12))) + " .\n" for _ in range(count))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Articles of made-up sentences below `train/` and `validation/`, with a line to drop and all kinds of whitespace."""
    folder, generator = tmp_path_factory.mktemp("corpus"), np.random.default_rng(1)
    for split, count in (("train", 8), ("validation", 5)):
        (folder / split).mkdir()
        for number in range(count):
            lines = [" ".join(generator.choice(WORDS, generator.integers(1, 9))) + "." for _ in range(generator.integers(2, 9))]
            extra = " unseen zebra" if split == "validation" else ""
            (folder / split / f"{number}.txt").write_text(".START\n" + "  \n\n".join(lines) + extra + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Config]:
    """Builds (once) a dataset of the corpus with a kind of tokenizer, and a model folder with random weights for it."""
    configs: dict[str, Config] = {}

    def make(kind: str) -> Config:
        if kind not in configs:
            folder = tmp_path_factory.mktemp(kind)
            configs[kind] = configuration.resolve(
                {
                    "run": {"name": f"tiny-{kind}", "dir": folder / "run"},
                    "corpus": {
                        "train": str(corpus / "train"), "validation": str(corpus / "validation"),
                        "sentences": "line", "drop_lines": [r"\.START"],
                    },
                    "tokenizer": {"kind": kind, "vocab_size": {"word": 30, "bpe": 270}.get(kind, 60)},
                    "dataset": {"dir": folder / "dataset", "workers": 1, "shards": 2, "length": 7},
                    "model": {"hidden": 12, "layers": 2},
                    "generate": {"max_tokens": 12, "batch_tokens": 40},
                    "tracking": {"uri": ""},
                }
            )  # fmt: skip
            write_model(configs[kind])
        return configs[kind]

    return make


def write_model(config: Config, segments: str = "sentences", seed: int = 3) -> None:
    """Builds the dataset of a configuration, and a model folder with random weights for it."""
    manifest = build_dataset(config).manifest
    model = wild(models.build(config.model, manifest.vocab_size, seed))
    about = {
        "name": config.run.name, "model": config.model.model_dump(mode="json"), "vocab_size": manifest.vocab_size,
        "text": manifest.settings["corpus"], "segments": segments, "reset": "document", "lossless": manifest.lossless,
        "dataset": manifest.digests, "numbers": {"steps": 0, "tokens": 0},
    }  # fmt: skip
    model_folder.save(config.run.dir / "model", model_folder.weights_of(model), about, config.generate, tokenizer_files(config.dataset.dir))


def tokenizer_files(folder: Path) -> dict[str, str]:
    """The files of the tokenizer of a dataset or model folder, by name."""
    return {name: (folder / name).read_text() for name in model_folder.TOKENIZER_FILES}


def wild(model: LanguageModel, scale: float = 6.0) -> LanguageModel:
    """Scales weights up: initial weights give nearly uniform distributions, which hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model.eval()


@pytest.fixture(scope="session")
def engine(made: Callable[[str], Config]) -> Engine:
    """A model with a byte-level tokenizer, as if trained on sentences."""
    return Engine.load(made("bpe").run.dir / "model")


@pytest.fixture(scope="session")
def word_engine(made: Callable[[str], Config]) -> Engine:
    return Engine.load(made("word").run.dir / "model")


def trained_on(engine: Engine, segments: str, reset: str = "document", **rules: str) -> Engine:
    """The same model, as if it had been trained on other segments or text rules."""
    text = engine.info.text.model_copy(update=rules)
    info = engine.info.model_copy(update={"segments": segments, "reset": reset, "text": text})
    return Engine(engine.model, info, engine.encoder, engine.generation_config)
