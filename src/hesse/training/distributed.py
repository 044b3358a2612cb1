"""Several processes that train one model, through torch.distributed.

`init_distributed` connects the processes of a job; a `Communicator` is their connection.

All processes do the same steps in the same order, each with its part of a step's structures. Decisions are functions of
numbers that are the same in all processes. Process 0 reads and writes the files of the run. With one process, every
method of `Communicator` returns its argument, so that the training loop needs no special case.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from hesse.errors import ConfigError, HesseError, ProcessLostError, RequestError, first_line
from hesse.runtime.devices import device_from_name
from hesse.runtime.parallel import exit_with_parent
from hesse.training.rank_info import RankInfo, rank_from_environment

__all__ = ["FAILURE_KEY", "Communicator", "init_distributed"]

T = TypeVar("T")
K = TypeVar("K")

_RENDEZVOUS_TIMEOUT = timedelta(minutes=5)
"""How long the processes of a job wait until all of them have started."""
_OPERATION_TIMEOUT = timedelta(minutes=10)
"""How long a process waits for another one, which may be compiling or writing to a slow disk."""
_REPORT_TIMEOUT = 3.0
"""Seconds to wait until a lost process or its launcher, which knows the cause, has reported it."""

FAILURE_KEY = "failure"
"""Key of the store with the process (or launcher) that reports the failure of the job: the first one that fails."""


class Communicator:
    """Connection of this process with the other processes of the job. `Communicator()` is a single process.

    Args:
        rank_info: rank and number of processes; None for a single process.
        group: process group of torch.distributed; None for the default group.
        store: key-value store of the job, for the report of failures; None without one.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
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
        """True for process 0, which reads and writes files and prints."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process.

        Args:
            name: device in the configuration, for example "cpu", "cuda" (one GPU per process) or "cuda:1".

        Returns:
            The device with its index, for example "cuda:1" for the second process of a machine.

        Raises:
            ConfigError: the device cannot be used on this machine, or there are fewer devices than processes.
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
        # A batch system may make only its own GPU visible to each process.
        local_device = f"{requested.type}:{self.rank_info.local_rank if n_devices > 1 else 0}"
        device_from_name(local_device)
        return local_device

    def partition(self, indices: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """The structures for this process. All processes get about the same number of atoms.

        Args:
            indices: structures of all processes.
            sizes: number of atoms of every structure of the data set.

        Returns:
            Those of `indices` that are for this process, in the same order.
        """
        if self.size == 1:
            return list(indices)
        # The largest first, each to the process with the fewest atoms: the largest load is at most 4/3 of the optimum
        # (Graham 1969).
        loads = [(0, rank) for rank in range(self.size)]
        local = []
        for position in sorted(range(len(indices)), key=lambda k: (-sizes[indices[k]], k)):
            load, rank = heapq.heappop(loads)
            heapq.heappush(loads, (load + sizes[indices[position]], rank))
            if rank == self.rank:
                local.append(position)
        return [indices[position] for position in sorted(local)]

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes.

        Args:
            values: the tensor of this process; overwritten.

        Returns:
            The sum, bitwise the same in all processes.
        """
        if self.size > 1:
            with _translate_errors():
                dist.all_reduce(values, group=self.group)
        return values

    def all_reduce_sum_dict(self, values: Mapping[K, float]) -> dict[K, float]:
        """Sum numbers by name over all processes.

        Args:
            values: numbers of this process; processes may have different names.

        Returns:
            The sums, the same in all processes.
        """
        if self.size == 1:
            return dict(values)
        total: dict[K, float] = {}
        for part in self._all_gather(dict(values)):
            for name, value in part.items():
                total[name] = total.get(name, 0) + value
        return total

    def all_reduce_max(self, number: int) -> int:
        """The maximum over all processes.

        Args:
            number: number of this process.

        Returns:
            The maximum, the same in all processes.
        """
        if self.size == 1:
            return number
        value = torch.tensor(number)
        with _translate_errors():
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self.group)
        return int(value)

    def run_on_rank_zero(self, function: Callable[[], T]) -> T:
        """Call a function in process 0 only.

        Args:
            function: the function. Its result must be picklable.

        Returns:
            Its result, in all processes.

        Raises:
            HesseError: an error of the function, in all processes.
        """
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
        """Overwrite tensors by those of process 0, in one message per dtype.

        Args:
            tensors: the tensors, the same shapes in the same order in all processes.
        """
        all_tensors = list(tensors) if self.size > 1 else []
        for dtype in sorted({tensor.dtype for tensor in all_tensors}, key=str):
            group = [tensor.detach() for tensor in all_tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            with _translate_errors():
                dist.broadcast(flat, src=0, group=self.group)
            for tensor, values in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(values.view_as(tensor))

    def check_equal(self, value: object, message: str, error_type: type[HesseError] = RequestError) -> None:
        """Check that a value is the same in all processes.

        Args:
            value: a picklable value of this process.
            message: text of the error.
            error_type: class of the error.

        Raises:
            HesseError: `error_type`, in all processes, if the values differ.
        """
        if self.size > 1 and any(other != value for other in self._all_gather(value)):
            raise error_type(message)

    def _all_gather(self, value: T) -> list[T]:
        gathered: list[Any] = [None] * self.size
        with _translate_errors():
            dist.all_gather_object(gathered, value, group=self.group)
        return gathered

    def should_report(self, error: BaseException) -> bool:
        """True if this process should print `error`. Only the first process that fails reports it.

        A process that only lost its connection first waits 3 s for the process that knows the cause.

        Args:
            error: the error of this process.

        Returns:
            Whether to print it.
        """
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
        except RuntimeError:  # the process with the store has ended
            return True


@contextlib.contextmanager
def init_distributed(device: str) -> Iterator[Communicator]:
    """Connect the processes of the job in which this process was started, as a context manager.

    Args:
        device: device of the run: "cpu", or a kind of accelerator, which determines the backend for gradients.

    Yields:
        The connection of the processes started by `hesse train --devices`, torchrun or srun; of the process group that
        the caller has initialized; or a single process if there is neither.

    Raises:
        ConfigError: the environment variables contradict each other, or torch.distributed does not support the device.
        ProcessLostError: the other processes did not connect.
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
    # Not after an error: this would wait for a process that may have ended. The barrier lets all processes close their
    # connections together: one of many two-process runs aborted while it exited before its peer.
    dist.barrier()
    dist.destroy_process_group()


def _rendezvous(rank_info: RankInfo, backend: str) -> dist.Store:
    """Connect to the other processes; returns their key-value store."""
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
            f"process {rank_info.rank} of {rank_info.size} could not connect to the others at "
            f"{rank_info.address}:{rank_info.port} ({first_line(error)}). Were all of them started, and can this "
            "machine reach that one?"
        ) from error
    return store


def _backend(device: str) -> str:
    """Backend of torch.distributed: gloo on the host, the default of the accelerator between accelerators."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        return "gloo"
    try:
        return f"cpu:gloo,{kind}:{dist.get_default_backend_for_device(kind)}"
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f'device "{device}": torch.distributed has no backend for it, so that it cannot train in several processes'
        ) from error


@contextlib.contextmanager
def _translate_errors() -> Iterator[None]:
    """Errors of torch.distributed as ProcessLostError."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(
            f"lost another process of this job: it ended, or cannot be reached ({first_line(error)})"
        ) from error
