"""A dozen cells of the matrix, on the installed vLLM and on the next one. `make parity` runs all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import vllm_versions
from parity import DOZEN, cells, models, rows
from parity.feature import FEATURES
from parity.record import Record
from parity.verdict import Verdict, judge

NEXT = "0.33"

Verdicts = dict[str, Verdict]

rows.load()


@pytest.fixture(scope="module", params=["installed", NEXT])
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Verdicts]:
    """One start of each backend for all rows."""
    version = vllm_versions.installed() if request.param == "installed" else request.param
    if request.param == vllm_versions.installed():
        pytest.skip("it is the installed one")
    try:
        vllm_versions.environment(version)
    except vllm_versions.NotAvailable as reason:
        pytest.skip(str(reason))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "RESULTS", tmp_path_factory.mktemp("parity"))
        models.make(cells.RESULTS / "models", "llama")
        mp, ours = (cells.run_cells(version, backend, DOZEN) for backend in ("mp", "mp-spmd"))
        log = cells.path_of(version, "mp-spmd", DOZEN[0]).with_suffix(".log")
        print(log.read_text()[-3000:])
        yield {
            name: judge(*both, right=FEATURES[name].right)
            for name, *both in zip(DOZEN, mp, ours, strict=True)
        }


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", DOZEN)
def test_a_feature_works_as_with_mp(verdicts: Verdicts, name: str) -> None:
    verdict = verdicts[name]
    assert verdict.kind in ("same", "better"), f"{FEATURES[name].title}: {verdict.how}"


def test_rows_whose_process_dies_have_an_error_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "RESULTS", tmp_path)
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # no interpreter starts
    records = cells.run_cells(vllm_versions.installed(), "mp", ["greedy", "n"])
    assert [record.error and record.error[0] for record in records] == ["Killed"] * 2
    assert Record.read(cells.path_of(vllm_versions.installed(), "mp", "n")) == records[1]
