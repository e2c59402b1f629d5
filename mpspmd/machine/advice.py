"""Advice for the user when the kernel refuses something, by errno."""

from __future__ import annotations

import errno

_NO_FILES = "raise the limit of open files (ulimit -n 4096)"
_UNSUPPORTED = "the file system there can't do this: use another one, such as a tmpfs"
_FORBIDDEN = (
    "this user may not do that there: look at the owner and the mode, and at what the container's "
    "security profile forbids (seccomp, AppArmor, SELinux)"
)
_ADVICE = {
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EAGAIN: (
        "raise the limit of processes and threads (ulimit -u; docker run --pids-limit; TasksMax= in "
        "systemd)"
    ),
    errno.EDQUOT: "this user's disk quota is used up: free space there",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f unlimited)",
    errno.EILSEQ: "choose a folder whose name is UTF-8",
    errno.EINVAL: _UNSUPPORTED,
    errno.EISDIR: _UNSUPPORTED,
    errno.EMFILE: _NO_FILES,
    errno.ENAMETOOLONG: "the path is too long: choose a shorter folder",
    errno.ENFILE: "the whole machine's limit of open files is reached: raise it (sysctl fs.file-max)",
    errno.ENODEV: _UNSUPPORTED,
    errno.ENOENT: "it doesn't exist, or has been deleted: make it, or choose another place",
    errno.ENOMEM: "free memory, or raise the container's limit (docker run --memory)",
    errno.ENOSPC: "no space is left there: free some, or make the file system larger",
    errno.ENOSYS: "the kernel doesn't offer this, or the container's security profile forbids it",
    errno.ENOTDIR: "a part of the path is no folder: choose another folder",
    errno.EOPNOTSUPP: _UNSUPPORTED,
    errno.EROFS: "the file system is read-only: choose a folder on one that can be written",
}


def advice(number: int | None) -> str:
    """A clause for the end of an error message. `number` is the errno of an OSError or of a ZMQError."""
    return _ADVICE.get(number or 0, "see the error's own message")


def with_advice(error: Exception) -> str:
    """The error's own message, and what to do about it."""
    return f"{error}; {advice(getattr(error, 'errno', None))}"
