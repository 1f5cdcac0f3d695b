"""Evaluates and samples trained models: `python -m serve`, or `torchrun --nproc-per-node 4 serve generate ...`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:
        # `python serve` and `torchrun serve` put the folder itself first on the path, where its modules would hide others.
        sys.path[0] = str(Path(__file__).resolve().parents[1])
        __package__ = "serve"
    from packlm.base import program

    program.run(f"{__package__}.cli")
