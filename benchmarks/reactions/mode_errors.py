"""Errors of harmonic frequencies and vibrational free energies, from reference and predicted Hessians of one geometry.

Geometries are those of the reference: its minima and saddle points, which are not relaxed with the model. Both Hessians
are projected: mass-weighted, translations and rotations removed.

* Frequencies are compared in two ways: in ascending order, and between modes that belong together, which are the
  assignment with the largest sum of squared overlaps of the mass-weighted eigenvectors.
* The vibrational free energy at temperature T is the sum of `hν/2 + kT ln(1 − exp(−hν/kT))` over the modes. Frequencies
  below 100 cm⁻¹, imaginary ones included, are raised to 100 cm⁻¹ for reference and model (Ribeiro, Marenich, Cramer,
  Truhlar, J. Phys. Chem. B 115, 14556 (2011)). The reaction mode of a saddle point (the lowest one) is left out.
* The squared error of a Hessian is divided between ranges of reference frequencies. For the Cartesian error, which the
  loss contains, the modes' displacements are made orthogonal in order of frequency, so that each range contains the
  directions that lower ranges do not span. The mass-weighted error divides between the modes without that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import linear_sum_assignment

from hesse.evaluation import Evaluation
from hesse.harmonic.normal_modes import NormalModes, normal_modes
from hesse.structures import Structure
from hesse.units import BOLTZMANN, INVERSE_CM, KCAL_PER_MOL

TEMPERATURE = 298.15
"""K."""
RAISED_TO = (100.0, 50.0)
"""Lowest frequency in free energies, cm⁻¹: the one of the tables, and another to show what depends on it."""
SOFT = (300.0, 400.0)
"""Limits of soft modes, cm⁻¹."""
RANGES = (-np.inf, 0.0, 300.0, 1000.0, 2000.0, np.inf)
"""Limits of the ranges of reference frequencies, cm⁻¹."""
RANGE_NAMES = ("imaginary", "0-300", "300-1000", "1000-2000", "above 2000")
REAL_MINIMUM = 0.0
"""A mode of the model below this, cm⁻¹, at a minimum of the reference is a false imaginary mode."""


@dataclass(frozen=True, eq=False)
class StructureErrors:
    """Comparison of two Hessians of one structure.

    Attributes:
        structure: the geometry.
        reference: frequencies by the reference in ascending order, cm⁻¹; imaginary ones are negative.
        ordered: frequencies by the model in ascending order, cm⁻¹.
        matched: frequencies by the model of the modes that belong to `reference`, cm⁻¹.
        overlaps: squared overlaps of these pairs of modes, 0 to 1.
        squared: by kind ("cartesian", (eV/Å²)²; "mass-weighted", (eV/Å²/u)²), squared error of the Hessian in each
            range of `RANGES`, and last the rest: directions that no mode's displacement spans.
    """

    structure: Structure
    reference: Float[ndarray, "modes"]
    ordered: Float[ndarray, "modes"]
    matched: Float[ndarray, "modes"]
    overlaps: Float[ndarray, "modes"]
    squared: Mapping[str, Float[ndarray, "ranges_and_rest"]]

    @property
    def is_minimum(self) -> bool:
        return bool((self.reference > 0).all())

    @property
    def is_saddle(self) -> bool:
        return int((self.reference < 0).sum()) == 1

    def free_energies(self, raised_to: float) -> tuple[float, float]:
        """Vibrational free energies of reference and model, eV, without the reaction mode at saddle points."""
        first = 0 if self.is_minimum else 1
        reference, model = (
            free_energy(values[first:], TEMPERATURE, raised_to=raised_to) for values in (self.reference, self.ordered)
        )
        return reference, model

    def zero_point_energies(self) -> tuple[float, float]:
        """Zero-point energies of reference and model, eV; imaginary modes do not contribute."""
        reference, model = (
            0.5 * INVERSE_CM * float(values[values > 0].sum()) for values in (self.reference, self.ordered)
        )
        return reference, model


def free_energy(frequencies: Float[ndarray, "modes"], temperature: float, *, raised_to: float = 0.0) -> float:
    """Free energy of independent harmonic oscillators, zero-point energy included.

    Args:
        frequencies: cm⁻¹.
        temperature: K.
        raised_to: frequencies below this, imaginary (negative) ones included, are replaced by it, cm⁻¹.

    Returns:
        eV.
    """
    energy = INVERSE_CM * np.maximum(frequencies, raised_to)
    thermal = BOLTZMANN * temperature
    return float((0.5 * energy + thermal * np.log(-np.expm1(-energy / thermal))).sum())


def thermal_part(frequencies: Float[ndarray, "modes"]) -> float:
    """The vibrational free energy without the zero-point energy of the same, raised frequencies, eV."""
    raised = np.maximum(frequencies, RAISED_TO[0])
    return free_energy(raised, TEMPERATURE) - 0.5 * INVERSE_CM * float(raised.sum())


def match_modes(reference: NormalModes, model: NormalModes) -> tuple[Int[ndarray, "modes"], Float[ndarray, "modes"]]:
    """The assignment of modes with the largest sum of squared overlaps.

    Args:
        reference: modes of the reference.
        model: modes of the model, of the same geometry.

    Returns:
        For every mode of the reference the index of the model's mode, and the squared overlap of the two.
    """
    n = len(reference)
    squared = (reference.vectors.reshape(n, -1) @ model.vectors.reshape(n, -1).T) ** 2
    rows, columns = linear_sum_assignment(squared, maximize=True)
    return columns, squared[rows, columns]


def squared_by_range(
    difference: Float[ndarray, "3n 3n"], reference: NormalModes
) -> dict[str, Float[ndarray, "ranges_and_rest"]]:
    """The squared Frobenius norm of a Hessian error, divided between the ranges of reference frequencies.

    Args:
        difference: error of the Hessian, eV/Å².
        reference: modes of the reference, in ascending order.

    Returns:
        Parts of the norm of the Cartesian and of the mass-weighted error; each sums to the whole.
    """
    n = len(reference)
    weights = np.repeat(1.0 / np.sqrt(reference.masses), 3)
    range_of = np.searchsorted(RANGES, reference.frequencies, side="right") - 1
    # QR makes the displacements orthogonal one after the other, the softest first.
    bases = {
        "cartesian": (difference, np.linalg.qr(reference.cartesian.reshape(n, -1).T)[0].T),
        "mass-weighted": (difference * np.outer(weights, weights), reference.vectors.reshape(n, -1)),
    }
    result = {}
    for kind, (matrix, directions) in bases.items():
        parts = np.bincount(range_of, ((directions @ matrix) ** 2).sum(1), len(RANGE_NAMES))
        result[kind] = np.append(parts, max(0.0, float((matrix**2).sum() - parts.sum())))
    return result


def compare_hessians(
    structure: Structure, reference: Float[ndarray, "n 3 n 3"], model: Float[ndarray, "n 3 n 3"]
) -> StructureErrors:
    """Compare two Hessians of one structure, eV/Å²."""
    expected, predicted = normal_modes(structure, reference), normal_modes(structure, model)
    columns, overlaps = match_modes(expected, predicted)
    size = 3 * len(structure)
    difference = (model - reference).reshape(size, size)
    return StructureErrors(
        structure,
        expected.frequencies,
        predicted.frequencies,
        predicted.frequencies[columns],
        overlaps,
        squared_by_range(0.5 * (difference + difference.T), expected),
    )


def compare_all(evaluation: Evaluation) -> list[StructureErrors]:
    """Compare the Hessians of all structures of an evaluation that has them."""
    labels, predictions = evaluation.dataset.labels, evaluation.predictions
    return [
        compare_hessians(structure, labels.hessian_of(i).numpy(), predictions.hessian_of(i).numpy())
        for i, structure in enumerate(evaluation.dataset.structures)
    ]


def summarize(errors: Sequence[StructureErrors]) -> dict[str, float]:
    """Numbers of a test set by name. Frequencies in cm⁻¹, free energies in kcal/mol."""
    minima = [e for e in errors if e.is_minimum]
    saddles = [e for e in errors if e.is_saddle]
    result: dict[str, float] = {"minima": len(minima), "saddles": len(saddles)}
    if minima:
        result |= _soft_mode_numbers(minima) | _free_energy_numbers(minima)
        false = np.array([(e.ordered < REAL_MINIMUM).sum() for e in minima])
        result |= {"false imaginary structures": int((false > 0).sum()), "false imaginary modes": int(false.sum())}
    if saddles:
        result |= _saddle_numbers(saddles)
        barriers = [
            b for pair in _reactions(errors) for b in [_free_energy_error(pair[0]) - _free_energy_error(pair[1])]
        ]
        if barriers:
            result |= {"activation free energy": float(np.mean(np.abs(barriers))), "activations": len(barriers)}
    for kind in ("cartesian", "mass-weighted"):
        total = np.sum([e.squared[kind] for e in errors], axis=0)
        shares = total / max(float(total.sum()), np.finfo(float).tiny)
        result |= {f"{kind} share {name}": float(s) for name, s in zip((*RANGE_NAMES, "rest"), shares, strict=True)}
    return result


def _soft_mode_numbers(minima: Sequence[StructureErrors]) -> dict[str, float]:
    reference, ordered, matched, overlaps = (
        np.concatenate([getattr(e, name) for e in minima]) for name in ("reference", "ordered", "matched", "overlaps")
    )
    result: dict[str, float] = {}
    limits = {"all": (0.0, np.inf)} | {f"below {limit:g}": (0.0, limit) for limit in SOFT}
    limits |= {f"{low:g} to {high:g}": (low, high) for low, high in pairwise(RANGES[2:])}
    for name, (low, high) in limits.items():
        mask = (reference >= low) & (reference < high)
        if mask.any():
            result |= {
                f"modes {name}": int(mask.sum()),
                f"frequencies {name}": float(np.abs(ordered - reference)[mask].mean()),
                f"bias {name}": float((ordered - reference)[mask].mean()),
                f"matched frequencies {name}": float(np.abs(matched - reference)[mask].mean()),
                f"overlap {name}": float(overlaps[mask].mean()),
            }
    return result


def _free_energy_numbers(minima: Sequence[StructureErrors]) -> dict[str, float]:
    result: dict[str, float] = {}
    for raised_to in RAISED_TO:
        errors = np.array([_free_energy_error(e, raised_to) for e in minima])
        result |= {
            f"free energy, {raised_to:g}": float(np.abs(errors).mean()),
            f"free energy bias, {raised_to:g}": float(errors.mean()),
        }
    zero_point = [np.subtract(*e.zero_point_energies()) / KCAL_PER_MOL for e in minima]
    thermal = [np.subtract(*(thermal_part(v) for v in (e.ordered, e.reference))) / KCAL_PER_MOL for e in minima]
    return result | {
        "zero-point energy": float(np.abs(zero_point).mean()),
        "thermal part": float(np.abs(thermal).mean()),
    }


def _free_energy_error(errors: StructureErrors, raised_to: float = RAISED_TO[0]) -> float:
    reference, model = errors.free_energies(raised_to)
    return (model - reference) / KCAL_PER_MOL


def _saddle_numbers(saddles: Sequence[StructureErrors]) -> dict[str, float]:
    reference, model = (np.array([values[0] for values in each]) for each in _frequencies(saddles))
    return {
        "imaginary frequency": float(np.abs(model - reference).mean()),
        "one imaginary mode": sum(int((e.ordered < REAL_MINIMUM).sum() == 1) for e in saddles),
        "reaction mode overlap": float(np.mean([e.overlaps[0] for e in saddles])),
    }


def _frequencies(errors: Sequence[StructureErrors]) -> tuple[list[ndarray], list[ndarray]]:
    return [e.reference for e in errors], [e.ordered for e in errors]


def _reactions(errors: Sequence[StructureErrors]) -> list[tuple[StructureErrors, StructureErrors]]:
    """Saddle points with each minimum of the same reaction."""
    return [
        (saddle, minimum)
        for saddle in errors
        for minimum in errors
        if saddle.is_saddle and minimum.is_minimum and saddle.structure.group == minimum.structure.group
    ]
