"""Damaged ledgers: every label afterwards is the right one or its structure failed; the campaign goes on."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import torch

import oracles
from hesse.errors import FileFormatError, WriteError
from hesse.labelling import label, ledger_path, plan_labels
from hesse.labelling.ledger import Ledger
from hesse.labelling.ledger_records import Attempt, Record
from hesse.labelling.ledger_schema import row_checksum

STRUCTURES = [oracles.molecule(n, k) for k, n in enumerate((3, 4, 3))]


def campaign(output, **options):
    return label(STRUCTURES, oracles.Morse(), output, hessian=True, quiet=True, **options)


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    output = tmp_path_factory.mktemp("truth") / "out.h5"
    return ledger_path(output), campaign(output).dataset.labels


def assert_same(report, labels):
    assert not report.failures
    for column, value in labels.items():
        assert torch.equal(report.dataset.labels[column.name].nan_to_num(), value.nan_to_num())


def query(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(*statement).fetchall() for statement in statements][-1]


@pytest.mark.parametrize("bits", [1, 8])
def test_flipped_bits_never_give_other_labels(tmp_path, truth, bits):
    ledger, labels = truth
    content = ledger.read_bytes()
    n_again = 0
    for seed in range(6):
        output = tmp_path / f"{seed}.h5"
        damaged = bytearray(content)
        for place in np.random.default_rng(seed).integers(0, 8 * len(content), bits):
            damaged[place // 8] ^= 1 << int(place % 8)
        ledger_path(output).write_bytes(damaged)
        report = campaign(output)
        assert_same(report, labels)
        n_again += report.n_reused < len(STRUCTURES)
        assert campaign(output).n_reused == len(STRUCTURES)
    assert n_again, "no flip has met a record"


@pytest.mark.parametrize("damage", ["header", "schema page", "page of records", "second half"])
def test_what_sqlite_cannot_follow_is_rebuilt_from_sound_records(tmp_path, truth, damage):
    ledger, labels = truth
    output, content = tmp_path / "out.h5", ledger.read_bytes()
    begin, end = {
        "header": (0, 100),
        "schema page": (100, 4096),
        "page of records": (4096 * 3, 4096 * 4),
        "second half": (len(content) // 2, len(content)),
    }[damage]
    damaged = content[:begin] + bytes([165]) * (end - begin) + content[end:]
    ledger_path(output).write_bytes(damaged)
    plan = plan_labels(STRUCTURES, oracles.Morse(), output, hessian=True)
    assert ledger_path(output).read_bytes() == damaged, "a plan changes nothing"
    report = campaign(output)
    assert_same(report, labels)
    assert report.n_reused == plan.n_complete
    assert "the ledger is damaged" in report.notes[0]
    assert (tmp_path / "out.h5.ledger.sqlite.damaged").read_bytes() == damaged
    if damage in ("header", "schema page"):
        assert report.n_reused == len(STRUCTURES), "the records themselves are sound"


def test_a_changed_record_is_computed_again(tmp_path, truth):
    ledger, labels = truth
    output = tmp_path / "out.h5"
    path = ledger_path(output)
    shutil.copyfile(ledger, path)
    ((rowid, payload),) = query(path, ["SELECT rowid, payload FROM labels WHERE quantity = 'forces' LIMIT 1"])
    changed = payload[:-3] + bytes([payload[-3] ^ 1]) + payload[-2:]
    query(path, ["UPDATE labels SET payload = ? WHERE rowid = ?", (changed, rowid)])
    report = campaign(output)
    assert report.n_reused == len(STRUCTURES) - 1
    assert_same(report, labels)


def test_a_ledger_without_checksums_is_read_and_gets_them(tmp_path, truth):
    ledger, labels = truth
    output = tmp_path / "out.h5"
    path = ledger_path(output)
    shutil.copyfile(ledger, path)
    query(path, *([f"ALTER TABLE {t} DROP COLUMN checksum"] for t in ("labels", "attempts")), ["PRAGMA user_version=2"])
    before = path.read_bytes()
    assert plan_labels(STRUCTURES, oracles.Morse(), output, hessian=True).pending == ()
    assert path.read_bytes() == before
    report = campaign(output)
    assert report.n_reused == len(STRUCTURES)
    assert_same(report, labels)
    assert "without checksums" in report.notes[0]
    assert campaign(output).notes == ()
    # A record that does not fit its structure is a failure of this structure alone, and is computed the next time.
    (row,) = query(
        path, ["SELECT engine, structure, geometry, quantity, suspect FROM labels WHERE quantity = 'hessian' LIMIT 1"]
    )
    checksum = row_checksum(*row, b"nonsense")
    query(
        path,
        ["UPDATE labels SET payload = ?, checksum = ? WHERE structure = ? AND quantity = ?",
         (b"nonsense", checksum, row[1], "hessian")],
    )  # fmt: skip
    report = campaign(output)
    (failure,) = report.failures
    assert failure.id == row[1]
    assert "damaged; the same command computes it again" in failure.reason
    assert_same(campaign(output), labels)


def test_links_and_foreign_databases_are_left_alone(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("data")
    path = tmp_path / "x.sqlite"
    for name in (".x.sqlite.lock", "x.sqlite-wal"):
        (tmp_path / name).symlink_to(precious)
        with pytest.raises((FileFormatError, WriteError), match="link"):
            Ledger(path, engine={})
        (tmp_path / name).unlink()
    path.symlink_to(tmp_path / "absent")
    with pytest.raises(FileFormatError, match="a link to"):
        Ledger(path, engine={})
    path.unlink()
    query(path, ["CREATE TABLE things (x)"])
    before = path.read_bytes()
    with pytest.raises(FileFormatError, match="not a ledger of labels"):
        Ledger(path, engine={})
    assert path.read_bytes() == before
    assert precious.read_text() == "data"
    assert not (tmp_path / "absent").exists()


def test_a_full_disk_names_the_ledger(tmp_path):
    with Ledger(tmp_path / "x.sqlite", engine={}) as ledger:
        ledger._connection.execute("PRAGMA max_page_count=12")
        with pytest.raises(WriteError, match=r"x\.sqlite: the disk is full"):
            ledger.write([Attempt(("a", "g"), ("forces",), 3, 0.5, "", {"forces": Record(bytes(100_000))})])
