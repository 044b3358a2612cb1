"""Errors of the model of a run on a data set, computed once and kept beside the run.

The file `evaluations/DATA-HASH.json` in the folder of the run (`DATA-HASH-SUITE.json` of a suite other than basic)
holds the errors of the whole set and, for statistics, the sums of squared errors of every group. It is used again as
long as model and data have the same hashes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hesse.datasets import Dataset
from hesse.engines import make_potential
from hesse.evaluation import Evaluation, MetricRow, error_sums, evaluate_model, property_names
from hesse.evaluation.independence import independence_note
from hesse.models import best_model
from hesse.recipes.judging import Suite, evaluate
from hesse.runtime.devices import device_from_name
from hesse.runtime.filesystem import atomic_write_text

__all__ = ["SetErrors", "cached_errors", "evaluate_run"]

_FOLDER: Final = "evaluations"
_FORMAT: Final = "hesse-set-errors"
_VERSION: Final = 1


@dataclass(frozen=True, eq=False)
class SetErrors:
    """Errors of one model on one data set.

    Attributes:
        data_hash: hash of the data set.
        model_hash: hash of the file of the model.
        hessian: whether errors of Hessians were asked for.
        suite: what was judged, see `hesse.evaluate`.
        structures: number of structures.
        rows: errors of the whole set, as in the rows of an evaluation.
        groups: names of the groups (molecules, reactions); single structures where there is no group.
        squared: by property, the sum of squared errors of each group; NaN for groups without a label.
        counts: by property, the number of label values of each group.
        notes: what to know about the data when reading the numbers.
    """

    data_hash: str
    model_hash: str
    hessian: bool
    suite: str
    structures: int
    rows: tuple[MetricRow, ...]
    groups: tuple[str, ...]
    squared: Mapping[str, Float[ndarray, "groups"]]
    counts: Mapping[str, Float[ndarray, "groups"]]
    notes: tuple[str, ...] = ()

    def row(self, property: str, metric: str = "rmse") -> MetricRow | None:
        """One number.

        Args:
            property: energy, forces, ...
            metric: rmse, mae or noise_floor.

        Returns:
            The row, or None if the data do not give it.
        """
        return next((row for row in self.rows if (row.property, row.metric) == (property, metric)), None)


def evaluate_run(
    folder: Path,
    dataset: Dataset,
    *,
    suite: Suite = "basic",
    hessian: bool = True,
    device: str = "cpu",
    quiet: bool = True,
) -> SetErrors:
    """Errors of the best model of a run, read from its folder if they are known.

    Args:
        folder: folder of the run.
        dataset: the labeled structures.
        suite: what is judged, see `hesse.evaluate`.
        hessian: also errors of Hessians.
        device: device of the calculation.
        quiet: no progress.

    Returns:
        The errors.

    Raises:
        FileFormatError: the run has no model.
        HesseError: the model cannot be evaluated on these data.
    """
    known = cached_errors(folder, dataset.content_hash(), suite=suite, hessian=hessian)
    if known is not None:
        return known
    target = _path(folder, dataset.content_hash(), suite, hessian=hessian)
    model = best_model(folder)
    potential = make_potential(str(model), device=device_from_name(device))
    target.parent.mkdir(exist_ok=True)
    if suite == "basic":
        evaluation = evaluate_model(potential, dataset, by_tag=False, hessian=hessian, quiet=quiet)
    else:  # searches and dynamics are kept beside the file, and not repeated after an interruption
        evaluation = evaluate(
            potential, dataset, suite=suite, by_tag=False, hessian=hessian, output=target, quiet=quiet
        )
    errors = _from_evaluation(evaluation, dataset.content_hash(), file_hash(model), suite, hessian=hessian)
    atomic_write_text(target, json.dumps(_to_json(errors), ensure_ascii=False, allow_nan=False) + "\n")
    return errors


def cached_errors(folder: Path, data_hash: str, *, suite: Suite = "basic", hessian: bool = True) -> SetErrors | None:
    """Errors that are kept beside a run.

    Args:
        folder: folder of the run.
        data_hash: hash of the data set.
        suite: what is judged.
        hessian: whether errors of Hessians are wanted.

    Returns:
        The errors; None if there are none of the present model, or the file is damaged.
    """
    model = folder / "model.hesse"
    if not model.exists():
        return None
    errors = _read(_path(folder, data_hash, suite, hessian=hessian))
    if errors is None and not hessian and suite == "basic":  # everything else is the same with Hessians
        errors = _read(_path(folder, data_hash, suite, hessian=True))
        errors = None if errors is None else _without_hessian(errors)
    if errors is None or errors.data_hash != data_hash or errors.model_hash != file_hash(model):
        return None
    return errors


def _read(path: Path) -> SetErrors | None:
    try:
        return _from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # there are none, or they are computed again


def _without_hessian(errors: SetErrors) -> SetErrors:
    return replace(
        errors,
        hessian=False,
        rows=tuple(row for row in errors.rows if row.property != "hessian"),
        squared={name: values for name, values in errors.squared.items() if name != "hessian"},
        counts={name: values for name, values in errors.counts.items() if name != "hessian"},
    )


def file_hash(path: Path) -> str:
    """Hash of the content of a file.

    Args:
        path: the file.

    Returns:
        32 hexadecimal digits.
    """
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _path(folder: Path, data_hash: str, suite: Suite, *, hessian: bool) -> Path:
    words = [data_hash, *([] if suite == "basic" else [suite]), *([] if hessian else ["no-hessian"])]
    return folder / _FOLDER / f"{'-'.join(words)}.json"


def _from_evaluation(
    evaluation: Evaluation, data_hash: str, model_hash: str, suite: Suite, *, hessian: bool
) -> SetErrors:
    structures = evaluation.dataset.structures
    names, index = np.unique([s.group or f"id:{s.id}" for s in structures], return_inverse=True)
    squared, counts = {}, {}
    for name in property_names():
        sums = error_sums(evaluation.dataset, evaluation.predictions, name)
        if not sums.n_values():
            continue
        labeled = sums.counts > 0
        squared[name] = np.bincount(index[labeled], sums.squared[labeled], len(names))
        counts[name] = np.bincount(index[labeled], sums.counts[labeled], len(names))
    groups = tuple(name.removeprefix("id:") for name in names.tolist())
    rows = tuple(row for row in evaluation.rows if not row.tag and math.isfinite(row.value))
    note = independence_note(structures)
    notes = () if note is None else (note,)
    return SetErrors(data_hash, model_hash, hessian, suite, len(structures), rows, groups, squared, counts, notes)


def _to_json(errors: SetErrors) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": _VERSION,
        "data_hash": errors.data_hash,
        "model_hash": errors.model_hash,
        "hessian": errors.hessian,
        "suite": errors.suite,
        "structures": errors.structures,
        "rows": [asdict(row) for row in errors.rows],
        "groups": list(errors.groups),
        "squared": {name: values.tolist() for name, values in errors.squared.items()},
        "counts": {name: values.tolist() for name, values in errors.counts.items()},
        "notes": list(errors.notes),
    }


def _from_json(content: Mapping[str, Any]) -> SetErrors:
    if content["format"] != _FORMAT or content["version"] != _VERSION:
        raise ValueError("another format")
    groups = tuple(str(name) for name in content["groups"])
    return SetErrors(
        data_hash=str(content["data_hash"]),
        model_hash=str(content["model_hash"]),
        hessian=bool(content["hessian"]),
        suite=str(content["suite"]),
        structures=int(content["structures"]),
        rows=tuple(MetricRow(**row) for row in content["rows"]),
        groups=groups,
        squared={name: _column(values, len(groups)) for name, values in content["squared"].items()},
        counts={name: _column(values, len(groups)) for name, values in content["counts"].items()},
        notes=tuple(str(text) for text in content.get("notes", ())),
    )


def _column(values: Sequence[float], length: int) -> Float[ndarray, "groups"]:
    column = np.asarray(values, dtype=float)
    if column.shape != (length,) or not all(math.isfinite(value) for value in column):
        raise ValueError("a column of another length, or with numbers that are not finite")
    return column
