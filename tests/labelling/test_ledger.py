"""The ledger returns what was written, for the same engine, structure and quantity."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch

import oracles
from hesse.errors import FileFormatError, RequestError, WriteError
from hesse.labelling.ledger import Ledger
from hesse.labelling.ledger_records import Attempt, Record, description_digest, geometry_digest
from hesse.labelling.serialization import labels_from_bytes, labels_to_bytes, split_by_quantity
from hesse.labelling.spec import LabelSpec
from hesse.structures import Properties, Structure

E, OTHER = {"name": "e"}, {"name": "e", "settings": {"step": "0.1"}}
DONE = Attempt(("a", "g"), ("forces", "hvp/x/0/0"), 3, 0.5, "", {"forces": Record(b"f"), "hvp/x/0/0": Record(b"h")})
FAILED = Attempt(("b", "g"), ("forces", "hessian"), 4, 1.5, "no convergence")


def test_records_survive_and_belong_to_engine_and_structure(tmp_path):
    path = tmp_path / "x.sqlite"
    with Ledger(path, engine=E) as ledger:
        ledger.write([DONE, FAILED])
    with Ledger(path, engine=E) as ledger:
        assert ledger.completed() == {("a", "g"): {"forces": "", "hvp/x/0/0": ""}}
        assert sorted(ledger.attempts(), key=lambda a: a.key) == [replace(DONE, records={}), FAILED]
        assert ledger.read(("a", "g"), ["forces", "hessian"]) == {"forces": Record(b"f")}
        assert ledger.read(("a", "other"), ["forces"]) == {}
    with Ledger(path, engine=OTHER) as ledger:
        assert ledger.completed() == {}
        assert ledger.attempts() == []


def test_a_new_record_replaces_the_old_one(tmp_path):
    path = tmp_path / "x.sqlite"
    with Ledger(path, engine=E) as ledger:
        ledger.write([DONE, FAILED])
        better = replace(DONE, quantities=("forces",), records={"forces": Record(b"new", "too noisy: 3")})
        ledger.write([better, replace(FAILED, reason="", records={"hessian": Record(b"x")})])
        assert ledger.completed()[("a", "g")] == {"forces": "too noisy: 3", "hvp/x/0/0": ""}
        assert ledger.read(("a", "g"), ["forces"]) == {"forces": Record(b"new", "too noisy: 3")}
        assert not any(a.reason for a in ledger.attempts())


def test_records_are_written_in_one_transaction(tmp_path):
    with Ledger(tmp_path / "x.sqlite", engine=E) as ledger:
        ledger.write([DONE])
        with pytest.raises(sqlite3.ProgrammingError):
            ledger.write([FAILED, replace(DONE, key=("c", "g"), seconds=object())])
        assert list(ledger.completed()) == [("a", "g")]
        assert len(ledger.attempts()) == 1


def test_one_writer_and_any_number_of_readers(tmp_path):
    path = tmp_path / "x.sqlite"
    with Ledger(path, engine=E) as ledger:
        ledger.write([DONE])
        with pytest.raises(RequestError, match="another campaign is writing"):
            Ledger(path, engine=E)
        with Ledger(path, engine=E, read_only=True) as reader:
            assert len(reader.completed()) == 1
            with pytest.raises(WriteError, match="readonly"):
                reader.write([FAILED])
    with Ledger(path, engine=E) as ledger:
        assert len(ledger.completed()) == 1
        (tmp_path / "link.sqlite").symlink_to(path)
        with pytest.raises(RequestError, match="another campaign is writing"):
            Ledger(tmp_path / "link.sqlite", engine=E)
    assert (tmp_path / ".x.sqlite.lock").read_bytes() == b""


def test_a_ledger_that_cannot_be_opened_is_not_locked(tmp_path):
    path = tmp_path / "x.sqlite"
    path.write_bytes(b"hello" * 100)
    with pytest.raises(FileFormatError):
        Ledger(path, engine=E)
    path.unlink()
    with Ledger(path, engine=E):
        pass


def test_an_empty_file_reads_as_an_empty_ledger(tmp_path):
    path = tmp_path / "x.sqlite"
    path.touch()
    with Ledger(path, engine=E, read_only=True) as ledger:
        assert ledger.completed() == {}
        assert ledger.attempts() == []
    assert path.stat().st_size == 0


def test_other_files_are_refused_and_not_changed(tmp_path):
    for name, content in (("text", b"hello" * 100), ("zeros", bytes(5000))):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match="ledger"):
            Ledger(path, engine=E)
        assert path.read_bytes() == content
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE things (x)")
    connection.close()
    with pytest.raises(FileFormatError, match="not a ledger of labels"):
        Ledger(foreign, engine=E)
    for version, reply in ((99, "upgrade"), (1, "by an older Hesse")):
        other = tmp_path / f"version-{version}.sqlite"
        with sqlite3.connect(other) as connection:
            connection.execute(f"PRAGMA user_version={version}")
        connection.close()
        for read_only in (False, True):
            with pytest.raises(FileFormatError, match=reply):
                Ledger(other, engine=E, read_only=read_only)
    with pytest.raises(WriteError, match="there is no such folder"):
        Ledger(tmp_path / "nowhere" / "x.sqlite", engine=E)


def test_geometry_digests_depend_on_everything_engines_use():
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
    assert (
        description_digest({"a": 1, "b": 2})
        == description_digest({"b": 2, "a": 1})
        != description_digest({"a": 1, "b": 3})
    )


def test_labels_survive_splitting_and_serialization():
    structure = oracles.molecule(4, 1)
    labels = oracles.labeled(oracles.Morse(), [structure], probes=2, hessian=True).labels
    labels = labels.replace(hvp_error=torch.tensor([[0.1], [0.2]], dtype=torch.float64))
    requested = LabelSpec(n_probes=2, hessian=True).quantities_of(structure)
    assert requested == ("forces", "hvp/rademacher/0/0", "hvp/rademacher/0/1", "hessian")
    parts = {
        name: labels_from_bytes(labels_to_bytes(part)) for name, part in split_by_quantity(labels, requested).items()
    }
    assert tuple(sorted(parts)) == tuple(sorted(requested))
    assert torch.equal(parts["forces"].energy, labels.energy)
    assert torch.equal(parts["forces"].forces, labels.forces)
    assert torch.equal(parts["hessian"].hessian, labels.hessian)
    assert parts["forces"].hessian is None
    for k in range(2):
        part = parts[f"hvp/rademacher/0/{k}"]
        assert torch.equal(part.probes[0], labels.probes[k])
        assert torch.equal(part.hvp[0], labels.hvp[k])
        assert torch.equal(part.hvp_error[0], labels.hvp_error[k])
    payload = labels_to_bytes(Properties.single(3))
    for damaged in (b"", b"nonsense", payload[:-5], payload[:20]):
        with pytest.raises(FileFormatError, match="damaged"):
            labels_from_bytes(damaged)
