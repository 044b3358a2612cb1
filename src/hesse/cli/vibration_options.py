"""Options that `hesse vibrations` and `hesse thermo` share, and the work behind them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hesse.cli.common_options import print_failures, workers_for

if TYPE_CHECKING:
    from hesse.datasets import Dataset
    from hesse.recipes import VibrationsReport

__all__ = [
    "Atoms",
    "Engine",
    "Fmax",
    "Folder",
    "Isotopes",
    "Masses",
    "Minimize",
    "RetryFailed",
    "Reuse",
    "Source",
    "Steps",
    "Timeout",
    "compute_vibrations",
    "print_warnings",
]

Source = Annotated[
    Path,
    typer.Argument(metavar="IN", help="Structures, with Hessians or without: .h5, .extxyz, .log, .hess, ..."),
]
Engine = Annotated[
    str | None,
    typer.Option(help="Computes Hessians that IN lacks: gfn2, pyscf:METHOD/BASIS, MODEL.hesse, ..."),
]
Minimize = Annotated[bool, typer.Option("--minimize", help="Relax the structures first, with the engine.")]
Fmax = Annotated[float, typer.Option(help="eV/Å; largest force after --minimize.")]
Steps = Annotated[int, typer.Option(min=1, help="Largest number of steps of --minimize.")]
Atoms = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Atoms that move, from 0: 12-20,25; the others are frozen. free: those that IN does not freeze.",
    ),
]
Masses = Annotated[str, typer.Option(help="average, or principal: the most abundant isotopes, as most programs do.")]
Isotopes = Annotated[
    list[str] | None,
    typer.Option("--isotope", metavar="ATOM=MASS", help="3=2.014, 3=D or 0=13C; may be given several times."),
]
Folder = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder for new Hessians and for files; the same command continues."),
]
Reuse = Annotated[bool, typer.Option(help="Use Hessians in IN, if they are of the engine's level.")]
Timeout = Annotated[float | None, typer.Option(help="Seconds for one structure, then it counts as failed.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try again what failed in an earlier run.")]

_HESSIANS = "hessians.h5"
_RANGE = re.compile(r"(\d+)(?:-(\d+))?$")
_MAX_RANGE = 100_000


def compute_vibrations(
    source: Path,
    *,
    engine: str | None,
    folder: Path | None,
    json_file: Path | None,
    atoms: str | None,
    isotopes: list[str] | None,
    limit: int | None = None,
    **options: Any,
) -> VibrationsReport:
    """Read the input, check the outputs, and compute. The new Hessians are in the folder of the output.

    Raises:
        RequestError: an option or a path that cannot be used.
        HesseError: see `hesse.analyze_vibrations`.
    """
    from hesse.datasets import read_dataset
    from hesse.errors import RequestError
    from hesse.recipes import analyze_vibrations
    from hesse.runtime.filesystem import check_output_path

    if json_file is not None:
        check_output_path(json_file, source)
    output = None
    if folder is not None:
        if folder.exists() and not folder.is_dir():
            raise RequestError(f"--out: {folder} is a file; expected a folder, which is created if it is missing")
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / _HESSIANS
        check_output_path(output, source, *([] if json_file is None else [json_file]))
    masses_of = _parse_isotopes(isotopes or [])
    if source.suffix.lower() == ".json" and engine is None and atoms is None:
        report = _partial_vibrations_data(source, options["masses"], masses_of)
        if report is not None:
            return report
    dataset = read_dataset(source, check=False)
    moving = None if atoms is None else _parse_atoms(atoms, source, dataset)
    if limit is not None:
        dataset = dataset[:limit]
    if engine is not None:
        processes = any(options.get(name) is not None for name in ("scheduler", "timeout"))
        options["workers"] = workers_for(options.get("workers"), engine, dataset.structures, processes=processes)
    report = analyze_vibrations(dataset, engine, output=output, atoms=moving, isotopes=masses_of, **options)
    if engine is not None:
        _tell_outside(report, engine)
    return report


def _tell_outside(report: VibrationsReport, engine: str) -> None:
    """Say how many geometries lie outside the training data of a model."""
    from hesse.engines import as_engine
    from hesse.pes import describe_outside

    if text := describe_outside([result.structure for result in report], as_engine(engine)):
        typer.echo(f"warning: {text}", err=True)


def _partial_vibrations_data(source: Path, masses: str, isotopes: Mapping[int, str]) -> VibrationsReport | None:
    """Vibrations from ASE's record of a part of the atoms, which no data set can hold; None for a full Hessian."""
    from hesse.datasets.formats.ase_vibrations import read_vibrations_data
    from hesse.pes.vibrational_analysis import vibrations_from_data
    from hesse.recipes import VibrationsReport

    data = read_vibrations_data(source)
    if len(data.get_indices()) == len(data.get_atoms()):
        return None
    name = str(data.get_atoms().info.get("structure_id") or source.stem)
    result = vibrations_from_data(data, masses=masses, isotopes=isotopes, id=name)
    return VibrationsReport((result,), (), (name,), n_stored=1)


def _parse_atoms(text: str, source: Path, dataset: Dataset) -> list[int] | dict[str, list[int]]:
    """Indices from a text such as "12-20,25". Raises RequestError."""
    from hesse.errors import RequestError

    if text.strip() == "free":
        return _free_atoms_in_file(source, dataset)
    atoms: list[int] = []
    for part in text.split(","):
        match = _RANGE.match(part.strip())
        if match is None:
            raise RequestError(f'--atoms: expected indices from 0, such as 12-20,25, or free; got "{text}"')
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last - first > _MAX_RANGE:
            raise RequestError(f'--atoms: "{part.strip()}" is no range of atoms')
        atoms += range(first, last + 1)
    return atoms


def _free_atoms_in_file(source: Path, dataset: Dataset) -> dict[str, list[int]]:
    """The atoms that constraints in a file leave free, by the ids of the structures: `move_mask` of extended XYZ,
    selective dynamics of VASP. Raises RequestError."""
    from ase.io import read

    from hesse.errors import RequestError, first_line
    from hesse.pes.vibrational_analysis import free_atoms

    formats = {".xyz": "extxyz", ".extxyz": "extxyz", ".vasp": "vasp", ".poscar": "vasp"}
    kind = formats.get(source.suffix.lower())
    if kind is None and source.name.upper().startswith(("POSCAR", "CONTCAR")):
        kind = "vasp"
    if kind is None:
        raise RequestError(
            f"--atoms free: {source} has no constraints that are read; they are read from extended XYZ (move_mask) and "
            "POSCAR (selective dynamics). Give the indices of the atoms that move"
        )
    try:
        frames = read(source, index=":", format=kind)
    except Exception as error:  # ASE raises many kinds
        raise RequestError(f"--atoms free: ASE cannot read {source} ({first_line(error)})") from error
    if len(frames) != len(dataset):
        raise RequestError(f"--atoms free: ASE finds {len(frames)} structures in {source}, expected {len(dataset)}")
    free = {structure.id: free_atoms(atoms) for structure, atoms in zip(dataset.structures, frames, strict=True)}
    result = {name: indices.tolist() for name, indices in free.items() if indices is not None}
    if not result:
        raise RequestError(f"--atoms free: {source} freezes no atoms (no move_mask, no selective dynamics)")
    return result


def _parse_isotopes(texts: list[str]) -> Mapping[int, str]:
    """Isotopes by index from texts such as "3=2.014". Raises RequestError."""
    from hesse.errors import RequestError

    result: dict[int, str] = {}
    for text in texts:
        atom, equals, isotope = text.partition("=")
        if not (equals and isotope.strip() and atom.strip().isdigit()):
            raise RequestError(f'--isotope: expected ATOM=MASS, atoms from 0, such as 3=2.014 or 3=D; got "{text}"')
        result[int(atom)] = isotope.strip()
    return result


def print_warnings(report: VibrationsReport, *, with_warnings: bool = True) -> None:
    """Print to standard error what the reader should know: warnings of the results, and failures with their reasons."""
    kinds: dict[str, list[str]] = {}
    for result in report if with_warnings else ():
        for kind, text in result.warnings_by_kind().items():
            kinds.setdefault(kind, []).append(f"{result.structure.id}: {text}")
    for texts in kinds.values():
        more = f" (the first of {len(texts)} structures of which this is said)" if len(texts) > 1 else ""
        typer.echo(f"warning: {texts[0]}{more}", err=True)
    print_failures([f"{failure.id}: failed: {failure.reason}" for failure in report.failures])
