"""What short commands cost: processor time of whole `hesse` commands on one water molecule.

    python benchmarks/start_up.py                        # the installed code
    python benchmarks/start_up.py --against OLD/src      # and another checkout, in turns
    python benchmarks/start_up.py --turns 5 --verbs info label

Milliseconds of processor time, user and system, of the command and all its children, median of the turns; beside it the
wall time and the heavy packages that the command itself imports. The cost of starting Python and of importing torch
alone are lower bounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import hesse

WATER: Final = "3\nwater\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"
COMMANDS: Final[Mapping[str, Sequence[str]]] = {
    "help": ("--help",),
    "info": ("info", "labels.h5"),
    "convert": ("convert", "water.xyz", "water.h5"),
    "label": ("label", "water.xyz", "new.h5", "--engine", "gfn2", "--hessian"),
    "sample": ("sample", "nms", "water.xyz", "samples.h5", "--engine", "gfn2", "--count", "4"),
    "saddle": ("saddle", "water.xyz", "saddle.xyz", "--engine", "gfn2", "--steps", "5"),
}
HEAVY: Final = ("torch", "scipy", "matplotlib", "ase.io", "ase.spacegroup", "pyscf", "tblite", "rich", "pydantic")
_RUN: Final = "import sys; sys.argv[0] = 'hesse'; from hesse.cli.app import main; main()"
_BOUNDS: Final = {"python": "pass", "import torch": "import torch"}


@dataclass
class Cost:
    """Seconds of each turn of one command, and the heavy packages that it imports."""

    processor: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    imports: tuple[str, ...] = ()


def run(code: str, arguments: Sequence[str], folder: Path, source: Path, cost: Cost) -> None:
    """Run Python once and add its time to `cost`.

    Raises:
        SystemExit: the command failed.
    """
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    before, start = os.times(), time.perf_counter()
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    after = os.times()
    if process.returncode not in (0, 1):  # 1: a search that did not converge
        raise SystemExit(f"{' '.join(arguments) or code}: exit code {process.returncode}\n{process.stderr}")
    cost.wall.append(time.perf_counter() - start)
    cost.processor.append(after.children_user + after.children_system - before.children_user - before.children_system)


def heavy_imports(arguments: Sequence[str], folder: Path, source: Path) -> tuple[str, ...]:
    """The packages of `HEAVY` that a command imports in its own process."""
    code = f"import atexit, sys; atexit.register(lambda: print('', *sys.modules, sep=chr(10), file=sys.stderr)); {_RUN}"
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )
    loaded = set(process.stderr.splitlines())
    return tuple(name for name in HEAVY if name in loaded)


def fresh_folders() -> Iterator[Path]:
    """Folders with the input files, one after the other; the old one is removed."""
    while True:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "water.xyz").write_text(WATER)
            hesse.write_dataset(folder / "labels.h5", hesse.read_dataset(folder / "water.xyz"))
            yield folder


def measure(verbs: Sequence[str], sources: Mapping[str, Path], turns: int) -> dict[tuple[str, str], Cost]:
    """Run every command in every checkout, in turns.

    Args:
        verbs: keys of `COMMANDS`.
        sources: folder with the package, by name of the checkout.
        turns: number of runs of each.

    Returns:
        Costs by (command, checkout); those of Python and torch alone have the checkout "".
    """
    costs: dict[tuple[str, str], Cost] = {}
    folders = fresh_folders()
    for _ in range(turns):
        for name, code in _BOUNDS.items():
            run(code, (), Path.cwd(), Path(), costs.setdefault((name, ""), Cost()))
        for verb in verbs:
            for name, source in sources.items():
                cost = costs.setdefault((verb, name), Cost())
                run(_RUN, COMMANDS[verb], next(folders), source, cost)
                if not cost.imports:
                    cost.imports = heavy_imports(COMMANDS[verb], next(folders), source)
    folders.close()
    return costs


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="folder `src` of another checkout")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--verbs", nargs="+", choices=tuple(COMMANDS), default=tuple(COMMANDS))
    options = parser.parse_args(arguments)
    sources = {"this": Path(hesse.__file__).parents[1]}
    if options.against is not None:
        sources = {"other": options.against.resolve(), **sources}
    costs = measure(options.verbs, sources, options.turns)
    print(f"{'command':<14}{'code':<7}{'processor ms':>13}{'wall ms':>9}  imports")
    for (verb, name), cost in costs.items():
        processor, wall = 1e3 * statistics.median(cost.processor), 1e3 * statistics.median(cost.wall)
        print(f"{verb:<14}{name:<7}{processor:>13.0f}{wall:>9.0f}  {' '.join(cost.imports)}")


if __name__ == "__main__":
    main()
