"""Batches of fixed rows."""

import numpy as np

from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.batches.stream_plan import cut
from packlm.dataset.views import Stream

from .plan import Stateless


class RowPlan(Stateless):
    """Fixed rows in an order drawn anew each epoch, each cut where a document begins."""

    unit = "targets"

    def __init__(self, stream: Stream, length: int, tokens: int, seed: int):
        self.stream, self.seed = stream, seed
        if length > tokens:
            raise RequestError(f"train.global_batch_tokens: {tokens:,} is less than a row, {length:,} tokens; raise it")
        self._rows = tokens // length
        self._epoch = -1

    def steps(self, epoch: int) -> int:
        return -(-self.stream.num_rows // self._rows)

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._order, self._epoch = np.arange(self.stream.num_rows, dtype=np.uint32), epoch
            generator.shuffle(self._order)
        rows = np.sort(self._order[step * self._rows : (step + 1) * self._rows])
        starts, stops = self.stream.rows(rows)
        begins, ends, owners = cut(starts, stops, self.stream.opens)
        tokens, segments, mine = int((stops - starts).sum()), len(begins), owners % parts == part
        begins, ends = begins[mine], ends[mine]
        return Segments(*self.stream.read(begins, ends), ends - begins, begins, tokens, segments)
