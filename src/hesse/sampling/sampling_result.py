"""The result of sampling: geometries, failures, and what the runs of molecular dynamics did."""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms

from hesse.datasets import Dataset
from hesse.datasets.ase_atoms import atoms_with_labels
from hesse.errors import RequestError
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Properties, Structure

__all__ = ["DynamicsRun", "SamplingFailure", "SamplingResult"]


@dataclass(frozen=True)
class SamplingFailure:
    """A molecule or a sample that could not be created.

    Attributes:
        id: its id.
        reason: the reason.
    """

    id: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class SamplingResult(ShortRepr):
    """Sampled geometries, in the order of the molecules they belong to.

    Attributes:
        structures: the samples; their group is that of the molecule, or its id.
        failures: molecules and samples that could not be created.
        saddles: ids of molecules whose relaxed structure has an imaginary mode (normal-mode sampling).
        level: level of theory of the engine; empty where no engine was used.
        labels: energies and forces of the samples where sampling computes them (dynamics, paths).
        n_reused: number of Hessians that were taken from the input.
        n_sampled: number of molecules with at least one sample.
        runs: what each run of molecular dynamics did.
    """

    structures: tuple[Structure, ...]
    failures: tuple[SamplingFailure, ...]
    saddles: tuple[str, ...]
    level: str
    labels: Properties
    n_reused: int = 0
    n_sampled: int = 0
    runs: tuple[DynamicsRun, ...] = ()

    def dataset(self, **attributes: str) -> Dataset:
        """Convert to a data set.

        Args:
            **attributes: metadata of the data set.

        Returns:
            The samples with their labels; the level of theory is in the metadata where there are labels.

        Raises:
            RequestError: there are no samples.
        """
        if not self.structures:
            raise RequestError("nothing was sampled: there are no structures for a data set")
        level_attribute = {"level": self.level} if self.labels.energy is not None else {}
        return Dataset(self.structures, self.labels, metadata={**level_attribute, **attributes})

    def to_ase(self) -> list[Atoms]:
        """Convert to ASE.

        Returns:
            The samples; ids, tags and groups are in `atoms.info`, energies and forces in a calculator.
        """
        return [atoms_with_labels(s, self.labels, i, {}) for i, s in enumerate(self.structures)]


@dataclass(frozen=True)
class DynamicsRun:
    """Record of a run of molecular dynamics.

    Attributes:
        id: id of the run, `{molecule}/md-300K/{run}`.
        time: time reached, fs.
        time_requested: fs.
        temperature: mean over the steps after equilibration (over all, if the run ended before), K.
        temperature_requested: K.
        energy_drift: slope of the total energy, eV/ps. A thermostat exchanges energy with the molecule.
        reason: why it ended early; empty otherwise.
    """

    id: str
    time: float
    time_requested: float
    temperature: float
    temperature_requested: float
    energy_drift: float
    reason: str = ""

    def __str__(self) -> str:
        end = f", ended early: {self.reason}" if self.reason else ""
        return (
            f"{self.id}: {self.time:g} of {self.time_requested:g} fs, mean temperature {self.temperature:.0f} K (set "
            f"{self.temperature_requested:g} K), drift of the total energy {self.energy_drift:+.2g} eV/ps{end}"
        )
