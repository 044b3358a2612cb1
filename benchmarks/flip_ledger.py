"""Flipped bits in the ledger of a label campaign: every label afterwards is the right one, or its structure failed.

    python benchmarks/flip_ledger.py --count 600
    python benchmarks/flip_ledger.py --count 600 --bits 8 --old     # a ledger as older versions wrote it

Each turn damages a copy of one ledger at places that the number of the turn determines, and runs the same campaign with
it. All results are compared bit for bit with those of the undamaged ledger. Printed: how many turns used every record,
computed some again, failed for some structures, or ended with a reply; and the two numbers that must be 0.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from ase.calculators.emt import EMT

from hesse import Dataset, Structure, label
from hesse.errors import HesseError
from hesse.labelling import ledger_path


def campaign(output: Path, *, retry: bool = False) -> tuple[Dataset, int, int]:
    """Label six molecules; returns labels, the number of structures taken from the ledger, and that of failures."""
    atoms = [molecule(name) for name in ("H2O", "NH3", "CH4", "C2H2", "N2", "O2")]
    structures = [Structure.from_ase(a, id=f"m{k}") for k, a in enumerate(atoms)]
    report = label(structures, EMT(), output, probes=2, hessian=True, quiet=True, retry_failed=retry)
    return report.dataset, report.n_reused, len(report.failures)


def flip(path: Path, seed: int, bits: int) -> None:
    """Flip bits at random places of a file."""
    random, content = np.random.default_rng(seed), bytearray(path.read_bytes())
    for place in random.integers(0, 8 * len(content), bits):
        content[place // 8] ^= 1 << int(place % 8)
    path.write_bytes(content)


def same(labels: Dataset, truth: Dataset) -> bool:
    """True if every structure in `labels` has exactly the labels that it has in `truth`."""
    places = {structure_id: k for k, structure_id in enumerate(truth.ids)}
    expected = truth.select([places[structure_id] for structure_id in labels.ids]).labels
    found = {column.name: value for column, value in labels.labels.items()}
    wanted = {column.name: value for column, value in expected.items()}
    return found.keys() == wanted.keys() and all(
        torch.equal(found[name].nan_to_num(), value.nan_to_num()) for name, value in wanted.items()
    )


def remove_checksums(path: Path) -> None:
    """Make a ledger as versions before the checksums wrote it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in ("labels", "attempts"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
        connection.execute("PRAGMA user_version=2")


def run(count: int, bits: int, *, old: bool = False, first: int = 0) -> Counter[str]:
    """Damage a ledger `count` times; returns the number of turns by what came of them."""
    results: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth, _, _ = campaign(folder / "truth.h5")
        sound = ledger_path(folder / "truth.h5")
        if old:
            remove_checksums(sound)
        for seed in range(first, first + count):
            work = folder / "work"
            work.mkdir()
            damaged = ledger_path(work / "out.h5")
            shutil.copyfile(sound, damaged)
            flip(damaged, seed, bits)
            try:
                labels, n_reused, n_failed = campaign(work / "out.h5")
                if not same(labels, truth):
                    results["OTHER LABELS"] += 1
                elif n_failed:
                    results["some failed"] += 1
                    labels, _, n_failed = campaign(work / "out.h5", retry=True)
                    results["failed for good"] += bool(n_failed) or not same(labels, truth)
                else:
                    results["all used" if n_reused == len(truth) else "some computed again"] += 1
            except HesseError as error:
                results[f"reply: {type(error).__name__}"] += 1
                print(f"turn {seed}: {type(error).__name__}: {error}")
            except Exception as error:
                results["OTHER EXCEPTIONS"] += 1
                print(f"turn {seed}: {type(error).__name__}: {error}")
            shutil.rmtree(work)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--bits", type=int, default=1, help="flipped bits of each turn")
    parser.add_argument("--first", type=int, default=0, help="number of the first turn")
    parser.add_argument("--old", action="store_true", help="a ledger without checksums")
    options = parser.parse_args()
    results = run(options.count, options.bits, old=options.old, first=options.first)
    for name, count in sorted(results.items()):
        print(f"{count:6d}  {name}")


if __name__ == "__main__":
    main()
