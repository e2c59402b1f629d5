"""Segment: a piece of shared memory that has no name and that nobody can leak."""

from __future__ import annotations

import contextlib
import errno
import os

from mpspmd.errors import SegmentError
from mpspmd.transport.descriptor import Descriptor

_FOLDER = "/dev/shm"


class Segment(Descriptor):
    """Shared memory, held by file descriptor alone.

    Its pages are allocated at once, so that a full /dev/shm is an error here and no SIGBUS later. It
    never has a name: a process killed at any moment leaves nothing behind, not even one that is killed
    between shm_open() and shm_unlink().
    close() gives up the descriptor; mappings of the segment live on.
    """

    @classmethod
    def create(cls, size: int) -> Segment:
        """A new segment of `size` bytes, all zero. SegmentError when there isn't the memory."""
        try:
            fd = os.open(_FOLDER, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_EXCL, 0o600)
        except OSError as error:
            raise SegmentError(
                f"can't create shared memory: {error}; check that /dev/shm is mounted and writable, "
                "and the limit of open files (ulimit -n)"
            ) from error
        free = _free_bytes(fd)
        try:
            if size > free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            os.close(fd)
            raise SegmentError(
                f"a segment of {size} bytes doesn't fit into /dev/shm, where {free} bytes can be had "
                f"({error.strerror}); enlarge it (docker run --shm-size=1g), or make the rings smaller "
                "(MPSPMD_REQUEST_RING_BYTES, MPSPMD_REPLY_RING_BYTES)"
            ) from error
        return cls(fd)

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size


def _free_bytes(fd: int) -> int:
    """What can be allocated: the file system may promise more than there is memory, and asking for
    that would wake the kernel's out-of-memory killer."""
    filesystem = os.fstatvfs(fd)
    free = filesystem.f_bavail * filesystem.f_frsize
    # Where it can't be read, the file system's word has to do.
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                free = min(free, int(line.split()[1]) * 1024)
    return free
