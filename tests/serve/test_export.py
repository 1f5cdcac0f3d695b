"""`packlm export`: transformers and ONNX Runtime give what the model gives token by token, without packlm."""

import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from packlm import config as configuration
from packlm.config import Config
from packlm.engine import Engine
from packlm.model import folder as model_folder
from packlm.model import language_model as models
from packlm.model.cells import CELLS
from packlm.model.info import read
from tests.fake_hub import Hub
from tests.small_models import tokenizer_files, wild

CommandLine = Callable[..., tuple[int, str, str]]
SHAPES: dict[str, dict[str, Any]] = {
    "gru": {"residual": "add"},
    "lstm": {"residual": "project", "hidden": (10, 12), "cutoffs": (8, 20)},
    "qrnn": {"embedding": 7, "tied": False},
    "sru": {"hidden": (8, 12)},
}
"""Settings of the models of some cells."""
TEXTS = ["the cat sees a small dog under", "the", "often Ümlaut eats a tree"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def model_of(made: Callable[[str], Config], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A model folder of a cell with random weights, for words."""
    source = made("word").run.dir / "model"
    info, folders = read(source), {}

    def make(cell: str) -> Path:
        if cell not in folders:
            settings = configuration.Model(**{"cell": cell, "layers": 2, "hidden": 12} | SHAPES.get(cell, {}))
            model = wild(models.build(settings, info.vocab_size, seed=4), 1 if cell == "rnn_relu" else 4)
            about = info.model_dump(mode="json") | {"model": settings.model_dump(mode="json")}
            folders[cell] = tmp_path_factory.mktemp(cell) / "model"
            decoding = configuration.Generate(max_tokens=9, temperature=0.5)
            model_folder.save(folders[cell], model_folder.weights_of(model), about, decoding, tokenizer_files(source))
        return folders[cell]

    return make


@pytest.fixture
def export(command_line: CommandLine, tmp_path: Path) -> Callable[..., Path]:
    def run(model: Path, target: str, *options: str) -> Path:
        out = tmp_path / f"{target}-{model.parent.name}"
        status, printed, errors = command_line("serve", "export", "--model", model, "--to", target, "--out", out, *options)
        assert (status, printed) == (0, ""), errors
        return out

    return run


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], tuple[Any, Any]]:
    """Model and tokenizer of a folder, as transformers load them where packlm is not installed."""
    import transformers

    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])

    def run(folder: Path) -> tuple[Any, Any]:
        with monkeypatch.context() as context:
            for name in [name for name in sys.modules if name.split(".")[0] == "packlm"]:
                context.setitem(sys.modules, name, None)  # importing it fails
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
            return transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True), tokenizer

    return run


def log_probs_of(engine: Engine, text: str) -> torch.Tensor:
    """ln P(next id) after each token of a text, `<eos>` first: [T, V], by reading token after token."""
    ids, state, rows = [engine.encoder.eos, *engine.encoder.encode_open(text)], engine.states(), []
    for id in ids:
        step = engine.step([id], state)
        rows.append(step.log_probs)
        state = step.state
    return torch.cat(rows)


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_transformers_gives_the_same(
    model_of: Callable[[str], Path], export: Callable[..., Path], load: Callable[[Path], tuple[Any, Any]], cell: str
) -> None:
    engine = Engine.load(model_of(cell))
    model, tokenizer = load(export(model_of(cell), "transformers"))
    expected = [log_probs_of(engine, text) for text in TEXTS]
    readings = engine.read(TEXTS)
    for side in ("left", "right"):
        batch = tokenizer(TEXTS, return_tensors="pt", padding=True, padding_side=side)
        with torch.no_grad():
            output = model(**batch, output_hidden_states=True)
        log_probs = output.logits.log_softmax(-1)
        for row, reading in enumerate(readings):
            valid = batch["attention_mask"][row].bool()
            assert batch["input_ids"][row, valid].tolist() == reading.ids.tolist()
            torch.testing.assert_close(log_probs[row, valid], expected[row], rtol=1e-5, atol=1e-5)
            for hidden, layer in zip(output.hidden_states, reading.layers, strict=True):
                torch.testing.assert_close(hidden[row, valid], layer, rtol=1e-4, atol=1e-5)
            for part, state in zip(output.state, reading.state, strict=True):
                torch.testing.assert_close(part[:, row : row + 1], state, rtol=1e-4, atol=1e-5)
    ids = tokenizer(TEXTS[:1], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        first = model(ids[:, :3])
        second = model(ids[:, 3:], state=first.state, labels=ids[:, 3:])
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1).log_softmax(-1)[0], expected[0], rtol=1e-5, atol=1e-5)
    nll = -expected[0][3:-1].gather(1, ids[0, 4:, None]).mean()
    assert second.loss.item() == pytest.approx(nll.item(), rel=1e-5)


def test_generation_with_transformers(
    model_of: Callable[[str], Path], export: Callable[..., Path], load: Callable[[Path], tuple[Any, Any]]
) -> None:
    """Greedy and beam search over a padded batch find what ours find; sampling reads the folder's settings."""
    engine = Engine.load(model_of("mogrifier"))
    model, tokenizer = load(export(model_of("mogrifier"), "transformers"))
    batch = tokenizer(TEXTS, return_tensors="pt", padding=True)
    length = batch["input_ids"].shape[1]
    for options, settings in (
        ({"num_beams": 1}, {"strategy": "greedy"}),
        ({"num_beams": 1, "use_cache": False}, {"strategy": "greedy"}),
        ({"num_beams": 3, "num_return_sequences": 2, "early_stopping": "never"}, {"strategy": "beam", "beams": 3, "samples": 2}),
    ):
        found = model.generate(**batch, do_sample=False, max_new_tokens=6, **options)[:, length:]
        expected = [item.text for items in engine.generate(TEXTS, max_tokens=6, **settings) for item in items]
        assert tokenizer.batch_decode(found, skip_special_tokens=True) == [text.strip() for text in expected]
    recommended = model.generation_config
    assert (recommended.do_sample, recommended.temperature, recommended.max_new_tokens) == (True, 0.5, 9)
    torch.manual_seed(1)
    assert model.generate(**batch, num_return_sequences=2).shape[0] == 2 * len(TEXTS)


def test_surprisals_of_minicons(
    model_of: Callable[[str], Path], export: Callable[..., Path], load: Callable[[Path], tuple[Any, Any]]
) -> None:
    from minicons.scorer import IncrementalLMScorer

    model, tokenizer = load(export(model_of("gru"), "transformers"))
    scorer = IncrementalLMScorer(model, "cpu", tokenizer=tokenizer)
    texts = [f"{text}<eos>" for text in TEXTS]
    for found, expected in zip(
        scorer.token_score(texts, surprisal=True), Engine.load(model_of("gru")).score(TEXTS), strict=True
    ):  # fmt: skip
        assert [surprisal for _, surprisal in found[1:]] == pytest.approx((-expected.log_probs).tolist(), rel=1e-4)


def test_evaluation_by_trainer(
    model_of: Callable[[str], Path], export: Callable[..., Path], load: Callable[[Path], tuple[Any, Any]], tmp_path: Path
) -> None:
    """Blocks of a text, as scripts for language models cut them: the mean over all predictions within blocks."""
    from transformers import Trainer, TrainingArguments, default_data_collator

    engine = Engine.load(model_of("sru"))
    model, _ = load(export(model_of("sru"), "transformers"))
    ids = np.concatenate([[engine.encoder.eos], engine.encoder.encode_sentences(TEXTS * 4)[0]]).astype(np.int64)
    blocks = [ids[start : start + 8].tolist() for start in range(0, len(ids) - 7, 8)]
    arguments = TrainingArguments(str(tmp_path / "trainer"), per_device_eval_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True)
    examples: Any = [{"input_ids": block, "labels": block} for block in blocks]
    found = Trainer(model=model, args=arguments, eval_dataset=examples, data_collator=default_data_collator).evaluate()
    losses = []
    for block in blocks:
        state = engine.states()
        for id, following in pairwise(block):
            step = engine.step([id], state)
            losses.append(-step.log_probs[0, following].item())
            state = step.state
    assert float(found["eval_loss"]) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("kind", ["word", "bpe", "character"])
def test_the_tokenizer_reads_a_text_as_packlm_does(
    made: Callable[[str], Config], export: Callable[..., Path], load: Callable[[Path], tuple[Any, Any]], kind: str
) -> None:
    model = made(kind).run.dir / "model"
    folder = export(model, "transformers", "--precision", "bf16")
    engine, (_, tokenizer) = Engine.load(model), load(folder)
    for text in [*TEXTS, "unseen zebra.", ""]:
        assert tokenizer(text)["input_ids"] == engine.encode_prompt(text)[0].tolist()
    assert tokenizer("the<eos>", add_special_tokens=False)["input_ids"][-1] == engine.encoder.eos
    names = json.loads((folder / "tokenizer_config.json").read_text())["model_input_names"]
    assert names == ["input_ids", "attention_mask"]  # for transformers 4


def run_onnx(folder: Path, ids: np.ndarray, states: list[np.ndarray] | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
    import onnxruntime

    shapes = json.loads((folder / "config.json").read_text())["state_shapes"]
    states = states or [np.zeros((vectors, len(ids), size), np.float32) for vectors, size in shapes]
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    log_probs, *finals = session.run(None, {"ids": ids, **{f"state_{layer}": state for layer, state in enumerate(states)}})
    return log_probs, finals


@pytest.mark.parametrize("cell", [cell if cell == "lstm" else pytest.param(cell, marks=pytest.mark.long) for cell in sorted(CELLS)])
def test_onnx_gives_the_same(model_of: Callable[[str], Path], export: Callable[..., Path], cell: str) -> None:
    engine, folder = Engine.load(model_of(cell)), export(model_of(cell), "onnx")
    ids = np.random.default_rng(1).integers(0, engine.info.vocab_size, (3, 8))
    state, expected = engine.states(3), []
    for column in ids.T:
        step = engine.step(column, state)
        expected.append(step.log_probs.numpy())
        state = step.state
    log_probs, finals = run_onnx(folder, ids)
    np.testing.assert_allclose(log_probs, np.stack(expected, 1), rtol=1e-5, atol=1e-5)
    for found, part in zip(finals, state, strict=True):
        np.testing.assert_allclose(found, part.numpy(), rtol=1e-4, atol=1e-5)
    first, states = run_onnx(folder, ids[:, :5])
    second, _ = run_onnx(folder, ids[:, 5:], states)
    np.testing.assert_array_equal(np.concatenate([first, second], 1), log_probs)


def test_onnx_in_8_bits(made: Callable[[str], Config], export: Callable[..., Path], tmp_path: Path) -> None:
    """The model of a wide vocabulary is a third as large, and every probability nearly the same."""
    source, settings = made("bpe").run.dir / "model", configuration.Model(layers=1, hidden=128, tied=False)
    info = read(source)
    model = models.build(settings, info.vocab_size, seed=4)
    about = info.model_dump(mode="json") | {"model": settings.model_dump(mode="json")}
    model_folder.save(tmp_path / "m" / "model", model_folder.weights_of(model), about, configuration.Generate(), tokenizer_files(source))
    whole = export(tmp_path / "m" / "model", "onnx")
    ids = np.random.default_rng(1).integers(0, info.vocab_size, (2, 9))
    exact, _ = run_onnx(whole, ids)
    size = (whole / "model.onnx").stat().st_size
    eighth = export(tmp_path / "m" / "model", "onnx", "--precision", "int8")
    found, _ = run_onnx(eighth, ids)
    assert (eighth / "model.onnx").stat().st_size < size / 3
    assert 0 < np.abs(found - exact).max() < 0.02


@pytest.mark.parametrize("target", ["transformers", "onnx"])
def test_the_code_of_the_readme_runs(
    model_of: Callable[[str], Path], export: Callable[..., Path], load: Callable[[Path], tuple[Any, Any]], target: str
) -> None:
    folder = export(model_of("gru"), target)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("THIS_FOLDER", str(folder)).replace("TEXT", TEXTS[0]), names)
    if target == "onnx":
        expected = log_probs_of(Engine.load(model_of("gru")), TEXTS[0]).numpy()
        np.testing.assert_allclose(names["log_probs"][0], expected, rtol=1e-5, atol=1e-5)


def test_push(command_line: CommandLine, model_of: Callable[[str], Path], export: Callable[..., Path], hub: Hub) -> None:
    model = model_of("gru")
    expected = {path.name: path.read_bytes() for path in export(model, "transformers").iterdir()}
    assert command_line("serve", "push", "--model", model, "me/gru")[:2] == (0, f"{hub.address}/me/gru\n")
    arrived = hub.repositories["me/gru"]
    assert {name: arrived[name] for name in expected} == expected
    assert command_line("serve", "push", "--model", model, "me/gru", "--revision", "words-1M")[0] == 0
    assert (hub.branches, hub.committed_to) == (["words-1M"], ["main", "words-1M"])
    status, _, errors = command_line("serve", "push", "--model", model, "gru")
    assert status == 2
    assert "OWNER/NAME" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--to", "transformers", "--precision", "int8"), "--precision int8: a model for transformers is full or bf16"),
        (("--to", "onnx", "--precision", "bf16"), "--precision bf16: a model for onnx is full or int8"),
        (("--to", "onxx"), "'onxx'"),
        ((), "--to"),
    ],
)
def test_refusals(command_line: CommandLine, made: Callable[[str], Config], tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    status, _, errors = command_line("serve", "export", "--model", made("word").run.dir / "model", "--out", tmp_path / "out", *options)
    assert status == 2
    assert message in errors
    assert not (tmp_path / "out").exists()


def test_a_mixture_cannot_be_exported(command_line: CommandLine, made: Callable[[str], Config], tmp_path: Path) -> None:
    config = made("word")
    mixed = tmp_path / "mixed"
    command = ("serve", "interpolate", "--model", config.run.dir / "model", "--data", config.dataset.dir, "--order", "2", "--out", mixed)
    assert command_line(*command)[0] == 0
    status, _, errors = command_line("serve", "export", "--model", mixed, "--to", "onnx", "--out", tmp_path / "out")
    assert status == 2
    assert "n-grams and caches cannot be exported" in errors


def test_a_package_that_is_missing_is_named(
    command_line: CommandLine, made: Callable[[str], Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    model = made("word").run.dir / "model"
    status, _, errors = command_line("serve", "export", "--model", model, "--to", "onnx", "--out", tmp_path / "out")
    assert status == 2
    assert "pip install 'packlm[onnx]'" in errors
    assert not (tmp_path / "out").exists()
