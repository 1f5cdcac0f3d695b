"""Names from outside are text and nothing else: in the log, in messages, in Markdown."""

import html
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from packlm.base import errors, escape, log
from packlm.base.errors import PacklmError, RequestError

HOSTILE = [
    "a\nerror: forged", "a\n  forged", "a\r\nforged", "\x1b[2K\x1b[31mforged", "a\x85forged", "a\u2028forged", "\u202egnp.exe", "\x00",
    "\ud800", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "![x](http://x.y/z.png)", "a | b", "a\\|b", "`x`", "``", "a`|`b",
    "*x* _y_ ~~z~~", "http://x.y", "www.x.y", "see www.x.y", "a@x.y", "&lt;b&gt;", "$\\alpha$", "--- \n# x", "    x", " ", "\\", "\\`",
    "# x", "<!-- x -->", "'\"", "\x07\x08",
]  # fmt: skip
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
NAMES = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.sampled_from("\n\r\x1b`|\\<>[]()!*_#$&@:/.'\" -aw1\u202e\u2028\ud800"), max_size=30),
    st.text(st.characters(), max_size=30),
)


@given(NAMES)
def test_a_text_in_one_line_is_printable_and_printable_text_is_unchanged(name):
    shown = escape.one_line(name)
    assert shown.isprintable() and len(shown.splitlines()) <= 1
    assert shown == name or not name.isprintable()
    shown.encode()  # no surrogates, which UTF-8 cannot spell


@given(NAMES)
def test_in_markdown_a_name_is_the_text_of_a_heading_an_item_and_a_cell(name):
    shown = escape.markdown(name)
    text = f"# {shown} on {shown}\n\n- {shown} and {shown}\n\n| {shown} | b |\n|---|---|\n| {shown} | {shown} |\n| c | d |\n"
    page = MARKDOWN.render(text)
    tags = re.findall(r"<(?!/)([^>]*)>", page)
    plain = MARKDOWN.render(text.replace(shown, "x") if shown else text)
    assert [tag for tag in tags if tag != "code"] == re.findall(r"<(?!/)([^>]*)>", plain)
    visible = escape.one_line(name).replace("`", "\\x60").replace("|", "\\x7c") if "`" in shown else escape.one_line(name)
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert len(cells) == 4
    assert html.unescape(re.sub(r"</?code>", "", cells[0])).strip() == visible.strip()


@pytest.mark.parametrize("name", ["tiny-bpe", "validation", "0.txt", "articles/wsj_0001", "Der Bär", "نام"])
def test_a_plain_name_is_written_as_it_is(name):
    assert escape.markdown(name) == escape.one_line(name) == name


@given(NAMES)
def test_a_line_of_the_log_that_begins_like_ours_is_ours(name):
    shown = _logged(lambda logger: (logger.info("wrote %s", name), logger.warning("%s: %d of %s", name, 3, [name])))
    assert len(shown) == 2 and shown[0].startswith("wrote ") and shown[1].startswith("warning: ")
    for kind in (PacklmError, RequestError):
        assert len(_logged(lambda logger, kind=kind: logger.error("%s", kind(f"{name}: not read: {name}; see {name}")))) == 1


def test_lines_of_ours_stay_lines():
    error = RequestError(escape.lines("wrong configuration:", "  a: 1\nforged", "  b: 2"))
    assert str(error) == "wrong configuration:\n  a: 1\\nforged\n  b: 2"
    assert _logged(lambda logger: logger.error("%s", error)) == ["error: wrong configuration:", "  a: 1\\nforged", "  b: 2"]
    assert _logged(lambda logger: logger.info("\n%s: %s", "train", escape.lines("a", "b"))) == ["", "train: a", "b"]


def test_the_last_message_of_a_command_is_one_line(capsys):
    def fail():
        raise PacklmError("a\nerror: forged\x1b[1m: cannot be read")

    log.setup()
    with pytest.raises(SystemExit):
        errors.run(fail)
    assert capsys.readouterr().err == "error: a\\nerror: forged\\x1b[1m: cannot be read\n"


def _logged(write) -> list[str]:
    """The lines that the log shows for what `write` logs."""
    log.setup()
    logger = logging.getLogger("packlm")
    (handler,) = logger.handlers
    shown: list[str] = []
    handler.emit = lambda record: shown.append(handler.format(record))  # type: ignore[method-assign]
    write(logger)
    return "\n".join(shown).split("\n")
