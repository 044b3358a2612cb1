"""Reading and writing by suffix, checks of what was read, and changes of whole data sets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from hesse.datasets import (
    Dataset,
    check_dataset,
    check_writable_suffix,
    flag_suspect,
    read_dataset,
    symmetrize_hessians,
    with_metadata,
    with_tag,
    write_dataset,
)
from hesse.errors import (
    FileFormatError,
    GeometryError,
    InconsistentLabelsError,
    LabelValueError,
    MissingLabelError,
    NotReadWarning,
)
from hesse.structures import Properties, Structure
from oracles import Morse, labeled, molecules


@pytest.fixture(scope="module")
def data() -> Dataset:
    return labeled(Morse(), molecules([4, 5, 6]), probes=2, hessian=True)


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".xyz", ".extxyz", ".H5"])
def test_written_files_can_be_read(tmp_path: Path, data: Dataset, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    write_dataset(path, data)
    back = read_dataset(path)
    assert back.content_hash() == data.content_hash()
    assert back.source == str(path)


def test_unknown_suffixes(tmp_path: Path, data: Dataset) -> None:
    for name in ("data.pkl", "data", "data.npz"):
        with pytest.raises(FileFormatError, match=r"written as \.h5 or \.extxyz"):
            write_dataset(tmp_path / name, data)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileFormatError, match=r"data\.csv: there is no such file"):
        read_dataset(tmp_path / "data.csv")
    (tmp_path / "data.csv").write_text("1,2\n")
    with pytest.raises(FileFormatError, match=r"no reader for \.csv.*Known: \.h5"):
        read_dataset(tmp_path / "data.csv")
    check_writable_suffix("x.h5")


def test_geometries_in_other_formats(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "POSCAR", bulk("NaCl", "rocksalt", a=5.6))
    ase.io.write(tmp_path / "salt.cif", bulk("NaCl", "rocksalt", a=5.6))
    ase.io.write(tmp_path / "w.pdb", [molecule("H2O")] * 2)
    salt = read_dataset(tmp_path / "POSCAR")
    assert salt.structures[0].pbc == (True, True, True)
    assert salt.structures[0].id == "POSCAR"
    assert not salt.labels.mask("energy").any()
    assert read_dataset(tmp_path / "salt.cif").elements == (11, 17)
    assert [s.id for s in read_dataset(tmp_path / "w.pdb").structures] == ["w-0", "w-1"]
    (tmp_path / "bad.cif").write_text("not a crystal")
    with pytest.raises(FileFormatError, match=r"bad\.cif.*as cif"):
        read_dataset(tmp_path / "bad.cif")


@pytest.mark.parametrize("name", ["energy", "forces", "hvp", "probes", "hessian"])
@pytest.mark.parametrize("suffix", [".h5", ".extxyz"])
def test_labels_with_nan_are_refused(tmp_path: Path, data: Dataset, name: str, suffix: str) -> None:
    value = getattr(data.labels, name).clone()
    if name == "hessian":
        value[9 * 16 + 5] = torch.nan
    elif name in ("hvp", "probes"):
        value[1, 6, 2] = torch.inf
    else:
        value[1 if name == "energy" else 6] = torch.nan
    path = tmp_path / f"data{suffix}"
    write_dataset(path, replace(data, labels=data.labels.replace(**{name: value})))
    with pytest.raises(LabelValueError) as caught:
        read_dataset(path)
    message = str(caught.value)
    assert str(path) in message
    assert f'"{data.structures[1].id}": {name} holds NaN or infinity (1 of 3 structures)' in message
    assert len(read_dataset(path, check=False)) == 3


def test_masked_labels_are_not_checked(data: Dataset) -> None:
    parts = [data.labels.select(torch.tensor([i])) for i in range(3)]
    parts[1] = Properties(n_atoms=parts[1].n_atoms)
    check_dataset(Dataset(data.structures, Properties.concatenate(parts)))


def test_overlapping_atoms_and_wrong_signs(tmp_path: Path, data: Dataset) -> None:
    heap = Structure([1, 1], [[0, 0, 0], [0, 0, 0.1]], id="heap")
    write_dataset(tmp_path / "x.h5", Dataset((heap,), Properties.single(2)))
    with pytest.raises(GeometryError, match=r"x\.h5.*\"heap\": atoms 0 and 1 are 0\.100 Å apart"):
        read_dataset(tmp_path / "x.h5")
    assert data.labels.forces is not None
    write_dataset(tmp_path / "y.xyz", replace(data, labels=data.labels.replace(forces=-data.labels.forces)))
    with pytest.raises(InconsistentLabelsError, match=r"y\.xyz.*gradients.*structure"):
        read_dataset(tmp_path / "y.xyz")


def test_transforms_of_whole_data_sets(data: Dataset) -> None:
    assert data.labels.hessian is not None
    skew = replace(data, labels=data.labels.replace(hessian=data.labels.hessian + torch.rand(len(data.labels.hessian))))
    even = symmetrize_hessians(skew)
    for i in range(len(data)):
        n = len(data.structures[i])
        h = skew.labels.hessian_of(i).reshape(3 * n, 3 * n)
        np.testing.assert_allclose(even.labels.hessian_of(i).reshape(3 * n, 3 * n), 0.5 * (h + h.T))
    with pytest.raises(MissingLabelError, match="no Hessians"):
        symmetrize_hessians(Dataset((Structure([1], [[0, 0, 0]]),), Properties.single(1)))
    assert {s.tag for s in with_tag(data, "hot").structures} == {"hot"}
    assert with_metadata(data, level="x").metadata["level"] == "x"


def test_what_is_not_read_is_a_warning_or_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("1\nmy_key=1\nHe 0 0 0\n")
    with pytest.warns(NotReadWarning, match=r"a\.xyz: not read: my_key$"):
        data = read_dataset(tmp_path / "a.xyz")
    assert data.not_read == {"my_key": 1}
    with pytest.raises(FileFormatError, match=r"not read: my_key\. Remove it"):
        read_dataset(tmp_path / "a.xyz", strict=True)


def test_a_placeholder_cell_is_refused_or_flagged(tmp_path: Path) -> None:
    """Programs write a cube of 1 Å where a molecule has no cell."""
    text = 'Lattice="1 0 0 0 1 0 0 0 1" pbc="T T T" energy=-1 structure_id="{}"'
    frames = "".join(f"2\n{text.format(name)}\nO 0 0 0\nH 0 0 0.96\n" for name in "ab")
    (tmp_path / "a.xyz").write_text(frames + '2\nenergy=-1 structure_id="c"\nO 0 0 0\nH 0 0 0.96\n')
    with pytest.raises(GeometryError, match=r'a\.xyz: structure "a": its cell repeats every 1 Å.*placeholder'):
        read_dataset(tmp_path / "a.xyz")
    flagged, reasons = flag_suspect(read_dataset(tmp_path / "a.xyz", check=False))
    assert set(reasons) == {"a", "b"}
    assert flagged.labels.suspect_mask().tolist() == [True, True, False]
