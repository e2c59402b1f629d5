"""How a rank's process is spawned: as one of torch.multiprocessing where there is torch."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.long
def test_a_rank_is_a_process_of_torchs_spawn_context_as_soon_as_torch_is_imported() -> None:
    code = (
        "import torch\n"
        "from multiprocessing.reduction import ForkingPickler\n"
        "from mpspmd.processes.child import Child\n"
        "assert issubclass(Child, torch.multiprocessing.get_context('spawn').Process)\n"
        "assert torch.Tensor in ForkingPickler._extra_reducers\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch_it_is_one_of_the_standard_librarys_and_torch_is_not_imported() -> None:
    code = (
        "import multiprocessing, sys\n"
        "from mpspmd.processes.child import Child\n"
        "assert issubclass(Child, multiprocessing.get_context('spawn').Process)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
