"""Several processes that train one model: what they say to each other, through torch.distributed.

All of them do the same steps in the same order, each on its share of a step's structures; what is decided is decided
from numbers that all of them hold. The first process reads and writes the files of the run. Where there is one process
only, every method returns at once what it was given, so that a loop reads the same.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hesse.errors import ConfigError, HesseError, ProcessLostError, RequestError, first_line
from hesse.runtime.devices import device_from_name
from hesse.runtime.parallel import exit_with_parent

__all__ = ["FAILURE_KEY", "LAUNCHER", "Communicator", "RankInfo", "init_distributed", "rank_from_environment"]

LAUNCHER = "HESSE_LAUNCHER"
"""Set by `hesse train --devices`: the launcher's process, which the others end with and which hosts their store."""
_AGENT_STORE = "TORCHELASTIC_USE_AGENT_STORE"


@dataclass(frozen=True)
class RankInfo:
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
    external_store: bool = False
    restart_count: str = "0"
    launcher: int | None = None


def rank_from_environment(environment: Mapping[str, str]) -> RankInfo | None:
    """This process's place in a job, None where it is on its own.

    `RANK` and `WORLD_SIZE` (torchrun) come first, then the tasks of a step of SLURM (`srun`).

    Raises:
        ConfigError: the environment names a job and is not complete, or contradicts itself.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        info = _from_torchrun(environment)
    elif "SLURM_PROCID" in environment and environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        info = _from_slurm(environment)
    else:
        return None
    if not 0 <= info.rank < info.size:
        raise ConfigError(f"the environment names process {info.rank} of {info.size}: expected one from 0")
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
    # Two jobs on one node must not meet: job numbers differ.
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
    """The first machine of a node list of SLURM: "gpu[03-07,12],big1" is gpu03 and others."""
    first = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\]([^,\[]*))?", nodes)
    if first is None:
        raise ConfigError(f'"{nodes}" is no list of nodes: set MASTER_ADDR to the machine of the first process')
    return "".join(group or "" for group in first.groups())


def _required(environment: Mapping[str, str], name: str) -> str:
    if name not in environment:
        raise ConfigError(
            f"this process is one of several (RANK and WORLD_SIZE, or those of SLURM, are set), and {name} is not set. "
            "Start it by `hesse train --devices`, torchrun or srun, or unset RANK to train in one process."
        )
    return environment[name]


def _integer(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    if name not in environment and default is not None:
        return default
    text = _required(environment, name)
    if not text.isdecimal():
        raise ConfigError(f'{name} is set to "{text}" in the environment: expected a whole number')
    return int(text)


T = TypeVar("T")

_RENDEZVOUS_TIMEOUT = timedelta(minutes=5)
"""How long the processes of a job wait for the last of them to start."""
_OPERATION_TIMEOUT = timedelta(minutes=10)
"""How long a process waits for what another one has to say. It may be compiling, or writing to a slow disk."""
_REPORT_TIMEOUT = 3.0
"""Seconds in which the cause of a lost process is told by somebody who knows it: its launcher, or itself."""

FAILURE_KEY = "failure"
"""Under this name the first process that fails, or the launcher, leaves who speaks of the failure."""


class Communicator:
    """The processes of a job, seen from one of them. `Processes()` is one process on its own.

    Attributes:
        rank: the number of this one, from 0.
        size: how many there are.
    """

    def __init__(
        self,
        rank_info: RankInfo | None = None,
        *,
        group: dist.ProcessGroup | None = None,
        store: dist.Store | None = None,
    ) -> None:
        self.rank_info, self.group, self.store = rank_info, group, store
        self.rank, self.size = (0, 1) if rank_info is None else (rank_info.rank, rank_info.size)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is the process that reads and writes files, and speaks."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process where the configuration names `name`: "cuda" means one GPU for each.

        Raises:
            ConfigError: the device cannot be used here, or there are not enough of them.
        """
        requested = device_from_name(name) if self.size == 1 or name == "cpu" else torch.device(name)
        if self.size == 1 or requested.type == "cpu":
            return name
        assert self.rank_info is not None
        if requested.index is not None:
            raise ConfigError(
                f'device "{name}": {self.size} processes cannot share it. Use "{requested.type}": one each.'
            )
        n_devices = torch.get_device_module(requested.type).device_count()
        too_many = self.rank_info.local_size is not None and self.rank_info.local_size > n_devices
        if too_many or (n_devices > 1 and self.rank_info.local_rank >= n_devices):
            raise ConfigError(f'device "{name}": there are {n_devices} on this machine, and more processes than that')
        # A queue may show every process its own GPU only.
        local_device = f"{requested.type}:{self.rank_info.local_rank if n_devices > 1 else 0}"
        device_from_name(local_device)
        return local_device

    # --- dealing out ---------------------------------------------------------------------------------------------

    def partition(self, indices: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """Which of `indices` are for this process: about as many atoms for each, in the order of `indices`.

        Args:
            indices: structures.
            sizes: atoms of every structure of the data set.
        """
        if self.size == 1:
            return list(indices)
        # The largest first, each to whoever has least: at most 4/3 of the best possible load (Graham 1969).
        loads = [(0, rank) for rank in range(self.size)]
        local = []
        for position in sorted(range(len(indices)), key=lambda k: (-sizes[indices[k]], k)):
            load, rank = heapq.heappop(loads)
            heapq.heappush(loads, (load + sizes[indices[position]], rank))
            if rank == self.rank:
                local.append(position)
        return [indices[position] for position in sorted(local)]

    # --- talking -------------------------------------------------------------------------------------------------

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over processes, the same bits on each of them; `values` is overwritten."""
        if self.size > 1:
            with _translate_errors():
                dist.all_reduce(values, group=self.group)
        return values

    def all_reduce_sum_dict(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums by name over processes, some of which may not know a name."""
        if self.size == 1:
            return dict(values)
        total: dict[str, float] = {}
        for part in self._all_gather(dict(values)):
            for name, value in part.items():
                total[name] = total.get(name, 0) + value
        return total

    def all_reduce_max(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        value = torch.tensor(number)
        with _translate_errors():
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self.group)
        return int(value)

    def run_on_rank_zero(self, function: Callable[[], T]) -> T:
        """What `function` returns in the first process, in all of them; what it raises, all of them raise."""
        if self.size == 1:
            return function()
        outcome: list[Any] = [None, None]
        if self.is_rank_zero:
            try:
                outcome[0] = function()
            except HesseError as error:
                outcome[1] = error
        with _translate_errors():
            dist.broadcast_object_list(outcome, src=0, group=self.group, device=torch.device("cpu"))
        if outcome[1] is not None:
            raise outcome[1]
        value: T = outcome[0]
        return value

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite `tensors` with those of the first process, in one message for each type of number."""
        all_tensors = list(tensors) if self.size > 1 else []
        for dtype in sorted({tensor.dtype for tensor in all_tensors}, key=str):
            group = [tensor.detach() for tensor in all_tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            with _translate_errors():
                dist.broadcast(flat, src=0, group=self.group)
            for tensor, values in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(values.view_as(tensor))

    def check_equal(self, value: object, message: str, error_type: type[HesseError] = RequestError) -> None:
        """Raise `kind` with `complaint` unless `value` is equal in all processes."""
        if self.size > 1 and any(other != value for other in self._all_gather(value)):
            raise error_type(message)

    def _all_gather(self, value: T) -> list[T]:
        gathered: list[Any] = [None] * self.size
        with _translate_errors():
            dist.all_gather_object(gathered, value, group=self.group)
        return gathered

    # --- failing -------------------------------------------------------------------------------------------------

    def should_report(self, error: BaseException) -> bool:
        """Whether it is for this process to tell the user of `error`: one process speaks of a failure, the first to
        meet it. One that merely lost the others lets those speak who know why, if they do so soon."""
        if self.size == 1 or self.store is None:
            return True
        try:
            deadline = time.monotonic() + (_REPORT_TIMEOUT if isinstance(error, ProcessLostError) else 0.0)
            while time.monotonic() < deadline:
                if self.store.check([FAILURE_KEY]):
                    return False
                time.sleep(0.05)
            reporter = f"process {self.rank}"
            return self.store.compare_set(FAILURE_KEY, "", reporter) == reporter.encode()
        except RuntimeError:  # the store went with the process that kept it
            return True


@contextlib.contextmanager
def init_distributed(device: str) -> Iterator[Communicator]:
    """The processes of the job that this one was started in (by `hesse train --devices`, torchrun or srun); a process
    on its own where it was started by itself. A group that the caller has made is used as it is.

    Args:
        device: of the run: "cpu", or a kind of accelerator, which decides what gradients travel through.

    Raises:
        ConfigError: the environment contradicts itself; no way for processes to talk on this device.
        LostProcessError: the others did not come.
    """
    if dist.is_available() and dist.is_initialized():
        group_rank = RankInfo(
            dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", dist.get_rank()))
        )
        with _translate_errors():
            group = dist.new_group(backend=_backend(device), timeout=_OPERATION_TIMEOUT)
        yield Communicator(group_rank if group_rank.size > 1 else None, group=group)
        return
    rank_info = rank_from_environment(os.environ)
    if rank_info is None:
        yield Communicator()
        return
    if not dist.is_available():
        raise ConfigError("this PyTorch was built without torch.distributed: train in one process")
    if rank_info.launcher is not None:
        threading.Thread(target=exit_with_parent, args=(rank_info.launcher,), daemon=True).start()
    store = _rendezvous(rank_info, _backend(device))
    communicator = Communicator(rank_info, store=store)
    yield communicator
    # Not after an error: a process that is not there cannot be taken leave of.
    dist.destroy_process_group()


def _rendezvous(rank_info: RankInfo, backend: str) -> dist.Store:
    try:
        base = dist.TCPStore(
            rank_info.address,
            rank_info.port,
            rank_info.size,
            rank_info.rank == 0 and not rank_info.external_store,
            _RENDEZVOUS_TIMEOUT,
            wait_for_workers=False,
        )
        store = dist.PrefixStore(f"hesse/{rank_info.restart_count}", base)
        dist.init_process_group(
            backend, store=store, rank=rank_info.rank, world_size=rank_info.size, timeout=_OPERATION_TIMEOUT
        )
    except RuntimeError as error:
        raise ProcessLostError(
            f"process {rank_info.rank} of {rank_info.size} did not meet the others at {rank_info.address}:{rank_info.port} "
            f"({first_line(error)}). Were all of them started, and can this machine reach that one?"
        ) from error
    return store


def _backend(device: str) -> str:
    """What carries tensors: gloo on the host, and the accelerator's own way between accelerators."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        return "gloo"
    try:
        return f"cpu:gloo,{kind}:{dist.get_default_backend_for_device(kind)}"
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f'device "{device}": PyTorch has no way for several processes to talk on it') from error


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """A word between processes, or LostProcessError."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"lost another process of this job: it ended, or cannot be reached ({first_line(error)})"
        ) from error


# MERGED DOCSTRING (fold into the module docstring): """Which process of which job this one is, as torchrun, srun and `hesse train --devices` tell it: by the environment."""
