"""Sampling takes structures and engines in every form; samples convert to ASE; wrong arguments get a reply."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

import closed_form_engines
import hesse
import oracles
from hesse.errors import FileFormatError, RequestError
from hesse.sampling import (
    MDSampling,
    NormalModeSampling,
    SelectionCriteria,
    farthest_point_sampling,
    select_structures,
    unique_structures,
)

SAMPLING = NormalModeSampling(count=2)


@pytest.fixture
def atoms() -> Atoms:
    return Atoms("CO", [[0, 0, 0], [0, 0, 1.15]])


@pytest.mark.slow
def test_atoms_files_and_every_kind_of_engine_give_the_same_samples(atoms, tmp_path):
    atoms.info["structure_id"] = "molecule"  # seeds follow from ids, and the file would be named after itself
    write(tmp_path / "molecule.xyz", atoms)
    engine = closed_form_engines.own_engine()
    expected = hesse.sample_normal_modes(atoms, engine, SAMPLING, quiet=True)
    assert len(expected.structures) == 3
    for structures, source in (
        ([atoms], closed_form_engines.morse()),
        (tmp_path / "molecule.xyz", engine),
        (atoms, "ase:closed_form_engines:own_engine"),
    ):
        result = hesse.sample_normal_modes(structures, source, SAMPLING, quiet=True)
        for one, other in zip(result.structures, expected.structures, strict=True):
            assert one.positions == pytest.approx(other.positions, abs=1e-5)


def test_samples_convert_to_ase(atoms):
    settings = MDSampling(count=2, stride=2, equilibration=0)
    result = hesse.sample_md(atoms, closed_form_engines.own_engine(), settings, quiet=True)
    frames = result.to_ase()
    assert [a.info["structure_id"] for a in frames] == [s.id for s in result.structures]
    assert [a.info["tag"] for a in frames] == ["relaxed", "md-300K", "md-300K"]
    for frame in frames:
        assert frame.get_potential_energy() == pytest.approx(oracles.Morse().exact(hesse.from_ase(frame)).energy)
    rattled = hesse.sample_rattled(atoms, quiet=True).to_ase()
    assert len(rattled) == 20
    assert rattled[0].calc is None


def test_selection_takes_atoms_and_energies_of_data_sets():
    rng = np.random.default_rng(0)
    frames = [Atoms("CO", [[0, 0, 0], [0, 0, 1.1 + 0.1 * k]]) for k in range(4)]
    copy = frames[1].copy()
    copy.positions += rng.normal(size=3)
    assert unique_structures([*frames, copy], 0.02) == [0, 1, 2, 3]
    assert farthest_point_sampling(frames, 2).tolist() == [0, 3]
    structures = [hesse.Structure([6, 8], a.positions, id=str(k), group="pair") for k, a in enumerate(frames)]
    data = oracles.labeled(oracles.Morse(), structures)
    energies = data.labels.energy.numpy()
    window = float(energies[2] - energies[0]) + 1e-6
    result = select_structures(data, SelectionCriteria(tolerance=None, energy_window=window))
    assert result.selected == (0, 1, 2)


@pytest.mark.parametrize(
    "function", [hesse.sample_normal_modes, hesse.sample_md, hesse.sample_paths], ids=["nms", "md", "irc"]
)
def test_wrong_arguments_get_a_reply(function, atoms):
    with pytest.raises(RequestError, match=r"expected structures: .*; got int"):
        function(3, "gfn2", quiet=True)
    with pytest.raises(RequestError, match=r"expected an engine: .*; got None"):
        function(atoms, None, quiet=True)
    with pytest.raises(RequestError, match="give the engine by its name"):
        function(atoms, closed_form_engines.own_engine(), workers=2, quiet=True)
    with pytest.raises(FileFormatError, match=r"nowhere\.xyz"):
        function("nowhere.xyz", "gfn2", quiet=True)
