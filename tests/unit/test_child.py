"""How a rank's process is spawned: with torch.multiprocessing where there is torch."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from multiprocessing.reduction import ForkingPickler

import torch.multiprocessing

from mpspmd.processes.child import Child, spawn_context


def test_a_rank_is_a_process_of_torchs_spawn_context() -> None:
    of_torch = torch.multiprocessing.get_context("spawn")
    assert spawn_context() is of_torch
    assert issubclass(Child, of_torch.Process)
    assert torch.Tensor in ForkingPickler._extra_reducers  # type: ignore[attr-defined]


def test_without_torch_it_is_one_of_the_standard_librarys_and_torch_is_not_imported() -> None:
    code = (
        "import multiprocessing, sys\n"
        "from mpspmd.processes.child import Child, spawn_context\n"
        "context = spawn_context()\n"
        "assert context is multiprocessing.get_context('spawn')\n"
        "assert issubclass(Child, context.Process)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert issubclass(Child, multiprocessing.get_context("spawn").Process)
