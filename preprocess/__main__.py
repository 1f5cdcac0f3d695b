"""Makes datasets: `python -m preprocess`."""

import sys
from pathlib import Path

if __package__:
    from .cli import run
else:
    # `python preprocess` and `torchrun preprocess` put the folder itself first on the path, where its modules would hide others.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from preprocess.cli import run

if __name__ == "__main__":
    run()
