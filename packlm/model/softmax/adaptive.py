"""The adaptive softmax (Grave et al. 2017): a few frequent ids, the head, are predicted by themselves, all others in two steps.

Ids are cut into bands at `cutoffs`: the head, then K clusters of ever rarer ids. The head's softmax is over its ids and the clusters, and
P(id) = P(cluster) * P(id | cluster) for the ids of a cluster: a distribution over the whole vocabulary, like the full softmax. In training
only the rows whose target is in a cluster are multiplied with that cluster's weights, so a step costs little more than the head. That pays
where low ids are frequent ones, as in vocabularies of words.

Every id has a weight of full width, so weights can be tied to the embedding; the paper's narrower ones for rare ids cannot be.

Shapes: P rows (tokens), D width, V vocabulary, K clusters.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from packlm.base.errors import RequestError
from packlm.model.softmax import loss
from packlm.model.softmax.full import Band, Logits, Softmax
from packlm.model.softmax.loss import RowScores


class AdaptiveSoftmax(Softmax):
    """The distribution of the next id, by bands of ids; calling it gives log P of every id, which are logits too."""

    def __init__(self, width: int, vocab_size: int, cutoffs: Sequence[int]):
        """`cutoffs`: the first id of each cluster, ascending.

        Raises:
            RequestError: the last cluster is empty.
        """
        if cutoffs[-1] >= vocab_size:
            raise RequestError(
                f"model.cutoffs: {cutoffs[-1]:,} leaves no ids to the last cluster of a vocabulary of {vocab_size:,}; lower it, or leave "
                "model.cutoffs out"
            )
        super().__init__(width, vocab_size)
        self.clusters = nn.Linear(width, len(cutoffs))
        self.cutoffs = tuple(cutoffs)
        self._sizes = [stop - start for start, stop in zip((0, *cutoffs), (*cutoffs, vocab_size), strict=True)]
        """Ids of each band."""

    def initialize(self) -> None:
        super().initialize()
        nn.init.uniform_(self.clusters.weight, -0.1, 0.1)
        nn.init.zeros_(self.clusters.bias)

    def forward(self, rows: Tensor) -> Tensor:
        return _log_probabilities(super().forward(rows), self.clusters(rows), self.cutoffs)

    def summed_loss(self, rows: Tensor, targets: Tensor, logits_bytes: int) -> Tensor:
        losses = [loss.summed_loss(rows[band.rows], *band.softmax, logits_bytes) for band in self.bands(targets)]
        return torch.stack(losses).sum()

    def row_losses(self, rows: Tensor, targets: Tensor, logits_bytes: int) -> Tensor:
        losses = rows.new_zeros(len(rows))
        with torch.no_grad():
            for band in self.bands(targets):
                losses[band.rows] += loss.row_losses(rows[band.rows], *band.softmax, logits_bytes)
        return losses

    def row_scores(self, rows: Tensor, targets: Tensor, logits_bytes: int, marked: Tensor | None = None) -> RowScores:
        with torch.no_grad(), torch.autocast(rows.device.type, enabled=False):
            mask = None if marked is None else marked.to(rows.dtype)
            blocks = loss.blocks_of_logits(rows, self.weight, self.bias, logits_bytes, self.clusters(rows), targets)
            scores = (
                loss.scores_from_logits(_log_probabilities(logits + self.bias, clusters, self.cutoffs), targets_, mask)
                for logits, clusters, targets_ in blocks
            )
            return loss.joined(scores, targets, rows.dtype)

    def logits_by(self, affine: Callable[[Tensor, Tensor], Logits]) -> Logits:
        return _Logits(affine(self.weight, self.bias), affine(self.clusters.weight, self.clusters.bias), self.cutoffs)

    @property
    def products_per_row(self) -> int:
        return self.weight[: self.cutoffs[0]].numel() + self.clusters.weight.numel()

    def bands(self, targets: Tensor) -> list[Band]:
        """The head, whose logits are those of its ids and then those of the clusters; then each cluster."""
        (head_weight, *weights), (head_bias, *biases) = self.weight.split(self._sizes), self.bias.split(self._sizes)
        number = torch.bucketize(targets, torch.tensor(self.cutoffs, device=targets.device), right=True)
        head_targets = targets.where(number == 0, number + (self.cutoffs[0] - 1))  # a cluster is an id after those of the head
        head = head_targets, torch.cat([head_weight, self.clusters.weight]), torch.cat([head_bias, self.clusters.bias])
        bands = [Band(slice(None), head)]
        for cluster, (start, weight, bias) in enumerate(zip(self.cutoffs, weights, biases, strict=True), 1):
            rows = (number == cluster).nonzero().squeeze(1)
            bands.append(Band(rows, (targets[rows] - start, weight, bias)))
        return bands


class _Logits(nn.Module):
    """Calls two functions of rows, for the ids and the clusters, and joins what they return."""

    def __init__(self, of_ids: Logits, of_clusters: Logits, cutoffs: tuple[int, ...]):
        super().__init__()
        self.of_ids, self.of_clusters, self.cutoffs = of_ids, of_clusters, cutoffs

    def forward(self, rows: Tensor) -> Tensor:
        return _log_probabilities(self.of_ids(rows), self.of_clusters(rows), self.cutoffs)


def _log_probabilities(logits: Tensor, clusters: Tensor, cutoffs: tuple[int, ...]) -> Tensor:
    """log P of all ids [P, V] from their logits [P, V] and those of the clusters [P, K]."""
    head, *tails = logits.tensor_split(cutoffs, dim=1)
    log_head = torch.cat([head, clusters], 1).log_softmax(1)
    log_clusters = log_head[:, cutoffs[0] :].split(1, dim=1)
    parts = [tail.log_softmax(1) + log_cluster for tail, log_cluster in zip(tails, log_clusters, strict=True)]
    return torch.cat([log_head[:, : cutoffs[0]], *parts], 1)
