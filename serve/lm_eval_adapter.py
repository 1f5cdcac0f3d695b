"""A trained model in EleutherAI's lm-evaluation-harness, under the name `packlm` (extra `lm-eval`):

    python -m serve.lm_eval_adapter run --model packlm --model_args path=runs/quickstart/model --tasks TASK ...
    lm_eval.simple_evaluate(model=PacklmLM("runs/quickstart/model"), tasks=[...])           in a program

All other options of the command line are the harness' own. Texts are stripped, read after `<eos>`, and split into sentences unless the
model was trained on single ones. log P of a continuation counts its own tokens and no `<eos>` after it; that of a whole text
(`loglikelihood_rolling`) counts the `<eos>` of each of its sentences, as `serve evaluate` does.
"""

import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from packlm.corpus import documents
from packlm.dataset.views import Sentences
from packlm.engine import BATCH_TOKENS, Continuation, Engine
from packlm.scoring.sentences import TokenScores, segment_scores
from packlm.text.document_encoding import encode_documents

GENERATED_TOKENS = 256
"""Most tokens of a generation, unless the task sets it."""


@register_model("packlm")
class PacklmLM(LM):
    """The harness' interface of a model."""

    def __init__(self, path: str, device: str | None = None, batch_size: Any = None, max_batch_size: Any = None, seed: int = 1):
        """
        Args:
            path: a model folder or a registry address.
            device: by default a GPU if there is one.
            batch_size, max_batch_size: passed by the harness, and ignored: results do not depend on batches.
            seed: seed of sampling.
        """
        super().__init__()
        # The harness passes cuda:0 by default.
        if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
            device = None
        self.engine, self.seed = Engine.load(path, None if device is None else torch.device(device)), seed

    @property
    def tokenizer_name(self) -> str:
        """Identifies the tokenizer in the harness' cache of requests."""
        return self.engine.info.tokenizer

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """(log P(continuation | context) in nats, whether greedy decoding gives it) of each request (context, continuation).

        A continuation begins at the first token in which the whole text differs from the context alone: a token across the boundary
        belongs to the continuation. Trailing whitespace is not scored.
        """
        texts, begins = [], []
        for context, continuation in (request.args for request in requests):
            before, whole = self.engine.encode_prompt(context)[0], self.engine.encode_prompt(context + continuation)[0]
            shared = min(len(before), len(whole))
            differ = np.flatnonzero(before[:shared] != whole[:shared])
            texts.append(whole[1:])
            begins.append((int(differ[0]) if len(differ) else shared) - 1)
        scores, ends = self._scores(texts)
        spans = [slice(end - 1 - len(ids) + begin, end - 1) for ids, begin, end in zip(texts, begins, ends.tolist(), strict=True)]
        return [(-float(scores.losses[span].sum()), not scores.ranks[span].any()) for span in spans]

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """log P in nats of each request (text,): that of a text file with it, as `packlm evaluate --text` measures it."""
        info, encoder = self.engine.info, self.engine.encoder
        ids, cuts, ends = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [0]
        for (text,) in (request.args for request in requests):
            first = end = ends[-1]
            for block in documents.read_texts([text], info.text, encoder.spelled_eos, Counter()):
                encoded = encode_documents(block, info.text, encoder)
                ids.append(encoded.ids)
                if info.context != "streams":
                    cuts.append(
                        end + (encoded.ends if info.context == "sentences" else np.append(encoded.document_starts[1:], encoded.ends[-1:]))
                    )
                end += len(encoded.ids)
            if info.context == "streams" and end > first:
                cuts.append(np.array([end]))
            ends.append(end)
        scores, _ = segment_scores(self.engine.model, Sentences.from_arrays(np.concatenate(ids), np.concatenate(cuts)), BATCH_TOKENS)
        return [-float(scores.losses[start:end].sum()) for start, end in itertools.pairwise(ends)]

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """The continuation of each request (context, settings), up to the first of the strings in `until`.

        The settings `until`, `max_gen_toks`, `do_sample`, `temperature`, `top_k` and `top_p` are followed. A model of single sentences
        stops at the end of the sentence; any other continues, with a line feed between sentences.
        """
        results = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(index)
        for group in groups.values():
            settings = requests[group[0]].args[1]
            until = [settings["until"]] if isinstance(settings.get("until"), str) else settings.get("until") or []
            continuations = self._generate([requests[index].args[0] for index in group], settings)
            for index, (continuation,) in zip(group, continuations, strict=True):
                cut = (continuation.text.split(stop, 1)[0] for stop in until if stop)
                results[index] = min(cut, key=len, default=continuation.text)
        return results

    def _generate(self, contexts: list[str], settings: dict[str, Any]) -> list[list[Continuation]]:
        ours: dict[str, Any] = {"max_tokens": settings.get("max_gen_toks") or GENERATED_TOKENS, "samples": 1, "strategy": "greedy"}
        if settings.get("do_sample") and settings.get("temperature") != 0:
            ours |= {"strategy": "sample"} | {name: settings[name] for name in ("temperature", "top_k", "top_p") if name in settings}
        return self.engine.generate(contexts, self.seed, stop_at_eos=self.engine.isolated_sentences, **ours)

    def _scores(self, texts: Sequence[np.ndarray]) -> tuple[TokenScores, np.ndarray]:
        """(scores of the ids of texts, each read after `<eos>` and followed by it; the end of each text in them)."""
        eos = self.engine.encoder.eos
        ids = np.concatenate([np.zeros(0, np.int64), *(part for text in texts for part in (text, [eos]))]).astype(np.int64)
        ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
        scores, _ = segment_scores(self.engine.model, Sentences.from_arrays(ids, ends), BATCH_TOKENS)
        return scores, ends


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    sys.exit(cli_evaluate())
