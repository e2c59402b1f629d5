"""Segment: a piece of shared memory that has no name and that nobody can leak."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Sequence

from mpspmd.errors import SegmentError
from mpspmd.machine.advice import advice, with_advice
from mpspmd.machine.cgroup import memory_left
from mpspmd.transport.descriptor import Descriptor, above_standard

logger = logging.getLogger(__name__)

SHM = "/dev/shm"
MEMFD_NAME = "mpspmd-segment"
"""How /proc shows a segment that isn't in /dev/shm."""
_NOEXEC_SEAL = 0x8  # MFD_NOEXEC_SEAL: some systems allow no other memory files; Linux 6.3
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
_SMALLER = "make the rings smaller (MPSPMD_REQUEST_RING_BYTES, MPSPMD_REPLY_RING_BYTES)"


class Segment(Descriptor):
    """Shared memory, held by file descriptor alone.

    Its pages are allocated at once, so that a lack of memory is an error at the start and no SIGBUS
    later. It never has a name: a process killed at any moment leaves nothing behind, not even one that is
    killed between shm_open() and shm_unlink().
    close() gives up the descriptor; mappings of the segment live on.
    """

    @classmethod
    def create(cls, size: int) -> Segment:
        """One, all zero. SegmentError when it can't be had."""
        return create_segments([size])[0]

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size


def create_segments(sizes: Sequence[int]) -> list[Segment]:
    """A new segment of each size in bytes, all zero. SegmentError when they can't be had.

    They are files without a name in /dev/shm. Where that is missing, read-only, too small, or of a file
    system that has no such files, all of them are memory files (memfd_create), and a warning says why.
    """
    total = sum(sizes)
    check_memory(total)
    try:
        check_shm(total)
        return _create(sizes, _open_in_shm)
    except OSError as error:
        if error.errno in _OUT_OF_FILES:
            raise SegmentError(f"can't create shared memory: {with_advice(error)}") from error
        in_shm = error
    try:
        segments = _create(sizes, _open_memfd)
    except OSError as error:
        raise SegmentError(both_failed(in_shm, error)) from error
    logger.warning(
        "shared memory is made with memfd_create, because /dev/shm can't be used (%s); the run isn't "
        "slower for it",
        in_shm.strerror,
    )
    return segments


def both_failed(in_shm: OSError, memfd: OSError) -> str:
    """What to say when neither kind of shared memory can be had."""
    # A limit of this process's doesn't depend on how large /dev/shm is.
    larger = "" if in_shm.errno == errno.EFBIG else " (docker run --shm-size=1g)"
    return (
        f"shared memory can't be had. In /dev/shm: {in_shm.strerror}; "
        f"{advice(in_shm.errno)}{larger}. With memfd_create: {memfd.strerror}; {advice(memfd.errno)}"
    )


def check_memory(total: int) -> None:
    """SegmentError unless there is so much memory. To allocate more would wake the kernel's out-of-memory
    killer: a file system may promise more than the machine or the container has."""
    limits = {
        "the machine's available memory": _available_bytes(),
        "the container's limit": memory_left(),
    }
    for limit, left in limits.items():
        if left is not None and total > left:
            raise SegmentError(
                f"{total} bytes of shared memory are needed, and {max(left, 0)} bytes are left of {limit}: "
                f"free memory, raise the limit (docker run --memory), or {_SMALLER}"
            )


def check_shm(total: int) -> None:
    """OSError unless so many bytes can be had in /dev/shm, in files without a name."""
    fd = _open_in_shm()
    try:
        system = os.fstatvfs(fd)
    finally:
        os.close(fd)
    # A tmpfs without a limit has no number of blocks.
    free = system.f_bavail * system.f_frsize if system.f_blocks else total
    if total > free:
        raise OSError(errno.ENOSPC, f"{total} bytes are needed, and {free} are free")


def check_memfd() -> None:
    """OSError unless there are memory files."""
    os.close(_open_memfd())


def open_memory(name: str) -> int:
    """The descriptor of an empty memory file that grows: a text for another process. SegmentError."""
    try:
        return _open_memfd(name)
    except OSError as error:
        memfd = error
    try:
        return _open_in_shm()
    except OSError as error:
        raise SegmentError(both_failed(error, memfd)) from error


def _create(sizes: Sequence[int], open_one: Callable[[], int]) -> list[Segment]:
    """OSError; then none is left."""
    segments: list[Segment] = []
    try:
        for size in sizes:
            segments.append(Segment(open_one()))
            os.posix_fallocate(segments[-1].fd, 0, size)
    except BaseException:
        for segment in segments:
            segment.close()
        raise
    return segments


def _open_in_shm() -> int:
    flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC | os.O_EXCL
    return _private(above_standard(os.open(SHM, flags, 0o600)))


def _open_memfd(name: str = MEMFD_NAME) -> int:
    try:
        fd = os.memfd_create(name, os.MFD_CLOEXEC | _NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a kernel that doesn't know the flag
            raise
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
    return _private(above_standard(fd))


def _private(fd: int) -> int:
    """Who gets hold of the file's path in /proc can open it as this user, and not as another.

    A memory file is open to all when it is made. Of one in /dev/shm the umask takes its part.
    """
    os.fchmod(fd, 0o600)
    return fd


def _available_bytes() -> int | None:
    """None where the kernel doesn't tell."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
