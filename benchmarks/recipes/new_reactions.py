"""Thirty reactions that a model has not seen: their structures with labels, and guesses as a chemist may have them.

    python new_reactions.py [SIZE]

Reads rtp-test.h5. Writes new-reactions.h5 (reactants, transition states and products of the 30 test reactions that
`hesse evaluate --suite reactions` searches by default) and guesses.h5 (each displaced at random by SIZE in every
coordinate, 0.05 Å unless given).
"""

from __future__ import annotations

import sys
from dataclasses import replace

import hesse
from hesse.evaluation import find_reactions, saddle_tasks
from hesse.sampling import sample_rattled

REACTIONS = 30


def main() -> None:
    """Write both files."""
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 0.05
    data = hesse.read_dataset("rtp-test.h5")
    tasks = saddle_tasks(data, find_reactions(data)[0])
    chosen = [tasks[(2 * k + 1) * len(tasks) // (2 * REACTIONS)] for k in range(REACTIONS)]
    names = {structure.id for task in chosen for structure in task.structures}
    reactions = data.filter(lambda structure: structure.id in names)
    hesse.write_dataset("new-reactions.h5", reactions)
    tags = {structure.id: structure.tag for structure in reactions.structures}
    guesses = sample_rattled(reactions, sizes=(size,), count=1, seed=0, quiet=True).structures
    named = [replace(s, tag=tags[s.id.rsplit("/", 2)[0]]) for s in guesses]
    hesse.write_dataset("guesses.h5", hesse.as_dataset(named))
    print(f"{len(reactions)} structures of {len(chosen)} reactions")


if __name__ == "__main__":
    main()
