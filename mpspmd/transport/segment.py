"""Segment: shared memory without a name, which the kernel frees with the last process that uses it."""

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
"""The name under which /proc shows a segment that isn't in /dev/shm."""
_NOEXEC_SEAL = 0x8  # MFD_NOEXEC_SEAL, since Linux 6.3; some systems allow no other memory files
_OUT_OF_FILES = (errno.EMFILE, errno.ENFILE)
_SMALLER = "make the rings smaller (MPSPMD_REQUEST_RING_BYTES, MPSPMD_REPLY_RING_BYTES)"


class Segment(Descriptor):
    """Shared memory that only file descriptors and mappings keep alive.

    All its pages are allocated when it is made, so that a lack of memory is an error then, and no SIGBUS
    later. It never has a name, so a process that is killed at any moment leaves nothing behind, as one that
    is killed between shm_open() and shm_unlink() would. Mappings stay valid after close().
    """

    @classmethod
    def create(cls, size: int) -> Segment:
        """A segment of `size` bytes, all zero. SegmentError when it can't be made."""
        return create_segments([size])[0]

    @property
    def size(self) -> int:
        return os.fstat(self.fd).st_size


def create_segments(sizes: Sequence[int]) -> list[Segment]:
    """New segments of these sizes in bytes, all zero. SegmentError when they can't be made.

    They are files without a name in /dev/shm. If that is missing, read-only or too small, or if its file
    system has no such files, all are memory files (memfd_create), and a warning says why.
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
    """The message for when neither kind of shared memory can be made."""
    # EFBIG comes from a limit of this process, which a larger /dev/shm doesn't change.
    larger = "" if in_shm.errno == errno.EFBIG else " (docker run --shm-size=1g)"
    return (
        f"shared memory can't be had. In /dev/shm: {in_shm.strerror}; "
        f"{advice(in_shm.errno)}{larger}. With memfd_create: {memfd.strerror}; {advice(memfd.errno)}"
    )


def check_memory(total: int) -> None:
    """SegmentError unless so many bytes of memory are free.

    /dev/shm may promise more than the machine or the container has; allocating that would wake the kernel's
    out-of-memory killer.
    """
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
    """OSError unless /dev/shm has files without a name, and so many free bytes."""
    fd = _open_in_shm()
    try:
        system = os.fstatvfs(fd)
    finally:
        os.close(fd)
    # A tmpfs without a limit reports 0 blocks.
    free = system.f_bavail * system.f_frsize if system.f_blocks else total
    if total > free:
        raise OSError(errno.ENOSPC, f"{total} bytes are needed, and {free} are free")


def check_memfd() -> None:
    """OSError unless memory files can be made."""
    os.close(_open_memfd())


def open_memory(name: str) -> int:
    """The descriptor of an empty memory file, which grows when it is written to. SegmentError."""
    try:
        return _open_memfd(name)
    except OSError as error:
        memfd = error
    try:
        return _open_in_shm()
    except OSError as error:
        raise SegmentError(both_failed(error, memfd)) from error


def _create(sizes: Sequence[int], open_one: Callable[[], int]) -> list[Segment]:
    """OSError; then none of them is left."""
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
        if error.errno != errno.EINVAL:  # an older kernel doesn't know the flag
            raise
        fd = os.memfd_create(name, os.MFD_CLOEXEC)
    return _private(above_standard(fd))


def _private(fd: int) -> int:
    """Lets only this user open the file by its path in /proc.

    The umask may have changed the mode of a file in /dev/shm, and memory files are made open to all.
    """
    os.fchmod(fd, 0o600)
    return fd


def _available_bytes() -> int | None:
    """None if the kernel doesn't report it."""
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
