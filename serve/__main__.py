"""Uses trained models: `python -m serve`, or `torchrun --nproc-per-node 4 serve generate ...`."""

import sys
from pathlib import Path

if __package__:
    from .cli import run
else:
    # `python serve` and `torchrun serve` put the folder itself first on the path, where its modules would hide others.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from serve.cli import run

if __name__ == "__main__":
    run()
