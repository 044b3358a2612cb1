"""Labels that are far from those of all other structures: wrong units, unconverged calculations, misprinted numbers.

The test is robust: it compares with medians and quantiles, which a few wrong values do not move. Energies are compared
per atom, after energies per element are subtracted that minimize the sum of absolute errors.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from hesse.datasets.base_dataset import BaseDataset
from hesse.structures import Properties, quantity, segment_ids

__all__ = ["Outlier", "find_outliers"]

_FACTORS: Final = {"energy": 6.0, "forces": 10.0, "hvp": 10.0, "hessian": 10.0}
"""How many times as far from the median as nine tenths of the structures an outlier is. In critical points, IRCs,
normal-mode samples and molecular dynamics of organic molecules the farthest structures reach 3.3 (energies) and 5.3."""
_MIN_STRUCTURES: Final = 8
_FLOORS: Final = {"energy": 0.3, "forces": 20.0, "hvp": 500.0, "hessian": 500.0}
"""eV per atom, eV/Å, eV/Å²: differences that occur in sound data (a dissociated molecule among relaxed ones) are no
outliers, however equal the other structures are."""
_IMPOSSIBLE: Final = {"forces": 1e4, "hvp": 1e6, "hessian": 1e6}
"""eV/Å, eV/Å²; nuclei of light atoms 0.3 Å apart, the smallest distance that data may have, stay below."""
_IMPOSSIBLE_ENERGY: Final = 10.0
_ENERGY_PER_ATOM: Final = 1000.0
"""eV per atom that are possible for any element, beyond `_IMPOSSIBLE_ENERGY` total energies of the neutral atoms."""


@dataclass(frozen=True)
class Outlier:
    """A label that is far from those of the other structures.

    Attributes:
        index: index of the structure in the data set.
        id: its id.
        label: energy, forces, hvp or hessian.
        value: the label: energy in eV, largest force on an atom in eV/Å, length of the product with a probe of length
            one or largest element of the Hessian in eV/Å².
        unit: unit of `value`.
        distance: distance from the median that is compared: of energies per atom, in eV, after energies per element are
            subtracted; of others that of `value`.
        typical: the same for nine tenths of the structures.
        impossible: whether no structure of atoms can have this value.
    """

    index: int
    id: str
    label: str
    value: float
    unit: str
    distance: float
    typical: float
    impossible: bool


def find_outliers(
    dataset: BaseDataset[Any], labels: Collection[str] = ("energy", "forces", "hvp", "hessian")
) -> list[Outlier]:
    """Find labels that are far from those of all other structures, or that no structure can have.

    A label is far off if its distance from the median is more than 10 (energies: 6) times that of nine tenths of the
    structures, and more than 0.3 eV per atom, 20 eV/Å or 500 eV/Å². It is impossible if a total energy is more than 10
    times the sum of those of the neutral atoms (Thomas and Fermi: −20.9 Z^7/3 eV; plus 1000 eV per atom), or a force
    above 1e4 eV/Å, or curvature above 1e6 eV/Å². Fewer than 8 structures, and energies of single
    atoms, are tested for the impossible only. Structures of weight zero and labels that are not finite numbers
    (`check_dataset` refuses them) are left out.

    Args:
        dataset: the data.
        labels: which of energy, forces, hvp and hessian to test.

    Returns:
        The outliers: energies, forces, products, Hessians, the farthest first.
    """
    values: dict[str, Float[ndarray, "structures"]] = {}
    if "energy" in labels and dataset.has("energy"):
        energies = dataset.energies()
        assert energies.energy is not None
        values["energy"] = np.where(energies.mask("energy"), energies.energy.double().numpy(), np.nan)
    others = [name for name in ("forces", "hvp", "hessian") if name in labels and dataset.has(name)]
    values |= {name: np.full(len(dataset), np.nan) for name in others}
    if others:
        for indices, part in dataset.iter_in_memory():
            for name in others:
                values[name][indices.numpy()] = _magnitudes(part.labels, name)
    weight = dataset.energies().weight
    outliers: list[Outlier] = []
    for name, value in values.items():
        if weight is not None:
            value = np.where(weight.numpy() > 0, value, np.nan)
        outliers += _outliers(dataset, name, value)
    return outliers


def _outliers(dataset: BaseDataset[Any], name: str, values: Float[ndarray, "structures"]) -> list[Outlier]:
    """The outliers of one label; NaN is a missing value."""
    rows = np.flatnonzero(np.isfinite(values))
    if not len(rows):
        return []
    if name == "energy":
        distances, limits = _energy_distances(dataset, values, rows)
    else:
        distances, limits = values[rows], np.full(len(rows), _IMPOSSIBLE[name])
    impossible = np.abs(values[rows]) > limits
    sound = distances[~impossible]
    typical = float("nan")
    far = np.zeros(len(rows), dtype=bool)
    if len(sound) >= _MIN_STRUCTURES:
        center = np.median(sound)
        distances = np.abs(distances - center)
        typical = float(np.quantile(np.abs(sound - center), 0.9, method="lower"))
        far = distances > max(_FACTORS[name] * typical, _FLOORS[name])
        if name == "energy":  # isolated atoms among molecules are off by the atomization energy
            far &= dataset.n_atoms.numpy()[rows] > 1
    chosen = np.flatnonzero(far | impossible)
    unit = quantity(name).unit
    ids = dataset.ids if len(chosen) else ()
    return [
        Outlier(
            index=int(rows[k]),
            id=ids[rows[k]],
            label=name,
            value=float(values[rows[k]]),
            unit=unit,
            distance=float(distances[k]),
            typical=typical,
            impossible=bool(impossible[k]),
        )
        for k in sorted(chosen.tolist(), key=lambda k: -abs(distances[k]))
    ]


def _magnitudes(labels: Properties, name: str) -> Float[ndarray, "structures"]:
    """The size of a label of each structure; NaN where it is missing."""
    result = np.full(len(labels), np.nan)
    if labels[name] is None:
        return result
    if name == "hessian":
        sizes, mask = labels.hessian_lengths(), labels.mask("hessian")
        assert labels.hessian is not None
        magnitude, index = labels.hessian.abs().double(), segment_ids(sizes)
        return _largest(magnitude, index, mask)
    index = segment_ids(labels.n_atoms)
    if name == "forces":
        assert labels.forces is not None
        return _largest(labels.forces.double().norm(dim=-1), index, labels.mask("forces"))
    assert labels.hvp is not None
    assert labels.probes is not None
    for probes, products, mask in zip(labels.probes, labels.hvp, labels.mask("hvp"), strict=True):
        lengths = [
            torch.zeros(len(labels), dtype=torch.float64).index_add(0, index, v.double().square().sum(-1)).sqrt()
            for v in (products, probes)
        ]
        value = torch.where(mask & (lengths[1] > 0), lengths[0] / lengths[1], torch.nan).numpy()
        result = np.fmax(result, value)
    return result


def _largest(values: torch.Tensor, index: torch.Tensor, mask: torch.Tensor) -> Float[ndarray, "structures"]:
    largest = torch.zeros(len(mask), dtype=torch.float64)
    largest = largest.scatter_reduce(0, index, values.nan_to_num(torch.inf, torch.inf), "amax")
    return torch.where(mask, largest, torch.nan).numpy()


def _energy_distances(
    dataset: BaseDataset[Any], energies: Float[ndarray, "structures"], rows: ndarray
) -> tuple[Float[ndarray, "rows"], Float[ndarray, "rows"]]:
    """Energies per atom minus those of the elements, and the largest total energies that are possible."""
    elements = np.array(dataset.elements)
    composition = _composition(dataset, elements)[rows]
    n_atoms = composition.sum(1)
    atoms = composition @ (20.9 * elements ** (7 / 3))
    limits = _IMPOSSIBLE_ENERGY * atoms + _ENERGY_PER_ATOM * n_atoms
    possible = np.abs(energies[rows]) <= limits
    fractions, per_atom = composition / n_atoms[:, None], energies[rows] / n_atoms
    references = _least_absolute(fractions[possible], per_atom[possible])
    return per_atom - fractions @ references, limits


def _composition(dataset: BaseDataset[Any], elements: ndarray) -> Float[ndarray, "structures elements"]:
    """Number of atoms of each element."""
    result = np.zeros((len(dataset), len(elements)))
    column = np.searchsorted(elements, dataset.numbers.numpy())
    np.add.at(result, (segment_ids(dataset.n_atoms).numpy(), column), 1.0)
    return result


def _least_absolute(
    design: Float[ndarray, "rows elements"], values: Float[ndarray, "rows"], n_iterations: int = 60
) -> Float[ndarray, "elements"]:
    """Coefficients x that minimize `Σ |values − design x|`, by iteratively reweighted least squares."""
    solution = np.zeros(design.shape[1])
    if not len(values):
        return solution
    weights = np.ones(len(values))
    for _ in range(n_iterations):
        residual = values - design @ solution
        weighted = design * weights[:, None]
        # The equations are solved for the change, so that rounding errors vanish as the residuals do.
        change = np.linalg.pinv(design.T @ weighted, rcond=1e-10, hermitian=True) @ (weighted.T @ residual)
        solution = solution + change
        residual = np.abs(values - design @ solution)
        weights = 1.0 / np.maximum(residual, 1e-3)
        if np.abs(change).max() < 1e-4:
            break
    return solution
