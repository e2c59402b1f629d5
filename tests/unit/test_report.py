"""What a stall report says: whom the others wait for, in what, and where."""

from __future__ import annotations

from typing import Any

import pytest

from mpspmd.collective import Collective
from mpspmd.rank.collectives import newest
from mpspmd.report import Progress, RankReport, StallReport

WAITS = (
    'MainThread:\n  File "/app/model.py", line 7, in forward\n    dist.all_reduce(x)\n'
    '  File "/lib/torch/distributed/c10d.py", line 99, in all_reduce\n    work.wait()\n'
)
WORKS = (
    'MainThread:\n  File "/app/model.py", line 5, in forward\n    load(x)\n\nthread 1:\n  other\n'
)
IN_VLLM = (
    'MainThread:\n  File "/lib/vllm/model_executor/linear.py", line 8, in forward\n    all_reduce(x)\n'
    '  File "/lib/vllm/distributed/communication_op.py", line 12, in all_reduce\n    group.reduce(x)\n'
    '  File "/lib/torch/_ops.py", line 9, in __call__\n    self._op(x)\n'
    '  File "/lib/mpspmd/vllm/collectives.py", line 66, in kernel\n    call(x)\n'
)
BY_SIGNAL = (
    "MainThread, 0x1 (most recent call first):\n"
    '  File "/lib/torch/nn.py", line 3 in run\n  File "/app/model.py", line 5 in forward\n'
    '  File "/app/main.py", line 1 in step\n'
)


def collective(number: int, done: bool, kind: str = "gloo:all_reduce", sizes: str = "[[4]]") -> Any:
    return Collective("tp (1)", number, kind, sizes, done)


def rank(number: int, stacks: str, *collectives: Collective, done: bool = False) -> RankReport:
    progress = Progress(
        rank=number,
        pid=100 + number,
        phase="waiting" if done else "running",
        method="forward",
        step=9,
        seconds=5.0,
        read=True,
        started=True,
        finished=done,
        replied=done,
        awaited=True,
        unread_bytes=0,
    )
    return RankReport(progress, "sleeping", 0.0, 1.0, stacks, collectives)


def report(*ranks: RankReport) -> StallReport:
    return StallReport("forward", 9, 5.0, 1 << 20, ranks)


def test_a_rank_that_has_not_joined_is_named_with_the_collective_and_the_line() -> None:
    found = report(
        rank(0, WAITS, collective(3, False)),
        rank(1, WORKS, collective(2, True, "gloo:barrier", "[]")),
        rank(2, WAITS, collective(3, False)),
    )
    assert found.suspects == (1,)
    assert str(found).splitlines()[:3] == [
        "forward (step 9) is not done after 5.0 s; waiting for rank 1",
        "rank 1 has not joined: gloo:all_reduce 3 of tp (1), sizes [[4]], in which ranks 0, 2 wait; "
        "rank 1's last was gloo:barrier 2, sizes []",
        "rank 1 is at /app/model.py:5, in forward: load(x)",
    ]


def test_a_rank_that_has_skipped_it_and_is_done_is_named_and_the_line_is_the_waiting_ones() -> None:
    found = report(
        rank(0, WAITS, collective(3, False)), rank(1, WORKS, collective(2, True), done=True)
    )
    assert found.suspects == (1,)
    lines = str(found).splitlines()
    assert "rank 1 has not joined: gloo:all_reduce 3" in lines[1]
    assert lines[2] == "rank 0 is at /app/model.py:7, in forward: dist.all_reduce(x)"


def test_the_line_of_a_wait_in_vllm_is_the_models_own() -> None:
    found = report(
        rank(0, IN_VLLM, collective(3, False)), rank(1, WORKS, collective(2, True), done=True)
    )
    where = "/lib/vllm/model_executor/linear.py:8, in forward: all_reduce(x)"
    assert str(found).splitlines()[2] == f"rank 0 is at {where}"


def test_a_rank_in_another_collective_is_the_odd_one() -> None:
    found = report(
        rank(0, WAITS, collective(3, False)),
        rank(1, WAITS, collective(3, False, sizes="[[8]]")),
        rank(2, WAITS, collective(3, False)),
    )
    assert found.suspects == (1,)
    assert "rank 1's last was gloo:all_reduce 3, sizes [[8]]" in found.headline


def test_without_collectives_the_rank_that_does_not_wait_is_named() -> None:
    found = report(rank(0, WAITS), rank(1, BY_SIGNAL))
    assert found.suspects == (1,)
    assert found.headline.splitlines()[1] == "rank 1 is at /app/model.py:5, in forward"


@pytest.mark.parametrize("done", [False, True])
def test_collectives_that_all_have_joined_name_nobody(done: bool) -> None:
    found = report(rank(0, WORKS, collective(3, done)), rank(1, WORKS, collective(3, done)))
    assert found.suspects == (0, 1)
    assert "joined" not in str(found)


def test_equal_stacks_are_shown_once_and_the_odd_one_first() -> None:
    found = report(rank(0, WAITS), rank(1, WAITS), rank(2, WORKS), rank(3, WAITS))
    text = str(found)
    assert text.count("work.wait()") == 1
    assert text.index("\nrank 2:\n") < text.index("\nranks 0, 1, 3:\n")


def test_suspects_are_shown_first_also_where_they_are_many() -> None:
    text = str(report(rank(0, WAITS), rank(1, WORKS), rank(2, WORKS)))
    assert text.index("\nranks 1, 2:\n") < text.index("\nrank 0:\n")


def test_nobody_is_said_to_be_missing_in_a_collective_that_is_done() -> None:
    found = report(
        rank(0, WAITS, collective(2, False)),
        rank(1, WORKS, collective(3, True)),
        rank(2, WORKS, collective(3, True)),
    )
    assert found.suspects == (1, 2)
    assert "joined" not in str(found)


def test_the_last_collective_of_each_group_is_read_from_torchs_records() -> None:
    def entry(record: int, number: int, group: list[str], **changes: Any) -> dict[str, Any]:
        return {
            "record_id": record,
            "collective_seq_id": number,
            "process_group": group,
            "is_p2p": False,
            "profiling_name": "nccl:all_reduce",
            "input_sizes": [[2, 3]],
            "retired": True,
            "state": "scheduled",
        } | changes

    entries = [
        entry(0, 1, ["0", "default_pg"]),
        entry(3, 2, ["0", "default_pg"], retired=False),
        entry(1, 1, ["1", "tp"]),
        entry(4, 3, ["1", "tp"], is_p2p=True),
        {"record_id": 5},
    ]
    assert newest(entries) == (
        Collective("tp (1)", 1, "nccl:all_reduce", "[[2, 3]]", True),
        Collective("default_pg (0)", 2, "nccl:all_reduce", "[[2, 3]]", False),
    )
