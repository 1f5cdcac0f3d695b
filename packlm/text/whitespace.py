"""White space in UTF-8 text, as `str.isspace` has it, and control characters, found for all of a text at once.

Shapes: B bytes, D stretches of text, E edges of words.
"""

from collections.abc import Iterator

import numpy as np

_WINDOW = 1 << 18
_SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace()]
_NARROW = np.zeros(256, bool)
_NARROW[[ord(space) for space in _SPACES if ord(space) < 0x80]] = True
_WIDE = np.array([int.from_bytes(space.encode()) for space in _SPACES if ord(space) >= 0x80])
_WIDE_LEAD = np.zeros(256, bool)
_WIDE_LEAD[[space.encode()[0] for space in _SPACES if ord(space) >= 0x80]] = True
_PATIENCE = 16


def word_edges(data: np.ndarray) -> np.ndarray:
    """Where words begin and end, by turns: runs of what is not white space. Rising; int32 (for less than 2 GB)."""
    found, before = [np.empty(0, np.int32)], True
    for start, end in windows(data):
        marks = np.empty(end - start + 1, bool)
        marks[0], marks[1:] = before, _white(data[start:end])
        found.append((np.flatnonzero(marks[1:] != marks[:-1]) + start).astype(np.int32))
        before = bool(marks[-1])
    if not before:
        found.append(np.array([len(data)], np.int32))
    return np.concatenate(found)


def edges_within(edges: np.ndarray, start: int, end: int) -> np.ndarray:
    """Those of a part of the text, [start, end), counted from its first byte: what `word_edges` says of that part by itself."""
    if start == end:
        return edges[:0]
    low, high = np.searchsorted(edges, np.array([start + 1, end], edges.dtype))
    inside = edges[low - low % 2 : high + high % 2] - np.int32(start)
    if len(inside):
        inside[0], inside[-1] = max(inside[0], 0), min(inside[-1], end - start)
    return inside


def blank(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """[D] bool: whether the stretches [start, end) of UTF-8 are nothing but white space, as `str.isspace` has it, or nothing at all."""
    result = starts >= ends
    at, still = starts.copy(), np.flatnonzero(~result)
    for _ in range(_PATIENCE):
        if not len(still):
            return result
        width = _space_width(data, at[still])
        still, width = still[width > 0], width[width > 0]
        at[still] += width
        result[still] = at[still] == ends[still]
        still = still[at[still] < ends[still]]
    for index in still.tolist():  # these begin with a lot of white space
        result[index] = data[at[index] : ends[index]].tobytes().decode(errors="replace").isspace()
    return result


def has_control(data: np.ndarray) -> bool:
    """Whether there is a control character (U+0000-U+001F, U+007F) other than those from tab to carriage return."""
    return any(_has_control(data[start:end]) for start, end in windows(data))


def next_character(data: np.ndarray, index: int) -> int:
    """The first index, from `index` on, at which no character of UTF-8 text is cut in two."""
    while index < len(data) and data[index] & 0xC0 == 0x80:
        index += 1
    return index


def windows(data: np.ndarray) -> Iterator[tuple[int, int]]:
    """Stretches [start, end) of whole characters, small enough that what is computed of them stays in the processor's cache."""
    start = 0
    while start < len(data):
        end = next_character(data, min(start + _WINDOW, len(data)))
        yield start, end
        start = end


def _has_control(data: np.ndarray) -> bool:
    # Differences wrap around, so that what is looked for is at one end; the least and the greatest are found at once.
    below_tab = (data - np.uint8(0x09)).max(initial=0) > 0xF6
    above_return = (data - np.uint8(0x0E)).min(initial=0xFF) < 0x12
    return bool(below_tab or above_return or (data.max(initial=0) >= 0x7F and (data == 0x7F).any()))


def _white(data: np.ndarray) -> np.ndarray:
    # U+0009-U+000D and U+001C-U+0020; what is smaller wraps around and is large.
    marks = (data - np.uint8(0x09) < 5) | (data - np.uint8(0x1C) < 5)
    if data.max(initial=0) < 0x80:
        return marks
    first, second = data[:-1], data[1:]
    at = np.flatnonzero((first == 0xC2) & ((second == 0x85) | (second == 0xA0)))
    marks[at] = marks[at + 1] = True
    # U+1680, U+2000-U+200A, U+2028, U+2029, U+202F, U+205F, U+3000
    first, second, third = data[:-2], data[1:-1], data[2:]
    at = np.flatnonzero(
        ((first == 0xE2) & ((second == 0x80) | (second == 0x81)))
        | ((first == 0xE3) & (second == 0x80))
        | ((first == 0xE1) & (second == 0x9A))
    )
    lead, middle, last = first[at], second[at], third[at]
    general = (last <= 0x8A) | (last == 0xA8) | (last == 0xA9) | (last == 0xAF)
    is_white = np.where(lead == 0xE2, np.where(middle == 0x80, general, last == 0x9F), last == 0x80)
    at = at[is_white]
    marks[at] = marks[at + 1] = marks[at + 2] = True
    return marks


def _space_width(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Bytes of the white space character at each place; 0 where there is none."""
    first = data[at]
    width = _NARROW[first].astype(np.int64)
    wide = np.flatnonzero(_WIDE_LEAD[first])
    if len(wide):
        # What follows the end of a stretch may complete a character; `blank` sees that it goes beyond the end.
        second, third = (data[np.minimum(at[wide] + ahead, len(data) - 1)].astype(np.int64) for ahead in (1, 2))
        two = (first[wide].astype(np.int64) << 8) | second
        three = (two << 8) | third
        width[wide] = np.where(np.isin(two, _WIDE), 2, np.where(np.isin(three, _WIDE), 3, 0))
    return width
