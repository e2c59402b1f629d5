"""Schedulers: what Slurm and LeaderWorkerSet tell a process about its node. Pure functions."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from mpspmd.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class ScheduledPlace:
    """A node among those that a scheduler has given to a run of two or more nodes."""

    scheduler: str
    """"Slurm" or "LeaderWorkerSet"."""

    node_rank: int
    num_nodes: int

    head: str
    """The host name or address of node 0."""


def place_from_environment(environ: Mapping[str, str]) -> ScheduledPlace | None:
    """The place of this node, or None if no scheduler has started this process on several nodes.

    An option given by hand beats what this returns.

    Raises:
        ConfigError: A scheduler's variables contradict each other, or Slurm has started more than one task
            on each node.
    """
    return _from_leader_worker_set(environ) or _from_slurm(environ)


def _from_leader_worker_set(environ: Mapping[str, str]) -> ScheduledPlace | None:
    names = ("LWS_GROUP_SIZE", "LWS_WORKER_INDEX", "LWS_LEADER_ADDRESS")
    if not all(environ.get(name) for name in names):
        return None
    size, index, leader = names
    return _place("LeaderWorkerSet", environ, size, index, environ[leader])


def _from_slurm(environ: Mapping[str, str]) -> ScheduledPlace | None:
    # A step may have fewer nodes than its job, and SLURM_NODEID counts the step's.
    nodes = _first_set(environ, "SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    node_list = _first_set(environ, "SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST")
    if not (nodes and node_list and environ.get("SLURM_NODEID")):
        return None
    if "SLURM_PROCID" in environ and "SLURM_STEP_ID" not in environ:
        return None  # the batch script itself, which runs on the first node only
    place = _place("Slurm", environ, nodes, "SLURM_NODEID", first_host(environ[node_list]))
    tasks = _first_set(environ, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    if place and tasks and (count := _number(environ, tasks)) != place.num_nodes:
        raise ConfigError(
            f"{tasks}={count} on {place.num_nodes} nodes: one task on each node starts all ranks of the "
            f"node; use srun --nodes={place.num_nodes} --ntasks-per-node=1"
        )
    return place


def _first_set(environ: Mapping[str, str], *names: str) -> str | None:
    return next((name for name in names if environ.get(name)), None)


def _place(
    scheduler: str, environ: Mapping[str, str], size: str, index: str, head: str
) -> ScheduledPlace | None:
    num_nodes, node_rank = _number(environ, size), _number(environ, index)
    if node_rank >= max(1, num_nodes):
        raise ConfigError(f"{index}={node_rank}: must be below {size}, which is {num_nodes}")
    return ScheduledPlace(scheduler, node_rank, num_nodes, head) if num_nodes > 1 else None


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ[name]
    if not re.fullmatch(r"[0-9]+", text):
        raise ConfigError(f"{name}={text!r}: must be a whole number")
    return int(text)


def first_host(node_list: str) -> str:
    """The first host of a Slurm node list.

        first_host("gpu[03-05,9],cpu1")  # gpu03

    Raises:
        ConfigError: it is no node list.
    """
    first = re.match(r"(?:[^\s,\[\]]|\[[0-9][0-9,-]*\])+(?=,|$)", node_list)
    if first is None:
        raise ConfigError(f"{node_list!r}: is no list of Slurm nodes, such as node[01-04]")
    # In brackets: numbers and ranges of numbers. The first one keeps its leading zeros.
    return re.sub(r"\[([0-9]+)[0-9,-]*\]", r"\1", first.group())
