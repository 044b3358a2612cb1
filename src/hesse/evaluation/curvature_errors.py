"""Errors of curvature in the numbers that chemists use: eigenvalues, modes, frequencies, thermochemistry.

Both Hessians, reference and prediction, are symmetrized and those at the stored geometry, mass-weighted, with
translations and rotations projected out; a structure of n atoms has 3n−6 modes (3n−5 if linear, 3n−3 if periodic).
Eigenvalues and frequencies are compared in ascending order, imaginary frequencies as negative numbers.

Eigenvalues, overlaps of modes and the numbers of negative modes are compared at every geometry. Frequencies and
thermochemistry have their usual meaning at stationary points only: at structures whose largest reference force is below
`MAX_STATIONARY_FORCE`, or that have no reference forces. They are not relaxed with the potential.

The softening slope is that of predicted against reference curvature along the modes of the reference,
`Σ λ_k v_kᵀ H̃ v_k / Σ λ_k²` with `H v_k = λ_k v_k`: a potential that is too soft everywhere has a slope below one (Deng
et al., npj Comput. Mater. 11, 9 (2025)). It is given for each range of frequencies too, because stiff modes alone
determine that of all.

Noise floors come from the noise of the reference Hessians (`hesse.evaluation.noise_floor`), to first order
(`hesse.harmonic.error_propagation`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from hesse.datasets import Dataset
from hesse.evaluation.averages import Average, MetricRow, average_row, independent_groups, tag_masks
from hesse.evaluation.noise_floor import noise_estimates
from hesse.harmonic.error_propagation import eigenvalue_covariance, error_of_sum, frequency_errors
from hesse.harmonic.normal_modes import DEGENERACY_TOLERANCE, NormalModes, normal_modes
from hesse.harmonic.thermochemistry import ThermoSettings, thermochemistry
from hesse.runtime.progress import track
from hesse.structures import Properties, Structure
from hesse.units import INVERSE_CM

__all__ = [
    "BANDS",
    "MAX_STATIONARY_FORCE",
    "ComparedHessians",
    "compare_hessians",
    "curvature_metrics",
    "mode_overlap",
    "softening_sums",
]

MAX_STATIONARY_FORCE: Final = 0.05
"""eV/Å; structures with a larger reference force are no stationary points."""

BANDS: Final = (
    ("imaginary", -np.inf, 0.0),
    ("0_300", 0.0, 300.0),
    ("300_1000", 300.0, 1000.0),
    ("1000_2000", 1000.0, 2000.0),
    ("above_2000", 2000.0, np.inf),
)
"""Ranges of reference frequencies, cm⁻¹: name, lower limit (included) and upper limit."""

GIBBS_SETTINGS: Final = ThermoSettings(method="grimme", symmetry=1, invert_below=50.0)
"""298.15 K and 1 atm; soft modes between oscillator and rotor, imaginary ones below 50 cm⁻¹ taken as real. Rotation and
translation are those of one geometry and cancel."""

_EIGENVALUE_UNIT: Final = "eV/(Å² u)"


@dataclass(frozen=True, eq=False)
class ComparedHessians:
    """Two Hessians of one structure.

    Attributes:
        index: index of the structure in the data set.
        structure: the geometry.
        reference: normal modes of the reference.
        predicted: normal modes of the prediction.
        projected: curvature of the prediction along the modes of the reference, eV/(Å² u).
        stationary: whether the geometry is a stationary point of the reference.
        noise: root mean square error of the elements of the reference Hessian, eV/Å²; NaN where unknown.
    """

    index: int
    structure: Structure
    reference: NormalModes
    predicted: NormalModes
    projected: Float[ndarray, "modes"]
    stationary: bool
    noise: float

    def free_energies(self) -> tuple[float, float]:
        """Gibbs energies without the electronic energy.

        Returns:
            Those of reference and prediction by `GIBBS_SETTINGS`, eV.
        """
        reference, predicted = (
            thermochemistry(self.structure, modes, GIBBS_SETTINGS) for modes in (self.reference, self.predicted)
        )
        return float(reference.gibbs_correction[0]), float(predicted.gibbs_correction[0])

    def thermo_noise(self) -> tuple[float, float]:
        """Noise of the thermochemistry that the noise of the reference Hessian causes.

        Returns:
            Standard errors of zero-point energy and Gibbs energy, eV; NaN where the noise is unknown.
        """
        if not np.isfinite(self.noise):
            return float("nan"), float("nan")
        zpe = error_of_sum(self.reference, self.noise, lambda nu: 0.5 * INVERSE_CM * np.maximum(nu, 0.0))
        thermo = thermochemistry(self.structure, self.reference, GIBBS_SETTINGS, hessian_error=self.noise)
        return float(zpe), float(thermo.errors["gibbs"][0])


def compare_hessians(dataset: Dataset, predictions: Properties, *, quiet: bool = True) -> list[ComparedHessians]:
    """Compute the normal modes of every structure that has a reference Hessian and a predicted one.

    Args:
        dataset: structures and reference labels.
        predictions: predictions for the same structures in the same order.
        quiet: no progress.

    Returns:
        The compared structures; without single atoms, which have no modes.

    Raises:
        LabelValueError: a Hessian that is not finite.
    """
    labels = dataset.labels
    both = (labels.mask("hessian") & predictions.mask("hessian")).nonzero()[:, 0].tolist()
    stationary, noise = _is_stationary(labels), _hessian_noise(dataset)
    result = []
    with track("normal modes", len(both), quiet=quiet) as advance:
        for index in both:
            structure = dataset.structures[index]
            hessians = [side.hessian_of(index).numpy() for side in (labels, predictions)]
            reference, predicted = (normal_modes(structure, hessian) for hessian in hessians)
            advance(1)
            if not len(reference):
                continue
            directions = reference.cartesian.reshape(len(reference), -1)
            matrix = hessians[1].reshape(directions.shape[1], -1)
            projected = np.einsum("ki,ij,kj->k", directions, matrix, directions)
            result.append(
                ComparedHessians(
                    index, structure, reference, predicted, projected, bool(stationary[index]), float(noise[index])
                )
            )
    return result


def curvature_metrics(
    dataset: Dataset,
    predictions: Properties,
    *,
    by_tag: bool = True,
    name: str | None = None,
    intervals: bool = True,
    quiet: bool = True,
) -> list[MetricRow]:
    """Errors of eigenvalues, modes, frequencies, zero-point energies and Gibbs energies.

    Args:
        dataset: structures and reference labels.
        predictions: predictions for the same structures in the same order.
        by_tag: also give the rows of each tag.
        name: name of the data set in the rows; by default the stem of the file it came from.
        intervals: with 95 % intervals under another choice of molecules.
        quiet: no progress.

    Returns:
        Rows with these properties and metrics; none if no structure has both Hessians.

        - eigenvalues: mae, rmse, noise_floor;
        - mode_1, mode_2: abs_cos, the overlap of the lowest two modes with those of the reference (modes that are
          degenerate by symmetry, which have no direction of their own, are left out); modes_1_2: overlap, that of the
          space of both, which does not depend on their order;
        - negative_modes: fraction_right, structures with as many negative modes as the reference has;
        - projected_curvature, projected_curvature_0_300, ...: slope (softening);
        - frequencies, frequencies_0_300, ...: mae, bias (predicted less reference), noise_floor;
        - zpe, gibbs_correction: mae, bias, noise_floor; Gibbs energies at 298.15 K without the electronic energy.

    Raises:
        LabelValueError: a Hessian that is not finite.
    """
    compared = compare_hessians(dataset, predictions, quiet=quiet)
    title = Path(dataset.source).stem if name is None else name
    groups = independent_groups(dataset.structures) if intervals else None
    averages = list(_averages(compared, len(dataset)))
    rows = [
        average_row(average, title, tag, mask, groups)
        for tag, mask in tag_masks(dataset.structures, by_tag=by_tag).items()
        for average in averages
    ]
    return [row for row in rows if row is not None]


def mode_overlap(reference: NormalModes, predicted: NormalModes, k: int) -> float | None:
    """Overlap of a mode with the mode of the same number of the reference.

    Args:
        reference: modes of the reference.
        predicted: modes of the prediction, of the same geometry.
        k: number of the mode, 0 for the lowest.

    Returns:
        The absolute cosine in mass-weighted coordinates, 0 to 1; None if there is no such mode, or if it is degenerate
        with its neighbors in the reference.
    """
    values = reference.eigenvalues
    if k >= len(values):
        return None
    gaps = np.abs(np.delete(values, k) - values[k])
    # Symmetry makes eigenvalues equal up to the noise of Hessians, a hundred times that of rounding or more.
    if len(gaps) and gaps.min() < 100.0 * DEGENERACY_TOLERANCE * np.abs(values).max():
        return None
    return float(abs(np.vdot(reference.vectors[k], predicted.vectors[k])))


def softening_sums(compared: ComparedHessians, low: float = -np.inf, high: float = np.inf) -> tuple[float, float, int]:
    """Sums of which the softening slope is the ratio.

    Args:
        compared: the two Hessians.
        low: lower limit of the reference frequencies that count, cm⁻¹.
        high: their upper limit.

    Returns:
        `Σ λ_k c_k` with the predicted curvature c, `Σ λ_k²`, and the number of modes.
    """
    nu, values = compared.reference.frequencies, compared.reference.eigenvalues
    chosen = (nu >= low) & (nu < high)
    return float(values[chosen] @ compared.projected[chosen]), float((values[chosen] ** 2).sum()), int(chosen.sum())


def _averages(compared: Sequence[ComparedHessians], n_structures: int) -> Iterator[Average]:
    """Every number, by its sums over the values of each structure."""
    everywhere = _Collector(n_structures, compared)
    at_points = _Collector(n_structures, [c for c in compared if c.stationary])
    yield from everywhere.errors(
        "eigenvalues",
        _EIGENVALUE_UNIT,
        [c.predicted.eigenvalues - c.reference.eigenvalues for c in everywhere.compared],
        ("mae", "rmse"),
    )
    yield everywhere.noise(
        "eigenvalues",
        _EIGENVALUE_UNIT,
        [np.sqrt(np.diagonal(eigenvalue_covariance(c.reference, c.noise))) for c in everywhere.with_noise],
    )
    for k in (0, 1):
        overlaps = [mode_overlap(c.reference, c.predicted, k) for c in everywhere.compared]
        yield everywhere.mean(f"mode_{k + 1}", "abs_cos", [[] if v is None else [v] for v in overlaps])
    yield everywhere.mean("modes_1_2", "overlap", [_overlap_of_two(c) for c in everywhere.compared])
    right = [[float(c.predicted.n_imaginary == c.reference.n_imaginary)] for c in everywhere.compared]
    yield everywhere.mean("negative_modes", "fraction_right", right, fraction=True)
    yield everywhere.slope("projected_curvature", -np.inf, np.inf)
    for band, low, high in BANDS:
        yield everywhere.slope(f"projected_curvature_{band}", low, high)
    frequency_noise = [frequency_errors(c.reference, c.noise) for c in at_points.with_noise]
    for band, low, high in (("", -np.inf, np.inf), *BANDS):
        name = f"frequencies_{band}" if band else "frequencies"
        masks = [(c.reference.frequencies >= low) & (c.reference.frequencies < high) for c in at_points.compared]
        errors = [
            (c.predicted.frequencies - c.reference.frequencies)[mask]
            for c, mask in zip(at_points.compared, masks, strict=True)
        ]
        yield from at_points.errors(name, "cm⁻¹", errors, ("mae", "bias"))
        noise = [
            widths[(c.reference.frequencies >= low) & (c.reference.frequencies < high)]
            for c, widths in zip(at_points.with_noise, frequency_noise, strict=True)
        ]
        yield at_points.noise(name, "cm⁻¹", noise)
    zpe = [[c.predicted.zero_point_energy - c.reference.zero_point_energy] for c in at_points.compared]
    gibbs = [[np.subtract(*c.free_energies()[::-1])] for c in at_points.compared]
    thermo_noise = [c.thermo_noise() for c in at_points.with_noise]
    for k, (name, differences) in enumerate((("zpe", zpe), ("gibbs_correction", gibbs))):
        yield from at_points.errors(name, "eV", differences, ("mae", "bias"))
        yield at_points.noise(name, "eV", [[both[k]] for both in thermo_noise])


def _overlap_of_two(compared: ComparedHessians) -> list[float]:
    """Overlap of the spaces of the two lowest modes, 0 to 1; nothing for a structure with fewer modes."""
    if len(compared.reference) < 2:
        return []
    first, second = (modes.vectors[:2].reshape(2, -1) for modes in (compared.reference, compared.predicted))
    return [float(0.5 * np.square(first @ second.T).sum())]


class _Collector:
    """Sums of values over structures, for averages."""

    def __init__(self, n_structures: int, compared: Sequence[ComparedHessians]) -> None:
        self.n_structures, self.compared = n_structures, compared
        self.with_noise = [c for c in compared if np.isfinite(c.noise)]

    def errors(
        self, name: str, unit: str, values: Sequence[Sequence[float] | ndarray], metrics: Sequence[str]
    ) -> Iterator[Average]:
        arrays = [np.asarray(v, dtype=np.float64) for v in values]
        for metric in metrics:
            numbers = [v * v if metric == "rmse" else np.abs(v) if metric == "mae" else v for v in arrays]
            yield self._average(name, metric, unit, numbers, root=metric == "rmse")

    def noise(self, name: str, unit: str, values: Sequence[Sequence[float] | ndarray]) -> Average:
        return self._average(
            name, "noise_floor", unit, [np.square(v) for v in values], root=True, compared=self.with_noise
        )

    def mean(self, name: str, metric: str, values: Sequence[Sequence[float]], *, fraction: bool = False) -> Average:
        return replace(self._average(name, metric, "1", values, fraction=fraction), at_most=1.0)

    def slope(self, name: str, low: float, high: float) -> Average:
        totals, weights = np.zeros(self.n_structures), np.zeros(self.n_structures)
        counts = np.zeros(self.n_structures, dtype=np.int64)
        for c in self.compared:
            totals[c.index], weights[c.index], counts[c.index] = softening_sums(c, low, high)
        return Average(name, "slope", "1", totals, weights, counts)

    def _average(
        self,
        name: str,
        metric: str,
        unit: str,
        values: Sequence[Sequence[float] | ndarray],
        *,
        root: bool = False,
        fraction: bool = False,
        compared: Sequence[ComparedHessians] | None = None,
    ) -> Average:
        totals, counts = np.zeros(self.n_structures), np.zeros(self.n_structures, dtype=np.int64)
        for c, of_structure in zip(self.compared if compared is None else compared, values, strict=True):
            totals[c.index], counts[c.index] = float(np.sum(of_structure)), len(of_structure)
        return Average(name, metric, unit, totals, counts.astype(np.float64), counts, root, fraction)


def _is_stationary(labels: Properties) -> ndarray:
    """Which structures have no force above the limit; those without reference forces count."""
    result = np.ones(len(labels), dtype=bool)
    if labels.forces is None:
        return result
    sizes = labels.n_atoms.numpy()
    lengths = np.linalg.norm(labels.forces.numpy(), axis=-1)
    largest = np.maximum.reduceat(lengths, np.concatenate([[0], np.cumsum(sizes)[:-1]]))
    return ~labels.mask("forces").numpy() | (largest < MAX_STATIONARY_FORCE)


def _hessian_noise(dataset: Dataset) -> Float[ndarray, "structures"]:
    """The largest estimate of the noise of each reference Hessian, eV/Å²; NaN where there is none."""
    estimates = [part.rms_per_structure() for part in noise_estimates(dataset).get("hessian", ())]
    known = np.array([np.full(len(dataset), np.nan), *estimates])
    return np.fmax.reduce(known, axis=0)
