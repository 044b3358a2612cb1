"""Export of a model to the programs in which people run dynamics: one file (metatomic) or a folder of files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from hesse.datasets import StructuresLike, as_structure
from hesse.deploy.engine_files import ENGINE_FILES, ExportedRun, standard_orientation
from hesse.deploy.force_field import ForceField
from hesse.deploy.metatomic_export import export_metatomic
from hesse.engines.names import path_in_name
from hesse.errors import RequestError, check_choice
from hesse.models import best_model, is_run_folder
from hesse.runtime.dtypes import DTypeLike, as_dtype
from hesse.runtime.filesystem import atomic_write, atomic_write_text, check_new_file
from hesse.structures import to_ase

__all__ = ["EXPORT_TARGETS", "export"]

EXPORT_TARGETS = ("metatomic", *ENGINE_FILES)
COMPILED_TARGETS = ("lammps", "i-pi")


def export(
    model: str | Path,
    to: str,
    output: str | Path,
    *,
    structure: StructuresLike | None = None,
    dtype: DTypeLike | None = None,
    device: str | None = None,
    compile: bool = False,
    overwrite: bool = False,
) -> str:
    """Write what a program needs to run a model.

    The model computes the structure once, so that an element that it does not know, or colliding atoms, are reported
    before the program starts.

    Args:
        model: path of a model, or a name as for `hesse.make_potential`.
        to: "metatomic", "i-pi", "lammps", "openmm", "torch-sim" or "orca".
        output: the file (metatomic), or a folder for the files; it is created.
        structure: the atoms at the start; not for metatomic.
        dtype: "float64" or "float32"; default: that of the model.
        device: device of a metatomic file ("cpu", "cuda"); the other programs get the model itself.
        compile: compiled forces in LAMMPS and i-PI, see `HesseCalculator`.
        overwrite: whether files of former exports are replaced.

    Returns:
        How to go on, for a terminal.

    Raises:
        UnknownOptionError: an unknown program.
        RequestError: no structure, files that exist; a model that cannot be exported, with the operation.
        UnknownElementError: an element of the structure that the model does not know.
        HesseError: as `hesse.make_potential`.
    """
    check_choice(to, EXPORT_TARGETS, "program to export to")
    output = Path(output)
    precision = None if dtype is None else str(as_dtype(dtype)).removeprefix("torch.")
    if compile and to not in COMPILED_TARGETS:
        raise RequestError(f"compiled forces are for {' and '.join(COMPILED_TARGETS)}: leave --compile out for {to}")
    if to == "metatomic":
        check_new_file(output, overwrite=overwrite)
        export_metatomic(output, model, dtype=dtype, device=device)
        return f"{output}: for every program that reads metatomic files (LAMMPS, i-PI, ASE, GROMACS, torch-sim, ...)"
    if device is not None:
        raise RequestError(f"--device is for metatomic; set the device in the files for {to}")
    if structure is None:
        raise RequestError(f"{to} needs the atoms at the start: --structure start.xyz")
    start = as_structure(structure)
    ForceField(model, start, dtype=precision)(start.positions, start.cell)
    files = ENGINE_FILES[to]
    atoms = _bare(standard_orientation(to_ase(start)))
    texts = files.write(ExportedRun(_portable_name(str(model)), atoms, precision, compile, str(output.absolute())))
    if output.is_file():
        raise RequestError(f"{output}: this is a file, expected a folder for the files of {to}")
    for name in (*texts, "start.extxyz"):
        check_new_file(output / name, overwrite=overwrite)
    output.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        atomic_write_text(output / name, text)
        if text.startswith("#!"):
            _make_executable(output / name)
    with atomic_write(output / "start.extxyz") as temporary:
        write(temporary, atoms, format="extxyz")
    return f"{output}: {', '.join([*texts, 'start.extxyz'])}\n  cd {output}\n  {files.how_to}"


def _make_executable(path: Path) -> None:
    """Let everyone start the program who may read it."""
    mode = path.stat().st_mode
    path.chmod(mode | (mode & 0o444) >> 2)


def _bare(atoms: Atoms) -> Atoms:
    """Geometry alone: labels in the file would only confuse."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=np.asarray(atoms.cell), pbc=atoms.pbc)


def _portable_name(model: str) -> str:
    """The name with an absolute path, since the program runs in another folder."""
    if is_run_folder(model):
        model = str(best_model(model))
    path = path_in_name(model)
    return model if path is None else model.replace(path, str(Path(path).absolute()), 1)
