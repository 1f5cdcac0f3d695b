"""The record of a built dataset in MLflow: its numbers, its manifest and its report."""

from packlm import tracking
from packlm.config import Config
from packlm.tracking import metric_names

from . import report
from .build.stage import Built


def record(config: Config, built: Built, fresh: bool) -> None:
    """Records the dataset as the output of the stage `preprocess`; `fresh` starts a new run instead of continuing an earlier one."""
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
        metrics = {} if built.seconds is None else {"seconds": built.seconds}
        for name, split in manifest.splits.items():
            for key in ("documents", "sentences", "tokens", "words", "bytes"):
                metrics[f"{name}_{key}"] = float(getattr(split, key))
            metrics[f"{name}_unknown_rate"] = split.unknown / split.tokens
        recorder.metrics({metric_names.of_stage("preprocess", name): value for name, value in metrics.items()})
        recorder.dataset(config.dataset.dir.name, manifest.digests["content"], str(config.dataset.dir), "preprocess")
        recorder.artifact(config.dataset.dir / "manifest.json")
        for path in sorted((config.dataset.dir / report.NAME).glob("*")):
            recorder.artifact(path, report.NAME)
