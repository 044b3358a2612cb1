"""Several processes that train one model: what they say to each other, through torch.distributed.

All of them do the same steps in the same order, each on its share of a step's structures; what is decided is decided
from numbers that all of them hold. The first process reads and writes the files of the run. Where there is one process
only, every method returns at once what it was given, so that a loop reads the same.
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

from hesse.devices import require_device
from hesse.errors import ConfigError, HesseError, LostProcessError, RequestError, first_line
from hesse.training.place import Place, place_of
from hesse.workers import end_with

__all__ = ["FAILURE", "Processes", "joined"]

T = TypeVar("T")

_MEETING = timedelta(minutes=5)
"""How long the processes of a job wait for the last of them to start."""
_PATIENCE = timedelta(minutes=10)
"""How long a process waits for what another one has to say. It may be compiling, or writing to a slow disk."""
_NEWS = 3.0
"""Seconds in which the cause of a lost process is told by somebody who knows it: its launcher, or itself."""

FAILURE = "failure"
"""Under this name the first process that fails, or the launcher, leaves who speaks of the failure."""


class Processes:
    """The processes of a job, seen from one of them. `Processes()` is one process on its own.

    Attributes:
        rank: the number of this one, from 0.
        size: how many there are.
    """

    def __init__(
        self, place: Place | None = None, *, group: dist.ProcessGroup | None = None, store: dist.Store | None = None
    ) -> None:
        self.place, self.group, self.store = place, group, store
        self.rank, self.size = (0, 1) if place is None else (place.rank, place.size)

    @property
    def first(self) -> bool:
        """Whether this is the process that reads and writes files, and speaks."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process where the configuration names `name`: "cuda" means one GPU for each.

        Raises:
            ConfigError: the device cannot be used here, or there are not enough of them.
        """
        wanted = require_device(name) if self.size == 1 or name == "cpu" else torch.device(name)
        if self.size == 1 or wanted.type == "cpu":
            return name
        assert self.place is not None
        if wanted.index is not None:
            raise ConfigError(f'device "{name}": {self.size} processes cannot share it. Use "{wanted.type}": one each.')
        there = torch.get_device_module(wanted.type).device_count()
        crowded = self.place.local_size is not None and self.place.local_size > there
        if crowded or (there > 1 and self.place.local_rank >= there):
            raise ConfigError(f'device "{name}": there are {there} on this machine, and more processes than that')
        # A queue may show every process its own GPU only.
        own = f"{wanted.type}:{self.place.local_rank if there > 1 else 0}"
        require_device(own)
        return own

    # --- dealing out ---------------------------------------------------------------------------------------------

    def share(self, indices: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """Which of `indices` are for this process: about as many atoms for each, in the order of `indices`.

        Args:
            indices: structures.
            sizes: atoms of every structure of the data set.
        """
        if self.size == 1:
            return list(indices)
        # The largest first, each to whoever has least: at most 4/3 of the best possible load (Graham 1969).
        loads = [(0, rank) for rank in range(self.size)]
        mine = []
        for place in sorted(range(len(indices)), key=lambda k: (-sizes[indices[k]], k)):
            load, rank = heapq.heappop(loads)
            heapq.heappush(loads, (load + sizes[indices[place]], rank))
            if rank == self.rank:
                mine.append(place)
        return [indices[place] for place in sorted(mine)]

    # --- talking -------------------------------------------------------------------------------------------------

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, the same bits on each of them; `values` is overwritten."""
        if self.size > 1:
            with _spoken():
                dist.all_reduce(values, group=self.group)
        return values

    def sum_named(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums by name over processes, some of which may not know a name."""
        if self.size == 1:
            return dict(values)
        total: dict[str, float] = {}
        for part in self._gathered(dict(values)):
            for name, value in part.items():
                total[name] = total.get(name, 0) + value
        return total

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        value = torch.tensor(number)
        with _spoken():
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self.group)
        return int(value)

    def of_first(self, function: Callable[[], T]) -> T:
        """What `function` returns in the first process, in all of them; what it raises, all of them raise."""
        if self.size == 1:
            return function()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = function()
            except HesseError as error:
                answer[1] = error
        with _spoken():
            dist.broadcast_object_list(answer, src=0, group=self.group, device=torch.device("cpu"))
        if answer[1] is not None:
            raise answer[1]
        value: T = answer[0]
        return value

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite `tensors` with those of the first process, in one message for each type of number."""
        everything = list(tensors) if self.size > 1 else []
        for dtype in sorted({tensor.dtype for tensor in everything}, key=str):
            group = [tensor.detach() for tensor in everything if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in group])
            with _spoken():
                dist.broadcast(flat, src=0, group=self.group)
            for tensor, news in zip(group, flat.split([tensor.numel() for tensor in group]), strict=True):
                tensor.copy_(news.view_as(tensor))

    def require_same(self, value: object, complaint: str, kind: type[HesseError] = RequestError) -> None:
        """Raise `kind` with `complaint` unless `value` is equal in all processes."""
        if self.size > 1 and any(other != value for other in self._gathered(value)):
            raise kind(complaint)

    def _gathered(self, value: T) -> list[T]:
        every: list[Any] = [None] * self.size
        with _spoken():
            dist.all_gather_object(every, value, group=self.group)
        return every

    # --- failing -------------------------------------------------------------------------------------------------

    def speaks_of(self, error: BaseException) -> bool:
        """Whether it is for this process to tell the user of `error`: one process speaks of a failure, the first to
        meet it. One that merely lost the others lets those speak who know why, if they do so soon."""
        if self.size == 1 or self.store is None:
            return True
        try:
            deadline = time.monotonic() + (_NEWS if isinstance(error, LostProcessError) else 0.0)
            while time.monotonic() < deadline:
                if self.store.check([FAILURE]):
                    return False
                time.sleep(0.05)
            mine = f"process {self.rank}"
            return self.store.compare_set(FAILURE, "", mine) == mine.encode()
        except RuntimeError:  # the store went with the process that kept it
            return True


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes of the job that this one was started in (by `hesse train --devices`, torchrun or srun); a process
    on its own where it was started by itself. A group that the caller has made is used as it is.

    Args:
        device: of the run: "cpu", or a kind of accelerator, which decides what gradients travel through.

    Raises:
        ConfigError: the environment contradicts itself; no way for processes to talk on this device.
        LostProcessError: the others did not come.
    """
    if dist.is_available() and dist.is_initialized():
        place = Place(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", dist.get_rank())))
        with _spoken():
            group = dist.new_group(backend=_backend(device), timeout=_PATIENCE)
        yield Processes(place if place.size > 1 else None, group=group)
        return
    here = place_of(os.environ)
    if here is None:
        yield Processes()
        return
    if not dist.is_available():
        raise ConfigError("this PyTorch was built without torch.distributed: train in one process")
    if here.launcher is not None:
        threading.Thread(target=end_with, args=(here.launcher,), daemon=True).start()
    store = _meet(here, _backend(device))
    processes = Processes(here, store=store)
    yield processes
    # Not after an error: a process that is not there cannot be taken leave of.
    dist.destroy_process_group()


def _meet(here: Place, backend: str) -> dist.Store:
    try:
        base = dist.TCPStore(
            here.address, here.port, here.size, here.rank == 0 and not here.hosted, _MEETING, wait_for_workers=False
        )
        store = dist.PrefixStore(f"hesse/{here.attempt}", base)
        dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.size, timeout=_PATIENCE)
    except RuntimeError as error:
        raise LostProcessError(
            f"process {here.rank} of {here.size} did not meet the others at {here.address}:{here.port} "
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
def _spoken() -> Iterator[None]:
    """A word between processes, or LostProcessError."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            f"lost another process of this job: it ended, or cannot be reached ({first_line(error)})"
        ) from error
