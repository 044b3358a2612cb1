"""Extended XYZ: exact round trips, exchange with ASE, and errors that name the frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given
from hypothesis import strategies as st
from test_hdf5 import mixed, require_equal

from hesse.datasets import Dataset, read_extxyz, write_extxyz
from hesse.errors import (
    FileFormatError,
    GeometryError,
    HesseError,
    LabelShapeError,
    LabelValueError,
    MissingLabelError,
    RequestError,
)
from hesse.structures import Properties
from hesse.units import ENERGY_UNITS, LENGTH_UNITS
from oracles import Morse, atom, labeled, molecules

WATER = """3
Properties=species:S:1:pos:R:3:forces:R:3 energy=-14.0 structure_id=w1
O 0 0 0.1 0 0 0.5
H 0 0.76 -0.5 0 0 -0.25
H 0 -0.76 -0.5 0 0 -0.25
"""


# --- round trips -----------------------------------------------------------------------------------------------------


def test_every_label_survives_bit_by_bit(tmp_path: Path) -> None:
    data = mixed()
    # ASE keeps six components of the stress.
    assert data.labels.stress is not None
    data.labels.stress[1] = data.labels.stress[1] + data.labels.stress[1].T
    write_extxyz(tmp_path / "x.extxyz", data)
    back = read_extxyz(tmp_path / "x.extxyz")
    for i in range(len(data)):
        # Absent probes of a frame are not stored in the file: compare frame by frame.
        a, b = data.select([i]), back.select([i])
        has_hvp = a.labels.mask("hvp")[:, 0]
        assert int(has_hvp.sum()) == int(b.labels.mask("hvp").sum())
        for name in ("energy", "forces", "hessian", "atomic_energies", "stress"):
            assert bool(a.labels.mask(name)[0]) == bool(b.labels.mask(name)[0])
            if a.labels.mask(name)[0]:
                torch.testing.assert_close(getattr(a.labels, name), getattr(b.labels, name), rtol=0, atol=0)
        np.testing.assert_array_equal(a.structures[0].positions, b.structures[0].positions)
        np.testing.assert_array_equal(a.structures[0].cell, b.structures[0].cell)
        for name in ("id", "tag", "group", "charge", "multiplicity", "pbc"):
            assert getattr(a.structures[0], name) == getattr(b.structures[0], name)
    assert back.labels.hvp_error is not None
    assert data.labels.hvp_error is not None
    torch.testing.assert_close(back.labels.hvp_error[:, 2], data.labels.hvp_error[:, 2])
    assert dict(back.metadata) == dict(data.metadata)


def test_data_with_the_same_labels_everywhere_survive_exactly(tmp_path: Path) -> None:
    data = labeled(Morse(), molecules([1, 3, 5]), probes=2, hessian=True)
    write_extxyz(tmp_path / "x.xyz", data)
    require_equal(data, read_extxyz(tmp_path / "x.xyz"))


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12)


@given(words, words, words)
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, name: str, tag: str, level: str) -> None:
    path = tmp_path_factory.mktemp("xyz") / "x.extxyz"
    data = Dataset(
        (replace(atom(), id=name or "x", tag=tag),), Properties.single(1, energy=1.0), metadata={"level": level}
    )
    write_extxyz(path, data)
    back = read_extxyz(path)
    assert (back.structures[0].id, back.structures[0].tag) == (name or "x", tag)
    assert back.metadata["level"] == level


@pytest.mark.parametrize("text", ["0012", "1e5", "T", "a b", 'quo"te', "back\\slash", "_JSON 1", "[x]", "a=b"])
def test_ids_stay_text(tmp_path: Path, text: str) -> None:
    write_extxyz(tmp_path / "x.xyz", Dataset((replace(atom(), id=text),), Properties.single(1)))
    assert read_extxyz(tmp_path / "x.xyz").structures[0].id == text


def test_a_line_break_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="line break"):
        write_extxyz(tmp_path / "x.xyz", Dataset((replace(atom(), id="a\nb"),), Properties.single(1)))
    assert list(tmp_path.iterdir()) == []


# --- exchange with ASE -----------------------------------------------------------------------------------------------


def test_ase_reads_files_of_hesse(tmp_path: Path) -> None:
    data = labeled(Morse(), molecules([3, 5]), probes=1, hessian=True)
    write_extxyz(tmp_path / "x.extxyz", data)
    for i, atoms in enumerate(ase.io.read(tmp_path / "x.extxyz", ":")):
        n = len(atoms)
        assert data.labels.energy is not None
        assert data.labels.hvp is not None
        assert atoms.get_potential_energy() == float(data.labels.energy[i])
        np.testing.assert_array_equal(atoms.get_forces(), data.labels.forces[data.labels.atom_slice(i)])  # type: ignore[index]
        np.testing.assert_array_equal(atoms.arrays["hvp_0"], data.labels.hvp[0, data.labels.atom_slice(i)])
        hessian = atoms.info["hessian"].reshape(3 * n, 3 * n)
        np.testing.assert_array_equal(hessian, data.labels.hessian_of(i).reshape(3 * n, 3 * n))


def test_hesse_reads_files_of_ase(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    water, silicon = molecule("H2O"), bulk("Si")
    forces = {3: rng.normal(size=(3, 3)), 2: rng.normal(size=(2, 3))}
    stress = rng.normal(size=6)
    water.calc = SinglePointCalculator(water, energy=-14.25, forces=forces[3])
    silicon.calc = SinglePointCalculator(silicon, energy=-10.5, forces=forces[2], stress=stress)
    hessian = rng.normal(size=(9, 9))
    water.info |= {"structure_id": "w", "charge": 1, "multiplicity": 2, "hessian": hessian}  # written as JSON by ASE
    water.arrays |= {"probe_0": rng.normal(size=(3, 3)), "hvp_0": rng.normal(size=(3, 3))}
    ase.io.write(tmp_path / "x.extxyz", [water, silicon])
    data = read_extxyz(tmp_path / "x.extxyz")
    assert (data.structures[0].id, data.structures[0].charge, data.structures[0].multiplicity) == ("w", 1, 2)
    assert data.structures[1].pbc == (True, True, True)
    np.testing.assert_allclose(data.structures[1].cell, silicon.cell[:])
    labels = data.labels
    assert labels.energy is not None
    assert labels.forces is not None
    assert labels.stress is not None
    assert labels.energy.tolist() == [-14.25, -10.5]
    np.testing.assert_allclose(labels.forces, np.concatenate([forces[3], forces[2]]), atol=1e-8)
    np.testing.assert_allclose(labels.hessian_of(0).reshape(9, 9), hessian)
    np.testing.assert_allclose(labels.stress[1].diagonal(), stress[:3])
    assert float(labels.stress[1, 1, 2]) == pytest.approx(stress[3])
    assert labels.mask("hvp").tolist() == [[True, False]]


def test_plain_xyz_and_frames_without_labels(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "x.xyz", [molecule("H2O"), molecule("CH4"), molecule("H2O")], format="xyz")
    data = read_extxyz(tmp_path / "x.xyz")
    assert [len(s) for s in data.structures] == [3, 5, 3]
    # Ids are made from the content; equal structures get different ones.
    assert data.structures[2].id == f"{data.structures[0].id}-2"
    assert not any(data.labels.mask(name).any() for name in ("energy", "forces", "hessian"))
    (tmp_path / "y.xyz").write_text("1\nEnergy = -0.5 \"unclosed and 'odd {comment\nH 0 0 0\n\n")
    assert len(read_extxyz(tmp_path / "y.xyz")) == 1


def test_other_units(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text(WATER)
    data = read_extxyz(tmp_path / "x.xyz", energy_unit="kcal/mol", length_unit="bohr")
    assert data.labels.energy is not None
    assert data.labels.forces is not None
    assert float(data.labels.energy[0]) == pytest.approx(-14.0 * ENERGY_UNITS["kcal/mol"])
    assert float(data.labels.forces[0, 2]) == pytest.approx(0.5 * ENERGY_UNITS["kcal/mol"] / LENGTH_UNITS["bohr"])


# --- bad files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "kind", "message"),
    [
        ("3\nProp", "three\nProp", FileFormatError, r"frame 1, line 6: expected the number of atoms, got 'three'"),
        ("3\nProp", "4\nProp", FileFormatError, r"frame 1 \(line 6\) is cut off: 4 atoms announced, 3 found"),
        ("3\nProp", "2\nProp", FileFormatError, r"frame 2, line 10: expected the number of atoms"),
        ("3\nProp", "0\nProp", FileFormatError, r"frame 1 \(line 6\) is empty: it announces 0 atoms"),
        ("3\nProp", "9" * 5000 + "\nProp", FileFormatError, "expected the number of atoms"),
        ("O 0 0 0.1 0 0 0.5", "O 0 0 0.1 0 0", FileFormatError, "frame 1, line 8: expected 7 columns .*, got 6"),
        ("O 0 0 0.1 0 0 0.5", "O 0 0 0.1 0 0 0.5 7", FileFormatError, "expected 7 columns .*, got 8"),
        ("O 0 0 0.1", "O 0 zero 0.1", FileFormatError, "frame 1 .*not extended XYZ: could not convert"),
        ("O 0 0 0.1", "Qq 0 0 0.1", GeometryError, 'frame 1 .*atom 0: "Qq" is not an element'),
        ("O 0 0 0.1", "O 0 0 nan", HesseError, 'frame 1 .*"w1".*not all finite'),
        ("R:3:forces", "R:three:forces", FileFormatError, "frame 1 .*comment line"),
        ("energy=-14.0", "energy=low", LabelValueError, 'frame 1 .*"w1": energy is not a number'),
        ("energy=-14.0", "energy", LabelValueError, "energy is not a number"),
        ("energy=-14.0", 'energy="1 2"', LabelShapeError, "energy must be one number, got 2"),
        ("energy=-14.0", 'hessian="1 2 3"', LabelShapeError, "hessian of 3 numbers, expected 9 × 3² = 81"),
        ("energy=-14.0", 'Lattice="1 2 3"', FileFormatError, "Lattice needs nine numbers"),
        ("energy=-14.0", "charge=0.5", LabelValueError, "charge must be a whole number"),
        ("energy=-14.0", 'hessian="_JSON [1"', FileFormatError, "comment line"),
        ("forces:R:3", "forces:R:2:x:R:1", LabelShapeError, "forces need 3 columns"),
        ("forces:R:3", "hvp_0:R:3", LabelShapeError, "expected pairs probe_0, hvp_0"),
        ("forces:R:3", "probe_0:R:3", LabelShapeError, "expected pairs"),
    ],
)
def test_a_bad_frame_is_named(tmp_path: Path, old: str, new: str, kind: type[HesseError], message: str) -> None:
    path = tmp_path / "bad.xyz"
    path.write_text(WATER.replace("w1", "w0") + WATER.replace(old, new, 1) + WATER.replace("w1", "w2"))
    if "cut off" in message:
        path.write_text(WATER.replace("w1", "w0") + WATER.replace(old, new, 1))
    with pytest.raises(kind, match=message) as caught:
        read_extxyz(path)
    assert "bad.xyz" in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_id_given_twice(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text(WATER + WATER.replace("w1", "w2") + WATER)
    with pytest.raises(RequestError, match=r'frame 2 .*"w1" occurs in frame 0 too'):
        read_extxyz(tmp_path / "x.xyz")


def test_missing_binary_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no such file"):
        read_extxyz(tmp_path / "x.xyz")
    (tmp_path / "x.xyz").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(FileFormatError, match="text in UTF-16; save it as UTF-8"):
        read_extxyz(tmp_path / "x.xyz")
    (tmp_path / "x.xyz").write_text("\n\n")
    with pytest.raises(FileFormatError, match="empty"):
        read_extxyz(tmp_path / "x.xyz")


def test_truncated_files_are_refused_unless_frames_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.xyz"
    write_extxyz(path, labeled(Morse(), molecules([2, 3]), probes=1, hessian=True))
    text = path.read_text()
    first = len(text.split("3\nProp")[0])
    for end in range(0, len(text) - 1, 13):
        path.write_text(text[:end])
        try:
            data = read_extxyz(path)
        except HesseError as error:
            assert "x.xyz" in str(error)  # noqa: PT017
        else:
            # A missing number is detected; missing digits of the last number are not.
            assert len(data) == (1 if end <= first else 2)
            assert " " not in text[end:].split("\n")[0]


FOREIGN = """2
Properties=species:S:1:pos:R:3:forces:R:3:REF_forces:R:3 energy=-3 REF_energy=-4 name="0012" dipole="1 2 3"
H 0 0 0   0 0 1  0 0 5
H 0 0 0.8 0 0 -1 0 0 -5
"""


def test_labels_under_other_names_are_listed_and_can_be_renamed(tmp_path: Path) -> None:
    path = tmp_path / "foreign.xyz"
    path.write_text(FOREIGN)
    plain = read_extxyz(path)
    assert set(plain.not_read) == {"REF_forces", "REF_energy", "name", "dipole"}
    assert plain.select([0]).not_read == plain.not_read
    assert float(plain.labels.energy[0]) == -3.0
    taken = read_extxyz(path, rename={"REF_forces": "forces", "REF_energy": "energy", "name": "structure_id"})
    assert taken.structures[0].id == "0012"
    assert float(taken.labels.energy[0]) == -4.0
    assert taken.labels.forces[:, 2].tolist() == [5.0, -5.0]
    with pytest.raises(RequestError, match=r'no frame has "REF_enrgy". Did you mean "REF_energy"'):
        read_extxyz(path, rename={"REF_enrgy": "energy"})


def test_the_error_for_a_missing_label_suggests_another_key(tmp_path: Path) -> None:
    path = tmp_path / "foreign.xyz"
    path.write_text(FOREIGN.replace(":forces:R:3:REF_forces", ":other:R:3:REF_forces"))
    with pytest.raises(MissingLabelError, match=r"hesse convert --rename REF_forces=forces"):
        read_extxyz(path).check_has_labels("forces")
    with pytest.raises(MissingLabelError, match=r"loss weights\.$"):
        read_extxyz(path).check_has_labels("hvp")


def test_hesse_knows_all_keys_that_it_writes(tmp_path: Path) -> None:
    data = labeled(Morse(), molecules([3, 4], 0), hessian=True)
    write_extxyz(tmp_path / "a.xyz", data)
    assert read_extxyz(tmp_path / "a.xyz").not_read == {}
