"""How many files of Hesse a call enters: a measure of the layers that a reader has to follow.

    python benchmarks/files_entered.py                 # tiny committed data
    python benchmarks/files_entered.py DATA.h5 --list  # with the names of the files

Counted with `sys.setprofile` for `read_dataset`; one training step (eager, one process, HIP-NN, energies, forces and
products: batch, loss, gradient, optimizer) inside an epoch, and the first one of an epoch, which shuffles the data;
`train` of three steps; `label` of four molecules in this process (GFN2-xTB; left out if tblite is not installed).

files: files of src/hesse in which a function is called. functions: functions of these files. pairs: pairs of files of
which one calls the other. moves: calls from one file to another. Imports happen before the count.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import hesse
from hesse.training.trainer import Trainer

TINY = Path(__file__).parent / "reactions" / "tiny" / "rtp-train.h5"
SOURCE = str(Path(hesse.__file__).parent)

T = TypeVar("T")


@dataclass
class Walk:
    """Files, functions, and calls between files of one traced call."""

    files: set[str] = field(default_factory=set)
    functions: set[tuple[str, str, int]] = field(default_factory=set)
    pairs: set[tuple[str, str]] = field(default_factory=set)
    moves: int = 0

    def call(self, function: Callable[[], T]) -> T:
        """Call a function and count what it enters."""
        sys.setprofile(self._profile)
        try:
            return function()
        finally:
            sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(SOURCE):
            return
        self.files.add(code.co_filename)
        self.functions.add((code.co_filename, code.co_name, code.co_firstlineno))
        caller = frame.f_back
        while caller is not None and not caller.f_code.co_filename.startswith(SOURCE):
            caller = caller.f_back
        if caller is not None and caller.f_code.co_filename != code.co_filename:
            self.pairs.add((caller.f_code.co_filename, code.co_filename))
            self.moves += 1


def training_steps(data: hesse.Dataset) -> list[Walk]:
    """Three training steps, two of the first epoch and the first one of the second epoch."""
    walks: list[Walk] = []
    original = Trainer._step

    def traced(self: Trainer) -> dict[str, float]:
        walks.append(Walk())
        return walks[-1].call(lambda: original(self))

    Trainer._step = traced  # type: ignore[method-assign]
    try:
        train(data)
    finally:
        Trainer._step = original  # type: ignore[method-assign]
    return walks


def train(data: hesse.Dataset) -> None:
    """A run of three steps with two batches in an epoch."""
    half = -(-len(data) // 2)
    config = {
        "model": {"kind": "hipnn"}, "steps": 3, "compile": "never", "dtype": "float64",
        "batch": {"structures": half, "atoms": 10**6},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        hesse.train(data, None, config, output=folder, quiet=True)


def label() -> None:
    """Labels of four molecules with one probe each."""
    hesse.label(hesse.g2_molecules()[:4], "gfn2", probes=1, workers=0, quiet=True)


def measure(path: Path) -> dict[str, Walk]:
    """All counts by name. Every call is done once before, so that imports are not counted."""
    data = hesse.read_dataset(path)
    walks = {"read_dataset": Walk()}
    walks["read_dataset"].call(lambda: hesse.read_dataset(path))
    training_steps(data)
    _, walks["a training step"], walks["the first step of an epoch"] = training_steps(data)
    walks["train, 3 steps"] = Walk()
    walks["train, 3 steps"].call(lambda: train(data))
    if importlib.util.find_spec("tblite") is not None:
        label()
        walks["label, 4 molecules"] = Walk()
        walks["label, 4 molecules"].call(label)
    return walks


def main(words: Sequence[str] | None = None) -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=TINY, help="labeled structures with products")
    parser.add_argument("--list", action="store_true", help="also print the names of the files")
    options = parser.parse_args(words)
    print(f"{'':<28}{'files':>7}{'functions':>11}{'pairs':>7}{'moves':>8}")
    for name, walk in measure(options.data).items():
        print(f"{name:<28}{len(walk.files):>7}{len(walk.functions):>11}{len(walk.pairs):>7}{walk.moves:>8}")
        for file in sorted(walk.files) if options.list else ():
            print(f"    {Path(file).relative_to(SOURCE)}")


if __name__ == "__main__":
    main()
