"""Harmonic vibrations of a structure with any engine, or from a Hessian that is known already."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.datasets import StructuresLike, as_dataset, as_structure, find_issues
from hesse.engines import Engine, EngineLike, as_engine
from hesse.errors import (
    EngineError,
    HarmonicWarning,
    InconsistentLabelsError,
    MissingLabelError,
    RequestError,
)
from hesse.harmonic.masses import MassesLike, atom_masses
from hesse.harmonic.normal_modes import moving_atoms, normal_modes
from hesse.pes.hessian_columns import hessian_of_atoms
from hesse.pes.minimization import MinimizationResult
from hesse.pes.minimization import minimize as relax
from hesse.pes.vibrations_result import Vibrations
from hesse.structures import Properties, Request, Structure, from_ase, hessian_array

if TYPE_CHECKING:
    from ase.vibrations import VibrationsData

__all__ = [
    "Vibrations",
    "free_atoms",
    "inconsistent_hessians",
    "relaxed",
    "vibrations",
    "vibrations_from_data",
    "vibrations_from_labels",
]


def vibrations(
    structure: StructuresLike | VibrationsData,
    engine: EngineLike | None = None,
    *,
    hessian: ArrayLike | None = None,
    atoms: ArrayLike | None = None,
    masses: MassesLike = None,
    isotopes: Mapping[int, str | float] | None = None,
    minimize: bool = False,
    fmax: float = 0.005,
    steps: int = 500,
) -> Vibrations:
    """Compute harmonic vibrations from the full Hessian of an engine, or from a known one.

    Translations and, for molecules, rotations are projected out. A `HarmonicWarning` tells of large forces, of modes in
    (-50, 0) cm⁻¹ and of a Hessian whose estimated error matters.

    Args:
        structure: one structure: ASE Atoms, a Structure, the result of `minimize` or `saddle`, the path of a file with
            one structure, or ASE's VibrationsData.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator. None uses the Hessian
            that `structure` holds (a file of a program, atoms with a Hessian, VibrationsData).
        hessian: the Hessian at `structure`, eV/Å², `[n, 3, n, 3]`; None computes it.
        atoms: indices of the atoms that move, the others being frozen: only their part of the Hessian is computed. By
            default all, or those without `FixAtoms` in ASE Atoms.
        masses: "average" (standard atomic weights, the default), "principal" (the most abundant isotopes), or masses in
            u, `[n]`.
        isotopes: for single atoms, by index: the mass in u, or a name such as "D" or "13C".
        minimize: relax the structure first.
        fmax: limit of the largest force after relaxation, eV/Å.
        steps: maximal number of steps of the relaxation.

    Returns:
        Frequencies (cm⁻¹), normal modes and the zero-point energy (eV), with error bars where the engine estimates the
        error of its Hessian.

    Raises:
        RequestError: not one structure, or not an engine; a Hessian together with `minimize`; wrong masses or atoms.
        MissingLabelError: neither an engine nor a Hessian.
        LabelShapeError, LabelValueError: the Hessian has a wrong shape, or is not finite.
        InconsistentLabelsError: the Hessian is that of another geometry.
        EngineError: the engine failed, or the relaxation did not converge.
        GeometryError: atoms collided.
    """
    if atoms is None:
        atoms = free_atoms(structure)
    if engine is None:
        result = _from_known_hessian(structure, hessian, atoms, masses, isotopes, minimize)
    else:
        start = as_structure(_without_data(structure))
        result = _with_engine(start, engine, hessian, atoms, masses, isotopes, minimize, fmax, steps)
    for text in result.warnings():
        warnings.warn(f'structure "{result.structure.id}": {text}', HarmonicWarning, stacklevel=2)
    return result


def _with_engine(
    structure: Structure,
    engine: EngineLike,
    hessian: ArrayLike | None,
    atoms: ArrayLike | None,
    masses: MassesLike,
    isotopes: Mapping[int, str | float] | None,
    minimize: bool,
    fmax: float,
    steps: int,
) -> Vibrations:
    engine, moving = as_engine(engine), moving_atoms(structure, atoms)
    m = atom_masses(structure, masses, isotopes)
    known = None if hessian is None else hessian_array(structure, hessian)
    if minimize:
        if known is not None:
            raise RequestError("a Hessian was given for a structure that is to be relaxed: leave out one of the two")
        if moving is not None:
            raise RequestError(
                f'structure "{structure.id}": atoms are frozen, but a relaxation moves all of them: relax it before'
            )
        structure = relaxed(structure, engine, fmax=fmax, steps=steps).structure
    if known is None and moving is not None:
        part = hessian_of_atoms(structure, engine, moving)
        modes = normal_modes(structure, part.hessian, masses=m, atoms=moving)
        return Vibrations(structure, engine.level, part.energy, part.forces, part.hessian, modes, part.error)
    labels = engine.compute(structure, Request(forces=True, hessian=known is None))
    if known is not None:
        labels = labels.replace(hessian=Properties.single(len(structure), hessian=known).hessian)
    return vibrations_from_labels(structure, labels, level=engine.level, atoms=moving, masses=m)


def relaxed(structure: Structure, engine: Engine, *, fmax: float, steps: int) -> MinimizationResult:
    """Relax a structure, and fail if it does not converge.

    Args:
        structure: the structure.
        engine: the engine.
        fmax: limit of the largest force, eV/Å.
        steps: maximal number of steps.

    Returns:
        The result of a relaxation that has converged.

    Raises:
        EngineError: it did not converge.
    """
    result = relax(structure, engine, fmax=fmax, steps=steps)
    if not result.converged:
        raise EngineError(
            f'structure "{structure.id}": not relaxed after {result.steps} steps (largest force {result.fmax:.3g} '
            f"eV/Å, limit {fmax:g}): give more steps, or relax it before"
        )
    return result


def vibrations_from_labels(
    structure: Structure,
    labels: Properties,
    *,
    level: str = "",
    atoms: ArrayLike | None = None,
    masses: MassesLike = None,
    isotopes: Mapping[int, str | float] | None = None,
    check: bool = True,
) -> Vibrations:
    """Vibrations of a structure whose labels have a Hessian.

    Args:
        structure: the geometry.
        labels: its labels, of this one structure.
        level: their level of theory.
        atoms: see `vibrations`.
        masses: see `vibrations`.
        isotopes: see `vibrations`.
        check: check that the Hessian is that of the geometry.

    Returns:
        Frequencies, normal modes and the zero-point energy.

    Raises:
        MissingLabelError: there is no Hessian.
        InconsistentLabelsError: it is that of another geometry.
        RequestError: wrong masses or atoms.
    """
    n = len(structure)
    if labels.hessian is None or not bool(labels.mask("hessian").all()):
        raise MissingLabelError(f'structure "{structure.id}" has no Hessian: give an engine that computes it (gfn2)')
    if check and (reason := inconsistent_hessians([structure], labels).get(0)):
        raise InconsistentLabelsError(reason)
    hessian = hessian_array(structure, labels.hessian_of(0).numpy())
    moving = moving_atoms(structure, atoms)
    modes = normal_modes(structure, hessian, masses=atom_masses(structure, masses, isotopes), atoms=moving)
    known = {name: bool(labels.mask(name)[0]) for name in ("energy", "forces")}
    error = None if labels.hessian_error is None else float(labels.hessian_error[0])
    return Vibrations(
        structure,
        level,
        float(labels.energy[0]) if labels.energy is not None and known["energy"] else None,
        labels.forces.numpy().reshape(n, 3) if labels.forces is not None and known["forces"] else None,
        hessian if moving is None else hessian[moving][:, :, moving],
        modes,
        None if error is None or np.isnan(error) else error,
        bool(labels.suspect_mask()[0]),
    )


def inconsistent_hessians(structures: Sequence[Structure], labels: Properties) -> dict[int, str]:
    """Find Hessians that are not those of their geometries: they violate a sum rule, or are not symmetric.

    Args:
        structures: the geometries.
        labels: their labels.

    Returns:
        A sentence for each such structure, by its index.
    """
    # Large estimated errors are told by `Vibrations.warnings`.
    without_errors = labels.replace(hessian_error=None, forces_error=None, hvp_error=None)
    return {
        i: f'structure "{structures[i].id}": its Hessian is not that of this geometry; {issue.reason}'
        for i, issues in find_issues(structures, without_errors).items()
        for issue in issues[::-1]
        if issue.label == "hessian"
    }


def _from_known_hessian(
    source: Any,
    hessian: ArrayLike | None,
    atoms: ArrayLike | None,
    masses: MassesLike,
    isotopes: Mapping[int, str | float] | None,
    minimize: bool,
) -> Vibrations:
    if minimize:
        raise RequestError("only an engine can relax a structure: give one, or leave out minimize")
    if hessian is None and _is_vibrations_data(source):
        return vibrations_from_data(source, masses=masses, isotopes=isotopes)
    if hessian is not None:
        structure = as_structure(_without_data(source))
        moving = moving_atoms(structure, atoms)
        if moving is None or np.shape(hessian)[:1] == (len(structure),):
            array = hessian_array(structure, hessian)
            labels = Properties.single(len(structure), hessian=array, structure_id=structure.id)
            return vibrations_from_labels(structure, labels, atoms=moving, masses=masses, isotopes=isotopes)
        modes = normal_modes(structure, hessian, masses=atom_masses(structure, masses, isotopes), atoms=moving)
        return Vibrations(structure, "", None, None, np.asarray(hessian, dtype=np.float64), modes)
    if isinstance(inner := getattr(source, "structure", None), Structure):
        raise MissingLabelError(f'structure "{inner.id}" has no Hessian: give an engine that computes it (gfn2)')
    dataset = as_dataset(source)
    if len(dataset) != 1:
        raise RequestError(f"expected one structure, got {len(dataset)}: hesse.analyze_vibrations takes many")
    return vibrations_from_labels(
        dataset.structures[0],
        dataset.labels,
        level=dataset.metadata.get("level", ""),
        atoms=atoms,
        masses=masses,
        isotopes=isotopes,
    )


def _is_vibrations_data(source: object) -> bool:
    from ase.vibrations import VibrationsData

    return isinstance(source, VibrationsData)


def vibrations_from_data(
    data: VibrationsData,
    *,
    masses: MassesLike = None,
    isotopes: Mapping[int, str | float] | None = None,
    id: str | None = None,
) -> Vibrations:
    """Vibrations from ASE's record, whose Hessian may be that of a part of the atoms, in any order.

    Args:
        data: geometry and Hessian.
        masses: see `vibrations`.
        isotopes: see `vibrations`.
        id: id of the structure; by default the one in the atoms' `info`, or one made from the formula.

    Returns:
        Frequencies and normal modes.

    Raises:
        HesseError: a geometry, masses or a Hessian that cannot be used.
    """
    structure = from_ase(data.get_atoms(), id=id)
    indices = np.asarray(data.get_indices()) % len(structure)
    order = np.argsort(indices)
    hessian = np.asarray(data.get_hessian(), dtype=np.float64)[order][:, :, order]
    moving = moving_atoms(structure, indices)
    modes = normal_modes(structure, hessian, masses=atom_masses(structure, masses, isotopes), atoms=moving)
    return Vibrations(structure, "", None, None, hessian, modes)


def _without_data(source: Any) -> Any:
    return source.get_atoms() if _is_vibrations_data(source) else source


def free_atoms(source: object) -> Array | None:
    """The atoms that ASE's constraints leave free.

    Args:
        source: ASE Atoms; anything else has no constraints.

    Returns:
        Their indices; None without constraints.

    Raises:
        RequestError: a constraint other than `FixAtoms`, or all atoms are frozen.
    """
    if not isinstance(source, Atoms) or not source.constraints:
        return None
    from ase.constraints import FixAtoms

    others = sorted({type(c).__name__ for c in source.constraints if not isinstance(c, FixAtoms)})
    if others:
        raise RequestError(
            f"vibrations with the constraint {others[0]} are not known: remove it, or give the atoms that move (atoms=)"
        )
    frozen = np.concatenate([np.asarray(c.get_indices()) for c in source.constraints])
    free = np.setdiff1d(np.arange(len(source)), frozen % len(source))
    if not len(free):
        raise RequestError("all atoms are frozen (FixAtoms): none is left to vibrate")
    return free
