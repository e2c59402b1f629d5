"""A wheel that only this machine could use is refused."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

from wheels import MAX_BYTES, check

COMPILER = shutil.which("cc")
pytestmark = [
    pytest.mark.skipif(COMPILER is None, reason="no C compiler"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump"),
]

SUM = "int sum(const int *a) { int s = 0; for (int i = 0; i < 4096; i++) s += a[i]; return s; }\n"


def wheel(folder: Path, *flags: str, source: str = SUM, name: str = "_ring.so") -> Path:
    """A file of a wheel's form, with two extensions, one of which is made of this."""
    (folder / "some.c").write_text(source)
    extension = folder / "some.so"
    command = [str(COMPILER), "-shared", "-fPIC", "-O3", *flags, "-o", str(extension), "some.c"]
    subprocess.run(command, cwd=folder, check=True)
    with zipfile.ZipFile(folder / "some.whl", "w") as archive:
        archive.write(extension, f"mpspmd/{name}")
        archive.writestr("mpspmd/_delta.so", extension.read_bytes())
    return folder / "some.whl"


def test_a_plain_wheel_is_good(tmp_path: Path) -> None:
    check(wheel(tmp_path))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flag is x86's")
def test_instructions_of_newer_processors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"not every x86_64 can run '.*v\w+ "):
        check(wheel(tmp_path, "-mavx2"))


def test_a_folder_of_this_machine_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    source = f'const char *where = "{Path.home()}/project/csrc/ring.c";\n'
    with pytest.raises(SystemExit, match="a folder of this machine"):
        check(wheel(tmp_path, source=source))


def test_a_large_wheel_is_refused(tmp_path: Path) -> None:
    source = f"const char some[{MAX_BYTES}] = {{1}};\n"
    with pytest.raises(SystemExit, match=f"{MAX_BYTES} are allowed"):
        check(wheel(tmp_path, source=source))


def test_a_wheel_without_an_extension_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="two were expected"):
        check(wheel(tmp_path, name="_ring.py"))
