"""Text from outside (names of files, documents, models, columns) escaped for where it is written, so that it is read as text and no more.

In HTML the standard library's `html.escape` does this, in JSON `json_text`, in TOML `config.toml_value`.
"""

import re

_PLAIN = re.compile(r"(?i)(?!.*www\.)[^\W_]+([ ._/-][^\W_]+)*")
"""Words with single separators between them, which mean nothing in Markdown. GitHub makes a link of what begins with `www.`."""


class Multiline(str):
    """Text of several lines, made by `lines`: errors and the log keep its line feeds, and escape those of any other text."""


def one_line(text: object) -> str:
    """A text in one line. What is not printable (line feeds, escape sequences, direction marks) as Python writes it: `\\n`."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in shown)


def lines(*texts: object) -> Multiline:
    """Texts below each other, each in one line."""
    return Multiline("\n".join(map(one_line, texts)))


def markdown(text: object) -> str:
    """A text within a line, a table's cell or a heading of Markdown: as it is if it is plain, else as code.

    In code nothing has a meaning but backquotes and, in tables, bars: these two are written as `\\x60` and `\\x7c`.
    """
    shown = one_line(text)
    if not shown or _PLAIN.fullmatch(shown):
        return shown
    return "`" + shown.replace("`", "\\x60").replace("|", "\\x7c") + "`"
