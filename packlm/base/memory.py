"""glibc's allocator: keeping freed memory instead of returning it to the system.

Code that repeatedly allocates large arrays of similar size otherwise spends much of its time on page faults.
"""

import ctypes

_ALL = (1 << 31) - 1


def keep_freed() -> None:
    """Makes this process keep freed memory from now on; does nothing where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        mallopt(m_trim_threshold, _ALL)
        mallopt(m_mmap_max, 0)  # a threshold above 32 MiB would be refused
