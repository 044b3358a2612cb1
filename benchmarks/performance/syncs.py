"""Operations of a training step for which the host and an accelerator wait for each other.

    python benchmarks/performance/syncs.py

Works on any machine, with or without an accelerator: every operation that passes PyTorch's dispatcher is examined, and
those whose result the host must know (a number, the size of a result) are listed with the line of Hesse that called
them. Copies between host and device are not included.
"""

from __future__ import annotations

import argparse
import traceback
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from hesse.bench import untrained_network
from hesse.bench.cases import SCHEMES, HesseCase, StepSpec
from hesse.bench.workloads import random_molecules_in_range, with_random_labels

ALWAYS = frozenset(
    f"aten.{name}.default"
    for name in (
        "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "is_nonzero", "equal", "bincount"
    )
)  # fmt: skip
BY_MASK = frozenset({"aten.index.Tensor", "aten.index_put.default", "aten.index_put_.default"})


class HostSyncs(TorchDispatchMode):
    """Counts operations, and those that make the host wait, by name and location."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.operations += 1
        if _waits(str(func), args, kwargs):
            self.waits[f"{str(func).split('.')[1]}: {_location()}"] += 1
        return func(*args, **kwargs)


def _waits(name: str, args: Any, kwargs: Any) -> bool:
    if name == "aten.repeat_interleave.Tensor":
        return kwargs.get("output_size") is None
    if name in BY_MASK:
        return any(index is not None and index.dtype == torch.bool for index in args[1])
    return name in ALWAYS


def _location() -> str:
    frames = [f for f in traceback.extract_stack() if "/hesse/" in f.filename and "benchmarks" not in f.filename]
    return " < ".join(f"{f.filename.split('/hesse/')[-1]}:{f.lineno} {f.name}" for f in reversed(frames[-3:]))


def main() -> None:
    """Print the lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["hipnn", "ani", "hessenet"])
    kinds = parser.parse_args().kinds
    structures = random_molecules_in_range(8, 14, 8)
    data = with_random_labels(structures, hessian=True)
    for kind in kinds:
        subject = HesseCase(kind, untrained_network(kind, (1, 6, 7, 8)))
        for scheme in SCHEMES:
            work = subject.make_step(StepSpec(data, scheme))
            with HostSyncs() as syncs:
                work()
            print(f"{kind}, {scheme}: {syncs.operations} operations, {syncs.waits.total()} waits")
            for location, count in syncs.waits.most_common():
                print(f"    {count}  {location}")


if __name__ == "__main__":
    main()
