"""Vibrations of many structures: stored Hessians where there are some, new ones from an engine or, in batches, a model.

What fails for one structure is a record; the others go on. With an output file everything that was computed is kept at
once, and the same call continues: full Hessians of engines in the ledger of a label campaign, relaxations, partial
Hessians and Hessians of models in a journal.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from hesse._version import __version__
from hesse.datasets import Dataset, DatasetSource, as_dataset, check_writable_suffix, write_dataset
from hesse.engines import EngineLike, PotentialEngine, as_engine, engine_for_workers
from hesse.engines.levels import levels_agree, names_unknown_model
from hesse.errors import ConfigError, ExecutionError, HesseError, RequestError, check_numbers
from hesse.harmonic.masses import MassesLike, atom_masses
from hesse.harmonic.normal_modes import moving_atoms
from hesse.harmonic.thermo_result import Thermochemistry
from hesse.harmonic.thermochemistry import ThermoSettings, thermochemistry
from hesse.labelling import Failure
from hesse.pes import Vibrations
from hesse.pes.vibrational_analysis import free_atoms, inconsistent_hessians
from hesse.recipes.hessians_of_many import HessianRun, compute_hessians
from hesse.recipes.known_hessian import KnownHessian
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties, Structure

__all__ = ["VibrationsReport", "analyze_vibrations"]


@dataclass(frozen=True, eq=False, repr=False)
class VibrationsReport(ShortRepr):
    """Vibrations of many structures. A sequence of the results, without the structures that failed.

    Attributes:
        results: vibrations, in the order of the structures.
        failures: structures without vibrations, and why.
        ids: ids of all structures, in order.
        n_stored: number of Hessians that the data held.
        n_reused: number of structures whose Hessians an earlier run had computed.
    """

    results: tuple[Vibrations, ...]
    failures: tuple[Failure, ...]
    ids: tuple[str, ...]
    n_stored: int = 0
    n_reused: int = 0

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Vibrations]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Vibrations:
        return self.results[index]

    def rows(self) -> list[dict[str, Any]]:
        """All structures as JSON values, as `hesse vibrations --json` writes them.

        Returns:
            One object per structure; those that failed have null values and a `reason`.
        """
        rows = {result.structure.id: [result.row()] for result in self.results}
        return in_order(self.ids, rows, self.failures, _ROW_NAMES)

    def thermo(self, settings: ThermoSettings | None = None) -> list[Thermochemistry]:
        """Thermochemistry of all structures that have vibrations.

        Args:
            settings: temperatures, pressure and methods.

        Returns:
            One result per structure, in order.
        """
        return [thermo_of(result, settings) for result in self.results]


_ROW_NAMES = ("frequencies", "n_imaginary", "zpe", "linear", "level")


def in_order(
    ids: Sequence[str],
    rows: Mapping[str, list[dict[str, Any]]],
    failures: Sequence[Failure],
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """Rows of results and of failures, in the order of the structures.

    Args:
        ids: ids of all structures.
        rows: the rows of each result by id.
        failures: structures without a result.
        names: names of values that are null for failures.

    Returns:
        All rows; one with a `reason` for each failure.
    """
    reasons = {failure.id: failure.reason for failure in failures}
    empty = dict.fromkeys(names)
    return [row for i in ids for row in rows.get(i, [{"id": i, **empty, "reason": reasons.get(i, "")}])]


def thermo_of(vibrations: Vibrations, settings: ThermoSettings | None = None) -> Thermochemistry:
    """Thermochemistry from the vibrations of one structure.

    Args:
        vibrations: its vibrations.
        settings: temperatures, pressure and methods.

    Returns:
        Enthalpies, entropies and Gibbs energies, with error bars where the error of the Hessian is known.
    """
    return thermochemistry(
        vibrations.structure,
        vibrations.modes,
        settings,
        energy=vibrations.energy,
        hessian_error=vibrations.hessian_error,
    )


def analyze_vibrations(
    data: DatasetSource,
    engine: EngineLike | None = None,
    *,
    output: str | Path | None = None,
    atoms: ArrayLike | Mapping[str, ArrayLike] | None = None,
    masses: MassesLike = None,
    isotopes: Mapping[int, str | float] | None = None,
    minimize: bool = False,
    fmax: float = 0.005,
    steps: int = 500,
    reuse: bool = True,
    workers: int | None = None,
    scheduler: str | None = None,
    timeout: float | None = None,
    retry_failed: bool = False,
    quiet: bool = False,
) -> VibrationsReport:
    """Compute the vibrations of many structures.

    Args:
        data: structures, with Hessians or without: a Dataset, the path of a file, ASE Atoms, a list of them.
        engine: for structures without a Hessian: a name (`gfn2`), the path of a model, or an engine object, which works
            in this process. Models compute Hessians of many structures in one pass.
        output: file for the new Hessians, `.h5` or `.extxyz`; what is finished is kept beside it at once, and the same
            call continues. None keeps nothing.
        atoms: indices of the atoms that move, in every structure or by the ids of structures; only their part of the
            Hessian is computed. By default all, or those without `FixAtoms` in ASE Atoms.
        masses: "average" (the default) or "principal", see `hesse.vibrations`.
        isotopes: for single atoms, by index: the mass in u, or a name such as "D" or "13C".
        minimize: relax the structures first. Hessians in `data` are not used then.
        fmax: limit of the largest force after relaxation, eV/Å.
        steps: maximal number of steps of a relaxation.
        reuse: use Hessians in `data`, if they are of the level of the engine (where one is given).
        workers: number of processes, one thread each, for engines given by name; 1 by default, 0 works in this process.
        scheduler: a dask cluster instead.
        timeout: seconds for one structure, after which it counts as failed; has no effect in this process.
        retry_failed: try again Hessians that failed in an earlier run.
        quiet: no progress.

    Returns:
        The vibrations of each structure, and the structures that failed with the reasons.

    Raises:
        RequestError: Hessians of another level of theory than the engine; a relaxation without an engine.
        ConfigError: masses as numbers; frozen atoms with a relaxation; a force limit that is not positive.
        InterruptedRunError: SIGINT or SIGTERM; with an output the same call continues.
        HesseError: the data, the engine or the output cannot be used.
    """
    if output is not None:
        check_writable_suffix(output, complete=True)
    if minimize and engine is None:
        raise RequestError("only an engine can relax structures: give one, or leave out minimize")
    check_numbers(fmax=fmax)
    if not fmax > 0:
        raise ConfigError(f"fmax: expected a positive number of eV/Å, got {fmax:g}")
    free = _free_atoms_of_all(data) if atoms is None else None
    if minimize and (atoms is not None or free):
        raise ConfigError("atoms are frozen, but a relaxation moves all of them: relax the structures before")
    if masses is not None and not isinstance(masses, str):
        raise ConfigError('masses of many structures are "average" or "principal"; single atoms: isotopes')
    dataset = as_dataset(data)
    if isinstance(atoms, Mapping):
        free = [atoms.get(name) for name in dataset.ids]
    elif free is None:
        free = [atoms] * len(dataset)
    collector = _Collector(dataset, free, masses, isotopes)
    collector.check_structures()
    if not minimize and reuse:
        collector.add_stored(engine)
    n_reused = 0
    pending = [i for i in collector.open_indices() if engine is not None]
    if engine is not None and pending:
        spec, processes = engine_for_workers(engine, workers, scheduler)
        run = HessianRun(
            engine=spec,
            output=None if output is None else Path(output),
            workers=processes,
            scheduler=scheduler,
            timeout=timeout,
            retry_failed=retry_failed,
            quiet=quiet,
        )
        relaxation = {"fmax": fmax, "steps": steps} if minimize else None
        moving = {i: collector.moving[i] for i in pending}
        hessians, n_reused = compute_hessians(run, {i: dataset.structures[i] for i in pending}, moving, relaxation)
        collector.add_computed(hessians)
        if output is not None and isinstance(run.engine_object, PotentialEngine):
            _write_new(Path(output), hessians, run)
    collector.close(has_engine=engine is not None)
    return collector.report(n_reused)


def _free_atoms_of_all(data: object) -> list[ArrayLike | None] | None:
    """The atoms that constraints of ASE Atoms leave free, for each structure; None if nothing is frozen."""
    items = data if isinstance(data, list | tuple) else [data]
    free: list[ArrayLike | None] = [free_atoms(item) for item in items]
    return free if any(atoms is not None for atoms in free) else None


@dataclass(eq=False)
class _Collector:
    """Results and failures by the index of the structure."""

    dataset: Dataset
    atoms: Sequence[ArrayLike | None]
    masses: MassesLike
    isotopes: Mapping[int, str | float] | None
    results: dict[int, Vibrations] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)
    moving: dict[int, Any] = field(default_factory=dict)
    n_stored: int = 0

    def check_structures(self) -> None:
        """Masses and moving atoms that do not fit a structure are its failure, before anything is computed."""
        for i, structure in enumerate(self.dataset.structures):
            try:
                self.moving[i] = moving_atoms(structure, self.atoms[i])
                atom_masses(structure, self.masses, self.isotopes)
            except HesseError as error:
                if len(self.dataset) == 1:
                    raise
                self.failures[i] = str(error)

    def open_indices(self) -> list[int]:
        return [i for i in range(len(self.dataset)) if i not in self.results and i not in self.failures]

    def add_stored(self, engine: EngineLike | None) -> None:
        """Vibrations from the Hessians of the data set. Suspect ones are used only without an engine."""
        dataset = self.dataset
        mask = dataset.labels.mask("hessian").tolist() if dataset.labels.hessian is not None else []
        if not any(mask) or (engine is not None and not _is_of_level(dataset, engine)):
            return
        suspects = dataset.labels.suspect_mask().tolist()
        unusable = inconsistent_hessians(dataset.structures, dataset.labels)
        for i, (structure, labels) in enumerate(dataset):
            if not mask[i] or i in self.failures or (suspects[i] and engine is not None):
                continue
            if i in unusable:
                self.failures[i] = unusable[i]
                continue
            known = KnownHessian(structure, dataset.metadata.get("level", ""), labels=labels)
            self.add(i, known)
            self.n_stored += i in self.results

    def add_computed(self, found: Mapping[int, KnownHessian | str]) -> None:
        """Vibrations from new Hessians, after they were checked together."""
        whole = {i: known for i, known in found.items() if not isinstance(known, str) and known.labels is not None}
        if whole:
            labels = Properties.concatenate([known.labels for known in whole.values() if known.labels is not None])
            reasons = inconsistent_hessians([known.structure for known in whole.values()], labels)
            for k, i in enumerate(whole):
                if k in reasons:
                    self.failures[i] = reasons[k]
        for i, known in found.items():
            if i not in self.failures:
                self.add(i, known)

    def add(self, index: int, found: KnownHessian | str) -> None:
        if isinstance(found, str):
            self.failures[index] = found
            return
        try:
            self.results[index] = found.vibrations(self.moving[index], self.masses, self.isotopes)
        except HesseError as error:
            self.failures[index] = str(error)

    def close(self, *, has_engine: bool) -> None:
        for i in self.open_indices():
            self.failures[i] = (
                "no Hessian was computed"
                if has_engine
                else 'no Hessian: give an engine that computes it, such as --engine gfn2 (engine="gfn2")'
            )

    def report(self, n_reused: int) -> VibrationsReport:
        ids = self.dataset.ids
        failures = tuple(Failure(ids[i], self.failures[i]) for i in sorted(self.failures))
        results = tuple(self.results[i] for i in sorted(self.results))
        return VibrationsReport(results, failures, ids, self.n_stored, n_reused)


def _is_of_level(dataset: Dataset, engine: EngineLike) -> bool:
    """Whether the Hessians of a data set are those of an engine. Raises RequestError if they are of another level."""
    level, stored = as_engine(engine).level, dataset.metadata.get("level", "")
    if names_unknown_model(stored):
        warnings.warn(
            f"the Hessians in {dataset.source} are not used: their level {stored} does not say which model computed "
            "them. New ones are computed.",
            UserWarning,
            stacklevel=4,
        )
        return False
    if not levels_agree(stored, level):
        raise RequestError(
            f"{dataset.source} holds Hessians of {stored or 'a level of theory it does not name'}, but the engine is "
            f"{level}. Leave out the engine, choose that one, or compute new Hessians (reuse=False; --no-reuse)."
        )
    return True


def _write_new(output: Path, found: Mapping[int, KnownHessian | str], run: HessianRun) -> None:
    """Write the full Hessians of a model, as a label campaign writes those of other engines."""
    pairs: list[tuple[Structure, Properties]] = []
    for i in sorted(found):
        known = found[i]
        if not isinstance(known, str) and known.labels is not None:
            pairs.append((known.structure, known.labels))
    if pairs:
        engine = run.engine_object
        metadata = {"level": engine.level, "engine": engine.name, **engine.settings, "code_version": __version__}
        write_dataset(output, Dataset.from_pairs(pairs, **metadata))


def require_results(report: VibrationsReport) -> VibrationsReport:
    """Check that not every structure has failed.

    Args:
        report: the report.

    Returns:
        The report.

    Raises:
        ExecutionError: there is no result; the message has the first reason.
    """
    if not report.results:
        first = report.failures[0]
        raise ExecutionError(
            f"no vibrations of any of {len(report.ids)} structures; the first reason: {first.id}: {first.reason}"
        )
    return report
