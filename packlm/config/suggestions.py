"""The setting that was probably meant by a name that does not exist."""

import difflib

from packlm.config.settings import Config

SYNONYMS = {
    "learning_rate": "train.lr",
    "step_size": "train.lr",
    "batch_size": "train.global_batch_tokens",
    "bptt": "train.window",
    "seq_len": "train.window",
    "sequence_length": "train.window",
    "num_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "num_steps": "train.max_steps",
    "optim": "train.optimizer",
    "lr_scheduler": "train.schedule",
    "warmup_ratio": "train.warmup_steps",
    "grad_clip": "train.clip",
    "gradient_clipping": "train.clip",
    "max_grad_norm": "train.clip",
    "gradient_accumulation_steps": "train.accumulate",
    "early_stopping": "train.patience",
    "eval_steps": "train.validate_every",
    "save_steps": "train.checkpoint_every",
    "wdecay": "train.weight_decay",
    "alpha": "train.ar",
    "beta": "train.tar",
    "dtype": "train.precision",
    "pretrained": "train.init",
    "init_from": "train.init",
    "num_workers": "dataset.workers",
    "hidden_size": "model.hidden",
    "hidden_dim": "model.hidden",
    "nhid": "model.hidden",
    "units": "model.hidden",
    "num_layers": "model.layers",
    "nlayers": "model.layers",
    "embedding_size": "model.embedding",
    "embedding_dim": "model.embedding",
    "emsize": "model.embedding",
    "rnn_type": "model.cell",
    "tie_weights": "model.tied",
    "dropout_rate": "model.dropout",
    "dropouti": "model.dropout_input",
    "dropouth": "model.dropout_hidden",
    "dropouto": "model.dropout_output",
    "dropoute": "model.dropout_embedding",
    "wdrop": "model.weight_drop",
    "variational_dropout": "model.locked",
    "vocabulary_size": "tokenizer.vocab_size",
    "num_tokens": "tokenizer.vocab_size",
    "max_length": "generate.max_tokens",
    "max_new_tokens": "generate.max_tokens",
    "num_beams": "generate.beams",
    "beam_size": "generate.beams",
    "num_return_sequences": "generate.samples",
    "experiment_name": "tracking.experiment",
    "tracking_uri": "tracking.uri",
    "random_seed": "run.seed",
}  # fmt: skip
"""Names that papers and other programs use for our settings."""


def suggestion(location: list[str]) -> str:
    """`; did you mean X?` for a section or setting that does not exist: one of this name in another section,
    one that others call so, or one that is spelled like it."""
    sections = {name: list(field.annotation.model_fields) for name, field in Config.model_fields.items() if field.annotation}
    *section, key = (part[:50] for part in location[:2])
    key = key.replace("-", "_")
    known = sections.get(section[0], []) if section else list(sections)
    synonyms = [SYNONYMS[name] for name in difflib.get_close_matches(key, SYNONYMS, n=1, cutoff=0.85)]
    similar = [".".join([*section, name]) for name in difflib.get_close_matches(key, known, n=1, cutoff=0.5)]
    elsewhere = [f"{name}.{key}" for name, settings in sections.items() if key in settings]
    matches = [*elsewhere, *synonyms, *similar]
    return f"; did you mean {matches[0]}?" if matches else ""
