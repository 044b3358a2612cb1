"""Symmetry-adapted directions: their number is phonopy's, and with the space group they determine the Hessian."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

import hesse
from hesse.errors import ConfigError, GeometryError, RequestError
from hesse.harmonic.irreducible_directions import count_irreducible_directions, irreducible_directions
from hesse.labelling import plan_labels
from hesse.structures import from_ase

pytest.importorskip("spglib", reason="symmetry-adapted directions need spglib (extra materials)")
phonopy = pytest.importorskip("phonopy", reason="phonopy (extra materials) counts and completes independently")

LOW = Atoms("NaClK", [[0.0, 0.0, 0.0], [2.1, 0.3, 0.4], [0.5, 2.4, 1.9]], cell=[4.1, 4.6, 5.2], pbc=True)
CRYSTALS = {
    "copper": bulk("Cu", a=3.6, cubic=True).repeat(2),
    "rock salt": bulk("NaCl", "rocksalt", a=5.6, cubic=True),
    "diamond": bulk("C", a=3.57, cubic=True),
    "hexagonal": bulk("Mg", a=3.2, c=5.2).repeat(2),
    "wurtzite": bulk("ZnO", "wurtzite", a=3.25, c=5.2, u=0.38),
    "tetragonal": bulk("Sn", "bct", a=5.8, c=3.2).repeat(2),
    "no symmetry": LOW,
}
EXPECTED = {"copper": 1, "rock salt": 2, "diamond": 1, "no symmetry": 9}


def network() -> hesse.HesseNet:
    torch.manual_seed(1)
    elements = sorted({int(z) for atoms in CRYSTALS.values() for z in atoms.numbers})
    return hesse.HesseNet(hesse.HesseNetConfig(features=8, channels=2, cutoff=4.0), elements).double()


def record(atoms: Atoms) -> phonopy.Phonopy:
    cell = phonopy.structure.atoms.PhonopyAtoms(
        numbers=atoms.numbers, cell=atoms.cell.array, scaled_positions=atoms.get_scaled_positions()
    )
    return phonopy.Phonopy(cell, np.eye(3), primitive_matrix=np.eye(3))


@pytest.mark.parametrize("name", CRYSTALS)
def test_as_many_as_phonopy_displaces(name: str) -> None:
    reference = record(CRYSTALS[name])
    reference.generate_displacements(is_plusminus=False)
    count = count_irreducible_directions(hesse.as_structure(CRYSTALS[name]))
    assert count == len(reference.dataset["first_atoms"])
    assert count == EXPECTED.get(name, count)


@pytest.mark.parametrize("name", ["rock salt", "diamond", "hexagonal", "no symmetry"])
def test_with_the_space_group_they_determine_the_hessian(name: str) -> None:
    """phonopy completes the products of these directions to all force constants, those of the full Hessian."""
    structure = hesse.as_structure(CRYSTALS[name])
    potential = network()
    n = len(structure)
    full = hesse.evaluate_structures(potential, structure, hesse.Request(hessian=True)).hessian_of(0).numpy()
    directions = irreducible_directions(structure)
    moves = [
        {"number": int(np.abs(d).sum(axis=1).argmax()), "displacement": 0.01 * d.sum(axis=0), "forces": -0.01 * h}
        for d, h in zip(directions, np.einsum("iajb,kjb->kia", full.reshape(n, 3, n, 3), directions), strict=True)
    ]
    completed = record(CRYSTALS[name])
    completed.dataset = {"natom": n, "first_atoms": moves}
    completed.produce_force_constants(calculate_full_force_constants=True)
    expected = full.reshape(n, 3, n, 3).transpose(0, 2, 1, 3)
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(completed.force_constants, expected, atol=1e-6 * np.abs(expected).max())


def test_labels_of_crystals_with_different_numbers_of_directions(tmp_path: Path) -> None:
    """Each crystal has its own number of pairs, in one file; the same command again computes nothing."""
    crystals = [hesse.as_structure(CRYSTALS[name]) for name in ("rock salt", "copper", "no symmetry")]
    engine = network()
    plan = plan_labels(crystals, engine, tmp_path / "labels.h5", probe="symmetry-adapted")
    assert plan.count_missing()["hvp"] == 2 + 1 + 9
    report = hesse.label(crystals, engine, tmp_path / "labels.h5", probe="symmetry-adapted", workers=0, quiet=True)
    assert report.dataset.labels.mask("hvp").sum(dim=0).tolist() == [2, 1, 9]
    assert report.dataset.metadata["probe"] == "symmetry-adapted"
    again = hesse.label(crystals, engine, tmp_path / "labels.h5", probe="symmetry-adapted", workers=0, quiet=True)
    assert again.n_reused == 3
    stored = hesse.read_dataset(tmp_path / "labels.h5").labels
    assert stored.mask("hvp").sum(dim=0).tolist() == [2, 1, 9]
    first = slice(0, len(crystals[0]))
    expected = irreducible_directions(crystals[0]) * np.sqrt(3 * len(crystals[0]))
    np.testing.assert_allclose(stored.probes[:2, first].numpy(), expected, atol=1e-12)
    predicted = hesse.evaluate(engine, tmp_path / "labels.h5").predictions
    torch.testing.assert_close(
        predicted.hvp[stored.mask("hvp").repeat_interleave(stored.n_atoms, 1)],
        stored.hvp[stored.mask("hvp").repeat_interleave(stored.n_atoms, 1)],
    )


def test_what_is_refused(tmp_path: Path) -> None:
    water, output = molecule("H2O"), tmp_path / "labels.h5"
    with pytest.raises(GeometryError, match="is not periodic in three directions: symmetry-adapted"):
        hesse.label([CRYSTALS["diamond"], water], "gfn2", output, probe="symmetry-adapted", workers=0, quiet=True)
    with pytest.raises(GeometryError, match="has one atom: moving it moves the whole crystal, so that H v is zero"):
        hesse.label(bulk("Cu"), EMT(), output, probe="symmetry-adapted", quiet=True)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="3 symmetry-adapted probes were asked for: every crystal has as many"):
        hesse.LabelSpec(n_probes=3, probe="symmetry-adapted")
    with pytest.raises(RequestError, match="has 1 symmetry-adapted directions, which determine its Hessian; 2 were"):
        hesse.datasets.draw_fixed_probes([hesse.as_structure(CRYSTALS["diamond"])], "symmetry-adapted", n_probes=2)


def test_narrow_cells_are_told() -> None:
    cells = {"narrow": bulk("Cu", cubic=True), "wide": bulk("Cu", cubic=True) * 2}
    structures = [from_ase(atoms, id=name) for name, atoms in cells.items()]
    report = hesse.label(structures, EMT(), probe="symmetry-adapted", quiet=True)
    (note,) = report.notes
    assert note.startswith("1 x labeled with symmetry-adapted products of a cell narrower than 5 Å")
    assert '"narrow"' in note
    assert hesse.label(structures, EMT(), quiet=True).notes == ()
