"""What a batch of generations is like as a whole: how many, how long, how varied, how sure the model was of them."""

from collections import Counter
from typing import Any

import numpy as np

ORDERS = (1, 2, 3, 4)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Summary:
    """Adds up records of a batch job, one after the other. n-grams are of white-space words; 8 bytes and more are kept of each that is
    different."""

    def __init__(self) -> None:
        self.prompts = self.refused = self.generations = self.finished = self.repeated = 0
        self.tokens: Counter[int] = Counter()
        self.log_prob = 0.0
        self._seen: list[set[int]] = [set() for _ in ORDERS]
        self._ngrams = [0 for _ in ORDERS]

    def add(self, record: dict[str, Any]) -> None:
        """A record of the job: one with generations, or one with an error."""
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
            for place, order in enumerate(ORDERS):
                ngrams = [hash(tuple(words[start : start + order])) for start in range(len(words) - order + 1)]
                self._seen[place].update(ngrams)
                self._ngrams[place] += len(ngrams)
                if order == ORDERS[-1]:
                    self.repeated += len(ngrams) - len(set(ngrams))

    def values(self) -> dict[str, Any]:
        """For JSON.

        distinct_N: different N-grams as a share of all (Li et al. 2016). repetition: share of 4-grams that occurred before in the same
        generation (Welleck et al. 2020). self_perplexity: of the generated tokens, under the model that made them.
        """
        lengths = np.repeat(list(self.tokens), list(self.tokens.values()))
        total = int(lengths.sum())
        return {
            "prompts": self.prompts,
            "refused": self.refused,
            "generations": self.generations,
            "finished": self.finished,
            "tokens": total,
            "tokens_per_generation": {f"p{share * 100:.0f}": float(np.quantile(lengths, share)) for share in QUANTILES} if total else {},
            "self_perplexity": float(np.exp(-self.log_prob / total)) if total else None,
            **{
                f"distinct_{order}": len(seen) / count if count else None
                for order, seen, count in zip(ORDERS, self._seen, self._ngrams, strict=True)
            },
            "repetition": self.repeated / self._ngrams[-1] if self._ngrams[-1] else None,
        }
