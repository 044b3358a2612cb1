"""Checks of `hesse phonons` and `hesse anharmonic` before any work: their inputs and outputs belong together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hesse.lattice import Phonons
    from hesse.structures import Structure

__all__ = ["check_band_paths", "check_before_work", "primitive_cell"]


def check_band_paths() -> None:
    """Raise MissingExtraError if paths of bands cannot be made."""
    from hesse.runtime.imports import import_optional

    import_optional("seekpath", extra="materials", purpose="the path of bands")


def primitive_cell(crystal: Structure, primitive: str, symprec: float) -> Structure:
    """The primitive cell whose phonons will be computed.

    Raises:
        GeometryError: no crystal, or not a multiple of that primitive cell.
    """
    import numpy as np

    from hesse.lattice.supercells import make_record, structure_of

    record = make_record(crystal, np.eye(3, dtype=np.int64), primitive=primitive, symprec=symprec)
    return structure_of(record.primitive, crystal.id)


def check_before_work(
    crystal: Structure,
    primitive: Structure,
    expected: Phonons | None,
    out: Path | None,
    names: Sequence[str],
    *,
    overwrite: bool,
) -> None:
    """Check that the reference is of the same crystal, and that no results of another one are replaced.

    Raises:
        RequestError: they are not.
    """
    from hesse.lattice.phonon_comparison import check_same_primitive
    from hesse.lattice.result_folders import check_result_folder

    if expected is not None:
        check_same_primitive(primitive, expected.primitive)
    if out is not None:
        check_result_folder(out, crystal, names, overwrite=overwrite)
