"""phonopy: layouts, signs, units, and comparison with frequencies computed by phonopy."""

from __future__ import annotations

import contextlib
import io
import lzma
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.io import write as write_with_ase
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from hesse.datasets import from_phonopy, read_dataset
from hesse.errors import FileFormatError, InconsistentLabelsError, LabelShapeError
from hesse.harmonic.normal_modes import normal_modes
from hesse.structures import to_ase
from hesse.units import ENERGY_UNITS, LENGTH_UNITS

phonopy = pytest.importorskip("phonopy", reason="needs phonopy")

TERAHERTZ = 33.35641  # cm⁻¹


def springs(atoms: Atoms) -> NDArray[np.float64]:
    """Force constants `[n, n, 3, 3]` of springs to near neighbors, with all symmetries of the crystal."""
    n = len(atoms)
    constants = np.zeros((n, n, 3, 3))
    for i, j, vector in zip(*neighbor_list("ijD", atoms, 4.5), strict=True):
        length = np.linalg.norm(vector)
        along = np.outer(vector, vector) / length**2
        block = 9.0 * np.exp(-length) * (6.0 * along - np.eye(3))
        constants[i, j] -= block
        constants[i, i] += block
    return constants


def calculation(folder: Path, *, calculator: str | None = None, sign: float = 1.0) -> NDArray[np.float64]:
    """Write a calculation of NaCl in a 2x2x2 cell, one displacement at a time, and return its force constants."""
    from phonopy.structure.atoms import PhonopyAtoms

    cell = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    unit = PhonopyAtoms(
        symbols=cell.get_chemical_symbols(), cell=cell.cell, scaled_positions=cell.get_scaled_positions()
    )
    record = phonopy.Phonopy(unit, np.diag([2, 2, 2]), primitive_matrix="F", calculator=calculator, log_level=0)
    record.generate_displacements(distance=0.01)
    supercell = record.supercell
    constants = springs(Atoms(supercell.symbols, cell=supercell.cell, positions=supercell.positions, pbc=True))
    forces = []
    for entry in record.dataset["first_atoms"]:
        forces.append(-np.einsum("iab,b->ia", constants[:, entry["number"]], entry["displacement"]))
    record.forces = sign * np.array(forces)
    folder.mkdir(exist_ok=True)
    record.save(folder / "phonopy_params.yaml", settings={"force_sets": True, "displacements": True})
    return constants


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NDArray[np.float64]]:
    """One such calculation, shared by the tests."""
    folder = tmp_path_factory.mktemp("phonopy")
    return folder, calculation(folder)


Example = tuple[Path, NDArray[np.float64]]


def test_displaced_supercells_and_their_hessian(tmp_path: Path, example: Example) -> None:
    shutil.copytree(example[0], tmp_path / "run")
    constants = example[1]
    n = len(constants)
    for path in (tmp_path / "run", tmp_path / "run" / "phonopy_params.yaml"):
        back = read_dataset(path)
        assert back.structures[0].id.endswith("/supercell")
        assert back.structures[0].periodic
        assert {s.tag for s in back.structures[1:]} == {"displaced"}
        np.testing.assert_allclose(back.labels.hessian_of(0), from_phonopy(constants), atol=1e-6)
        assert "differences" in back.metadata["hessian_from"]
        assert back.labels.forces is not None
        for i in range(1, len(back)):
            moved = back.structures[i].positions - back.structures[0].positions
            expected = -np.einsum("iajb,jb->ia", from_phonopy(constants), moved)
            np.testing.assert_allclose(back.labels.forces[i * n : (i + 1) * n], expected, atol=1e-8)
        assert not back.labels.mask("forces")[0]


def test_compressed_yaml_and_units_of_its_calculator(tmp_path: Path) -> None:
    constants = calculation(tmp_path / "qe", calculator="qe")
    text = (tmp_path / "qe" / "phonopy_params.yaml").read_bytes()
    packed = tmp_path / "phonopy_nacl.yaml.xz"
    packed.write_bytes(lzma.compress(text))
    back = read_dataset(packed)
    rydberg, bohr = ENERGY_UNITS["rydberg"], LENGTH_UNITS["bohr"]
    assert back.structures[0].cell[1, 1] == pytest.approx(2 * 5.6 * bohr, rel=1e-5)
    np.testing.assert_allclose(
        back.labels.hessian_of(0), from_phonopy(constants) * rydberg / bohr**2, rtol=1e-5, atol=1e-5
    )


def test_force_constants_in_the_same_folder(tmp_path: Path, example: Example) -> None:
    constants = example[1]
    plain = read_dataset(example[0])
    n = len(constants)
    atoms = to_ase(plain.structures[0])
    for name in ("FORCE_CONSTANTS", "force_constants.hdf5"):
        folder = tmp_path / name.lower().replace(".", "-")
        folder.mkdir()
        write_with_ase(folder / "SPOSCAR", atoms, format="vasp", direct=True)
        write_constants(folder / name, constants)
        for path in (folder, folder / name):
            back = read_dataset(path)
            assert len(back) == 1
            np.testing.assert_allclose(back.labels.hessian_of(0), from_phonopy(constants), rtol=0, atol=1e-14)
        write_constants(folder / name, constants[:2])
        with pytest.raises(LabelShapeError, match=f"between 2 and {n} atoms"):
            read_dataset(folder)
        (folder / "SPOSCAR").unlink()
        with pytest.raises(FileFormatError, match="SPOSCAR"):
            read_dataset(folder)


@pytest.mark.parametrize("stray", ["FORCE_CONSTANTS", "FORCE_SETS", "force_constants.hdf5"])
def test_files_in_the_working_folder_do_not_enter(
    tmp_path: Path, example: Example, monkeypatch: pytest.MonkeyPatch, stray: str
) -> None:
    other = tmp_path / "other"
    constants = -calculation(other)
    write_constants(other / "FORCE_CONSTANTS", constants)
    with h5py.File(other / "force_constants.hdf5", "w") as file:
        file["force_constants"] = constants
    from phonopy.file_IO import write_FORCE_SETS

    record = phonopy.load(other / "phonopy_params.yaml", produce_fc=False, log_level=0)
    write_FORCE_SETS(record.dataset, filename=other / "FORCE_SETS")
    (tmp_path / "work").mkdir()
    shutil.copy(other / stray, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    content = yaml.safe_load((example[0] / "phonopy_params.yaml").read_text())
    del content["displacements"]
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "phonopy.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(FileFormatError, match="neither force constants nor forces"):
        read_dataset(tmp_path / "bare" / "phonopy.yaml")


def write_constants(file: Path, constants: NDArray[np.float64]) -> None:
    if file.suffix:
        with h5py.File(file, "w") as handle:
            handle["force_constants"] = constants
        return
    lines = [f"{len(constants)} {constants.shape[1]}"]
    for i, row in enumerate(constants):
        for j, block in enumerate(row):
            lines += [f"{i + 1} {j + 1}", *(" ".join(f"{v:.17g}" for v in line) for line in block)]
    file.write_text("\n".join(lines) + "\n")


def test_a_wrong_sign_shows_in_the_forces(tmp_path: Path, example: Example) -> None:
    """Crystals have no rotational sum rule; forces of displaced cells serve instead."""
    shutil.copytree(example[0], tmp_path / "run")
    constants = example[1]
    write_constants(tmp_path / "run" / "force_constants.hdf5", constants)
    assert read_dataset(tmp_path / "run").metadata["hessian_from"] == "force_constants.hdf5"
    write_constants(tmp_path / "run" / "force_constants.hdf5", -constants)
    with pytest.raises(InconsistentLabelsError, match=r"correlation -1\.00.*wrong sign"):
        read_dataset(tmp_path / "run")


APPLY = '!!python/object/apply:os.system ["touch exploded"]'
TAGGED = {
    "a block mapping": f"phonopy: {APPLY}\n",
    "the root": f"{APPLY}\n",
    "a TAG directive": '%TAG ! tag:yaml.org,2002:python/\n---\nx: [!object/apply:os.system ["touch exploded"]]\n',
    "behind a quoted key of a flow mapping": 'x: {"a":' + APPLY + "}\n",
    "behind a quoted key of a block mapping": f'"a": {APPLY}\n',
    "a block sequence": f"x:\n- {APPLY}\n",
    "a flow sequence": f"x: [1,{APPLY}]\n",
    "an anchor used again": f"x: &example {APPLY}\ny: *example\n",
    "a verbatim tag": 'x: !<tag:yaml.org,2002:python/object/apply:os.system> ["touch exploded"]\n',
    "a key": f"? {APPLY}\n: 1\n",
    "a merge": f"base: &base\n  a: {APPLY}\nx:\n  <<: *base\n",
    "a name": "x: !!python/name:os.system\n",
    "a module": "x: !!python/module:antigravity\n",
    "bytes": "x: !!binary dG91Y2g=\n",
    "a tag of its own": "x: !anything 1\n",
}


@pytest.mark.parametrize("place", TAGGED)
def test_yaml_tags_that_run_code_are_refused(
    place: str, tmp_path: Path, example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone, or in front of an otherwise valid file."""
    monkeypatch.chdir(tmp_path)
    good = (example[0] / "phonopy_params.yaml").read_text()
    alone = TAGGED[place]
    for text in (alone, alone + good) if place not in ("the root", "a key") else (alone,):
        Path("phonopy.yaml").write_text(text)
        with pytest.raises(FileFormatError, match="YAML tags"):
            read_dataset("phonopy.yaml")
        assert not Path("exploded").exists()


def test_the_tag_would_run_without_the_safe_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above is meaningful only if phonopy itself follows such tags."""
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(Exception):
        phonopy.load(io.StringIO(TAGGED["behind a quoted key of a flow mapping"]), log_level=0)
    if not Path("exploded").exists():
        pytest.skip("this release of phonopy reads YAML safely")


def testplain_yaml_keeps_every_digit(tmp_path: Path, example: Example) -> None:
    """Reading, writing and reading again changes no number, and aliases are preserved."""
    from hesse.datasets.formats.phonopy_files import plain_yaml

    file = tmp_path / "phonopy.yaml"
    file.write_text(
        "a: &a [1.0e-05, 0.1, -3.0, 12345678901234567890, text]\nb: *a\nc: {yes: ~, 1: .inf, on: 2026-11-28}\n"
    )
    assert yaml.safe_load(plain_yaml(file)) == yaml.safe_load(file.read_text())
    file = example[0] / "phonopy_params.yaml"
    assert yaml.safe_load(plain_yaml(file)) == yaml.safe_load(file.read_text())


def test_published_crystals(shared_data: Path) -> None:
    """Highest frequencies at Γ, in THz, computed by phonopy for the primitive cells: they are among those of the
    supercell."""
    root = shared_data / "phonopy"
    if not root.is_dir():
        pytest.skip("no phonopy examples")
    for name, frequency in {"NaCl": 4.616, "SnO2": 21.981}.items():
        data = read_dataset(root / name)
        modes = normal_modes(data.structures[0], data.labels.hessian_of(0).numpy())
        assert (
            np.abs(modes.frequencies / TERAHERTZ - frequency).min() < 0.01
        )  # the listed ones are of symmetrized force constants
        assert modes.frequencies.min() > -0.05 * TERAHERTZ
    dfpt = read_dataset(root / "NaCl-VASPdfpt")
    assert float(dfpt.labels.hessian_of(0)[0, 0, 0, 0]) == pytest.approx(1.8433662478)
    random = read_dataset(root / "NaCl-rd")
    assert (len(random), random.labels.hessian) == (10, None)
    with pytest.raises(FileFormatError, match="several YAML files of phonopy"):
        read_dataset(root / "KCl-SSCHA")


def test_files_without_data(tmp_path: Path, example: Example) -> None:
    text = (example[0] / "phonopy_params.yaml").read_text()
    (tmp_path / "phonopy.yaml").write_text("phonopy:\n  version: 2\n")
    with pytest.raises(FileFormatError, match=r"cannot read it"):
        read_dataset(tmp_path / "phonopy.yaml")
    record = phonopy.load(io.StringIO(text), produce_fc=False, is_nac=False, log_level=0)
    record.save(tmp_path / "phonopy.yaml", settings={"force_sets": False, "displacements": True})
    with pytest.raises(FileFormatError, match="neither force constants nor forces"):
        read_dataset(tmp_path / "phonopy.yaml")


def test_a_supercell_matrix_of_another_size_is_refused(tmp_path: Path, example: Example) -> None:
    """phonopy would build it, which takes minutes and much memory."""
    content = yaml.safe_load((example[0] / "phonopy_params.yaml").read_text())
    content["supercell_matrix"] = [[1, 16, 16], [16, 1, 16], [16, 16, 1]]
    (tmp_path / "phonopy_params.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(FileFormatError, match=r"makes 59400 atoms of 8, but its supercell lists 64"):
        read_dataset(tmp_path / "phonopy_params.yaml")
