"""Keeping freed memory.

Work that asks again and again for large arrays of like sizes loses much of its time where the C library gives each back to the system
and gets it anew, page by page, zeroed.
"""

import ctypes

_ALL = (1 << 31) - 1


def keep_freed() -> None:
    """From now on this process keeps the memory it has freed; nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        mallopt(m_trim_threshold, _ALL)
        mallopt(m_mmap_max, 0)  # a threshold above 32 MiB would be refused
