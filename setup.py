"""Builds the C extension `mpspmd._native`. Everything else is in pyproject.toml."""

from glob import glob

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "mpspmd._native",
            sources=sorted(glob("csrc/*.c")),
            depends=sorted(glob("csrc/*.h")),
            define_macros=[("_GNU_SOURCE", None)],
            extra_compile_args=[
                "-std=c11",
                "-O2",
                "-fvisibility=hidden",
                "-fno-plt",
                "-Wall",
                "-Wextra",
            ],
        )
    ],
)
