"""Frequencies of all data sets of phonopy's examples against phonopy itself, read by its own loader.

The reference data are not part of the repository: `shared/data/phonopy`, or HESSE_SHARED_DATA.
"""

from __future__ import annotations

import contextlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hesse.lattice import fit_vinet, grueneisen, quasiharmonic_functions, read_phonons

phonopy = pytest.importorskip("phonopy", reason="needs phonopy")

_DISPLACED: dict[str, Any] = {"phonopy_yaml": "phonopy_disp.yaml", "force_sets_filename": "FORCE_SETS"}
_CELL: dict[str, Any] = {"unitcell_filename": "POSCAR-unitcell", "supercell_matrix": [2, 2, 2]}
_KCL = "KCl-SSCHA"
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("NaCl", _DISPLACED, {}),
    ("Al2O3", _DISPLACED, {}),
    ("SnO2", _DISPLACED, {}),
    ("MgB2", _DISPLACED, {}),
    ("TiO2-anatase", _DISPLACED, {}),
    ("NaCl-rd", _DISPLACED, {}),
    ("NaCl-gruneisen/NaCl-0.995", _CELL | {"force_sets_filename": "FORCE_SETS"}, {"supercell": 2}),
    ("NaCl-gruneisen/NaCl-1.00", _CELL | {"force_sets_filename": "FORCE_SETS"}, {"supercell": 2}),
    ("NaCl-gruneisen/NaCl-1.005", _CELL | {"force_sets_filename": "FORCE_SETS"}, {"supercell": 2}),
    ("NaCl-VASPdfpt", _CELL | {"force_constants_filename": "FORCE_CONSTANTS"}, {"supercell": 2}),
    (f"{_KCL}/phonopy_fc222_JPCM2022.yaml.xz", {"phonopy_yaml": "phonopy_fc222_JPCM2022.yaml.xz"}, {}),
    (f"{_KCL}/phonopy_sscha_fc_JPCM2022.yaml.xz", {"phonopy_yaml": "phonopy_sscha_fc_JPCM2022.yaml.xz"}, {}),
    pytest.param(
        f"{_KCL}/phonopy_fc444_JPCM2022.yaml.xz",
        {"phonopy_yaml": "phonopy_fc444_JPCM2022.yaml.xz"},
        {},
        marks=pytest.mark.slow,
    ),
]


@pytest.fixture
def data(shared_data: Path) -> Path:
    folder = shared_data / "phonopy"
    if not folder.is_dir():
        pytest.skip("no reference data: shared/data/phonopy")
    return folder


def wave_vectors() -> np.ndarray:
    q = np.random.default_rng(0).uniform(-0.5, 0.5, (24, 3))
    q[:3] = [[0, 0, 0], [0.5, 0, 0.5], [0.5, 0.5, 0.5]]
    return q


def compare(path: Path, loaded: Any, own: dict[str, Any]) -> float:
    result = read_phonons(path, **own)
    q = wave_vectors()
    loaded.run_qpoints(q)
    loaded.run_mesh([6, 6, 6], is_gamma_center=True)
    loaded.run_thermal_properties(temperatures=[300.0], cutoff_frequency=1e-2)
    thermal, expected = result.thermal(300.0, (6, 6, 6)), loaded.thermal_properties
    assert thermal.free_energy[0] * 96.48533 == pytest.approx(expected.free_energy[0], rel=1e-5, abs=1e-4)
    assert thermal.entropy[0] * 96485.33 == pytest.approx(expected.entropy[0], rel=1e-5)
    assert thermal.heat_capacity[0] * 96485.33 == pytest.approx(expected.heat_capacity[0], rel=1e-5)
    return float(np.abs(result.frequencies(q) - loaded.qpoints.frequencies).max())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "files", "own"), CASES)
def test_frequencies_are_those_of_phonopy(data: Path, name: str, files: dict[str, Any], own: dict[str, Any]) -> None:
    path = data / name
    folder = path if path.is_dir() else path.parent
    with warnings.catch_warnings(), contextlib.chdir(folder):
        warnings.simplefilter("ignore")
        loaded = phonopy.load(log_level=0, primitive_matrix="auto", **files)  # and BORN of that folder
        assert compare(path, loaded, own) < 1e-4


def test_silicon_from_the_output_of_its_supercell(data: Path, tmp_path: Path) -> None:
    from phonopy.cui.create_force_sets import create_FORCE_SETS  # noqa: F401 (phonopy's command makes the same file)
    from phonopy.file_IO import write_FORCE_SETS
    from phonopy.interface.vasp import parse_set_of_forces

    shutil.copy(data / "Si" / "phonopy_disp.yaml", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = phonopy.load(tmp_path / "phonopy_disp.yaml", produce_fc=False, log_level=0)
        forces = parse_set_of_forces(len(loaded.supercell), [str(data / "Si" / "vasprun.xml")], verbose=False)["forces"]
        loaded.forces = forces
        write_FORCE_SETS(loaded.dataset, filename=tmp_path / "FORCE_SETS")
        loaded = phonopy.load(
            tmp_path / "phonopy_disp.yaml", force_sets_filename=tmp_path / "FORCE_SETS", is_nac=False, log_level=0
        )
        assert compare(tmp_path, loaded, {}) < 1e-4


@pytest.mark.slow
def test_grueneisen_parameters_of_rock_salt(data: Path) -> None:
    from phonopy import PhonopyGruneisen

    folders = [data / "NaCl-gruneisen" / f"NaCl-{name}" for name in ("1.00", "0.995", "1.005")]
    middle, smaller, larger = (read_phonons(folder, supercell=2) for folder in folders)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = PhonopyGruneisen(middle.to_phonopy(), larger.to_phonopy(), smaller.to_phonopy())
        reference.set_mesh([4, 4, 4], is_gamma_center=True)
        q, _, frequencies, _, expected = reference.get_mesh()
    result = grueneisen(middle, smaller, larger, q=q)
    solid = frequencies > 0.1
    np.testing.assert_allclose(np.sort(result.gamma[solid]), np.sort(expected[solid]), atol=2e-3)
    assert grueneisen(middle, smaller, larger, mesh=(6, 6, 6)).average(300.0)[0] == pytest.approx(1.7, abs=0.3)


def test_quasiharmonic_copper(data: Path) -> None:
    from phonopy.file_IO import read_thermal_properties_yaml, read_v_e
    from phonopy.qha.core import QHA

    folder = data / "Cu-QHA"
    files = [str(folder / f"thermal_properties.yaml-{k:02d}") for k in range(11)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volumes, energies = read_v_e(str(folder / "e-v.dat"))
        kelvins, cv, entropy, free, _, _ = read_thermal_properties_yaml(files)
        reference = QHA(volumes, energies, kelvins, cv, entropy, free, eos="vinet", t_max=1000.0)
        reference.run()
    kj = 96.4853321
    m = int(np.flatnonzero(kelvins == 1010)[0])  # beyond, the minimum leaves the volumes
    result = quasiharmonic_functions(volumes, energies, free[:m] / kj, cv[:m] / kj / 1000.0, kelvins[:m])
    n = min(m, len(reference.volume_temperature)) - 1
    np.testing.assert_allclose(result.volume[:n], reference.volume_temperature[:n], rtol=1e-6)
    np.testing.assert_allclose(result.bulk_modulus[:n], reference.bulk_modulus_temperature[:n], rtol=1e-4)
    np.testing.assert_allclose(
        result.expansion[1 : n - 1], reference.thermal_expansion[1 : n - 1], rtol=1e-3, atol=1e-8
    )
    k = int(np.flatnonzero(kelvins == 300)[0])
    assert 4.2e-5 < result.expansion[k] < 5.2e-5  # measured: 4.95e-5 (3 x 16.5e-6)
    assert fit_vinet(np.asarray(volumes), np.asarray(energies))[1] < 1e-3
