"""The data of the active-learning benchmarks: labels to begin with, the pool, and guesses of transition states."""

from __future__ import annotations

import hesse
from hesse.sampling import sample_rattled


def main() -> None:
    """Write start.h5, pool.h5 and guesses.h5 from rtp-train.h5."""
    data = hesse.read_dataset("rtp-train.h5")
    start, pool = data.split(0.1, 0.9, seed=0)
    hesse.write_dataset("start.h5", start)
    hesse.write_dataset("pool.h5", pool)
    saddles = data.filter(lambda structure: structure.tag == "ts")
    guesses = sample_rattled(saddles, sizes=(0.1,), count=1, seed=0, quiet=True)
    hesse.write_dataset("guesses.h5", guesses.dataset())


if __name__ == "__main__":
    main()
