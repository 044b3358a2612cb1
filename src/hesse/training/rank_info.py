"""Rank and number of processes of a job, from the environment variables of torchrun or srun."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hesse.errors import ConfigError

__all__ = ["LAUNCHER", "RankInfo", "rank_from_environment"]

LAUNCHER = "HESSE_LAUNCHER"
"""Environment variable set by `hesse train --devices`: process id of the launcher. It provides the key-value store of
the processes, and they exit when it does."""
_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"


@dataclass(frozen=True)
class RankInfo:
    """Rank of this process, and how to connect to the others.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        local_rank: number of this process on its machine, from 0.
        local_size: number of processes on its machine; None if unknown.
        address: host name of the rendezvous.
        port: its port.
        external_store: whether the launcher provides the key-value store (otherwise process 0 does).
        restart_count: how often the launcher has restarted the job.
        launcher: process id of the launcher of `hesse train --devices`, to exit with; None for other launchers.
    """

    rank: int
    size: int
    local_rank: int = 0
    local_size: int | None = None
    address: str = "127.0.0.1"
    port: int = 0
    external_store: bool = False
    restart_count: str = "0"
    launcher: int | None = None


def rank_from_environment(environment: Mapping[str, str]) -> RankInfo | None:
    """Rank of this process from environment variables.

    `RANK` and `WORLD_SIZE` (torchrun) have priority over the variables of a SLURM step (`srun`).

    Args:
        environment: the variables, for example `os.environ`.

    Returns:
        The rank; None if this is the only process.

    Raises:
        ConfigError: the variables are incomplete or contradict each other.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        info = _from_torchrun(environment)
    elif "SLURM_PROCID" in environment and environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        info = _from_slurm(environment)
    else:
        return None
    if not 0 <= info.rank < info.size:
        raise ConfigError(
            f"the environment names process {info.rank} of {info.size}: expected a rank from 0 to {info.size - 1}"
        )
    return info if info.size > 1 else None


def _from_torchrun(environment: Mapping[str, str]) -> RankInfo:
    rank, size = _integer(environment, "RANK"), _integer(environment, "WORLD_SIZE")
    if size == 1:
        return RankInfo(rank, size)
    launcher = LAUNCHER in environment
    return RankInfo(
        rank=rank,
        size=size,
        local_rank=_integer(environment, "LOCAL_RANK", rank),
        local_size=_integer(environment, "LOCAL_WORLD_SIZE") if "LOCAL_WORLD_SIZE" in environment else None,
        address=_required(environment, "MASTER_ADDR"),
        port=_integer(environment, "MASTER_PORT"),
        external_store=launcher or environment.get(_AGENT_STORE) == "True",
        restart_count=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
        launcher=_integer(environment, LAUNCHER) if launcher else None,
    )


def _from_slurm(environment: Mapping[str, str]) -> RankInfo:
    address = environment.get("MASTER_ADDR")
    if address is None:
        nodes = environment.get("SLURM_STEP_NODELIST") or _required(environment, "SLURM_JOB_NODELIST")
        address = _first_node(nodes)
    # Two jobs on one node must not use the same port: it is derived from the job number.
    port = 20000 + _integer(environment, "SLURM_JOB_ID", 0) % 20000
    return RankInfo(
        rank=_integer(environment, "SLURM_PROCID"),
        size=_integer(environment, "SLURM_STEP_NUM_TASKS"),
        local_rank=_integer(environment, "SLURM_LOCALID", 0),
        address=address,
        port=_integer(environment, "MASTER_PORT", port),
        restart_count=environment.get("SLURM_RESTART_COUNT", "0"),
    )


def _first_node(nodes: str) -> str:
    """The first node of a node list of SLURM: gpu03 for "gpu[03-07,12],big1"."""
    first = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    if first is None:
        raise ConfigError(f'cannot read the node list "{nodes}": set MASTER_ADDR to the host name of the first process')
    return "".join(group or "" for group in first.groups())


def _required(environment: Mapping[str, str], name: str) -> str:
    """The value of a variable that must be set."""
    if name not in environment:
        raise ConfigError(
            f"this process is one of several (RANK and WORLD_SIZE, or those of SLURM, are set), and {name} is not set. "
            "Start it by `hesse train --devices`, torchrun or srun, or unset RANK to train in one process."
        )
    return environment[name]


def _integer(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    """The value of a variable as an integer."""
    if name not in environment and default is not None:
        return default
    text = _required(environment, name)
    if not text.isdecimal():
        raise ConfigError(f'{name} is set to "{text}" in the environment: expected a whole number')
    return int(text)
