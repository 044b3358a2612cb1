"""Quantities that some structures of a campaign do not have are left out for these, and what an engine cannot treat
costs one record."""

from __future__ import annotations

import time

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.io import write
from typer.testing import CliRunner

from hesse.cli.app import app
from hesse.datasets import read_dataset
from hesse.errors import GeometryError
from hesse.labelling import label
from hesse.structures import check_cell, from_ase, to_ase


def named(atoms, name):
    return from_ase(atoms, id=name)


@pytest.fixture
def mixed():
    return [
        named(bulk("Cu", cubic=True), "cell"),
        named(fcc111("Cu", (1, 1, 3), vacuum=6.0), "slab"),
        named(molecule("CH4"), "methane"),
    ]


def test_stress_is_left_out_for_slabs_and_molecules_and_all_else_is_labeled(mixed, tmp_path):
    report = label(mixed, EMT(), tmp_path / "o.h5", stress=True, hessian=True, quiet=True)
    assert report.failures == ()
    assert len(report.notes) == 1
    assert report.notes[0].startswith("2 x labeled without stress, because it is not periodic in all three directions")
    assert '"slab", "methane"' in report.notes[0]
    labels = read_dataset(tmp_path / "o.h5").labels
    assert labels.mask("stress").tolist() == [True, False, False]
    assert bool(labels.mask("forces").all() and labels.mask("hvp").all() and labels.mask("hessian").all())
    assert labels.stress[0].numpy() == pytest.approx(
        label(mixed[:1], EMT(), stress=True, quiet=True).dataset.labels.stress[0].numpy()
    )
    again = label(mixed, EMT(), tmp_path / "o.h5", stress=True, hessian=True, quiet=True)
    assert again.n_reused == 3


def test_stress_of_structures_none_of_which_has_one_is_refused_before_any_work(mixed, tmp_path):
    with pytest.raises(GeometryError, match="no structure is periodic in all three directions"):
        label(mixed[1:], EMT(), tmp_path / "o.h5", stress=True, quiet=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("length", [1.0, 0.05])
def test_a_placeholder_cell_is_one_failed_record_at_once(length):
    placeholder = molecule("H2O")
    placeholder.set_cell(np.eye(3) * length)
    placeholder.pbc = True
    start = time.monotonic()
    pair = [named(placeholder, "boxed"), named(molecule("H2O"), "free")]
    report = label(pair, "gfn2", probes=0, workers=0, quiet=True)
    assert time.monotonic() - start < 10.0
    assert [s.id for s in report.dataset.structures] == ["free"]
    assert [failure.id for failure in report.failures] == ["boxed"]
    assert "the cell is a placeholder, or in another unit" in report.failures[0].reason


@pytest.mark.parametrize(
    "atoms", [bulk("Cu"), bulk("C", "diamond", a=3.2), bulk("U", "bcc", a=3.3), bulk("He", "fcc", a=2.5)]
)
def test_cells_of_compressed_crystals_pass(atoms):
    check_cell(named(atoms, "crystal"))


@pytest.mark.slow
def test_what_was_left_out_is_told(mixed, tmp_path):
    write(tmp_path / "mixed.extxyz", [to_ase(structure) for structure in mixed])
    told = "note: 2 x labeled without stress, because it is not periodic in all three directions"
    arguments = [
        "label",
        str(tmp_path / "mixed.extxyz"),
        str(tmp_path / "o.h5"),
        "--probes",
        "0",
        "--stress",
        "--quiet",
    ]
    done = CliRunner().invoke(app, [*arguments, "--engine", "ase:ase.calculators.emt:EMT"])
    assert done.exit_code == 0, done.output
    assert told in done.stderr
    assert told in label(mixed, EMT(), stress=True, quiet=True).table()
