"""Full Hessians of a data set from its stored products, for `hesse complete`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray as Array

from hesse._version import __version__
from hesse.datasets import Dataset, DatasetSource, as_dataset, check_consistency
from hesse.engines import Engine, EngineLike, as_engine
from hesse.errors import ConfigError, HesseError, MissingLabelError, check_whole_numbers, first_line
from hesse.harmonic.hessian_completion import CompletedHessian, complete_hessian
from hesse.runtime.progress import track
from hesse.structures import Properties, Request, Structure

__all__ = ["CompletionResult", "complete_hessians"]


@dataclass(frozen=True, eq=False)
class CompletionResult:
    """Completed Hessians of a data set.

    Attributes:
        dataset: all structures with their labels; those that were completed also have a Hessian and its error.
        rows: one per structure: JSON values by name: id, atoms, pairs, status ("completed", "had a Hessian" or
            "failed"), reason of a failure, error (eV/Å², root mean square of an element), relative_error.
    """

    dataset: Dataset
    rows: tuple[dict[str, Any], ...]

    @property
    def n_completed(self) -> int:
        """Number of structures whose Hessian was completed."""
        return sum(row["status"] == "completed" for row in self.rows)


def complete_hessians(
    data: DatasetSource,
    *,
    prior: EngineLike | None = None,
    min_pairs: int = 2,
    max_error: float | None = None,
    quiet: bool = False,
) -> CompletionResult:
    """Complete the Hessians of molecules from their stored products, with an estimate of the error of each.

    Structures that have a Hessian keep it. Suspect labels are not used.

    Args:
        data: a Dataset, the path of a file, ASE atoms with labels, or structures with labels.
        prior: a cheaper engine or a model, whose Hessian is corrected; None starts from typical values.
        min_pairs: structures with fewer products fail.
        max_error: eV/Å²; completions of a larger estimated error fail. None accepts all of them.
        quiet: no progress.

    Returns:
        The data set with Hessians, and a row for each structure.

    Raises:
        MissingLabelError: there are no products at all.
        InconsistentLabelsError: products and forces contradict each other (a wrong sign or unit).
        ConfigError: a number out of range.
        HesseError: the input cannot be read, or there is no such engine.
    """
    check_whole_numbers(min_pairs=min_pairs)
    if min_pairs < 1:
        raise ConfigError(f"min_pairs: expected 1 or more, got {min_pairs}")
    if max_error is not None and not max_error > 0:
        raise ConfigError(f"max_error: expected a positive number of eV/Å², got {max_error}")
    dataset = as_dataset(data)
    if dataset.labels.hvp is None:
        raise MissingLabelError(
            f"{dataset.source or 'the data'}: no products to complete Hessians from; make them with hesse label "
            "--probes 8"
        )
    check_consistency(dataset)
    engine = None if prior is None else as_engine(prior)
    records: list[Properties] = []
    rows: list[dict[str, Any]] = []
    with track("completing", len(dataset), quiet=quiet) as advance:
        for i, structure in enumerate(dataset.structures):
            record, row = _complete_one(structure, dataset.labels.select([i]), engine, min_pairs, max_error)
            records.append(record)
            rows.append({"id": structure.id, "atoms": len(structure), **row})
            advance(1)
    n_completed = sum(row["status"] == "completed" for row in rows)
    metadata = {**dataset.metadata, "completed_hessians": f"{n_completed} of {len(rows)}, Hesse {__version__}"}
    if engine is not None:
        metadata["completion_prior"] = engine.level
    completed = Dataset(dataset.structures, Properties.concatenate(records), metadata=metadata)
    return CompletionResult(completed, tuple(rows))


def _complete_one(
    structure: Structure, labels: Properties, engine: Engine | None, min_pairs: int, max_error: float | None
) -> tuple[Properties, dict[str, Any]]:
    """The labels of one structure, with a Hessian if there can be one, and its row."""
    row: dict[str, Any] = {"pairs": 0, "status": "failed", "reason": "", "error": None, "relative_error": None}
    assert labels.hvp is not None
    assert labels.probes is not None
    mask = labels.mask("hvp")[:, 0]
    row["pairs"] = int(mask.sum())
    if bool(labels.mask("hessian")[0]):
        return labels, {**row, "status": "had a Hessian"}
    if bool(labels.suspect_mask()[0]):
        return labels, {**row, "reason": "its labels are suspect"}
    if row["pairs"] < min_pairs:
        reason = f"{row['pairs']} products, at least {min_pairs} are needed: label it with more --probes"
        return labels, {**row, "reason": reason}
    try:
        result = _completed(structure, labels, mask, engine)
    except HesseError as error:
        return labels, {**row, "reason": first_line(error)}
    row |= {"error": result.error, "relative_error": result.relative_error}
    if max_error is not None and result.error > max_error:
        return labels, {**row, "reason": f"its error of {result.error:.3g} eV/Å² is above {max_error:g}"}
    with_hessian = labels.replace(
        hessian=torch.from_numpy(result.hessian.reshape(-1)),
        hessian_mask=None,
        hessian_error=torch.tensor([result.error], dtype=torch.float64),
    )
    return with_hessian, {**row, "status": "completed"}


def _completed(structure: Structure, labels: Properties, mask: torch.Tensor, engine: Engine | None) -> CompletedHessian:
    assert labels.hvp is not None
    assert labels.probes is not None
    has_forces = labels.forces is not None and bool(labels.mask("forces")[0])
    errors = None if labels.hvp_error is None else labels.hvp_error[mask, 0].numpy()
    return complete_hessian(
        structure,
        labels.probes[mask].numpy(),
        labels.hvp[mask].numpy(),
        forces=labels.forces.numpy() if has_forces and labels.forces is not None else None,
        errors=errors,
        prior=None if engine is None else _hessian_of(engine, structure),
    )


def _hessian_of(engine: Engine, structure: Structure) -> Float[Array, "n 3 n 3"]:
    labels = engine.compute(structure, Request(energy=False, hessian=True))
    return np.asarray(labels.hessian_of(0))


def summary_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Summary of the rows in lines of text.

    Args:
        rows: see `CompletionResult`.

    Returns:
        Lines of text.
    """
    done = [row for row in rows if row["status"] == "completed"]
    lines = []
    if done:
        errors, relative = (np.array([row[name] for row in done]) for name in ("error", "relative_error"))
        pairs = sorted({row["pairs"] for row in done})
        many = f"{pairs[0]}" if len(pairs) == 1 else f"{pairs[0]} to {pairs[-1]}"
        lines.append(
            f"  from {many} products each; error of an element, by predicting each product from the others: median "
            f"{np.median(errors):.3g} eV/Å² ({100 * np.median(relative):.2g} %), largest {errors.max():.3g} eV/Å²"
        )
    unchanged = sum(row["status"] == "had a Hessian" for row in rows)
    if unchanged:
        lines.append(f"  {unchanged} had a Hessian already, which stays as it is")
    return lines
