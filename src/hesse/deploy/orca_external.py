"""ORCA with an external method: the program that ORCA calls for every energy and gradient (`! ExtOpt`).

    python -m hesse.deploy.orca_external MODEL JOB_EXT.extinp.tmp

The protocol is documented at https://github.com/faccts/orca-external-tools. ORCA writes the geometry and five numbers;
the program answers with a file of energy and gradient in Hartree and Bohr.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import read
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.deploy.force_field import ForceField
from hesse.errors import FileFormatError, HesseError, RequestError
from hesse.runtime.filesystem import atomic_write_text, check_input_file

__all__ = ["ExternalRequest", "answer", "engrad_text", "read_external_request"]


@dataclass(frozen=True)
class ExternalRequest:
    """A request of ORCA.

    Attributes:
        geometry: the file with the geometry.
        charge: total charge in e.
        multiplicity: spin multiplicity.
        gradient: whether the gradient is wanted too.
    """

    geometry: Path
    charge: int
    multiplicity: int
    gradient: bool


def read_external_request(path: str | Path) -> ExternalRequest:
    """Read the file that ORCA writes for an external method.

    Args:
        path: `JOB_EXT.extinp.tmp`.

    Returns:
        The request; the geometry is looked for in the folder of the file.

    Raises:
        FileFormatError: there is no such file, or it is of another format.
        RequestError: point charges, which a potential does not know.
    """
    path = Path(path)
    check_input_file(path, "file of ORCA (JOB_EXT.extinp.tmp)")
    lines = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line]
    try:
        geometry, charge, multiplicity, _, gradient = lines[0], *(int(line) for line in lines[1:5])
    except (IndexError, ValueError) as error:
        raise FileFormatError(
            f"{path}: expected the name of a geometry, charge, multiplicity, number of cores and 0 or 1 for the "
            f"gradient, one a line, got {lines[:5]}"
        ) from error
    if len(lines) > 5:
        raise RequestError(f"{path}: point charges ({lines[5]}) were given, and a potential knows none")
    return ExternalRequest(path.parent / geometry, charge, multiplicity, bool(gradient))


def engrad_text(energy: float, gradient: Float[Array, "n 3"]) -> str:
    """The answer for ORCA.

    Args:
        energy: eV.
        gradient: eV/Å.

    Returns:
        Text of the file `JOB_EXT.engrad`.
    """
    values = "\n".join(f"{value:.12f}" for value in (gradient * units.Bohr / units.Hartree).ravel())
    return (
        f"#\n# Number of atoms\n#\n{len(gradient)}\n#\n# Energy in Eh\n#\n{energy / units.Hartree:.12f}\n"
        f"#\n# Gradient in Eh/bohr\n#\n{values}\n"
    )


def answer(model: str | Path, path: str | Path) -> Path:
    """Compute what ORCA asks for, and write the answer beside its file.

    Args:
        model: path of a model, or a name as for `hesse.make_potential`.
        path: `JOB_EXT.extinp.tmp`.

    Returns:
        The file `JOB_EXT.engrad`.

    Raises:
        HesseError: as `read_external_request` and `ForceField`.
    """
    request = read_external_request(path)
    check_input_file(request.geometry, "geometry")
    atoms = read(request.geometry)
    assert isinstance(atoms, Atoms)
    atoms.info.update(charge=request.charge, multiplicity=request.multiplicity)
    point = ForceField(model, atoms)(atoms.positions)
    target = request.geometry.with_suffix(".engrad")
    atomic_write_text(target, engrad_text(point.energy, -np.asarray(point.forces)))
    return target


def main(arguments: list[str]) -> int:
    """Entry point of `python -m hesse.deploy.orca_external`.

    Args:
        arguments: the model, then what ORCA adds.

    Returns:
        Exit code.
    """
    if len(arguments) < 2:
        print("expected: python -m hesse.deploy.orca_external MODEL JOB_EXT.extinp.tmp", file=sys.stderr)
        return 2
    try:
        answer(arguments[0], arguments[1])
    except HesseError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
