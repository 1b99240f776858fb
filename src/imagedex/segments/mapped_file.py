"""A file of numbers that is mapped into memory, without making all of it the process's memory.

Pages that a process has touched count as its memory until it gives them back, and the kernel maps
up to two megabytes for each that is touched, whatever it is advised (Linux 6.18 maps a large folio
of the page cache whole). Reading single vectors here and there from a mapped file of gigabytes
makes all of it resident within some ten queries. So of a large file they are read by system calls,
and a look at all of it gives the pages back. They stay in the page cache.
"""

from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

_LARGE_BYTES = 512 * 2**20


class MappedFile:
    """Float32 numbers in rows. Safe to use from several threads.

    The file may be deleted meanwhile. It is closed when neither this object nor a view of it is
    left.
    """

    def __init__(
        self,
        file: IO[bytes],
        *,
        offset: int,
        rows: int,
        dim: int,
        large_bytes: int = _LARGE_BYTES,
    ) -> None:
        """Map a file whose numbers begin at ``offset`` and end with it.

        Of more than ``large_bytes`` of them, memory does not keep what was read. Raises ValueError
        for a file of another length, OSError.
        """
        size = os.fstat(file.fileno()).st_size
        expected = offset + rows * dim * 4
        if size != expected:
            raise ValueError(f"it has {size} bytes, expected {expected}")
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.path = Path(file.name)
        self._offset = offset
        self._row_bytes = dim * 4
        numbers = np.frombuffer(self._map, np.dtype("<f4"), rows * dim, offset)
        self.numbers: NDArray[np.float32] = numbers.reshape(rows, dim)
        self._bytes = self.numbers.view(np.uint8)
        self._is_large = size > large_bytes
        if self._is_large:
            self._descriptor = os.dup(file.fileno())
            weakref.finalize(self, os.close, self._descriptor)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return a copy of these rows, in their order. Raises OSError."""
        if not self._is_large:
            # As bytes, since NumPy would copy numbers that are not aligned one by one.
            return self._bytes[rows].view(np.float32)
        taken = np.empty((len(rows), self.numbers.shape[1]), dtype=np.float32)
        places = taken.view(np.uint8).reshape(-1).data
        start = 0
        for row in rows.tolist():
            end = start + self._row_bytes
            place = places[start:end]
            size = os.preadv(self._descriptor, [place], self._offset + row * self._row_bytes)
            if size < self._row_bytes:  # It was cut while it was open.
                raise OSError(f"row {row} could not be read whole")
            start = end
        return taken

    def give_back(self) -> None:
        """Leave the memory of a large file, after much of ``numbers`` was looked at."""
        if self._is_large:
            self._map.madvise(mmap.MADV_DONTNEED)
