"""The pages that users read, and the commands in them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def lines(page: Path) -> list[str]:
    """The lines of a page, each with those that continue it."""
    return re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8")).splitlines()


def commands(page: Path, *programs: str) -> Iterator[str]:
    """The lines of code blocks that begin with a program, `packlm` or `torchrun` by default, perhaps after a prompt and variables; without
    comments."""
    names = "|".join(programs or ("packlm", "torchrun"))
    for line in lines(page):
        if match := re.match(rf"(?:    )?(?:\$ )?(?:[A-Z_]+=\S+ )*(?P<command>(?:{names}) (?:[a-z]|-).*)", line):
            yield re.sub(r"\s{2,}[^-\s].*| #.*| \| .*|[;&].*", "", match["command"]).strip()


def python(page: Path) -> Iterator[tuple[str, int]]:
    """The blocks of Python of a page, each with the number of lines before it."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"```python\n(.*?)```", text, re.DOTALL):
        yield match[1], text[: match.start()].count("\n") + 1


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()
