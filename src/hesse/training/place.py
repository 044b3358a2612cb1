"""Which process of which job this one is, as torchrun, srun and `hesse train --devices` tell it: by the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hesse.errors import ConfigError

__all__ = ["LAUNCHER", "Place", "place_of"]

LAUNCHER = "HESSE_LAUNCHER"
"""Set by `hesse train --devices`: the launcher's process, which the others end with and which hosts their store."""
_ELASTIC = "TORCHELASTIC_USE_AGENT_STORE"


@dataclass(frozen=True)
class Place:
    """One process among those of a job.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank: its number among those of its machine.
        local_size: how many that machine has; None where nobody says.
        address: the machine where they meet.
        port: and its port.
        hosted: whether the launcher keeps the store in which they meet (otherwise rank 0 does).
        attempt: how often the launcher has started the job again.
        launcher: the process to end with; None for none.
    """

    rank: int
    size: int
    local_rank: int = 0
    local_size: int | None = None
    address: str = "127.0.0.1"
    port: int = 0
    hosted: bool = False
    attempt: str = "0"
    launcher: int | None = None


def place_of(environment: Mapping[str, str]) -> Place | None:
    """This process's place in a job, None where it is on its own.

    `RANK` and `WORLD_SIZE` (torchrun) come first, then the tasks of a step of SLURM (`srun`).

    Raises:
        ConfigError: the environment names a job and is not complete, or contradicts itself.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        place = _from_torchrun(environment)
    elif "SLURM_PROCID" in environment and environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        place = _from_slurm(environment)
    else:
        return None
    if not 0 <= place.rank < place.size:
        raise ConfigError(f"the environment names process {place.rank} of {place.size}: expected one from 0")
    return place if place.size > 1 else None


def _from_torchrun(environment: Mapping[str, str]) -> Place:
    rank, size = _whole(environment, "RANK"), _whole(environment, "WORLD_SIZE")
    if size == 1:
        return Place(rank, size)
    launcher = LAUNCHER in environment
    return Place(
        rank=rank,
        size=size,
        local_rank=_whole(environment, "LOCAL_RANK", rank),
        local_size=_whole(environment, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in environment else None,
        address=_given(environment, "MASTER_ADDR"),
        port=_whole(environment, "MASTER_PORT"),
        hosted=launcher or environment.get(_ELASTIC) == "True",
        attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
        launcher=_whole(environment, LAUNCHER) if launcher else None,
    )


def _from_slurm(environment: Mapping[str, str]) -> Place:
    address = environment.get("MASTER_ADDR")
    if address is None:
        nodes = environment.get("SLURM_STEP_NODELIST") or _given(environment, "SLURM_JOB_NODELIST")
        address = _first_node(nodes)
    # Two jobs on one node must not meet: job numbers differ.
    port = 20000 + _whole(environment, "SLURM_JOB_ID", 0) % 20000
    return Place(
        rank=_whole(environment, "SLURM_PROCID"),
        size=_whole(environment, "SLURM_STEP_NUM_TASKS"),
        local_rank=_whole(environment, "SLURM_LOCALID", 0),
        address=address,
        port=_whole(environment, "MASTER_PORT", port),
        attempt=environment.get("SLURM_RESTART_COUNT", "0"),
    )


def _first_node(nodes: str) -> str:
    """The first machine of a node list of SLURM: "gpu[03-07,12],big1" is gpu03 and others."""
    first = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    if first is None:
        raise ConfigError(f'"{nodes}" is no list of nodes: set MASTER_ADDR to the machine of the first process')
    return "".join(group or "" for group in first.groups())


def _given(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise ConfigError(
            f"this process is one of several (RANK and WORLD_SIZE, or those of SLURM, are set), and {name} is not set. "
            "Start it by `hesse train --devices`, torchrun or srun, or unset RANK to train in one process."
        )
    return environment[name]


def _whole(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    if name not in environment and default is not None:
        return default
    text = _given(environment, name)
    if not text.isdecimal():
        raise ConfigError(f'{name} is set to "{text}" in the environment: expected a whole number')
    return int(text)
