"""`kill -9` of `hesse label` and `hesse train` at random moments: afterwards the result is that of an undisturbed run.

    python benchmarks/kill_commands.py --kills 40 --seed 0

Each command is killed and started again until it has finished, or until the number of kills is reached; then it runs to
its end. Labels are compared bit for bit, and so are the parameters of the trained model and the record of the training.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from ase.build import molecule
from ase.io import write

from hesse import read_dataset
from hesse.runtime.tensor_files import read_tensors
from hesse.training import read_log

LABEL = ["label", "molecules.xyz", "OUT.h5", "--engine", "gfn2", "--hessian", "--workers", "2", "--quiet"]
TRAIN = ["train", "run.yaml", "output=OUT", "--quiet"]
CONFIG = """
data: {train: labels.h5, validation_fraction: 0.3}
output: run
steps: 60
checkpoint_every: 5
validate_every: 10
compile: never
model: {features: 8}
"""


def command(words: list[str], output: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start `hesse` in a folder."""
    words = [word.replace("OUT", output) for word in words]
    return subprocess.Popen(
        [sys.executable, "-m", "hesse", *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def disturbed(words: list[str], output: str, folder: Path, kills: int, longest: float, draw: random.Random) -> int:
    """Run a command that is killed again and again; returns the number of kills."""
    for count in range(kills):
        process = command(words, output, folder)
        time.sleep(draw.uniform(0.1, longest))
        process.kill()
        if process.wait() == 0:
            return count
    finish(words, output, folder)
    return kills


def finish(words: list[str], output: str, folder: Path) -> float:
    """Run a command to its end; returns seconds.

    Raises:
        SystemExit: it failed.
    """
    start = time.monotonic()
    if command(words, output, folder).wait():
        raise SystemExit(f"{' '.join(words)} failed for {output}")
    return time.monotonic() - start


def same_labels(first: Path, second: Path) -> bool:
    """True if two files hold the same structures and labels."""
    a, b = read_dataset(first), read_dataset(second)
    pairs = zip(a.labels.items(), b.labels.items(), strict=True)
    return a.ids == b.ids and all(torch.equal(x[1].nan_to_num(), y[1].nan_to_num()) for x, y in pairs)


def same_runs(first: Path, second: Path) -> bool:
    """True if two training runs have the same models and records, apart from wall times."""
    records = [
        [{k: v for k, v in row.items() if "seconds" not in k} for row in read_log(run / "metrics.jsonl")]
        for run in (first, second)
    ]
    models = [read_tensors(run / "last.hesse", "model") for run in (first, second)]
    return records[0] == records[1] and all(torch.equal(models[0][n], models[1][n]) for n in models[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills of each command")
    parser.add_argument("--rounds", type=int, default=1, help="times that each command is done from the beginning")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = ("H2O", "NH3", "CH4", "C2H2", "C2H4", "C2H6", "CH3OH", "H2CO", "C6H6", "C4H4O")
        write(folder / "molecules.xyz", [molecule(n) for n in names])
        (folder / "run.yaml").write_text(CONFIG)
        for words, undisturbed, ending, same in (
            (LABEL, "labels", ".h5", same_labels),
            (TRAIN, "undisturbed", "", same_runs),
        ):
            # The second of two runs, whose programs the machine has in memory.
            seconds = min(finish(words, name, folder) for name in (undisturbed, f"{undisturbed}-again"))
            kills = different = 0
            for turn in range(options.rounds):
                output = f"turn{turn}-{words[0]}"
                kills += disturbed(words, output, folder, options.kills, 0.9 * seconds, draw)
                different += not same(folder / f"{undisturbed}{ending}", folder / f"{output}{ending}")
            print(f"{words[0]}: {kills} kills in {options.rounds} rounds, {different} different", flush=True)


if __name__ == "__main__":
    main()
