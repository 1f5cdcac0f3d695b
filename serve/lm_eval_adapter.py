"""A trained model in EleutherAI's lm-evaluation-harness, under the name `packlm` (extra `harness`):

    python -m serve.lm_eval_adapter run --model packlm --model_args path=runs/quickstart/model --tasks TASK ...
    lm_eval.simple_evaluate(model=PacklmLM("runs/quickstart/model"), tasks=[...])           in a program

Everything else on the command line is the harness' own. Texts are read as everywhere here: without the white space around them, after
`<eos>`, and cut into sentences where the model was trained on more than single ones. So log P of a continuation counts its own tokens,
and no `<eos>` behind it; that of a whole text (`loglikelihood_rolling`) counts the `<eos>` of each of its sentences, as `serve evaluate`.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from packlm.dataset.views import Sentences
from packlm.engine import BATCH_TOKENS, Continuation, Engine
from packlm.scoring.sentences import TokenScores, segment_scores
from packlm.text.document_block import DocumentBlock
from packlm.text.encoder import encode_documents

GENERATED_TOKENS = 256
"""Most tokens of a generation where the task does not say."""


@register_model("packlm")
class PacklmLM(LM):
    """What the harness asks of a model."""

    def __init__(self, path: str, device: str | None = None, batch_size: Any = None, max_batch_size: Any = None, seed: int = 1):
        """
        Args:
            path: a model folder or a registry address.
            device: where to run; a GPU where there is one, unless given.
            batch_size, max_batch_size: what the harness gives to every model; batches are ours, and no number depends on them.
            seed: of what is drawn at random.
        """
        super().__init__()
        # The harness' command line asks for cuda:0 where nobody did.
        if device is not None and device.startswith("cuda") and not torch.cuda.is_available():
            device = None
        self.engine, self.seed = Engine.load(path, None if device is None else torch.device(device)), seed

    @property
    def tokenizer_name(self) -> str:
        """What tells the harness' own cache of requests one tokenizer from another."""
        return self.engine.info.tokenizer

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """(log P(continuation | context) in nats, whether each of its tokens was the likeliest) of each request (context, continuation).

        A continuation is what the whole text has beyond the tokens that it shares with the context alone: where the two meet inside of a
        token, that token belongs to the continuation. Its white space at the end is not read.
        """
        read, begins = [], []
        for context, continuation in (request.args for request in requests):
            before, whole = self.engine.encode_prompt(context)[0], self.engine.encode_prompt(context + continuation)[0]
            shared = min(len(before), len(whole))
            differ = np.flatnonzero(before[:shared] != whole[:shared])
            read.append(whole[1:])
            begins.append((int(differ[0]) if len(differ) else shared) - 1)
        found, ends = self._scores(read)
        places = [slice(end - 1 - len(ids) + begin, end - 1) for ids, begin, end in zip(read, begins, ends.tolist(), strict=True)]
        return [(-float(found.losses[place].sum()), not found.likelier[place].any()) for place in places]

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """log P in nats of each request (text,), a document by itself, measured with the context that the model was trained with."""
        ids, cuts, ends = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [0]
        for (text,) in (request.args for request in requests):
            encoded = encode_documents(DocumentBlock.of([("text", text)]), self.engine.info.text, self.engine.encoder)
            ids.append(encoded.ids)
            cuts.append(ends[-1] + (encoded.ends if self.engine.info.context == "sentences" else encoded.ends[-1:]))
            ends.append(ends[-1] + len(encoded.ids))
        found, _ = segment_scores(self.engine.model, Sentences.from_arrays(np.concatenate(ids), np.concatenate(cuts)), BATCH_TOKENS)
        return [-float(found.losses[start:end].sum()) for start, end in itertools.pairwise(ends)]

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """What follows each request (context, settings), up to the first of the strings in `until`.

        Of the settings `until`, `max_gen_toks`, `do_sample`, `temperature`, `top_k` and `top_p` are followed. A model of single sentences
        ends with the sentence; any other goes on, the end of a sentence being a line feed.
        """
        results = [""] * len(requests)
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(index)
        for group in groups.values():
            given = requests[group[0]].args[1]
            until = [given["until"]] if isinstance(given.get("until"), str) else given.get("until") or []
            for index, (one,) in zip(group, self._generated([requests[index].args[0] for index in group], given), strict=True):
                results[index] = min((one.text.split(stop, 1)[0] for stop in until if stop), key=len, default=one.text)
        return results

    def _generated(self, contexts: list[str], given: dict[str, Any]) -> list[list[Continuation]]:
        settings: dict[str, Any] = {"max_tokens": given.get("max_gen_toks") or GENERATED_TOKENS, "samples": 1, "strategy": "greedy"}
        if given.get("do_sample") and given.get("temperature") != 0:
            settings |= {"strategy": "sample"} | {name: given[name] for name in ("temperature", "top_k", "top_p") if name in given}
        return self.engine.generate(contexts, self.seed, stop_at_eos=self.engine.isolated_sentences, **settings)

    def _scores(self, read: Sequence[np.ndarray]) -> tuple[TokenScores, np.ndarray]:
        """(what the model says of some ids, each run of them read after `<eos>` and closed with it; the place after each run)."""
        eos = self.engine.encoder.eos
        ids = np.concatenate([np.zeros(0, np.int64), *(part for own in read for part in (own, [eos]))]).astype(np.int64)
        ends = np.cumsum([len(own) + 1 for own in read], dtype=np.int64)
        found, _ = segment_scores(self.engine.model, Sentences.from_arrays(ids, ends), BATCH_TOKENS)
        return found, ends


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    sys.exit(cli_evaluate())
