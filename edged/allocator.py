"""Keeps a process that runs for months as large as it was after an hour."""

import ctypes
import gc
import sys
from typing import Final

# malloc.h of glibc.
_M_MMAP_THRESHOLD: Final = -3
LARGE_BYTES: Final = 128 * 1024
TRIM_EVERY_S: Final = 60.0
TABLE_ENTRIES: Final = 65_536
"""More than Python's table of interned strings has room for at the daemon's size (43,690)."""


class Allocator:
    """The C library's; of others than glibc nothing is asked."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = ctypes.CDLL(None)
        if not hasattr(self._library, "malloc_trim"):
            self._library = None

    def settle(self) -> None:
        """Once all is imported, which stays for good.

        Large blocks go back to the system when they are free: glibc would serve ever larger ones
        from its heaps once one of that size was freed (mallopt(3)). And Python collects the
        circles that each prompt leaves only when they are a quarter of all that is not frozen:
        that is then a matter of seconds.
        """
        if self._library is not None:
            self._library.mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)
        gc.collect()
        gc.freeze()
        self._grow_table_of_strings()

    @staticmethod
    def _grow_table_of_strings() -> None:
        """Now, and not in a quarter of an hour.

        pathlib interns the parts of each path, which are gone soon after. Each takes a place in
        Python's table until that is full and made anew, perhaps twice as large (1 MB, all of it
        touched at once). From 3.12 on interned strings stay, and there are not so many.
        """
        if sys.version_info < (3, 12):
            for number in range(TABLE_ENTRIES):
                sys.intern(f"edged {number}")

    def trim(self) -> None:
        """Give back what was needed for a moment: each thread's heap keeps its most (1 MB seen)."""
        if self._library is not None:
            self._library.malloc_trim(0)
