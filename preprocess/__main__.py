"""Makes a dataset of a corpus.

    python -m preprocess                                                 # the built-in corpus, into data/quickstart
    python -m preprocess --config configs/wsj-articles.toml --corpus.train FOLDER --corpus.on_bad_text skip
    python -m preprocess --config configs/ptb-small.toml --rebuild       # in the place of one made otherwise
    python -m preprocess verify data/quickstart                          # every digest again
    python -m preprocess inspect data/quickstart                         # a few rows of each view, as text

Run again with nothing changed it says so and does nothing; interrupted, it goes on. Exit status: 0 done; 1 it failed; 2 the
request was wrong.
"""

import difflib
import logging
import sys
from pathlib import Path

import pyarrow.parquet as pq

from pipeline import dataset, tracking
from pipeline.config import Config, load, split_arguments
from pipeline.errors import PacklmError, RequestError, run
from pipeline.log import setup
from preprocess.build import Built, build
from preprocess.encoding import Encoder

log = logging.getLogger("packlm")


def main() -> None:
    setup()
    file, settings, others = split_arguments(sys.argv[1:])
    if {"-h", "--help"} & set(others):
        print(__doc__)
    elif others and others[0] in ("verify", "inspect"):
        if len(others) != 2 or file or settings:
            raise RequestError(f"{others[0]} takes one dataset folder: python -m preprocess {others[0]} DIR")
        (verify if others[0] == "verify" else inspect)(Path(others[1]))
    else:
        if unknown := [word for word in others if word != "--rebuild"]:
            near = difflib.get_close_matches(unknown[0], ["--rebuild", "--config", "--help", "verify", "inspect"], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "settings are given as --section.key value"
            raise RequestError(f"unknown argument {unknown[0]!r}; {hint}")
        config, rebuild = load(file, settings), "--rebuild" in others
        built = build(config, rebuild)
        if built.seconds is not None:
            log.info("%s", table(built.manifest))
            log.info("%s: made in %.1f s", config.dataset.dir, built.seconds)
            record(config, built, fresh=rebuild)


def table(manifest: dataset.Manifest) -> str:
    """How much there is in each split, as an aligned table, and what was skipped, replaced or dropped."""
    rows: list[tuple[str, ...]] = [("split", "documents", "sentences", "tokens", "words", "unknown", "bytes")]
    for name, split in manifest.splits.items():
        counted = (split.documents, split.sentences, split.tokens, split.words)
        rows.append((name, *(f"{number:,}" for number in counted), f"{split.unknown / split.tokens:.2%}", f"{split.bytes:,}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    names, numbers = widths[0], widths[1:]
    lines = ["  ".join([row[0].ljust(names), *(cell.rjust(width) for cell, width in zip(row[1:], numbers, strict=True))]) for row in rows]
    return "\n".join(lines + [f"{reason}: {count:,}" for reason, count in manifest.counts.items()])


def record(config: Config, built: Built, fresh: bool) -> None:
    """Puts the numbers of the dataset just made into MLflow."""
    manifest = built.manifest
    with tracking.stage(config, "preprocess", fresh) as recorder:
        recorder.params(
            {
                "corpus_digest": manifest.digests["corpus"],
                "content_digest": manifest.digests["content"],
                "tokenizer_digest": manifest.digests["tokenizer"],
                "tokenizer_kind": config.tokenizer.kind,
                "vocab_size": manifest.vocab_size,
                "lossless": manifest.lossless,
                "counts": "; ".join(f"{reason}: {count:,}" for reason, count in manifest.counts.items()),
            }
        )
        metrics = {"seconds": built.seconds or 0.0}
        for name, split in manifest.splits.items():
            for key in ("documents", "sentences", "tokens", "words", "bytes"):
                metrics[f"{name}_{key}"] = float(getattr(split, key))
            metrics[f"{name}_unknown_rate"] = split.unknown / split.tokens
        recorder.metrics(metrics)
        recorder.dataset(config.run.name, manifest.digests["content"], str(config.dataset.dir), "preprocess")
        recorder.artifact(config.dataset.dir / "manifest.json")


def verify(folder: Path) -> None:
    """Compares every file with the manifest's digests; `PacklmError` naming those that differ."""
    manifest = dataset.read_manifest(folder)
    if lines := dataset.damaged(folder, manifest):
        raise PacklmError("\n".join([*lines, f"{len(lines)} files are damaged; `python -m preprocess --rebuild` makes the dataset anew"]))
    print(f"{folder}: every file is as it was made")


def inspect(folder: Path, rows: int = 3) -> None:
    """Prints the table, and the first rows of each view of each split as text."""
    manifest, encoder = dataset.read_manifest(folder), Encoder.load(folder)
    print(table(manifest))
    for split in manifest.splits:
        for view in dataset.VIEWS:
            print(f"\n{view}, {split}")
            with pq.ParquetFile(dataset.paths(folder, manifest, view, split)[0]) as file:
                for row in next(file.iter_batches(rows)).to_pylist():
                    text = "|".join(encoder.token(id) for id in row["ids"])
                    about = {key: value for key, value in row.items() if key != "ids"}
                    print(f"  {about}\n    {text!r}")


if __name__ == "__main__":
    run(main)
