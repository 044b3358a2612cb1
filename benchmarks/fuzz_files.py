"""Mutated files of every format: each must be read, or refused with an error of Hesse.

    python benchmarks/fuzz_files.py                               # 40 mutations of every kind of file
    python benchmarks/fuzz_files.py --count 2000 --kinds fchk cif # more, of some kinds
    python benchmarks/fuzz_files.py --keep faults                 # keep the files that gave anything else

The script writes small files of its own, mutates them (bits, cuts, lines, numbers, tokens), and reads each one in a
child process with limits on time and memory. Every mutation follows from `--seed`, the kind and its number. Per kind
it prints how many files were read and refused, and what must not occur: other exceptions, crashes of the process,
reads that did not end, and reads that took much memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from fuzzing.mutations import mutate
from fuzzing.seeds import SEEDS, Seed

from hesse.errors import HesseError

OUTCOMES: Final = ("read", "reply", "exception", "crash", "hang", "memory")
FAULTS: Final = OUTCOMES[2:]
TIME_LIMIT: Final = 30
"""Seconds of processor time for one file."""
MEMORY_LIMIT: Final = 4 << 30
"""Address space that a child may add to that of the script, in bytes; reading beyond it raises MemoryError."""
MEMORY_FAULT: Final = 1 << 30
"""Growth of resident memory in one read that counts as a fault, in bytes."""


@dataclass
class Outcome:
    """What one mutated file gave.

    Attributes:
        kind: kind of file.
        number: number of the mutation.
        result: one of `OUTCOMES`.
        detail: where a fault occurred, or the beginning of the reply.
    """

    kind: str
    number: int
    result: str
    detail: str = ""


@dataclass
class Tally:
    """Counts of outcomes by kind, and all faults."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    faults: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self.counts.setdefault(outcome.kind, Counter())[outcome.result] += 1
        if outcome.result in FAULTS:
            self.faults.append(outcome)


def prepare(folder: Path, kinds: Sequence[str]) -> dict[str, Path]:
    """Write the seed files of some kinds, each kind into its own folder."""
    folders = {}
    for kind in kinds:
        folders[kind] = folder / "seeds" / kind
        folders[kind].mkdir(parents=True)
        SEEDS[kind].write(folders[kind])
    return folders


def write_case(seed: Seed, source: Path, target: Path, key: tuple[int, int, int]) -> Path:
    """Copy a seed into an empty folder, mutate one of its files, and return the path to read."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    rng = np.random.default_rng(key)
    files = sorted(p for p in target.rglob("*") if p.is_file() and (not seed.mutated or p.name in seed.mutated))
    file = files[int(rng.integers(len(files)))]
    mutate(file, rng, text=seed.text)
    return target / seed.main if seed.main else target


def read_case(seed: Seed, path: Path) -> tuple[str, str]:
    """Read one file as a command would, and name the outcome."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            warnings.simplefilter("ignore")
            seed.read(path)
        result, detail = "read", ""
    except HesseError as error:
        result, detail = "reply", f"{type(error).__name__}: {error}"[:300]
    except (Exception, SystemExit) as error:
        result, detail = "exception", _place(error)
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return ("memory", f"{growth >> 20} MiB, {detail}") if growth > MEMORY_FAULT else (result, detail)


def _place(error: BaseException) -> str:
    """Type and message of an error, with the innermost lines of its traceback, outermost first."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if not f.filename.endswith("fuzz_files.py")]
    return f"{type(error).__name__}: {str(error)[:160]} [{' > '.join(lines[-6:])}]"


def run_kind(
    kind: str, source: Path, work: Path, numbers: Sequence[int], seed: int, keep: Path | None = None
) -> Iterator[Outcome]:
    """Read the mutations `numbers` of one kind in children; a child that dies is replaced by another one."""
    pending = list(numbers)
    while pending:
        done = 0
        last = ""
        for outcome, number in _run_child(kind, source, work, pending, seed):
            done += 1
            if outcome is None:
                continue
            if keep is not None and outcome.result in FAULTS:
                _keep_case(kind, source, keep, number, seed)
            last = outcome.result
            yield outcome
        pending = pending[done:]
        if not done and not last:  # the child could not even start
            raise SystemExit(f"{kind}: no child process could be started")


def _run_child(kind: str, source: Path, work: Path, numbers: Sequence[int], seed: int) -> Iterator[tuple[Outcome, int]]:
    """Outcomes of the mutations until the child ends; the death of the child is the outcome of its last one."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            _child(kind, source, work, numbers, seed, write_end)
        finally:  # nothing of the parent may run here, such as the removal of its folder
            os._exit(70)
    os.close(write_end)
    finished = 0
    with os.fdopen(read_end, encoding="utf-8") as lines:
        for line in lines:
            outcome = Outcome(**json.loads(line))
            yield outcome, numbers[finished]
            finished += 1
    _, status = os.waitpid(child, 0)
    if finished < len(numbers):
        number = numbers[finished]
        name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status >> 8}"
        yield Outcome(kind, number, "hang" if name in ("SIGALRM", "SIGXCPU", "SIGKILL") else "crash", name), number


def _child(kind: str, source: Path, work: Path, numbers: Sequence[int], seed: int, write_end: int) -> None:
    """Read the mutations one after another and write a line for each; never returns."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGESIZE") + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kind_number = sorted(SEEDS).index(kind)
    target = work / kind
    os.chdir(work)
    with os.fdopen(write_end, "w", encoding="utf-8") as out, open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)  # native code writes there too
        for number in numbers:
            try:
                path = write_case(SEEDS[kind], source, target, (seed, kind_number, number))
                signal.setitimer(signal.ITIMER_REAL, 4 * TIME_LIMIT)  # the machine may be busy
                used = int(sum(os.times()[:2]))
                resource.setrlimit(resource.RLIMIT_CPU, (used + TIME_LIMIT, -1))
                result, detail = read_case(SEEDS[kind], path)
            except BaseException as error:
                result, detail = "exception", _place(error)
            signal.setitimer(signal.ITIMER_REAL, 0)
            out.write(json.dumps({"kind": kind, "number": number, "result": result, "detail": detail}) + "\n")
            out.flush()
            if result == "memory":  # the peak of a process never falls
                break
    os._exit(0)


def _keep_case(kind: str, source: Path, keep: Path, number: int, seed: int) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    write_case(SEEDS[kind], source, keep / f"{kind}-{seed}-{number}", (seed, sorted(SEEDS).index(kind), number))


def check_seeds(folders: Mapping[str, Path]) -> list[str]:
    """The kinds whose unchanged files cannot be read, with the reason; a fuzz of such a kind shows nothing."""
    failed = []
    for kind, folder in folders.items():
        seed = SEEDS[kind]
        result, detail = read_case(seed, folder / seed.main if seed.main else folder)
        if result != "read":
            failed.append(f"{kind}: {result}: {detail}")
    return failed


def fuzz(
    kinds: Sequence[str],
    count: int,
    seed: int,
    *,
    keep: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Read `count` mutations of every kind.

    Args:
        kinds: names of `SEEDS`.
        count: mutations of each.
        seed: seed of all mutations.
        keep: folder for the files that gave a fault.
        report: called with one line per kind when it is finished.

    Returns:
        Counts and faults.

    Raises:
        SystemExit: an unchanged file cannot be read.
    """
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folders = prepare(work, kinds)
        if failed := check_seeds(folders):
            raise SystemExit("cannot be read without any mutation:\n" + "\n".join(failed))
        for kind, folder in folders.items():
            for outcome in run_kind(kind, folder, work, range(count), seed, keep):
                tally.add(outcome)
            report(_row(kind, tally.counts[kind]))
    return tally


def _row(kind: str, counts: Mapping[str, int]) -> str:
    return f"{kind:<22}" + "".join(f"{n:>10}" for n in (sum(counts.values()), *(counts.get(o, 0) for o in OUTCOMES)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the fuzz and print its table; 1 if there was any fault."""
    parser = argparse.ArgumentParser(description="Mutated files of every format, read in child processes.")
    parser.add_argument("--kinds", nargs="+", choices=sorted(SEEDS), default=sorted(SEEDS), metavar="KIND")
    parser.add_argument("--count", type=int, default=40, help="mutations of every kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that gave a fault")
    options = parser.parse_args(arguments)
    print(f"{'kind':<22}" + "".join(f"{heading:>10}" for heading in ("files", *OUTCOMES)))
    keep = None if options.keep is None else options.keep.resolve()
    tally = fuzz(options.kinds, options.count, options.seed, keep=keep, report=lambda line: print(line, flush=True))
    print(_row("all", sum(tally.counts.values(), Counter())))
    for outcome in tally.faults:
        print(f"{outcome.kind} {outcome.number}: {outcome.result}: {outcome.detail}")
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
