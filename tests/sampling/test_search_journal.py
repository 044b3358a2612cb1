"""The journal of saddle searches believes sound lines only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import closed_form_engines
import oracles
from hesse.errors import FileFormatError, RequestError
from hesse.sampling import search_saddles
from hesse.sampling.search_journal import FinishedSearch, SearchJournal, journal_path, search_key

ROW = {"id": "a", "converged": True, "energy": -1.0}


def search(seed: int, hessian: bool = True) -> FinishedSearch:
    rng = np.random.default_rng(seed)
    arrays = {"positions": rng.normal(size=(4, 3)), "forces": rng.normal(size=(4, 3))}
    return FinishedSearch(ROW, arrays | ({"hessian": rng.normal(size=(4, 3, 4, 3))} if hessian else {}))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "ts.h5.searches.jsonl"
    with SearchJournal.open(path) as journal:
        for k in range(3):
            journal.add(str(k), search(k, hessian=k < 2))
    return path


def test_results_come_back_exactly(journal: Path) -> None:
    again = SearchJournal(journal)
    for k in range(3):
        found, original = again.finished(str(k)), search(k, hessian=k < 2)
        assert found is not None
        assert found.row == ROW
        assert list(found.arrays) == list(original.arrays)
        for name, values in original.arrays.items():
            np.testing.assert_array_equal(found.arrays[name], values)
    assert again.finished("3") is None


def test_every_flipped_bit_costs_at_most_one_search(journal: Path) -> None:
    sound = journal.read_bytes()
    first_line = sound.index(b"\n") + 1
    for at in np.random.default_rng(0).integers(first_line, len(sound), size=60).tolist():
        damaged = bytearray(sound)
        damaged[at] ^= 1 << (at % 8)
        journal.write_bytes(damaged)
        read = SearchJournal(journal)
        present = [k for k in range(3) if read.finished(str(k)) is not None]
        assert len(present) >= 1  # a damaged end of a line costs two
        for k in present:
            found = read.finished(str(k))
            assert found is not None
            np.testing.assert_array_equal(found.arrays["positions"], search(k).arrays["positions"])


def test_a_line_that_was_cut_off_does_not_spoil_the_next(journal: Path) -> None:
    journal.write_bytes(journal.read_bytes()[:-30])
    with SearchJournal.open(journal) as again:
        assert again.finished("2") is None
        assert again.n_damaged == 1
        again.add("2", search(2))
    assert SearchJournal(journal).finished("2") is not None


def test_other_files_stay_as_they_are(tmp_path: Path, journal: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("text of mine\n")
    with pytest.raises(FileFormatError, match="not a journal"):
        SearchJournal(mine)
    link = tmp_path / "link"
    link.symlink_to(mine)
    with pytest.raises(FileFormatError, match="regular file"):
        SearchJournal(link)
    assert mine.read_text() == "text of mine\n"
    with SearchJournal.open(journal), pytest.raises(RequestError, match="another search"), SearchJournal.open(journal):
        pass


def test_the_key_depends_on_all_that_changes_the_result() -> None:
    engine = closed_form_engines.own_engine()
    one = oracles.rhombus(1)
    keys = [
        search_key(one, engine, {"steps": 5}),
        search_key(one, engine, {"steps": 6}),
        search_key(oracles.rhombus(2), engine, {"steps": 5}),
        search_key(one, closed_form_engines.HessianFails(), {"steps": 5}),
        search_key(one.with_positions(one.positions, id="other"), engine, {"steps": 5}),
    ]
    keys.append(search_key([one, oracles.rhombus(2)], engine, {"steps": 5}))
    assert len(set(keys)) == 6
    assert search_key(oracles.rhombus(1), closed_form_engines.own_engine(), {"steps": 5}) == keys[0]


def test_searches_are_kept_one_by_one(tmp_path: Path) -> None:
    engine = closed_form_engines.own_engine()
    output = tmp_path / "ts.h5"
    first = search_saddles([oracles.rhombus(1)], engine, output, quiet=True)
    assert (first.n_reused, journal_path(output).is_file(), output.exists()) == (0, True, False)
    other = oracles.rhombus(2)
    named = other.with_positions(other.positions, id="b")
    both = search_saddles([oracles.rhombus(1), named], engine, output, quiet=True)
    assert both.n_reused == 1
    assert both.rows[0] == first.rows[0]
    assert both.dataset is not None
    assert first.dataset is not None
    assert both.dataset.labels.hessian_of(0).equal(first.dataset.labels.hessian_of(0))
