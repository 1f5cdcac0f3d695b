"""The plan that `train.segments` names."""

from packlm import config
from packlm.batches.stream_plan import StreamPlan
from packlm.dataset.views import Sentences, Stream

from .plan import Plan
from .row_plan import RowPlan
from .sentence_plan import SentencePlan


def build(settings: config.Train, sentences: Sentences | None, stream: Stream | None, length: int, seed: int) -> Plan:
    """The plan of `train.segments`: over the sentences of the split, or over its fixed view with rows of `length`."""
    if sentences is not None:
        return SentencePlan(sentences, settings.global_batch_tokens, seed, settings.on_overlong)
    assert stream is not None
    if settings.segments == "rows":
        return RowPlan(stream, length, settings.global_batch_tokens, seed)
    drawn = seed if settings.window_drawn else None
    return StreamPlan.even(stream, settings.streams, settings.window, settings.reset == "document", drawn)
