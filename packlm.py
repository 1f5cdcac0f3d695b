"""packlm: train, measure and sample recurrent language models on your own text.

In a program, one call opens a trained model:

    import packlm
    model = packlm.load("runs/quickstart/model")       # or "models:/quickstart/1"

On the command line:

    packlm run|config|sync ...                         all stages; the resolved configuration; what MLflow has missed
    packlm compare RUN RUN ...                         runs side by side
    packlm preprocess|train ...                        one stage (several processes: torchrun --nproc-per-node 4 train ...)
    packlm evaluate|score|pairs|rescore|next|generate ...   what one does with a model

Every command takes `--config FILE` and `--section.key value`; `packlm config --explain` lists all settings.
"""

import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import meant

if TYPE_CHECKING:
    from serve.engine import Engine

MODULES = {
    "run": "pipeline",
    "config": "pipeline",
    "compare": "pipeline",
    "sync": "pipeline",
    "preprocess": "preprocess",
    "train": "train",
    "evaluate": "serve",
    "score": "serve",
    "pairs": "serve",
    "rescore": "serve",
    "next": "serve",
    "generate": "serve",
}


def load(path: str | Path, precision: str = "full") -> "Engine":
    """Opens a model folder or a registry address (`models:/NAME@ALIAS`). From then on torch rounds no product of float32 in this process.

    Args:
        precision: of the weights: full (as stored), or on a CPU bf16 or int8, which take less memory and are faster in wide models
            (docs/mlflow.md says what they lose).
    """
    from serve.engine import Engine

    return Engine.load(path, precision=precision)


def main() -> None:
    """The `packlm` command."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(__doc__, end="")
        return
    command, *rest = words
    if command not in MODULES:
        hint = meant(command, MODULES, f"there are {', '.join(MODULES)}")
        print(f"error: unknown command {command!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    module = MODULES[command]
    sys.argv = [f"packlm {command}", *(rest if module == command else words)]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
