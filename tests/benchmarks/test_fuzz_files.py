"""Mutated files of every kind are read or refused: a small fixed part of what benchmarks/fuzz_files.py does."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import fuzz_files
from fuzzing.seeds import SEEDS

SLOW = {"run"}
"""Kinds that train."""
PHONOPY = {"phonopy_params", "phonopy_xz", "phonopy_gz", "force_sets", "phonopy_hdf5"}
QUICK = sorted(set(SEEDS) - SLOW - PHONOPY)


@pytest.mark.parametrize("kind", QUICK)
def test_mutated_files_are_read_or_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source, seed = fuzz_files.prepare(tmp_path, [kind])[kind], SEEDS[kind]
    assert not fuzz_files.check_seeds({kind: source})
    replies = 0
    for number in range(8):
        path = fuzz_files.write_case(seed, source, tmp_path / "case", (7, sorted(SEEDS).index(kind), number))
        result, detail = fuzz_files.read_case(seed, path)
        assert result in ("read", "reply"), f"{number}: {detail}"
        replies += result == "reply"
    assert replies > 0


@pytest.mark.slow
def test_children_that_end_are_counted_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that crashes, one that raises and one that never returns."""
    import os
    import signal
    from dataclasses import replace

    calls = iter(range(100))

    def read(path: Path) -> None:
        if path.read_bytes()[:1] == b"%":
            raise ZeroDivisionError("in a reader")
        if next(calls) == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        if path.stat().st_size % 3 == 0:
            while True:
                pass

    seed = replace(SEEDS["xyz"], read=read)
    monkeypatch.setitem(SEEDS, "xyz", seed)
    monkeypatch.setattr(fuzz_files, "TIME_LIMIT", 1)
    with tempfile.TemporaryDirectory() as name:
        source = fuzz_files.prepare(Path(name), ["xyz"])["xyz"]
        outcomes = list(fuzz_files.run_kind("xyz", source, Path(name), range(6), 0))
    assert [o.number for o in outcomes] == list(range(6))
    assert {"crash"} <= {o.result for o in outcomes} <= {"read", "crash", "hang"}


@pytest.mark.slow
def test_all_kinds_in_children(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz_files.main(["--count", "5", "--seed", "3"]) == 0, capsys.readouterr().out
