"""All ranks of a run hash texts alike."""

from __future__ import annotations

import os

import pytest
from traces import HERE, Traces

from mpspmd.processes.hash_seed import forget, one_seed, seed_of

pytestmark = pytest.mark.timeout(90)

SCRIPT = str(HERE / "hashes.py")


def _lines(output: str) -> list[list[str]]:
    return [line.split() for line in output.splitlines()]


def test_spawned_ranks_hash_alike_and_no_run_like_another(traces: Traces) -> None:
    hashes = []
    for _ in range(2):
        done = traces.run("hashes.py", PYTHONHASHSEED="")
        assert done.returncode == 0, done.stderr
        _, (first, seed), second = _lines(done.stdout)
        assert [first, seed] == second
        assert seed == "none", "vLLM reads the variable"
        hashes.append(first)
    assert len(set(hashes)) == 2


def test_a_seed_of_the_users_own_is_everybodys(traces: Traces) -> None:
    done = traces.run("hashes.py", PYTHONHASHSEED="7")
    engine, *ranks = _lines(done.stdout)
    assert ranks == [[engine[0], "7"]] * 2


def test_a_user_who_wants_no_seed_gets_none(traces: Traces) -> None:
    done = traces.run("hashes.py", PYTHONHASHSEED="random")
    assert [seed for _, seed in _lines(done.stdout)] == ["engine", "random", "random"]
    assert len({number for number, _ in _lines(done.stdout)}) == 3


def test_a_launched_engine_hashes_as_its_ranks_do(traces: Traces) -> None:
    done = traces.run("mpspmd-launch", "-n", "2", SCRIPT, PYTHONHASHSEED="")
    assert done.returncode == 0, done.stderr
    assert len({number for number, _ in _lines(done.stdout)}) == 1


def test_launched_ranks_without_an_engine_hash_alike_after_a_restart_too(traces: Traces) -> None:
    command = ("mpspmd-launch", "-n", "2", "--ranks-only", "--max-restarts", "1", SCRIPT, "ranks")
    done = traces.run(*command, PYTHONHASHSEED="")
    assert done.returncode == 0, done.stderr
    numbers = [words[-1] for words in _lines(done.stdout)]
    assert len(numbers) >= 3
    assert len(set(numbers)) == 1


@pytest.mark.parametrize("before", [{}, {"PYTHONHASHSEED": ""}, {"PYTHONHASHSEED": "random"}])
def test_the_environment_is_afterwards_as_it_was(before: dict[str, str]) -> None:
    environ = dict(before)
    with one_seed(environ=environ) as seed:
        assert environ["PYTHONHASHSEED"] == seed or seed == ""
        assert (seed == "") == (before.get("PYTHONHASHSEED") == "random")
        of_rank = dict(environ)
    assert environ == before
    forget(seed, of_rank)
    assert of_rank.get("PYTHONHASHSEED", "") in (before.get("PYTHONHASHSEED", ""), "")


def test_a_seed_is_a_number_that_python_takes_and_never_turns_hashing_off() -> None:
    seeds = {seed_of(os.urandom(8).hex()) for _ in range(1000)}
    assert len(seeds) > 900
    assert all(0 < int(seed) < 1 << 32 for seed in seeds)
    assert seed_of("a run's id") == seed_of("a run's id")
