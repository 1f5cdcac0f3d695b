"""Speed of scoring sentences, compared with padded batches in input order and with one sentence at a time.

    python benchmarks/scoring_speed.py [--text FILE] [--sentences 3000] [--hidden 200] [--vocabulary 10000] [--rounds 5]

FILE has one sentence per line; by default sentences are random. The model is a tied two-layer LSTM with random weights. All methods compute
the log-probability of each sentence, and must agree to 1e-3. They take turns on all sentences; figures are medians over the rounds, ratios
medians of the rounds' ratios.

    packlm      `packlm.scoring.sentences`: sorted by length, no padding, also words, entropies and surprisals
    losses      the same order through `LanguageModel.losses`: log-probabilities only
    padded      batches of 32 in input order, padded, all logits of a batch at once, log-probabilities only
    one by one  one sentence at a time, log-probabilities only
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from made_up_text import make_corpus
from torch.nn.functional import cross_entropy, pad

from packlm import config as configuration
from packlm.dataset.views import Sentences, concatenated_ranges
from packlm.evaluation.evaluate import first_targets, length_batches, sentence_segments
from packlm.model.language_model import LanguageModel, build
from packlm.scoring import sentences as scoring
from packlm.text.encoder import Encoder
from preprocess.build.stage import build as build_dataset

BATCH_TOKENS = configuration.Evaluate().batch_tokens
PADDED_BATCH = 32
"""Sentences per padded batch."""

Method = Callable[[LanguageModel, Encoder, list[str]], np.ndarray]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--sentences", type=int, default=3000)
    parser.add_argument("--hidden", type=int, default=200)
    parser.add_argument("--vocabulary", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        encoder, texts = prepare(arguments.text, Path(folder), arguments.vocabulary, arguments.sentences)
    model = build(configuration.Model(hidden=arguments.hidden, layers=2), encoder.vocab_size, seed=1).eval()
    tokens = len(encoder.encode_sentences(texts)[0])
    print(f"{' '.join(sys.argv[1:])}: {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    size = f"{len(texts):,} sentences of {tokens / len(texts):.1f} tokens, vocabulary {encoder.vocab_size:,}"
    print(f"{size}, LSTM 2x{arguments.hidden} tied")
    methods: dict[str, Method] = {"packlm": packlm_scores, "losses": losses, "padded": padded, "one by one": one_by_one}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    expected = one_by_one(model, encoder, texts)
    for _ in range(arguments.rounds):
        for name, method in methods.items():
            start = time.perf_counter()
            log_probs = method(model, encoder, texts)
            seconds[name].append(time.perf_counter() - start)
            if not np.allclose(log_probs, expected, atol=1e-3):
                sys.exit(f"{name}: the log-probabilities differ by {np.abs(log_probs - expected).max()}")
    print(f"{'':<12}{'sentences/s':>12}{'tokens/s':>10}{'time relative to packlm':>32}")
    for name, times in seconds.items():
        ratio = median(other / ours for ours, other in zip(seconds["packlm"], times, strict=True))
        print(f"{name:<12}{len(texts) / median(times):>12,.0f}{tokens / median(times):>10,.0f}{ratio:>32.2f}")


def prepare(text: Path | None, folder: Path, vocabulary: int, count: int) -> tuple[Encoder, list[str]]:
    """A word tokenizer trained on the text, and its first sentences."""
    if text is None:
        text = folder / "made-up.txt"
        make_corpus(text, 4 << 20)
    settings = configuration.resolve(
        {
            "corpus": {"train": str(text), "document": "line", "sentences": "none"},
            "tokenizer": {"kind": "word", "vocab_size": vocabulary}, "dataset": {"dir": folder / "data"},
        }
    )  # fmt: skip
    build_dataset(settings)
    lines = (line.strip() for line in text.read_text(encoding="utf-8").splitlines())
    return Encoder.load(folder / "data"), [line for line in lines if line][:count]


def packlm_scores(model: LanguageModel, encoder: Encoder, texts: list[str]) -> np.ndarray:
    scores = scoring.score(model, encoder, map(scoring.Sentence, texts), BATCH_TOKENS)
    return np.array([score.log_prob for score in scores])


def losses(model: LanguageModel, encoder: Encoder, texts: list[str]) -> np.ndarray:
    ids, ends = encoder.encode_sentences(texts)
    sentences = Sentences.from_arrays(ids, ends)
    losses, offsets = np.empty(len(ids)), first_targets(sentences)
    for batch in length_batches(sentences.lengths, np.arange(len(sentences)), BATCH_TOKENS):
        for piece in sentence_segments(sentences, offsets, batch, BATCH_TOKENS):
            values, _ = model.losses(piece.batch(torch.device("cpu")))
            losses[concatenated_ranges(piece.keys, piece.keys + piece.lengths)] = values.numpy()
    return -np.add.reduceat(losses, offsets)


@torch.inference_mode()
def padded(model: LanguageModel, encoder: Encoder, texts: list[str]) -> np.ndarray:
    cells = plain_lstm(model)
    ids, ends = encoder.encode_sentences(texts)
    rows, log_probs = [torch.from_numpy(part.astype(np.int64)) for part in np.split(ids, ends[:-1])], []
    for start in range(0, len(rows), PADDED_BATCH):
        batch = rows[start : start + PADDED_BATCH]
        targets = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=-100)
        inputs = pad(targets[:, :-1].clamp(min=0), (1, 0), value=encoder.eos)
        logits = model.projection(cells(model.embedding(inputs))[0])
        log_probs.append(-cross_entropy(logits.transpose(1, 2), targets, reduction="none").double().sum(1))
    return torch.cat(log_probs).numpy()


@torch.inference_mode()
def one_by_one(model: LanguageModel, encoder: Encoder, texts: list[str]) -> np.ndarray:
    cells, log_probs = plain_lstm(model), []
    for text in texts:
        targets = torch.from_numpy(encoder.encode_sentences([text])[0].astype(np.int64))
        inputs = pad(targets[:-1], (1, 0), value=encoder.eos)
        logits = model.projection(cells(model.embedding(inputs)[None])[0][0])
        log_probs.append(-float(cross_entropy(logits, targets, reduction="sum")))
    return np.array(log_probs)


def plain_lstm(model: LanguageModel) -> torch.nn.LSTM:
    """The model's recurrent layers as a `torch.nn.LSTM`."""
    widths = model.settings.widths
    cells = torch.nn.LSTM(model.settings.embedding_width, widths[0], len(widths), batch_first=True)
    for number, layer in enumerate(model.recurrence.layers):
        for name, weight in layer.named_parameters():
            getattr(cells, name.replace("_l0", f"_l{number}")).data = weight.data
    return cells


if __name__ == "__main__":
    main()
