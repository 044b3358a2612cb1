"""From published reactants and products to reactions, with GFN2-xTB: how many are found, and why not the others.

    python benchmarks/reactions/end_to_end.py DATA OUT [--set ts1x] [--count 30] [--engine gfn2] [--workers 1]

DATA holds the collections that `geometries.py` names. The reactions are spread evenly over the collection. OUT gets the
rows (JSON) and beside it a journal: the same command continues after an interruption.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from geometries import read_reactions

from hesse.runtime.filesystem import write_rows
from hesse.sampling import Pair, search_reactions


def chosen_pairs(data: Path, collection: str, count: int) -> list[Pair]:
    """Reactions spread evenly over a collection."""
    reactions = [r for r in read_reactions(data)[0] if r.name.startswith(f"{collection}-")]
    step = max(len(reactions) // count, 1)
    return [Pair(r.name, r.reactant, r.product) for r in reactions[step // 2 :: step][:count]]


def main() -> None:
    """Search, and print the statistics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", default="ts1x", choices=("ts1x", "grambow"))
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--engine", default="gfn2")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    pairs = chosen_pairs(options.data, options.set, options.count)
    result = search_reactions(pairs, options.engine, options.out, workers=options.workers)
    write_rows(options.out, result.rows)
    print("| outcome | reactions |\n|---|---|")
    for outcome, number in result.statistics().items():
        print(f"| {outcome} | {number} |")
    calls, seconds = ([row[name] for row in result.rows] for name in ("engine_calls", "seconds"))
    print(f"{options.engine}: {result.n_found} of {len(pairs)} found")
    print(f"engine calls: median {statistics.median(calls):.0f}, largest {max(calls)}")
    print(f"{sum(seconds) / 60:.1f} minutes, median {statistics.median(seconds):.0f} s")
    for row in result.rows:
        print(row["id"], row["outcome"], row["engine_calls"], f"{row['seconds']:.0f} s", row["reason"], sep="  ")


if __name__ == "__main__":
    main()
