"""Statistics of a batch of generations: counts, lengths, diversity, repetition and the model's own perplexity of them."""

from collections import Counter
from typing import Any

import numpy as np

from packlm.model.finite import perplexity

ORDERS = (1, 2, 3, 4)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Summary:
    """Adds up the records of a batch job. n-grams are of whitespace words; memory holds a hash of each distinct one."""

    def __init__(self) -> None:
        self.prompts = self.refused = self.generations = self.finished = self.repeated = 0
        self.tokens: Counter[int] = Counter()
        """Generations by their number of tokens."""
        self.log_prob = 0.0
        self._distinct: dict[int, set[int]] = {order: set() for order in ORDERS}
        self._ngrams = dict.fromkeys(ORDERS, 0)

    def add(self, record: dict[str, Any]) -> None:
        """Adds a record of the job: one with generations, or one with an error."""
        if "error" in record:
            self.refused += 1
            return
        self.prompts += 1
        for generation in record["generations"]:
            self.generations += 1
            self.finished += generation["finished"]
            self.tokens[generation["tokens"]] += 1
            self.log_prob += generation["log_prob"]
            words = generation["text"].split()
            for order in ORDERS:
                ngrams = [hash(tuple(words[start : start + order])) for start in range(len(words) - order + 1)]
                self._distinct[order].update(ngrams)
                self._ngrams[order] += len(ngrams)
            self.repeated += len(ngrams) - len(set(ngrams))  # of the highest order

    def values(self) -> dict[str, Any]:
        """The statistics, as JSON values.

        distinct_N: distinct N-grams as a share of all (Li et al. 2016). repetition: share of 4-grams that occurred before in the same
        generation (Welleck et al. 2020). self_perplexity: of the generated tokens, under the model that generated them.
        """
        lengths = np.repeat(list(self.tokens), list(self.tokens.values()))
        total = int(lengths.sum())
        counts = self._ngrams
        return {
            "prompts": self.prompts,
            "refused": self.refused,
            "generations": self.generations,
            "finished": self.finished,
            "tokens": total,
            "tokens_per_generation": {f"p{share * 100:.0f}": float(np.quantile(lengths, share)) for share in QUANTILES} if total else {},
            "self_perplexity": perplexity(-self.log_prob / total) if total else None,
            **{f"distinct_{order}": len(self._distinct[order]) / counts[order] if counts[order] else None for order in ORDERS},
            "repetition": self.repeated / counts[4] if counts[4] else None,
        }
