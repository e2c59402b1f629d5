"""Builds the C extensions `mpspmd._ring` and `mpspmd._delta`. Everything else is in pyproject.toml."""

import os
import shutil
import sys
import sysconfig
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError


class BuildOptimized(build_ext):
    """Optimizes across files where compiler and linker can: a twentieth off a small message's time."""

    def build_extensions(self) -> None:
        header = os.path.join(sysconfig.get_path("include"), "Python.h")
        needed = [
            (shutil.which(self.compiler.compiler_so[0]), "a C compiler", "gcc"),
            (os.path.exists(header), f"Python's headers ({header})", "python3-dev"),
        ]
        if missing := [(what, package) for found, what, package in needed if not found]:
            whats, packages = zip(*missing, strict=True)
            sys.exit(
                f"mpspmd's C extensions have to be compiled here, and {' and '.join(whats)} can't be "
                f"found. On Debian and Ubuntu: apt-get install {' '.join(packages)}"
            )
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        as_given = ext.extra_compile_args, ext.extra_link_args
        # Sanitizers and fuzzers want what they have instrumented file by file.
        if "-fsanitize" not in os.environ.get("CFLAGS", ""):
            # With machine code beside: a linker without the plugin takes that, and doesn't say so.
            lto = ["-flto=auto", "-ffat-lto-objects"]
            ext.extra_compile_args = [*ext.extra_compile_args, *lto]
            ext.extra_link_args = [*ext.extra_link_args, "-flto=auto", "-O2"]
            try:
                super().build_extension(ext)
                return
            except (CompileError, LinkError):
                ext.extra_compile_args, ext.extra_link_args = as_given
        super().build_extension(ext)


def extension(name: str, *folders: str) -> Extension:
    return Extension(
        f"mpspmd.{name}",
        sources=sorted(file for folder in folders for file in glob(f"csrc/{folder}/*.c")),
        depends=sorted(file for folder in folders for file in glob(f"csrc/{folder}/*.h")),
        include_dirs=["csrc"],
        define_macros=[("_GNU_SOURCE", None)],
        extra_compile_args=[
            "-std=c11",
            "-O2",
            "-fvisibility=hidden",
            "-fno-plt",
            # Where functions and loops happen to lie makes 3% of a small message's time.
            "-falign-functions=64",
            "-falign-loops=32",
            "-Wall",
            "-Wextra",
        ],
    )


setup(
    cmdclass={"build_ext": BuildOptimized},
    ext_modules=[
        extension("_ring", "ring", "wait", "run", "extension", "python"),
        extension("_delta", "packing", "extension", "delta"),
    ],
)
