"""packlm: train, evaluate and sample recurrent language models on your own text.

    import packlm
    model = packlm.load("runs/quickstart/model")       # or "models:/quickstart@champion"
    score = model.score(["The cat sees a dog."])[0]
    score.words, score.word_surprisals                 # bits

On the command line: `packlm --help`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packlm.engine import Engine

__all__ = ["load"]


def load(path: str | Path, precision: str = "full") -> "Engine":
    """Opens a model folder or a registry address (`models:/NAME@ALIAS`). From then on, this process computes float32 products unrounded.

    Args:
        precision: of the weights: full (as stored), or on a CPU bf16 or int8, which take less memory and are faster in wide models
            (docs/mlflow.md says what they lose).
    """
    from packlm.engine import Engine  # torch takes seconds to import

    return Engine.load(path, precision=precision)
