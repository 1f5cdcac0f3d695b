"""What to try when a model loses to n-grams: a sentence with three things, by what is known of the model and of its training text."""

from packlm import config
from packlm.model.finite import perplexity

SAMPLE_TOKENS = 20_000
"""Training tokens that tell whether the model knows its training text by heart."""
_OVERFIT = 0.3
"""Nats a token by which the training text is easier than other text from which on a model has learned it by heart, if it also knows it
better than n-grams know the other text: where splits differ in subject, training text is that much easier after a few steps."""
_RARE = 60
"""Training tokens per entry of the vocabulary below which many entries are too rare to learn."""


def advice(
    loss: float, ngram_loss: float, training_loss: float, model: config.Model, vocab_size: int, training_tokens: int
) -> str | None:  # fmt: skip
    """The sentence for a report; None where the model is better than the n-grams.

    Args:
        loss, ngram_loss: of the model and of n-grams, in nats per token, on the same held-out tokens in the same contexts.
        training_loss: of the model on a sample of its training text, without dropout, in nats per token.
        model: its settings.
        training_tokens: of the training split.
    """
    if loss < ngram_loss:
        return None
    widest = max(model.widths)
    if training_loss < min(loss - _OVERFIT, ngram_loss):
        found = f"it knows its training text by heart (perplexity {perplexity(training_loss):,.1f} there)"
        dropout = max(model.dropout_before(layer) for layer in range(model.layers + 1))
        things = [f"more dropout (model.dropout = {min(0.7, max(0.4, dropout + 0.15)):.2g})"]
        things += ["one layer (model.layers = 1)"] if model.layers > 1 else [f"fewer units (model.hidden = {widest // 2})"]
        last = "fewer epochs (train.epochs)"
    else:
        found = f"it has not learned its training text either (perplexity {perplexity(training_loss):,.1f} there)"
        things = ["more epochs (train.epochs)", f"more units or less dropout (model.hidden = {widest * 3 // 2})"]
        last = "another learning rate (train.lr)"
    if training_tokens < _RARE * vocab_size:
        last = f"a smaller vocabulary (tokenizer.vocab_size = {max(300, 100 * round(training_tokens / _RARE / 100))}; now {vocab_size})"
    return (
        f"the model loses to Kneser-Ney 5-grams, {perplexity(loss):,.1f} to {perplexity(ngram_loss):,.1f}: {found}; "
        f"try {things[0]}, {things[1]} and {last}, or the recipe of `packlm new` for this corpus"
    )
