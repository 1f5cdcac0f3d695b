"""Trains language models: `torchrun --nproc-per-node 4 train`, or `python train` for one process."""

import sys
from pathlib import Path

if __name__ == "__main__":
    if not __package__:
        # `python train` and `torchrun train` put the folder itself first on the path, where its modules would hide others.
        sys.path[0] = str(Path(__file__).resolve().parents[1])
        __package__ = "train"
    from packlm.base import program

    program.run(f"{__package__}.cli")
