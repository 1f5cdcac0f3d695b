"""Damages one file that a command reads: one bit, a cut, zeros, another file's content, nothing, no file."""

import os
import random
from pathlib import Path

from .readers import choose, judge_reader
from .verdict import Verdict
from .world import World

BLOCK = 64
"""Bytes that are overwritten by zeros."""


def trial(world: World, number: int, generator: random.Random) -> Verdict:
    """One kind of damage to one file; the time of the file stays in half of the trials, as when a disk loses a bit."""
    name, path = choose(world, generator)
    status = path.stat()
    what = f"{path.relative_to(world.folder)}: {damage(path, generator)}"
    if path.exists() and generator.random() < 0.5:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        what += ", with its old time"
    return judge_reader(world, name, path, what)


def damage(path: Path, generator: random.Random) -> str:
    """Damages a file in its place; returns how."""
    content = bytearray(path.read_bytes())
    kind = generator.choice(["bit", "bit", "bit", "cut", "zeros", "swapped", "emptied", "deleted"]) if content else "deleted"
    if kind == "deleted":
        path.unlink()
        return "deleted"
    position = generator.randrange(len(content))
    if kind == "bit":
        bit = generator.randrange(8)
        content[position] ^= 1 << bit
        how = f"bit {bit} of byte {position} of {len(content)} flipped"
    elif kind == "cut":
        del content[position:]
        how = f"cut at byte {position}"
    elif kind == "zeros":
        content[position : position + BLOCK] = bytes(len(content[position : position + BLOCK]))
        how = f"zeros from byte {position}"
    elif kind == "swapped":
        siblings = sorted(other for other in path.parent.iterdir() if other.is_file() and other != path)
        other = generator.choice(siblings) if siblings else path
        content[:] = other.read_bytes()
        how = f"replaced by {other.name}"
    else:
        content.clear()
        how = "emptied"
    path.write_bytes(bytes(content))
    return how
