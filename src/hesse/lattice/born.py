"""Born effective charges and dielectric constants of polar crystals, from BORN files or arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hesse.errors import FileFormatError, LabelShapeError, RequestError
from hesse.lattice.supercells import phonopy_errors
from hesse.runtime.filesystem import check_input_file

__all__ = ["born_charges"]

_MAX_BYTES = 1 << 22


def born_charges(record: Any, born: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Read Born effective charges for a primitive cell.

    Args:
        record: `phonopy.Phonopy`.
        born: a BORN file, which lists the symmetry-distinct atoms of the primitive cell; or a mapping with "born"
            (`[primitive atoms, 3, 3]`, e) and "dielectric" (`[3, 3]`).

    Returns:
        The parameters of phonopy's non-analytical term.

    Raises:
        FileFormatError: the file is damaged, or lists another number of atoms.
        LabelShapeError: arrays of other shapes, or not finite.
        RequestError: neither a file nor a mapping.
    """
    n = len(record.primitive)
    if isinstance(born, Mapping):
        parameters = dict(born)
        if not {"born", "dielectric"} <= set(parameters):
            raise RequestError(f'expected Born charges as {{"born": ..., "dielectric": ...}}, got {sorted(parameters)}')
    elif isinstance(born, str | Path):
        path = Path(born)
        check_input_file(path, "BORN file")
        if path.stat().st_size > _MAX_BYTES:
            raise FileFormatError(f"{path}: too large for a BORN file")
        from phonopy.file_IO import parse_BORN
        from phonopy.structure.symmetry import Symmetry

        distinct = len(Symmetry(record.primitive, symprec=record.symmetry.tolerance).get_independent_atoms())
        what = (
            f"{path}: not the BORN file of this crystal. Expected a line of units, nine numbers of the dielectric "
            f"constant, and nine of the charge of each of the {distinct} symmetry-distinct atoms of {n} in the "
            "primitive cell"
        )
        with phonopy_errors(what, FileFormatError):
            parameters = dict(parse_BORN(record.primitive, symprec=record.symmetry.tolerance, filename=str(path)))
    else:
        raise RequestError(f"expected a BORN file or a mapping of Born charges, got {type(born).__name__}")
    for name, shape in (("born", (n, 3, 3)), ("dielectric", (3, 3))):
        try:
            values = np.asarray(parameters[name], dtype=np.float64)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.shape != shape or not np.isfinite(values).all():
            raise LabelShapeError(
                f"Born charges: expected {name} of shape {shape} for the {n} atoms of the primitive cell, got "
                f"{values.shape}"
            )
        parameters[name] = values
    if "factor" not in parameters:
        from phonopy.physical_units import get_calculator_physical_units

        parameters["factor"] = get_calculator_physical_units(record.calculator).nac_factor
    return parameters
