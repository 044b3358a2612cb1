"""Displaced supercells from elsewhere: their temperature, the fit, other orders of atoms, and weights that collapse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from typer.testing import CliRunner

pytest.importorskip("phonopy", reason="phonopy is not installed")

import hesse
from hesse.cli.app import app
from hesse.errors import ConfigError, FileFormatError, GeometryError, MissingLabelError, RequestError
from hesse.lattice import Phonons, anharmonic_ensemble, sampling_temperature
from hesse.lattice.fixed_point import full_constants
from hesse.lattice.thermal_gaussian import ThermalGaussian
from hesse.structures import Properties

pytestmark = pytest.mark.filterwarnings("ignore::hesse.errors.HarmonicWarning")
DRAWN_AT = 250.0
REST = -7.0
MESH = (4, 4, 4)


@pytest.fixture(scope="module")
def alloy() -> Phonons:
    return hesse.phonons(
        Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5] * 3], cell=[2.75] * 3, pbc=True), EMT(), supercell=2
    )


def ensemble(
    phonons: Phonons, count: int = 40, stiffer: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, hesse.Dataset]:
    """Displacements at 250 K, and harmonic energies and forces with other force constants; atoms in another order."""
    constants, masses = full_constants(phonons), phonons.supercell.atomic_masses
    rng = np.random.default_rng(seed)
    moves = ThermalGaussian(constants, masses, DRAWN_AT).sample(count, rng)
    forces = -stiffer * np.einsum("ijxy,mjy->mix", constants, moves)
    energies = REST - 0.5 * np.einsum("mix,mix->m", forces, moves)
    order = rng.permutation(len(masses))
    rest = phonons.supercell
    structures = [
        hesse.Structure(
            rest.numbers[order],
            (rest.positions + move + 0.3 * rest.cell[1])[order],
            id=f"moved-{k}",
            cell=rest.cell,
            pbc=(True,) * 3,
        )
        for k, move in enumerate(moves)
    ]
    structures = [s.with_positions(s.positions - 0.3 * rest.cell[1] + rest.cell[0], id=s.id) for s in structures]
    labels = [Properties.single(len(order), energy=e, forces=f[order]) for e, f in zip(energies, forces, strict=True)]
    return moves, hesse.Dataset(tuple(structures), Properties.concatenate(labels))


def test_temperature_of_displacements(alloy: Phonons) -> None:
    """40 supercells of 16 atoms: a relative error of 1/√(20·45) = 3 %, since pairs have opposite signs."""
    moves, _ = ensemble(alloy)
    assert sampling_temperature(alloy, moves) == pytest.approx(DRAWN_AT, rel=0.1)


def test_harmonic_forces_give_their_force_constants(alloy: Phonons) -> None:
    _, data = ensemble(alloy, stiffer=1.02)
    result = anharmonic_ensemble(alloy, data, drawn_at=DRAWN_AT, mesh=MESH)
    assert result.converged
    assert result.temperature == DRAWN_AT
    q = alloy.commensurate
    np.testing.assert_allclose(result.phonons.frequencies(q), np.sqrt(1.02) * alloy.frequencies(q), atol=2e-3)
    exact = result.phonons.thermal(DRAWN_AT, MESH).free_energy[0] + REST / 8
    assert result.free_energy == pytest.approx(exact, abs=1e-4)


def test_weights_collapse_at_other_temperatures(alloy: Phonons) -> None:
    _, data = ensemble(alloy, 40)
    with pytest.raises(RequestError, match=r"of 40 displaced supercells drawn at 250 K only .* weights have collapsed"):
        anharmonic_ensemble(alloy, data, 600.0, drawn_at=DRAWN_AT, mesh=MESH)


@pytest.mark.slow
def test_a_temperature_that_is_near(alloy: Phonons) -> None:
    _, data = ensemble(alloy, 100)
    near = anharmonic_ensemble(alloy, data, 290.0, drawn_at=DRAWN_AT, mesh=MESH)
    assert 10 < near.rounds[0].effective < 90


def test_what_does_not_fit(alloy: Phonons) -> None:
    _, data = ensemble(alloy, 16)
    first = data.structures[0]
    stretched = hesse.Structure(first.numbers, first.positions, id="s", cell=1.01 * first.cell, pbc=first.pbc)
    other = hesse.Structure(
        np.where(first.numbers == 29, 28, 79), first.positions, id="other", cell=first.cell, pbc=first.pbc
    )
    for structure, message in ((stretched, "no displaced supercell"), (other, "do not belong to the sites")):
        wrong = hesse.Dataset((structure, *data.structures[1:]), data.labels)
        with pytest.raises(GeometryError, match=message):
            anharmonic_ensemble(alloy, wrong)
    unlabeled = hesse.Dataset(data.structures[:1], Properties.single(16, forces=data.labels.forces[:16]))
    with pytest.raises(MissingLabelError, match="no energies"):
        anharmonic_ensemble(alloy, unlabeled)
    with pytest.raises(RequestError, match="Expected at least 8 of 16"):
        anharmonic_ensemble(alloy, data[:8], drawn_at=DRAWN_AT, mesh=MESH)
    with pytest.raises(ConfigError, match="temperature"):
        anharmonic_ensemble(alloy, data, -5.0, drawn_at=DRAWN_AT, mesh=MESH)


def test_command(alloy: Phonons, tmp_path: Path) -> None:
    _, data = ensemble(alloy, 24)
    alloy.save(tmp_path / "phonopy_params.yaml")
    hesse.write_dataset(tmp_path / "frames.extxyz", data)
    options = [
        "--ensemble",
        str(tmp_path / "frames.extxyz"),
        "--drawn-at",
        "250",
        "--json",
        str(tmp_path / "rows.json"),
    ]
    result = CliRunner().invoke(app, ["anharmonic", str(tmp_path / "phonopy_params.yaml"), *options])
    assert result.exit_code == 0, result.output
    row = json.loads((tmp_path / "rows.json").read_text())
    row = row[0] if isinstance(row, list) else row
    assert row["temperature"] == DRAWN_AT
    assert row["largest"] == pytest.approx(row["largest_harmonic"], abs=1e-2)
    (tmp_path / "ni3al.vasp").write_text("x\n3.5\n1 0 0\n0 1 0\n0 0 1\nNi\n1\ndirect\n0 0 0\n")
    result = CliRunner().invoke(app, ["anharmonic", str(tmp_path / "ni3al.vasp"), *options])
    assert re.search(r"ni3al.vasp is a crystal .* has to be the phonons whose displacements", str(result.exception))
    with pytest.raises(FileFormatError, match=r"elsewhere.cif: there is no such file"):
        hesse.read_phonons(tmp_path / "elsewhere.cif")
    (tmp_path / "alone").mkdir()
    (tmp_path / "ni3al.vasp").rename(tmp_path / "alone" / "ni3al.vasp")
    with pytest.raises(FileFormatError, match=r"ni3al.vasp: this is no file of phonons"):
        hesse.read_phonons(tmp_path / "alone" / "ni3al.vasp")
    result = CliRunner().invoke(app, ["anharmonic", str(tmp_path / "phonopy_params.yaml")])
    assert isinstance(result.exception, RequestError)
    assert "--ensemble" in str(result.exception)
