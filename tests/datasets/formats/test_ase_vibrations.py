"""ASE's VibrationsData: round trips through its own reader and writer; partial Hessians are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.constraints import FixAtoms
from ase.vibrations import VibrationsData
from hypothesis import given
from hypothesis import strategies as st

from hesse.datasets import (
    Dataset,
    from_vibrations_data,
    read_dataset,
    read_vibrations,
    to_vibrations_data,
    write_dataset,
    write_vibrations,
)
from hesse.errors import FileFormatError, LabelShapeError, RequestError
from hesse.structures import Properties, Structure
from oracles import Morse, crystal, labeled


@given(st.integers(1, 6), st.integers(0, 2**31))
def test_round_trips_are_exact(tmp_path_factory: pytest.TempPathFactory, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    h = rng.normal(size=(n, 3, n, 3)) * 10.0 ** rng.integers(-8, 8)
    structure = Structure(rng.integers(1, 90, size=n), rng.normal(size=(n, 3)) * 9, id="x", charge=-1, multiplicity=2)
    data = Dataset.from_pairs([(structure, Properties.single(n, hessian=h))])
    folder = tmp_path_factory.mktemp("v")
    write_dataset(folder / "ours.json", data)
    theirs = VibrationsData.read(folder / "ours.json")  # ASE reads what we write
    np.testing.assert_array_equal(theirs.get_hessian(), h)
    theirs.write(folder / "theirs.json")  # and we read what ASE writes
    for back in (
        read_dataset(folder / "ours.json", check=False),
        from_vibrations_data(theirs),
        from_vibrations_data(to_vibrations_data(data)),
    ):
        assert back.content_hash() == data.content_hash()
        assert (back.structures[0].id, back.structures[0].charge) == ("x", -1)
    back = read_vibrations(folder / "theirs.json")
    np.testing.assert_array_equal(back.labels.hessian_of(0).numpy(), h)
    np.testing.assert_array_equal(back.structures[0].positions, structure.positions)


def test_frequencies_are_those_of_ase() -> None:
    """ASE and Hesse compute frequencies independently from the same Hessian."""
    from hesse.harmonic.normal_modes import normal_modes

    data = labeled(Morse(), [Structure([8, 1, 1], molecule("H2O").positions, id="w")], hessian=True)
    energies = to_vibrations_data(data).get_frequencies()
    ours = normal_modes(data.structures[0], data.labels.hessian_of(0).numpy()).frequencies
    signed = np.sort(np.where(np.abs(energies.imag) > np.abs(energies.real), -energies.imag, energies.real))
    # ASE does not project out rigid-body motions, which mix with soft modes: the stiffest mode is compared.
    assert ours.max() == pytest.approx(signed.max(), rel=2e-2)


def test_crystals_and_permuted_atoms(tmp_path: Path) -> None:
    data = labeled(Morse(), [crystal(2)], hessian=True, probes=0)
    write_dataset(tmp_path / "c.json", data)
    back = read_dataset(tmp_path / "c.json")
    assert back.structures[0].periodic
    np.testing.assert_array_equal(back.structures[0].cell, data.structures[0].cell)
    atoms = molecule("H2O")
    h = np.random.default_rng(0).normal(size=(3, 3, 3, 3))
    permuted = VibrationsData(atoms, h, indices=[2, 0, 1])
    order = [1, 2, 0]  # position of atoms 0, 1, 2 in the permuted Hessian
    np.testing.assert_array_equal(from_vibrations_data(permuted).labels.hessian_of(0), h[order][:, :, order])


def test_invalid_input(tmp_path: Path) -> None:
    atoms = molecule("H2O")
    frozen = VibrationsData(atoms, np.zeros((2, 3, 2, 3)), indices=[1, 2])
    with pytest.raises(RequestError, match="2 of 3 atoms, the others were frozen"):
        from_vibrations_data(frozen)
    frozen.write(tmp_path / "f.json")
    with pytest.raises(RequestError, match=r"f\.json.*frozen"):
        read_dataset(tmp_path / "f.json")
    (tmp_path / "x.json").write_text('{"rows": []}')
    with pytest.raises(FileFormatError, match="VibrationsData"):
        read_dataset(tmp_path / "x.json")
    bare = Dataset.from_pairs([(Structure([1], [[0, 0, 0]], id="a"), Properties.single(1))])
    with pytest.raises(LabelShapeError, match="no Hessian"):
        write_dataset(tmp_path / "n.json", bare)
    two = labeled(Morse(), [crystal(1), crystal(2)], hessian=True)
    with pytest.raises(RequestError, match="holds one structure, got 2"):
        write_dataset(tmp_path / "n.json", two)
    assert not (tmp_path / "n.json").exists()
    constrained = molecule("H2O", constraint=FixAtoms([0]))
    VibrationsData(constrained, np.zeros((2, 3, 2, 3))).write(tmp_path / "f.json")
    with pytest.raises(RequestError, match=r"f\.json.*2 of 3 atoms, the others were frozen"):
        read_dataset(tmp_path / "f.json")
    with pytest.raises(RequestError, match="Hessian of complex128, expected real numbers"):
        from_vibrations_data(VibrationsData(atoms, np.zeros((3, 3, 3, 3), dtype=complex)))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("atoms", "positions"), {"__ase_objtype__": "os.system", "command": "touch here"}),
        (("atoms", "constraints"), [{"name": "os.system", "kwargs": {"command": "touch here"}}]),
        (("atoms", "constraints"), [{"name": "FixAtoms", "kwargs": {"command": "touch here"}}]),
        (("atoms", "positions"), [[0.0, 0.0]]),
        (("atoms", "numbers"), "H2O"),
        (("atoms",), {"numbers": [1]}),
        (("hessian",), [1.0, 2.0]),
        (("hessian",), {"__ndarray__": [[3, 3, 3, 3], "float64", [1.0, 2.0]]}),
        (("hessian",), {"__ndarray__": [[3, 3, 3, 3], "no type", [0.0] * 81]}),
        (("hessian",), {"__ndarray__": [[10**15], "float64", [0.0] * 81]}),
        (("hessian",), "zero"),
        (("indices",), [0, 1, 9]),
        (("indices",), [0.5, 1, 2]),
    ],
)
def test_damaged_files_get_a_reply_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: tuple[str, ...], value: object
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "g.json"
    VibrationsData(molecule("H2O"), np.zeros((3, 3, 3, 3))).write(path)
    content = json.loads(path.read_text())
    parent = content
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(FileFormatError, match=r"g\.json: not in the form that VibrationsData\.write makes"):
        read_dataset(path)
    assert [file.name for file in tmp_path.iterdir()] == ["g.json"]
    path.write_text(path.read_text()[:30])
    with pytest.raises(FileFormatError, match="truncated, damaged, or not JSON"):
        read_dataset(path)


def test_files_of_hesse_0_1_are_read(tmp_path: Path) -> None:
    """Until ASE's own writer was used, atoms had no type of cell, and indices were always there."""

    def array(values: object, kind: str) -> dict[str, object]:
        a = np.asarray(values)
        return {"__ndarray__": [list(a.shape), kind, a.ravel().tolist()]}

    hessian = np.arange(36.0).reshape(2, 3, 2, 3)
    content = {
        "atoms": {
            "numbers": array([1, 9], "int64"),
            "positions": array([[0, 0, 0], [0, 0, 0.9]], "float64"),
            "cell": array(np.zeros((3, 3)), "float64"),
            "pbc": array([False] * 3, "bool"),
            "info": {"structure_id": "hf", "charge": 1, "multiplicity": 2},
            "__ase_objtype__": "atoms",
        },
        "hessian": array(hessian, "float64"),
        "indices": array([0, 1], "int64"),
        "__ase_objtype__": "vibrationsdata",
    }
    (tmp_path / "old.json").write_text(json.dumps(content))
    data = read_vibrations(tmp_path / "old.json")
    structure = data.structures[0]
    assert (structure.id, structure.charge, structure.multiplicity, structure.pbc) == ("hf", 1, 2, (False,) * 3)
    np.testing.assert_array_equal(structure.positions, [[0, 0, 0], [0, 0, 0.9]])
    np.testing.assert_array_equal(data.labels.hessian_of(0).numpy(), hessian)


def test_arguments_in_other_forms(tmp_path: Path) -> None:
    data = labeled(Morse(), [crystal(1), crystal(2)], hessian=True)
    write_dataset(tmp_path / "two.h5", data)
    hessian = to_vibrations_data(tmp_path / "two.h5", 1).get_hessian()
    np.testing.assert_array_equal(hessian, data.labels.hessian_of(1))
    write_vibrations(tmp_path / "one.json", list(data)[:1])
    assert VibrationsData.read(tmp_path / "one.json").get_hessian().shape == (3, 3, 3, 3)
    with pytest.raises(RequestError, match="expected a number from 0 to 1, got 2"):
        to_vibrations_data(data, 2)
    with pytest.raises(RequestError, match=r"expected an ase\.vibrations\.VibrationsData, got dict"):
        from_vibrations_data({})  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="expected a data set"):
        to_vibrations_data(3)  # type: ignore[arg-type]
