"""Labels from teachers: the predictions of one potential, or the mean and the spread of several, as a data set.

Predictions are computed in batches and kept in a folder of ordinary data sets, `KEY/part-0000.h5`, ... , where KEY
identifies the teachers (by digests of their weights) and what was requested. A structure is found again by its id and
the digest of its geometry. Each part is written aside, read back, compared with its checksum and renamed, so that an
interruption loses the work of some seconds; a damaged part is set aside, and its structures are computed again.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hesse._version import __version__
from hesse.curvature import evaluate_structures, mean_and_std
from hesse.datasets import Dataset, StructuresLike, as_structures, read_dataset, write_dataset
from hesse.datasets.base_dataset import check_unique_ids
from hesse.engines import EngineLike, PotentialEngine, as_engine, as_potential
from hesse.engines.levels import level_with_digest, names_unknown_model
from hesse.errors import FileFormatError, InterruptedRunError, RequestError
from hesse.labelling.ledger_records import geometry_digest
from hesse.labelling.spec import LabelSpec
from hesse.potential import Potential, check_elements, structure_at
from hesse.probes import ProbeSeed, make_probe
from hesse.runtime.devices import device_from_name
from hesse.runtime.filesystem import free_name, lock_file
from hesse.runtime.progress import track
from hesse.runtime.signals import StoppedError, stop_signals
from hesse.structures import Properties, Request, Structure, collate, component_counts, segment_ids

__all__ = ["as_teachers", "check_teachers", "spread_weights", "teacher_labels"]

CHUNK = 64
"""Number of structures that are evaluated before the next look at the clock."""
PART_SECONDS = 20.0
"""A part is written when this much work is in it."""


def as_teachers(teachers: EngineLike | Sequence[EngineLike]) -> tuple[PotentialEngine, ...]:
    """Convert names, files or objects to teachers.

    Args:
        teachers: one potential or several: their names (`mace:FILE`, the path of a model), Potentials, or results of
            training.

    Returns:
        The potentials as engines, whose levels identify them.

    Raises:
        RequestError: none, or an engine that PyTorch cannot differentiate.
        HesseError: all that `hesse.make_potential` raises.
    """
    several: Sequence[EngineLike] = teachers if isinstance(teachers, list | tuple) else [teachers]
    engines = [as_engine(teacher) for teacher in several]
    if not engines:
        raise RequestError("expected a teacher: the path of a model, a name such as mace:FILE, or a hesse.Potential")
    result = []
    for engine in engines:
        if not isinstance(engine, PotentialEngine):
            raise RequestError(
                f"a teacher is a potential that PyTorch can differentiate, and {engine.level} is none: make labels "
                "with it by `hesse label`, and train on these"
            )
        result.append(engine)
    return tuple(result)


def teacher_labels(
    structures: StructuresLike,
    teachers: EngineLike | Sequence[EngineLike],
    folder: str | Path | None = None,
    *,
    probes: int = 1,
    probe: str = "rademacher",
    seed: int = 0,
    hessian: bool = False,
    atomic_energies: bool = False,
    device: str | None = None,
    quiet: bool = False,
) -> Dataset:
    """Label structures with the predictions of a potential, or with the mean of several.

    With a folder every structure is computed once for the same teachers and properties: the same call continues where
    the last one stopped, and further structures are added.

    Args:
        structures: ASE Atoms, a Structure, a list of them, a Dataset (its labels are not used), or the path of a file.
        teachers: one potential or several, see `as_teachers`.
        folder: where the labels are kept; None: in memory only.
        probes: number of Hessian-vector products of each structure.
        probe: distribution of their directions, see `hesse.probes.PROBE_KINDS`.
        seed: seed of their directions, which are a function of it and of each structure's id.
        hessian: also full Hessians.
        atomic_energies: also the energies of the atoms.
        device: device of the calculation; None leaves every teacher where it is.
        quiet: no progress.

    Returns:
        Energies, forces and the requested properties in eV and Å, in the order of `structures`. Of several teachers
        these are means, and `energy_error`, `forces_error`, `hvp_error` and `hessian_error` their standard deviations
        over the teachers, root mean squares over the components of a structure. `metadata["level"]` and
        `metadata["teachers"]` name the teachers.

    Raises:
        RequestError: not a potential, or one whose atoms have no energies although these are requested.
        UnknownElementError: an element that a teacher does not know.
        InterruptedRunError: SIGINT or SIGTERM arrived; everything that was finished is in the folder.
        HesseError: structures, teachers or the folder cannot be used, or a prediction is not finite.
    """
    spec = LabelSpec(probes, probe, seed, hessian)
    inputs = as_structures(structures)
    sources = as_teachers(teachers)
    check_teachers(sources, inputs, atomic_energies=atomic_energies)
    metadata = _metadata(sources, spec, atomic_energies=atomic_energies)
    check_unique_ids([s.id for s in inputs], "the structures to label")
    keys = [(s.id, geometry_digest(s)) for s in inputs]
    with ExitStack() as stack:
        cache = None
        if folder is not None:
            path = Path(folder) / hashlib.blake2b(json.dumps(metadata).encode(), digest_size=6).hexdigest()
            path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock_file(path / ".lock", f"another process labels structures in {path}: wait for it"))
            cache = _Parts(path, reuse=not any(names_unknown_model(t.level) for t in sources))
        parts = [] if cache is None else cache.read()
        known = {(s.id, geometry_digest(s)) for part in parts for s in part.structures}
        pending = [s for s, key in zip(inputs, keys, strict=True) if key not in known]
        potentials = [
            as_potential(t.potential, device=None if device is None else device_from_name(device)) for t in sources
        ]
        parts += _label(pending, potentials, spec, cache, metadata, len(inputs), atomic_energies, quiet=quiet)
    rows = {}
    for row, structure in enumerate(s for part in parts for s in part.structures):
        rows[structure.id, geometry_digest(structure)] = row
    labels = Properties.concatenate([part.labels for part in parts]).select([rows[key] for key in keys])
    return Dataset(inputs, labels, metadata=metadata, source=metadata["level"])


def check_teachers(
    teachers: Sequence[PotentialEngine], structures: Sequence[Structure], *, atomic_energies: bool
) -> None:
    """Check that teachers know all elements, and that their atoms have energies if these are needed.

    Args:
        teachers: the teachers.
        structures: the structures to label.
        atomic_energies: whether energies of atoms are needed.

    Raises:
        RequestError: a teacher that gives energies of whole structures only.
        UnknownElementError: an element that a teacher does not know.
    """
    if not structures:
        raise RequestError("no structure to label")
    numbers = np.concatenate([s.numbers for s in structures])
    where = structure_at([s.id for s in structures], [len(s) for s in structures])
    for teacher in teachers:
        if atomic_energies and not teacher.potential.has_atomic_energies:
            raise RequestError(
                f"{teacher.level} gives energies of whole structures only: its atoms have no energies. Leave "
                "atomic_energies out of the targets, or take another teacher."
            )
        advice = "Leave it out, or take a teacher that was trained on this element."
        check_elements(teacher.potential, numbers, where=where, name=f"the teacher {teacher.level}", advice=advice)


def spread_weights(labels: Properties, name: str = "forces") -> Tensor:
    """Weights of structures from the spread of their teachers: `σ² / (σ² + s²)`, with the spread s of a structure and
    the median spread σ, divided by their mean.

    A structure on which the teachers agree counts up to twice as much as one of median spread; the weight of one on
    which they disagree falls with the squared spread, as in a fit to values of known variance.

    Args:
        labels: labels of several teachers, see `teacher_labels`.
        name: the property whose spread counts.

    Returns:
        Weights of mean one, `[structures]`.

    Raises:
        RequestError: the labels have no spread, because they are of one teacher.
    """
    spread = labels[f"{name}_error"]
    if spread is None:
        raise RequestError(f"weights from the spread need several teachers: these labels have no {name}_error")
    spread = spread.double()
    spread = spread.square().mean(0).sqrt() if spread.dim() == 2 else spread
    square = spread.square()
    typical = square.median().clamp(min=torch.finfo(torch.float64).tiny)
    weights = typical / (typical + square)
    return weights / weights.mean()


def _metadata(teachers: Sequence[PotentialEngine], spec: LabelSpec, *, atomic_energies: bool) -> dict[str, str]:
    """A digest that identifies the labels. The order of the teachers does not matter."""
    names = sorted(teacher.level for teacher in teachers)
    types = sorted({teacher.settings["dtype"] for teacher in teachers})
    level = names[0] if len(names) == 1 else level_with_digest(f"model:mean of {len(names)} teachers", *names)
    metadata = {"level": level, "teachers": "; ".join(names), "dtype": ", ".join(types)}
    if spec.n_probes:
        metadata |= {"probe": spec.probe, "probes": str(spec.n_probes), "probe_seed": str(spec.seed)}
    further = [
        name for name, requested in (("hessian", spec.hessian), ("atomic_energies", atomic_energies)) if requested
    ]
    return {**metadata, "further_labels": ", ".join(further) or "none", "code_version": __version__}


def _label(
    pending: Sequence[Structure],
    teachers: Sequence[Potential],
    spec: LabelSpec,
    cache: _Parts | None,
    metadata: dict[str, str],
    n_total: int,
    atomic_energies: bool,
    *,
    quiet: bool,
) -> list[Dataset]:
    """Labels of the pending structures, a part at a time."""
    parts: list[Dataset] = []
    chunks: list[tuple[Sequence[Structure], Properties]] = []
    what = "one teacher" if len(teachers) == 1 else f"{len(teachers)} teachers"

    def finish_part() -> None:
        if chunks:
            structures = tuple(structure for chunk, _ in chunks for structure in chunk)
            part = Dataset(structures, Properties.concatenate([labels for _, labels in chunks]), metadata=metadata)
            if cache is not None:
                cache.write(part)
            parts.append(part)
            chunks.clear()

    # Similar sizes together, so that batches need little padding.
    ordered = sorted(pending, key=len)
    n_done = n_total - len(pending)
    with track(f"labeling with {what}", n_total, quiet=quiet, done=n_done) as advance:
        started = time.monotonic()
        for start in range(0, len(ordered), CHUNK):
            chunk = ordered[start : start + CHUNK]
            try:
                with stop_signals():
                    labels = _evaluate(chunk, teachers, spec, atomic_energies=atomic_energies)
            except StoppedError:
                finish_part()
                where = "nothing is kept without a folder" if cache is None else f"all safe in {cache.folder}"
                raise InterruptedRunError(
                    f"stopped after {n_done} of {n_total} structures, {where}; the same command continues"
                ) from None
            chunks.append((chunk, labels))
            n_done += len(chunk)
            if time.monotonic() - started > PART_SECONDS:
                finish_part()
                started = time.monotonic()
            advance(len(chunk))
        finish_part()
    return parts


def _evaluate(
    structures: Sequence[Structure], teachers: Sequence[Potential], spec: LabelSpec, *, atomic_energies: bool
) -> Properties:
    """Predictions of one teacher; or means of several, with the spread of each structure as their error."""
    directions = None
    if spec.n_probes:
        # Probes need no neighbors: any cutoff will do, and a short one is cheap.
        probe = make_probe(spec.probe, spec.n_probes)
        directions = probe.draw(collate(list(structures), 0.1), ProbeSeed(spec.seed))
    request = Request(forces=True, probes=directions, hessian=spec.hessian, atomic_energies=atomic_energies)
    predictions = [evaluate_structures(teacher, structures, request) for teacher in teachers]
    if len(teachers) == 1:
        return predictions[0]
    combined = mean_and_std(predictions)
    return combined.mean.replace(**_spread_per_structure(combined.std))


def _spread_per_structure(std: Properties) -> dict[str, Tensor]:
    """Errors by name of the column: root mean squares over the components of each structure."""
    errors = {}
    for column, value in std.items():
        if column.kind != "value" or not column.quantity.has_error:
            continue
        squared = value.double().square()
        if column.rows == "structure":
            errors[f"{column.name}_error"] = squared.sqrt()
            continue
        index = segment_ids(std.hessian_lengths() if column.rows == "element" else std.n_atoms)
        squared = squared.flatten(-len(column.components)).sum(-1) if column.components else squared
        axis = 1 if column.probe_axis else 0
        shape = (len(squared), len(std)) if column.probe_axis else (len(std),)
        sums = squared.new_zeros(shape).index_add(axis, index, squared)
        errors[f"{column.name}_error"] = (sums / component_counts(column.quantity, std.n_atoms)).sqrt()
    return errors


class _Parts:
    """The data sets in a folder that hold the labels computed so far.

    Args:
        folder: the folder.
        reuse: whether parts of earlier calls are used; False if nothing identifies the teachers.
    """

    def __init__(self, folder: Path, *, reuse: bool) -> None:
        self.folder = folder
        self._files = sorted(folder.glob("part-*.h5"))
        self._next = 1 + max((int(f.stem[5:]) for f in self._files if f.stem[5:].isdecimal()), default=-1)
        if not reuse:
            self._files = []

    def read(self) -> list[Dataset]:
        """The parts that are intact."""
        parts = []
        for file in self._files:
            try:
                parts.append(read_dataset(file, check=False))
            except FileFormatError as error:
                aside = free_name(file, "damaged")
                file.rename(aside)
                print(f"{error} Its structures are labeled again; the file is now {aside}.", file=sys.stderr)
        return parts

    def write(self, part: Dataset) -> None:
        """Keep a further part."""
        write_dataset(self.folder / f"part-{self._next:04d}.h5", part)
        self._next += 1
