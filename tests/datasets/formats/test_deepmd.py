"""DeePMD folders: several systems, gradients stored as forces, vacuum boxes and crystals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foreign_files import known, of, write_deepmd
from hesse.datasets import Dataset, Subset, negate_forces, read_dataset
from hesse.errors import FileFormatError, GeometryError, InconsistentLabelsError, LabelShapeError, RequestError


@pytest.fixture(scope="module")
def data() -> Dataset:
    return known()


def test_several_systems(tmp_path: Path, data: Dataset) -> None:
    write_deepmd(tmp_path / "all", data)
    back = read_dataset(tmp_path / "all")
    assert [s.id for s in back.structures] == [f"system{i}/set.000/000000" for i in range(3)]
    assert [s.group for s in back.structures] == ["system0", "system1", "system2"]
    for i in range(3):
        for ours, theirs in zip(of(back, i), of(data, i), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    one = read_dataset(tmp_path / "all" / "system1")
    assert [s.id for s in one.structures] == ["system1/set.000/000000"]
    chosen = read_dataset(tmp_path / "all", subset=Subset(match="system2/*"))
    assert [s.group for s in chosen.structures] == ["system2"]
    with pytest.raises(RequestError, match=r"ids here: system0/set\.000/000000"):
        read_dataset(tmp_path / "all", subset=Subset(match="nothing"))


def test_gradients_stored_as_forces(tmp_path: Path, data: Dataset) -> None:
    write_deepmd(tmp_path, data, sign=-1.0, nopbc=False)
    with pytest.raises(InconsistentLabelsError, match="--negate-forces"):
        read_dataset(tmp_path)
    back = read_dataset(tmp_path, check=False)
    assert not any(s.periodic for s in back.structures)
    assert "3 of 3 frames" in back.metadata["source_note"]
    np.testing.assert_array_equal(of(negate_forces(back), 2)[3], of(data, 2)[3])


def system(folder: Path, **arrays: np.ndarray) -> Path:
    """Write two frames of a diatomic; arrays can be replaced, or omitted with None."""
    content = {
        "coord": np.array([[0, 0, 0, 0, 0, 1.0], [0, 0, 0, 0, 0, 1.1]]),
        "box": np.tile(3.0 * np.eye(3).reshape(1, 9), (2, 1)),
        "energy": np.array([1.0, 2.0]),
        **arrays,
    }
    (folder / "set.000").mkdir(parents=True)
    (folder / "type.raw").write_text("1\n0\n")
    (folder / "type_map.raw").write_text("H C")
    for name, value in content.items():
        if value is not None:
            np.save(folder / "set.000" / f"{name}.npy", value)
    return folder


def test_crystals_and_virials(tmp_path: Path) -> None:
    virial = np.arange(18.0).reshape(2, 9)
    back = read_dataset(system(tmp_path / "s", virial=virial))
    assert [s.periodic for s in back.structures] == [True, True]
    assert back.structures[0].numbers.tolist() == [6, 1]
    assert back.labels.stress is not None
    np.testing.assert_allclose(back.labels.stress[1], -virial[1].reshape(3, 3) / 27.0)
    assert "source_note" not in back.metadata
    (tmp_path / "s" / "nopbc").touch()
    assert not read_dataset(tmp_path / "s").structures[0].periodic


def test_frames_of_mixed_sizes(tmp_path: Path) -> None:
    types = np.array([[0, 1], [1, -1]])
    back = read_dataset(system(tmp_path / "s", real_atom_types=types, force=np.arange(12.0).reshape(2, 6)))
    assert [s.numbers.tolist() for s in back.structures] == [[1, 6], [6]]
    assert back.labels.forces is not None
    assert back.labels.forces[2].tolist() == [6.0, 7.0, 8.0]


def test_invalid_files(tmp_path: Path) -> None:
    for k, (arrays, kind, words) in enumerate(
        [
            ({"energy": np.zeros(3)}, LabelShapeError, r"energy.npy has shape \(3,\), expected \(2, 1\)"),
            ({"hessian": np.zeros((2, 35))}, LabelShapeError, r"expected \(2, 36\)"),
            ({"box": None}, FileFormatError, "nopbc"),
            ({"energy": np.array([{}, {}], dtype=object)}, FileFormatError, "energy.npy.*not an array of numbers"),
            ({"real_atom_types": np.array([[0, 5], [0, 0]])}, FileFormatError, "type 5 has no symbol"),
        ]
    ):
        with pytest.raises(kind, match=words):
            read_dataset(system(tmp_path / str(k), **arrays))  # type: ignore[arg-type]
    folder = system(tmp_path / "x")
    (folder / "type_map.raw").write_text("H Xx")
    with pytest.raises(GeometryError, match=r'type_map\.raw: type .*"Xx" is .*dummy'):
        read_dataset(folder)
    (folder / "type_map.raw").unlink()
    with pytest.raises(FileFormatError, match=r"type_map\.raw is missing"):
        read_dataset(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileFormatError, match="Folders that can be read hold"):
        read_dataset(tmp_path / "empty")


def test_published_gradients_stored_as_forces(shared_data: Path) -> None:
    folder = shared_data / "deepmd_hessian"
    if not folder.is_dir():
        pytest.skip("no DeePMD Hessians")
    with pytest.raises(InconsistentLabelsError, match=r"multiplied by -0\.99.*--negate-forces"):
        read_dataset(folder)
    assert len(negate_forces(read_dataset(folder, check=False))) == 9


def test_a_single_frame_without_the_axis_of_frames(tmp_path: Path) -> None:
    arrays = {"coord": np.array([0, 0, 0, 0, 0, 1.0]), "box": 3.0 * np.eye(3).reshape(9), "energy": np.array(-2.0)}
    back = read_dataset(system(tmp_path / "s", **arrays, force=np.array([0, 0, 1.0, 0, 0, -1])))
    assert back.labels.energy is not None
    assert back.labels.forces is not None
    assert (len(back), float(back.labels.energy[0])) == (1, -2.0)
    assert back.labels.forces[:, 2].tolist() == [1.0, -1.0]
    assert back.structures[0].positions[1].tolist() == [0, 0, 1]
    with pytest.raises(FileFormatError, match="a single number"):
        read_dataset(system(tmp_path / "t", coord=np.array(1.0)))


def test_heavy_hydrogen_is_a_type(tmp_path: Path) -> None:
    folder = system(tmp_path / "s")
    (folder / "type_map.raw").write_text("D 6")
    structure = read_dataset(folder).structures[0]
    assert structure.numbers.tolist() == [6, 1]
    np.testing.assert_allclose(structure.atomic_masses, [12.011, 2.0141018], rtol=1e-6)
