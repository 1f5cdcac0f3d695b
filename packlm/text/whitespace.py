"""Whitespace in UTF-8 text, as defined by `str.isspace`, and control characters, found in bulk. Shapes: D spans of text."""

from collections.abc import Iterator

import numpy as np

_WINDOW_BYTES = 1 << 18
_SPACES = [chr(code) for code in range(0x3001) if chr(code).isspace()]
_ASCII_SPACE = np.zeros(256, bool)
_ASCII_SPACE[[ord(space) for space in _SPACES if ord(space) < 0x80]] = True
_WIDE = np.array([int.from_bytes(space.encode()) for space in _SPACES if ord(space) >= 0x80])
_WIDE_FIRST_BYTE = np.zeros(256, bool)
_WIDE_FIRST_BYTE[[space.encode()[0] for space in _SPACES if ord(space) >= 0x80]] = True
_MAX_STEPS = 16


def word_edges(data: np.ndarray) -> np.ndarray:
    """Starts and ends, alternating, of words (runs of non-whitespace): ascending int32 offsets, for less than 2 GB."""
    edges, after_space = [np.empty(0, np.int32)], True
    for start, end in windows(data):
        is_space = np.empty(end - start + 1, bool)
        is_space[0], is_space[1:] = after_space, _is_whitespace(data[start:end])
        edges.append((np.flatnonzero(is_space[1:] != is_space[:-1]) + start).astype(np.int32))
        after_space = bool(is_space[-1])
    if not after_space:
        edges.append(np.array([len(data)], np.int32))
    return np.concatenate(edges)


def edges_within(edges: np.ndarray, start: int, end: int) -> np.ndarray:
    """The `word_edges` of the bytes [start, end) of a text, from the `edges` of the whole text."""
    if start == end:
        return edges[:0]
    low, high = np.searchsorted(edges, np.array([start + 1, end], edges.dtype))
    inside = edges[low - low % 2 : high + high % 2] - np.int32(start)
    if len(inside):
        inside[0], inside[-1] = max(inside[0], 0), min(inside[-1], end - start)
    return inside


def blank(data: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """[D] bool: whether the spans [start, end) of UTF-8 text are empty or nothing but whitespace."""
    result = starts >= ends
    offsets, pending = starts.copy(), np.flatnonzero(~result)
    for _ in range(_MAX_STEPS):
        if not len(pending):
            return result
        width = _whitespace_width(data, offsets[pending])
        pending, width = pending[width > 0], width[width > 0]
        offsets[pending] += width
        result[pending] = offsets[pending] == ends[pending]
        pending = pending[offsets[pending] < ends[pending]]
    for index in pending.tolist():  # these begin with a lot of whitespace
        result[index] = data[offsets[index] : ends[index]].tobytes().decode(errors="replace").isspace()
    return result


def has_control(data: np.ndarray) -> bool:
    """Whether there is a control character (U+0000-U+0008, U+000E-U+001F, U+007F)."""
    return any(_has_control(data[start:end]) for start, end in windows(data))


def next_character(data: np.ndarray, index: int) -> int:
    """The first index from `index` on at which a character of UTF-8 text begins, or the end."""
    while index < len(data) and data[index] & 0xC0 == 0x80:
        index += 1
    return index


def windows(data: np.ndarray) -> Iterator[tuple[int, int]]:
    """Spans [start, end) of whole characters, so small that what is computed from them stays in the CPU cache."""
    start = 0
    while start < len(data):
        end = next_character(data, min(start + _WINDOW_BYTES, len(data)))
        yield start, end
        start = end


def _has_control(data: np.ndarray) -> bool:
    # Differences wrap around, so that the control characters are at one end, and a minimum or maximum finds them.
    below_tab = (data - np.uint8(0x09)).max(initial=0) > 0xF6
    above_return = (data - np.uint8(0x0E)).min(initial=0xFF) < 0x12
    return bool(below_tab or above_return or (data.max(initial=0) >= 0x7F and (data == 0x7F).any()))


def _is_whitespace(data: np.ndarray) -> np.ndarray:
    # U+0009-U+000D and U+001C-U+0020; smaller values wrap around to large ones.
    is_space = (data - np.uint8(0x09) < 5) | (data - np.uint8(0x1C) < 5)
    if data.max(initial=0) < 0x80:
        return is_space
    first, second = data[:-1], data[1:]
    at = np.flatnonzero((first == 0xC2) & ((second == 0x85) | (second == 0xA0)))
    is_space[at] = is_space[at + 1] = True
    # U+1680, U+2000-U+200A, U+2028, U+2029, U+202F, U+205F, U+3000
    first, second, third = data[:-2], data[1:-1], data[2:]
    at = np.flatnonzero(
        ((first == 0xE2) & ((second == 0x80) | (second == 0x81)))
        | ((first == 0xE3) & (second == 0x80))
        | ((first == 0xE1) & (second == 0x9A))
    )
    lead, middle, last = first[at], second[at], third[at]
    general = (last <= 0x8A) | (last == 0xA8) | (last == 0xA9) | (last == 0xAF)
    is_complete = np.where(lead == 0xE2, np.where(middle == 0x80, general, last == 0x9F), last == 0x80)
    at = at[is_complete]
    is_space[at] = is_space[at + 1] = is_space[at + 2] = True
    return is_space


def _whitespace_width(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Bytes of the whitespace character at each offset; 0 if there is none."""
    first = data[offsets]
    width = _ASCII_SPACE[first].astype(np.int64)
    wide = np.flatnonzero(_WIDE_FIRST_BYTE[first])
    if len(wide):
        # Bytes after the end of a span may complete a character; `blank` notices that it extends past the end.
        second, third = (data[np.minimum(offsets[wide] + ahead, len(data) - 1)].astype(np.int64) for ahead in (1, 2))
        two = (first[wide].astype(np.int64) << 8) | second
        three = (two << 8) | third
        width[wide] = np.where(np.isin(two, _WIDE), 2, np.where(np.isin(three, _WIDE), 3, 0))
    return width
