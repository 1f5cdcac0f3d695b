"""Batches of fixed rows."""

import numpy as np

from packlm.base.errors import RequestError
from packlm.batches.segments import Segments
from packlm.batches.stream_plan import cut
from packlm.dataset.views import Stream

from .plan import StatelessPlan


class RowPlan(StatelessPlan):
    """Fixed rows, shuffled anew each epoch; a row is cut into segments where a document begins."""

    unit = "targets"

    def __init__(self, stream: Stream, length: int, tokens: int, seed: int):
        """Puts as many rows of `length` into a global batch as fit into `tokens`.

        Raises:
            RequestError: not even one fits.
        """
        self.stream, self.seed = stream, seed
        if length > tokens:
            raise RequestError(f"train.global_batch_tokens: {tokens:,} is less than a row, {length:,} tokens; raise it")
        self._rows_per_batch = tokens // length
        self.keys = self.targets = len(stream)
        """Keys of its segments go from 0 to the one, and an epoch has the other."""
        self._epoch = -1

    def steps(self, epoch: int) -> int:
        return -(-self.stream.num_rows // self._rows_per_batch)

    def share(self, epoch: int, step: int, part: int, parts: int) -> Segments:
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._order, self._epoch = np.arange(self.stream.num_rows, dtype=np.uint32), epoch
            generator.shuffle(self._order)
        rows = np.sort(self._order[step * self._rows_per_batch :][: self._rows_per_batch])
        starts, stops = self.stream.rows(rows)
        begins, ends, row_of_segment = cut(starts, stops, self.stream.opens)
        tokens, segments, of_part = int((stops - starts).sum()), len(begins), row_of_segment % parts == part
        begins, ends = begins[of_part], ends[of_part]
        return Segments(*self.stream.read(begins, ends), ends - begins, begins, tokens, segments)
