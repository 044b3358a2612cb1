"""The table of formats: what read_dataset and write_dataset, their messages, the documentation and the help derive."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from hesse.datasets import Dataset, Subset, open_dataset, read_dataset, write_dataset
from hesse.datasets.formats import FileFormat, ReadOptions, file_formats, register_format
from hesse.datasets.formats.table import _FORMATS, _REGISTERED, find_format
from hesse.errors import FileFormatError, RequestError, UnitError
from hesse.structures import Properties, Structure

ROOT = Path(__file__).parents[3]


def lines_format(**options: typing.Any) -> FileFormat:
    """A format with one structure and its energy (in the unit that the caller states) in each line."""

    def read(path: Path, options: ReadOptions) -> Dataset:
        pairs = []
        for i, line in enumerate(path.read_text().splitlines()):
            record = json.loads(line)
            structure = Structure(record["numbers"], record["positions"], id=f"line-{i}")
            pairs.append((structure, Properties.single(len(structure), energy=record["energy"])))
        units, data = options.file_units(), Dataset.from_pairs(pairs)
        return Dataset(*units.to_internal(data.structures, data.labels), source=str(path))

    def write(path: Path, data: Dataset) -> None:
        records = [
            {"numbers": s.numbers.tolist(), "positions": s.positions.tolist(), "energy": float(label.energy[0])}
            for s, label in data
        ]
        path.write_text("".join(json.dumps(r) + "\n" for r in records))

    return FileFormat(name="lines", suffixes=(".lines",), read=read, write=write, units="stated", **options)


@pytest.fixture
def registered() -> Iterator[FileFormat]:
    before = list(_REGISTERED)
    yield register_format(lines_format(unit_options=("energy",), no_unit_options="only energies have a unit here"))
    _REGISTERED[:] = before


@pytest.fixture
def data() -> Dataset:
    molecules = [Structure([1, 1], [[0, 0, 0], [0, 0, 0.7 + 0.1 * i]], id=f"line-{i}") for i in range(4)]
    return Dataset.from_pairs((s, Properties.single(2, energy=0.5 * i)) for i, s in enumerate(molecules))


def test_a_registered_format_is_read_and_written_like_any_other(
    registered: FileFormat, data: Dataset, tmp_path: Path
) -> None:
    file = tmp_path / "a.lines"
    write_dataset(file, data)
    assert file_formats()[0] is registered
    assert find_format(file) is registered
    assert read_dataset(file).content_hash() == data.content_hash() == open_dataset(file).content_hash()
    assert read_dataset(file, subset=Subset(match="line-[12]", limit=1)).ids == ("line-1",)
    assert read_dataset(file, energy_unit="hartree").labels.energy[1] == pytest.approx(0.5 * 27.211386245988)
    with pytest.raises(UnitError, match=r"a\.lines: --forces-unit was given, but only energies have a unit here"):
        read_dataset(file, forces_unit="hartree/bohr")
    with pytest.raises(RequestError, match=r"columns of extended XYZ and grouped HDF5 can.*not those of \.lines"):
        read_dataset(file, rename={"E": "energy"})
    (tmp_path / "a.csv").touch()
    with pytest.raises(FileFormatError, match=r"Known: \.lines \(lines\); \.h5, \.hdf5"):
        read_dataset(tmp_path / "a.csv")
    with pytest.raises(FileFormatError, match=r"as \.lines or \.h5 or \.extxyz \(a single Hessian as \.json too"):
        write_dataset(tmp_path / "a.csv", data)


def test_a_name_is_taken_once(registered: FileFormat) -> None:
    with pytest.raises(RequestError, match="a format 'lines' already"):
        register_format(lines_format())
    assert len({f.name for f in file_formats()}) == len(file_formats())


def test_the_content_decides_among_formats_with_one_suffix(data: Dataset, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    write_dataset(tmp_path / "own.h5", data)
    with h5py.File(tmp_path / "grouped.h5", "w") as file:
        file["H2/species"], file["H2/coordinates"] = [b"H", b"H"], [[[0, 0, 0], [0, 0, 0.7]]]
    with h5py.File(tmp_path / "constants.h5", "w") as file:
        file["force_constants"] = [[[[0.0]]]]
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [0.0]
    (tmp_path / "damaged.h5").write_text("text")
    names = {p.name: find_format(p).name for p in tmp_path.iterdir()}
    assert names == {
        "own.h5": "hesse-dataset",
        "grouped.h5": "grouped HDF5",
        "constants.h5": "phonopy",
        "other.h5": "hesse-dataset",  # whose reader says what it expected
        "damaged.h5": "hesse-dataset",
    }


@pytest.mark.parametrize("option", ["energy", "length", "forces", "curvature"])
def test_units_of_a_geometry_are_known(tmp_path: Path, option: str) -> None:
    """A unit was ignored without a word."""
    (tmp_path / "POSCAR").write_text("H\n1.0\n9 0 0\n0 9 0\n0 0 9\nH\n1\nCartesian\n0 0 0\n")
    unit = {"energy": "eV", "length": "bohr", "forces": "hartree/bohr", "curvature": "hartree/bohr^2"}[option]
    with pytest.raises(UnitError, match=rf"--{option}-unit was given, but positions in such files are in Å"):
        read_dataset(tmp_path / "POSCAR", **{f"{option}_unit": unit})  # type: ignore[arg-type]


def test_a_missing_file_is_missing_whatever_else_is_wrong(tmp_path: Path) -> None:
    for suffix in {s for f in file_formats() for s in f.suffixes}:
        with pytest.raises(FileFormatError, match="there is no such file"):
            read_dataset(tmp_path / f"x{suffix}", curvature_unit="hartree/bohr^2", rename={"E": "energy"})


def test_the_documentation_lists_the_table() -> None:
    def row(f: FileFormat) -> str:
        taken = [f"`--{name}-unit`" for name in f.unit_options] + ["`--rename`"] * f.renames
        written = "" if f.write is None else "yes" if f.written == "data sets" else f.written
        return f"| {f.name} | {f.files.replace('*', '&#42;')} | {written} | {f.units} | {', '.join(taken)} |"

    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    start = page.index("| format | files |")
    rows = page[start : page.index("\n\n", start)].splitlines()[2:]
    assert rows == [row(f) for f in _FORMATS]


def test_the_help_names_what_is_written() -> None:
    from hesse.cli.convert_command import convert

    (argument,) = typing.get_type_hints(convert, include_extras=True)["target"].__metadata__
    assert argument.help == ".h5 or .extxyz; .json for one Hessian"
    assert [f.suffixes[0] for f in _FORMATS if f.write] == [".h5", ".extxyz", ".json"]
