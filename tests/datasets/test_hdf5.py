"""HDF5: exact round trips; a bad file gives an error with the place, never a wrong number."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hesse.datasets import Dataset, read_hdf5, write_hdf5
from hesse.errors import (
    FileFormatError,
    GeometryError,
    HesseError,
    LabelShapeError,
    RequestError,
    UnitError,
    WriteError,
)
from hesse.structures import Properties, Structure
from hesse.units import ENERGY_UNITS, LENGTH_UNITS
from oracles import Morse, crystal, labeled, molecule, molecules


def mixed() -> Dataset:
    """Every kind of label and property, each absent somewhere."""
    torch.manual_seed(7)
    full = labeled(Morse(), [molecule(4, 1), crystal(1), molecule(6, 2)], probes=2, hessian=True).labels
    parts = [full.select(torch.tensor([i])) for i in range(3)]
    parts[0] = parts[0].replace(hvp=None, probes=None, energy=None, forces_error=torch.tensor([0.01]).double())
    parts[1] = parts[1].replace(hessian=None, stress=torch.randn(1, 3, 3).double())
    parts[2] = parts[2].replace(hvp_error=torch.rand(2, 1).double(), atomic_energies=torch.randn(6).double())
    structures = (
        replace(molecule(4, 1), id="größe-1", charge=-1, multiplicity=2, group="молекула"),
        crystal(1),
        replace(molecule(6, 2), id="0012", tag="nms-300K", cell=9 * np.eye(3)),
    )
    return Dataset(structures, Properties.concatenate(parts), metadata={"level": "GFN2-xTB", "engine": "tblite β"})


def require_equal(one: Dataset, other: Dataset) -> None:
    assert one.content_hash() == other.content_hash()
    assert dict(one.metadata) == dict(other.metadata)
    for a, b in zip(one.structures, other.structures, strict=True):
        for name in ("id", "tag", "group", "charge", "multiplicity", "pbc"):
            assert getattr(a, name) == getattr(b, name)
    arrays, others = ({column.name: value for column, value in data.labels.items()} for data in (one, other))
    assert arrays.keys() == others.keys()
    for name, value in arrays.items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_hdf5(tmp_path / "data.h5", mixed())
    return tmp_path / "data.h5"


# --- round trips -----------------------------------------------------------------------------------------------------


def test_everything_survives_bit_by_bit(file: Path) -> None:
    require_equal(mixed(), read_hdf5(file))


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.sets(st.sampled_from(["energy", "forces", "hvp", "hessian"])), st.text()),
        min_size=1,
        max_size=5,
    )
)
def test_any_mixture_survives(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, set[str], str]]) -> None:
    path = tmp_path_factory.mktemp("h5") / "x.h5"
    items = []
    for k, (n, held, text) in enumerate(rows):
        rng = np.random.default_rng(k)
        values = {
            "energy": rng.normal(),
            "forces": rng.normal(size=(n, 3)),
            "hessian": rng.normal(size=(n, 3, n, 3)),
            "hvp": rng.normal(size=(2, n, 3)),
            "probes": rng.normal(size=(2, n, 3)),
        }
        names = held | ({"probes"} if "hvp" in held else set())
        structure = Structure(np.arange(1, n + 1), rng.normal(size=(n, 3)), id=f"{k}", tag=text.rstrip("\0"))
        items.append((structure, Properties.single(n, **{m: values[m] for m in names})))  # type: ignore[arg-type]
    data = Dataset.from_pairs(items)
    write_hdf5(path, data)
    require_equal(data, read_hdf5(path))


def minimal(path: Path, **attributes: object) -> None:
    """A file as another program may write it: single precision, text of variable length, no checksum."""
    with h5py.File(path, "w") as f:
        f.attrs.update({"format": "hesse-dataset", "version": 1, **attributes})
        f["structures/offsets"] = np.array([0, 2, 3], dtype=np.uint32)
        f["structures/id"] = ["h2", "h"]
        f["structures/numbers"] = np.array([1, 1, 1], dtype=np.int8)
        f["structures/positions"] = np.array([[0, 0, 0], [0, 0, 1.4], [0, 0, 0]], dtype=np.float32)
        f["labels/energy"] = np.array([-1.0, -0.5], dtype=np.float32)
        f["labels/forces"] = np.full((3, 3), 0.1)
        f["labels/hessian"] = np.ones(36)
        f["labels/hessian_offsets"] = np.array([0, 36, 36])


def test_other_writers_and_other_units(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    minimal(path, energy_unit="Hartree", length_unit="bohr")
    data = read_hdf5(path)
    e, a = ENERGY_UNITS["hartree"], LENGTH_UNITS["bohr"]
    assert data.labels.energy is not None
    assert data.labels.forces is not None
    assert data.structures[0].positions[1, 2] == pytest.approx(1.4 * a)
    assert data.labels.energy.tolist() == pytest.approx([-e, -e / 2])
    assert float(data.labels.forces[0, 0]) == pytest.approx(0.1 * e / a)
    assert float(data.labels.hessian_of(0)[0, 0, 0, 0]) == pytest.approx(e / a**2)
    assert data.labels.mask("hessian").tolist() == [True, False]


def test_units_are_required_and_not_contradicted(tmp_path: Path) -> None:
    path = tmp_path / "theirs.h5"
    minimal(path)
    with pytest.raises(UnitError, match=r"theirs\.h5: the attribute energy_unit is missing.*--energy-unit"):
        read_hdf5(path)
    with pytest.raises(UnitError, match="length_unit is missing"):
        read_hdf5(path, energy_unit="eV")
    assert len(read_hdf5(path, energy_unit="eV", length_unit="angstrom")) == 2
    minimal(path, energy_unit="hatree", length_unit="bohr")
    with pytest.raises(UnitError, match=r"theirs\.h5: unknown energy unit \"hatree\". Did you mean \"hartree\""):
        read_hdf5(path)
    minimal(path, energy_unit="eV", length_unit="angstrom")
    with pytest.raises(UnitError, match="the file states eV"):
        read_hdf5(path, energy_unit="kcal/mol")


# --- bad files -------------------------------------------------------------------------------------------------------


def put(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(f: h5py.File) -> None:
        if name in f:
            del f[name]
        f[name] = value

    return change


def drop(name: str) -> Callable[[h5py.File], None]:
    return lambda f: f.__delitem__(name)


def attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda f: f.attrs.__setitem__(name, value)


def absurd(f: h5py.File) -> None:
    del f["structures/offsets"]
    f.create_dataset("structures/offsets", shape=(10**12,), dtype="i8", chunks=(1024,), compression="gzip")


def outside(f: h5py.File) -> None:
    del f["labels/energy"]
    f.create_dataset("labels/energy", shape=(2,), dtype="f8", external=[("/etc/hostname", 0, 16)])


def virtual(f: h5py.File) -> None:
    del f["labels/energy"]
    layout = h5py.VirtualLayout(shape=(2,), dtype="f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(2,))
    f.create_virtual_dataset("labels/energy", layout)


def plug_in(f: h5py.File) -> None:
    del f["labels/energy"]
    f.create_dataset("labels/energy", data=np.zeros(2), chunks=(2,), compression="lzf")


def test_corruption_by_the_disk_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit that flips while writing: the old file remains."""
    data = mixed()
    path = tmp_path / "x.h5"
    write_hdf5(path, data)
    before = path.read_bytes()
    straight = Path.write_bytes

    def bent(self: Path, image: bytes) -> int:
        changed = bytearray(image)
        changed[-300] ^= 1
        return straight(self, bytes(changed))

    monkeypatch.setattr(Path, "write_bytes", bent)
    with pytest.raises(WriteError, match="the data read back from the disk differ"):
        write_hdf5(path, data)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


def test_no_bit_that_flips_while_writing_gets_into_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, path, rng, straight, refused = mixed(), tmp_path / "x.h5", random.Random(5), Path.write_bytes, 0

    def bent(self: Path, image: bytes) -> int:
        changed = bytearray(image)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return straight(self, bytes(changed))

    monkeypatch.setattr(Path, "write_bytes", bent)
    for _ in range(60):
        try:
            write_hdf5(path, data)
        except WriteError as error:
            refused += 1
            assert str(error).startswith(f"cannot write {path}: the data read back")  # noqa: PT017
        else:
            require_equal(data, read_hdf5(path))  # the bit is in space that HDF5 does not use
    assert refused > 20


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (attribute("format", "ani"), FileFormatError, "not a Hesse data set"),
        (attribute("version", 6), FileFormatError, "version 6 of the format; this Hesse reads up to 5"),
        (attribute("version", "one"), FileFormatError, "whole number"),
        (drop("structures/positions"), FileFormatError, "structures/positions is missing"),
        (drop("structures/offsets"), FileFormatError, "structures/offsets is missing"),
        (drop("labels/hessian_offsets"), FileFormatError, "belong together"),
        (put("labels/force", np.zeros((3, 3))), FileFormatError, 'Did you mean "labels/forces"'),
        (put("structures/positions", np.zeros((4, 3))), FileFormatError, r"shape \(4, 3\), expected \(3, 3\)"),
        (put("structures/positions", np.zeros(9)), FileFormatError, r"expected \(3, 3\)"),
        (put("structures/positions", [[b"x"] * 3] * 3), FileFormatError, "expected real numbers"),
        (put("structures/numbers", np.ones(3)), FileFormatError, "expected integer numbers"),
        (put("structures/id", np.arange(2)), FileFormatError, "expected UTF-8 strings"),
        (put("structures/offsets", [0, 3, 2]), FileFormatError, "never decrease"),
        (put("structures/offsets", [1, 2, 3]), FileFormatError, "start at 0"),
        (put("structures/offsets", np.array([[0, 2, 3]])), FileFormatError, "has shape"),
        (put("structures/offsets", [0, 0, 3]), GeometryError, '"h2".*at least one atom'),
        (put("structures/id", ["h", "h"]), RequestError, '"h" occurs twice'),
        (put("structures/numbers", [1, 200, 1]), GeometryError, '"h2".*1..118'),
        (put("structures/positions", np.full((3, 3), np.nan)), GeometryError, '"h2".*finite'),
        (put("labels/hessian_offsets", [0, 9, 36]), FileFormatError, 'structure "h2": a Hessian of 9 elements'),
        (put("labels/hvp", np.zeros((1, 3, 3))), LabelShapeError, "need the probes"),
        (put("labels/energy", h5py.SoftLink("/labels/forces")), FileFormatError, "SoftLink, which leads elsewhere"),
        (put("labels/energy", h5py.ExternalLink("x.h5", "/a")), FileFormatError, "ExternalLink"),
        (put("labels/energy/deep", 1.0), FileFormatError, "must be an array"),
        (outside, FileFormatError, "outside the file"),
        (virtual, FileFormatError, "outside the file"),
        (plug_in, FileFormatError, "plug-in"),
        (absurd, FileFormatError, "declares 8000000000000 bytes"),
    ],
    ids=lambda x: x[:24].replace(" ", "-") if isinstance(x, str) else "",
)
def test_a_bad_file_is_refused_with_file_and_array(
    tmp_path: Path, change: Callable[[h5py.File], None], kind: type[HesseError], words: str
) -> None:
    path = tmp_path / "theirs.h5"
    minimal(path, energy_unit="eV", length_unit="angstrom")
    with h5py.File(path, "r+") as f:
        if words == "must be an array":
            del f["labels/energy"]
        change(f)
    with pytest.raises(kind, match=words) as caught:
        read_hdf5(path)
    assert "theirs.h5" in str(caught.value)
    assert caught.value.exit_code == 2


def test_missing_file_and_file_of_another_format(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no such file"):
        read_hdf5(tmp_path / "nothing.h5")
    (tmp_path / "text.h5").write_text("3\nwater\n")
    with pytest.raises(FileFormatError, match="another kind of file"):
        read_hdf5(tmp_path / "text.h5")


def test_edits_are_detected(file: Path) -> None:
    with h5py.File(file, "r+") as f:
        f["labels/energy"][1] = 0.0
    with pytest.raises(FileFormatError, match="does not match its checksum"):
        read_hdf5(file)
    with h5py.File(file, "r+") as f:
        del f.attrs["checksum"]
    read_hdf5(file)  # a deliberate edit


@pytest.mark.parametrize("damage", ["truncation", "one bit", "many bits"])
def test_damage_is_an_error_or_harmless_never_a_wrong_number(file: Path, damage: str) -> None:
    content, rng, victim = file.read_bytes(), random.Random(damage), file.with_name("victim.h5")
    expected = mixed()
    for _ in range(100):
        data = bytearray(content)
        if damage == "truncation":
            data = data[: rng.randrange(len(data))]
        else:
            for _ in range(1 if damage == "one bit" else 16):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        victim.write_bytes(data)
        try:
            result = read_hdf5(victim)
        except HesseError as error:
            assert "victim.h5" in str(error)  # noqa: PT017
        else:
            assert damage != "truncation"
            require_equal(expected, result)


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_failed_write_harms_nothing(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(WriteError, match="there is no folder"):
        write_hdf5(file.parent / "missing" / "x.h5", mixed())
    if os.geteuid() != 0:  # root may write anywhere
        file.parent.chmod(0o500)
        with pytest.raises(WriteError):
            write_hdf5(file, mixed())
        file.parent.chmod(0o700)
    assert file.read_bytes() == before


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from oracles import Morse, labeled, molecules
from hesse.datasets import write_dataset
from hesse.errors import WriteError
data = labeled(Morse(), molecules([12] * 12), hessian=True)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    write_dataset(sys.argv[1], data)
except WriteError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("name", ["data.h5", "data.extxyz"])
def test_a_full_disk_is_an_error_and_the_old_file_stays(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    target.write_bytes(b"what was there before")
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(target), str(tests)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stderr
    assert "existing file is unchanged" in done.stdout
    assert name in done.stdout
    assert target.read_bytes() == b"what was there before"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_text_that_hdf5_would_truncate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="zero at the end"):
        write_hdf5(tmp_path / "x.h5", Dataset((replace(molecule(3, 1), tag="a\0"),), Properties.single(3)))


def test_no_text_is_stored_on_the_heap_without_checksums(file: Path) -> None:
    """A bit flipped in HDF5's global heap (texts of variable length) made the library loop forever."""
    assert b"GCOL" not in file.read_bytes()


def test_files_are_compressed_and_reproducible(tmp_path: Path) -> None:
    data = labeled(Morse(), molecules([8] * 20), hessian=True)
    write_hdf5(tmp_path / "a.h5", data)
    write_hdf5(tmp_path / "b.h5", data)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert data.labels.hessian is not None
    assert (tmp_path / "a.h5").stat().st_size < 1.2 * data.labels.hessian.nbytes
