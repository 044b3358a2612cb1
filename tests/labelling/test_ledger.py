"""The ledger keeps what it was given, for the question it was given for."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch

import oracles
from hesse.errors import FileFormatError, WriteError
from hesse.labelling.ledger import Ledger, Record, digest_of, geometry_digest
from hesse.labelling.payload import labels_from_bytes, labels_to_bytes
from hesse.structures import Labels, Structure

DONE = Record("a", "g", "", 0.5, b"payload")
FAILED = Record("b", "g", "no convergence", 1.5, None)


def test_records_survive_and_belong_to_their_question(tmp_path):
    path = tmp_path / "x.sqlite"
    with Ledger(path, engine="e", request="r") as ledger:
        ledger.write([DONE, FAILED])
    with Ledger(path, engine="e", request="r") as ledger:
        assert ledger.known() == {("a", "g"): True, ("b", "g"): False}
        assert ledger.records() == {("a", "g"): DONE, ("b", "g"): FAILED}
        ledger.write([replace(FAILED, payload=b"now", reason="")])
        assert ledger.known()[("b", "g")]
    for other in ({"engine": "e2", "request": "r"}, {"engine": "e", "request": "r2"}):
        with Ledger(path, **other) as ledger:
            assert ledger.known() == {}


def test_a_set_of_records_is_written_whole_or_not_at_all(tmp_path):
    with Ledger(tmp_path / "x.sqlite", engine="e", request="r") as ledger:
        ledger.write([DONE])
        with pytest.raises(sqlite3.ProgrammingError):
            ledger.write([FAILED, replace(DONE, structure="c", seconds=object())])
        assert list(ledger.records()) == [("a", "g")]


def test_files_that_are_no_ledger_are_refused_and_left_alone(tmp_path):
    for name, content in (("text", b"hello" * 100), ("zeros", bytes(5000))):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="ledger"):
            Ledger(path, engine="e", request="r")
        assert path.read_bytes() == content
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE things (x)")
    connection.close()
    with pytest.raises(FileFormatError, match="no ledger of labels"):
        Ledger(foreign, engine="e", request="r")
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(FileFormatError, match="upgrade"):
        Ledger(newer, engine="e", request="r")
    with pytest.raises(WriteError, match="folder missing"):
        Ledger(tmp_path / "nowhere" / "x.sqlite", engine="e", request="r")


def test_geometry_digests_see_what_engines_see():
    structure = oracles.crystal(1)
    same = Structure(
        structure.numbers, structure.positions, id="x", cell=structure.cell, pbc=structure.pbc, tag="t", group="g"
    )
    assert geometry_digest(same) == geometry_digest(structure)
    nudged = structure.positions.copy()
    nudged[0, 0] = np.nextafter(nudged[0, 0], 99)
    for other in (
        replace(structure, positions=nudged),
        replace(structure, charge=1),
        replace(structure, multiplicity=3),
        replace(structure, pbc=(True, True, False)),
        replace(structure, cell=2 * structure.cell),
        replace(structure, numbers=structure.numbers + 1),
    ):
        assert geometry_digest(other) != geometry_digest(structure)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1}) != digest_of({"a": 1, "b": 3})


def test_labels_go_through_bytes_unchanged():
    structure = oracles.molecule(4, 1)
    labels = oracles.labelled(oracles.Morse(), [structure], probes=2, hessian=True).labels
    labels = replace(labels, hvp_error=torch.tensor([[0.1], [0.2]], dtype=torch.float64))
    back = labels_from_bytes(labels_to_bytes(labels))
    for name in ("energy", "forces", "probes", "hvp", "hessian", "hvp_error", "n_atoms"):
        assert torch.equal(getattr(back, name), getattr(labels, name))
    assert back.stress is None
    payload = labels_to_bytes(Labels.of(3))
    for damaged in (b"", b"nonsense", payload[:-5], payload[:20]):
        with pytest.raises(FileFormatError, match="damaged"):
            labels_from_bytes(damaged)
