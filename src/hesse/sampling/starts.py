"""The structures that sampling starts from, relaxed or with the Hessians that the input already has."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import Dataset, StructuresLike, as_dataset, as_structures, check_consistency
from hesse.engines import Engine, as_engine
from hesse.engines.levels import levels_agree, names_unknown_model
from hesse.errors import EngineError, RequestError
from hesse.pes import MinimizationResult, minimize
from hesse.structures import Structure

__all__ = ["KnownLabels", "SamplingTask", "relax_or_raise", "sampling_tasks", "stored_hessians", "validated_starts"]


@dataclass(frozen=True, eq=False)
class KnownLabels:
    """Labels of a start that the input already has.

    Attributes:
        hessian: eV/Å², `[n, 3, n, 3]`.
        forces: eV/Å, `[n, 3]`.
    """

    hessian: Float[Array, "n 3 n 3"] | None = None
    forces: Float[Array, "n 3"] | None = None


SamplingTask = tuple[Structure, KnownLabels]
"""A start, and what is known of it."""


def validated_starts(structures: StructuresLike) -> tuple[Structure, ...]:
    """The structures to start from.

    Args:
        structures: see `hesse.datasets.as_structures`.

    Returns:
        The structures, with different ids.

    Raises:
        RequestError: two structures have the same id, or there are none.
    """
    starts = as_structures(structures)
    ids = [structure.id for structure in starts]
    if len(set(ids)) < len(ids):
        raise RequestError("two molecules to sample have the same id; ids name samples and must differ")
    return starts


def sampling_tasks(structures: StructuresLike, engine: str | Engine | None, *, reuse: bool) -> list[SamplingTask]:
    """The starts with the Hessians that their data set has.

    Args:
        structures: see `hesse.datasets.as_structures`.
        engine: the engine, whose level of theory must be that of the Hessians; None accepts any level.
        reuse: False ignores Hessians in the data set.

    Returns:
        One task per structure.
    """
    source = as_dataset(structures) if isinstance(structures, str | Path) else structures
    starts = validated_starts(source)
    if reuse and isinstance(source, Dataset):
        return list(zip(starts, stored_hessians(source, engine), strict=True))
    return [(start, KnownLabels()) for start in starts]


def stored_hessians(structures: Sequence[Structure] | Dataset, engine: str | Engine | None) -> list[KnownLabels]:
    """Hessians (and forces) in a data set. Suspect labels are not used.

    Args:
        structures: a data set; a list of structures has no labels.
        engine: name of the engine, or the engine; None accepts Hessians of any level of theory.

    Returns:
        The known labels of each structure; none, with a warning, where the data set names a model without a digest.

    Raises:
        RequestError: the Hessians have another level of theory than the engine, or the data set does not name it.
        InconsistentLabelsError: Hessians and forces contradict each other (a wrong sign or unit).
    """
    if not isinstance(structures, Dataset) or structures.labels.hessian is None:
        return [KnownLabels()] * len(structures)
    stored_level = structures.metadata.get("level", "")
    level = stored_level if engine is None else as_engine(engine).level
    if engine is not None and names_unknown_model(stored_level):
        warnings.warn(
            f"the Hessians in {structures.source} are not used: their level {stored_level} does not say which model "
            "computed them (files of earlier versions lack its digest). New ones are computed.",
            UserWarning,
            stacklevel=2,
        )
        return [KnownLabels()] * len(structures)
    if engine is not None and not levels_agree(stored_level, level):
        raise RequestError(
            f"{structures.source} holds Hessians of {stored_level or 'a level of theory it does not name'}, but the "
            f"engine is {level}. Choose that engine, or compute new Hessians (reuse=False; --no-reuse)."
        )
    check_consistency(structures)
    labels = structures.labels
    usable = labels.mask("hessian") & ~labels.suspect_mask()
    forces = labels.mask("forces")
    return [
        KnownLabels(
            labels.hessian_of(i).numpy(),
            labels.forces[labels.atom_slice(i)].numpy() if labels.forces is not None and bool(forces[i]) else None,
        )
        if bool(usable[i])
        else KnownLabels()
        for i in range(len(structures.structures))
    ]


def relax_or_raise(start: Structure, engine: Engine, fmax: float, steps: int) -> MinimizationResult:
    """Relax a structure.

    Args:
        start: the structure.
        engine: the engine.
        fmax: limit of the largest force, eV/Å.
        steps: maximal number of steps.

    Returns:
        The result of the relaxation, which has converged.

    Raises:
        EngineError: the relaxation did not converge.
    """
    run = minimize(start, engine, fmax=fmax, steps=steps)
    if not run.converged:
        raise EngineError(
            f'structure "{start.id}": not relaxed after {run.steps} steps (largest force {run.fmax:.3g} eV/Å, '
            f"limit {fmax:g})"
        )
    return run
