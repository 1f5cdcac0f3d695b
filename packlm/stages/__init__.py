"""The four stages, `packlm.stages.train` and its siblings, under which names an installed packlm runs them.

In a checkout they stand beside the library, as `train/` and its siblings.
"""

from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]
if (_CHECKOUT / "pyproject.toml").is_file():
    __path__.append(str(_CHECKOUT))
