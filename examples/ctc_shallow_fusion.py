"""CTC prefix beam search (Hannun et al. 2014) with a language model by shallow fusion.

    python examples/ctc_shallow_fusion.py runs/quickstart/model

A recognizer gives, for every frame, the log-probability of each character and of a blank. The text of an alignment is what remains after
repeated characters are merged and blanks removed. The search sums over the alignments of each text, and adds the language model's log P
of a word when it is complete:

    total = ln P_CTC(text) + lm_weight ln P_LM(text) + word_bonus words
"""

import sys
from dataclasses import dataclass

import numpy as np

import packlm
from packlm.generation.fusion import FusionScorer, PartialHypothesis


@dataclass
class Prefix:
    """A text so far. Probabilities are natural logarithms."""

    hypothesis: PartialHypothesis
    """Its complete words, in the language model."""
    blank: float = -np.inf
    """P of the alignments that end in a blank."""
    other: float = -np.inf
    """P of those that end in the last character."""

    @property
    def log_prob(self) -> float:
        return float(np.logaddexp(self.blank, self.other))


def search(
    log_probs: np.ndarray, characters: str, scorer: FusionScorer, lm_weight: float = 0.5, word_bonus: float = 0.0, beams: int = 20
) -> list[tuple[str, float]]:  # fmt: skip
    """Texts and their totals, best first.

    Args:
        log_probs: [T, 1 + C] ln P of the blank, then of each character, in every frame.
        characters: [C], one of them a space.
    """

    def total(text: str, prefix: Prefix) -> float:
        words = len(prefix.hypothesis.text.split())
        return prefix.log_prob + lm_weight * prefix.hypothesis.log_prob + word_bonus * words

    prefixes = {"": Prefix(scorer.start(), blank=0.0)}
    for frame in log_probs:
        after: dict[str, Prefix] = {}
        completed: list[tuple[str, Prefix]] = []  # prefixes that a space ends, and whose last word the language model is asked about
        for text, prefix in prefixes.items():
            same = after.setdefault(text, Prefix(prefix.hypothesis))
            same.blank = np.logaddexp(same.blank, prefix.log_prob + frame[0])
            for character, log_prob in zip(characters, frame[1:], strict=True):
                repeated = text.endswith(character)
                if repeated:
                    same.other = np.logaddexp(same.other, prefix.other + log_prob)
                if character == " " and (repeated or not text):  # texts have one space between words, and none before them
                    continue
                before = prefix.blank if repeated else prefix.log_prob
                longer = after.get(text + character)
                if longer is None:
                    longer = after[text + character] = Prefix(prefix.hypothesis)
                    if character == " ":
                        completed.append((text, longer))
                longer.other = np.logaddexp(longer.other, before + log_prob)
        words = [text.split(" ")[-1] for text, _ in completed]
        for (_, prefix), hypothesis in zip(completed, scorer.extend([prefix.hypothesis for _, prefix in completed], words), strict=True):
            prefix.hypothesis = hypothesis
        best = sorted(after.items(), key=lambda item: total(*item), reverse=True)[:beams]
        prefixes = {text: prefix for text, prefix in best if prefix.log_prob > -np.inf}

    ended = [(text, prefix) for text, prefix in prefixes.items() if text and not text.endswith(" ")]
    hypotheses = scorer.extend([prefix.hypothesis for _, prefix in ended], [text.split(" ")[-1] for text, _ in ended])
    results = [
        (text, prefix.log_prob + lm_weight * log_prob + word_bonus * len(text.split()))
        for (text, prefix), log_prob in zip(ended, scorer.finish(hypotheses).tolist(), strict=True)
    ]
    return sorted(results, key=lambda result: -result[1])


def main(model: str) -> None:
    """A made-up recognizer, whose frames spell one text clearly and are unsure about some letters."""
    heard, unsure = "the fanction returns the value", {5: "u", 12: "h"}
    characters = "".join(sorted(set(heard) | set(unsure.values())))
    probabilities = np.full((2 * len(heard), 1 + len(characters)), 1e-4)
    for position, character in enumerate(heard):
        probabilities[2 * position, 1 + characters.index(character)] = 0.6 if position in unsure else 1.0
        if position in unsure:
            probabilities[2 * position, 1 + characters.index(unsure[position])] = 0.4
        probabilities[2 * position + 1, 0] = 1.0
    log_probs = np.log(probabilities / probabilities.sum(1, keepdims=True))
    engine = packlm.load(model)
    for lm_weight in (0.0, 0.5):
        print(f"lm_weight {lm_weight}: {search(log_probs, characters, engine.fusion(), lm_weight)[0][0]}")


if __name__ == "__main__":
    main(sys.argv[1])
