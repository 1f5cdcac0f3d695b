"""The recurrent cells, by the names of `model.cell`.

A new cell is a file here that lists itself in its `CELLS`, and its name in `packlm/config/model.py`.
"""

from importlib import import_module
from pkgutil import iter_modules

from packlm.model.cell import Cell

CELLS: dict[str, Cell] = {}
for _module in iter_modules(__path__):
    CELLS |= import_module(f"{__name__}.{_module.name}").CELLS
