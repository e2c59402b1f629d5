"""Advice follows from the error's number."""

from __future__ import annotations

import errno

import pytest
import zmq

from mpspmd.machine.advice import advice, with_advice


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EACCES, "owner and the mode"),
        (errno.EPERM, "seccomp"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENAMETOOLONG, "shorter folder"),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOENT, "deleted"),
        (errno.ENOMEM, "--memory"),
        (errno.ENOSPC, "no space"),
        (errno.ENOSYS, "kernel"),
        (errno.ENOTDIR, "no folder"),
        (errno.EOPNOTSUPP, "tmpfs"),
        (errno.EISDIR, "tmpfs"),
        (errno.EROFS, "read-only"),
        (errno.EXDEV, "own message"),
        (None, "own message"),
    ],
)
def test_each_number_has_its_own_advice(number: int | None, words: str) -> None:
    assert words in advice(number)


def test_only_the_limit_of_open_files_is_blamed_on_it() -> None:
    about_files = {number for number in errno.errorcode if "ulimit -n" in advice(number)}
    assert about_files == {errno.EMFILE}


def test_the_errors_own_words_come_first() -> None:
    for error in (OSError(errno.EROFS, "no way", "/x"), zmq.ZMQError(errno.EROFS, "no way")):
        assert with_advice(error).startswith(str(error))
        assert "read-only" in with_advice(error)
    assert with_advice(ValueError("odd")).startswith("odd; ")
