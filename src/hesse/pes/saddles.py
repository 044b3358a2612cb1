"""First-order saddle points: transition states of reactions.

Two ways. "prfo" is ours: partitioned rational-function optimisation in Cartesian coordinates free of rigid motions,
with the engine's full Hessian at the start, every few steps and whenever the quadratic model fails; in between the
Hessian is updated. "sella" hands the search to the package Sella (Hermes, Sargsyan, Najm, Zádor, JCTC 18, 6974 (2022)),
which walks in internal coordinates and starts from the engine's Hessian. What either finds is judged in the same way,
by the engine's Hessian at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase.data import covalent_radii
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike
from scipy.sparse.csgraph import connected_components

from hesse.engines import Engine, EngineCalculator
from hesse.errors import ConfigError, LabelShapeError, RequestError, require_choice
from hesse.harmonic import NormalModes, internal_basis, normal_modes
from hesse.optional import require
from hesse.pes.convergence import Convergence, largest_force
from hesse.pes.landscape import Landscape
from hesse.pes.quasi_newton import partitioned_step, saddle_update, scaled_to
from hesse.structures import Structure, to_ase

__all__ = ["SADDLE_METHODS", "SaddleResult", "saddle"]

SADDLE_METHODS = ("prfo", "sella")
"""Ways to find a saddle point."""

_REFRESH = 5
"""Steps between full Hessians."""
_SMALLEST_TRUST, _LARGEST_TRUST = 0.01, 0.25
"""Å; bounds of the trust radius."""
_APART = 3.0
"""Atoms further apart than this multiple of the sum of their covalent radii do not hold a molecule together."""
_CHECKS = 5
"""How often a walk may settle on a stationary point that is no first-order saddle, and walk on."""


@dataclass(frozen=True, eq=False)
class SaddleResult:
    """Where a search ended.

    Attributes:
        structure: the last geometry; id, tag and group are those of the start.
        energy: eV.
        forces: eV/Å, `[n, 3]`.
        fmax: largest force on an atom, eV/Å.
        hessian: the engine's Hessian at `structure`, eV/Å², `[n, 3, n, 3]`; None where the forces did not settle.
        steps: steps taken.
        gradients, hessians: asked of the engine.
        converged: forces below what was asked, and exactly one negative mode.
        reason: why not, empty when converged.
        record: the way there.
    """

    structure: Structure
    energy: float
    forces: Float[Array, "n 3"]
    fmax: float
    hessian: Float[Array, "n 3 n 3"] | None
    steps: int
    gradients: int
    hessians: int
    converged: bool
    reason: str
    record: Convergence

    @property
    def modes(self) -> NormalModes | None:
        """Normal modes at `structure`, the reaction mode first; None where the Hessian is not known."""
        return None if self.hessian is None else normal_modes(self.structure, self.hessian)


def saddle(
    structure: Structure,
    engine: Engine,
    *,
    method: Literal["prfo", "sella"] = "prfo",
    hessian: ArrayLike | None = None,
    fmax: float = 0.005,
    steps: int = 200,
    trust: float = 0.1,
) -> SaddleResult:
    """Walk from a guess of a transition state to a first-order saddle point.

    The lowest mode at the start is followed uphill, and then the mode most like the one followed before. Not converging
    is no error: the result says why. Open structures move free of translations and rotations, periodic ones (whose cell
    stays as it is) free of translations.

    Args:
        method: see the module.
        hessian: at `structure`, `[n, 3, n, 3]` in eV/Å², where it is known already.
        fmax: eV/Å.
        steps: at most.
        trust: Å; the longest first step, over all coordinates.

    Raises:
        ConfigError: `fmax`, `steps` or `trust` not positive, an unknown method.
        LabelShapeError: a Hessian of another shape.
        RequestError: a structure whose only motions are rigid.
        MissingExtraError: Sella is asked for and not installed.
        EngineError, GeometryError: from the engine, on the way.
    """
    if not (np.isfinite(fmax) and fmax > 0 and np.isfinite(trust) and trust > 0) or steps < 1:
        raise ConfigError(f"saddle needs positive fmax, trust and steps, got {fmax}, {trust} and {steps}")
    require_choice(method, SADDLE_METHODS, "method of saddle search")
    n = len(structure)
    known = None if hessian is None else np.array(hessian, dtype=np.float64)
    if known is not None and known.shape != (n, 3, n, 3):
        raise LabelShapeError(f'structure "{structure.id}": Hessian of shape {known.shape}, expected {(n, 3, n, 3)}')
    if len(_basis(structure)) == 0:
        raise RequestError(f'structure "{structure.id}" has no motion but rigid ones: there is no saddle to find')
    landscape = Landscape(engine, structure)
    if method == "sella":
        return _by_sella(landscape, known, fmax, steps, trust)
    return _by_prfo(landscape, known, fmax, steps, trust)


def _by_prfo(
    landscape: Landscape, known: Float[Array, "n 3 n 3"] | None, fmax: float, steps: int, trust: float
) -> SaddleResult:
    walk, bodies = _Walk(landscape, known, trust), _bodies(landscape.structure)
    settled = checks = taken = 0
    for taken in range(steps + 1):
        settled = walk.fmax < fmax
        if settled:
            walk.take_hessian()
            checks += 1
            if walk.negative == 1 or checks > _CHECKS:
                break
        if taken == steps or _bodies(walk.structure) > bodies:
            break
        walk.step()
    reason = ""
    if _bodies(walk.structure) > bodies:
        reason = f"the structure fell apart after {taken} steps"
    elif not settled:
        reason = f"largest force {walk.fmax:.3g} eV/Å after {taken} steps, asked {fmax:g}"
    hessian = walk.model.reshape((len(landscape.structure), 3) * 2) if settled else None
    gradient = walk.gradient.reshape(-1, 3)
    return _result(landscape, walk.structure, walk.energy, gradient, hessian, taken, reason, walk.way)


def _by_sella(
    landscape: Landscape, known: Float[Array, "n 3 n 3"] | None, fmax: float, steps: int, trust: float
) -> SaddleResult:
    package = require("sella", extra="saddles", purpose='method="sella"')
    structure = landscape.structure
    first = [] if known is None else [known]

    def exact(moved: object) -> Float[Array, "3n 3n"]:
        full = first.pop() if first else landscape.hessian(moved.positions)  # type: ignore[attr-defined]
        return full.reshape(3 * len(structure), -1)

    atoms = to_ase(structure)
    atoms.calc = EngineCalculator(landscape.engine, structure)
    search = package.Sella(
        atoms, order=1, internal=not structure.periodic, logfile=None, delta0=trust, hessian_function=exact
    )
    way: list[tuple[float, float]] = []
    search.attach(lambda: way.append((float(atoms.get_potential_energy()), largest_force(atoms.get_forces()))))
    search.run(fmax=fmax, steps=steps)
    landscape.gradients += int(search.pes.neval)
    energy, gradient = landscape.gradient(atoms.positions)
    largest = largest_force(gradient)
    there, settled = landscape.at(atoms.positions), largest < fmax
    reason = "" if settled else f"largest force {largest:.3g} eV/Å after {search.nsteps} steps, asked {fmax:g}"
    if _bodies(there) > _bodies(structure):
        reason = f"the structure fell apart after {search.nsteps} steps"
    hessian = landscape.hessian(atoms.positions) if settled else None
    return _result(landscape, there, energy, gradient, hessian, int(search.nsteps), reason, way)


def _result(
    landscape: Landscape,
    structure: Structure,
    energy: float,
    gradient: Float[Array, "n 3"],
    hessian: Float[Array, "n 3 n 3"] | None,
    steps: int,
    reason: str,
    way: Sequence[tuple[float, float]],
) -> SaddleResult:
    if hessian is not None and not reason:
        negative = normal_modes(structure, hessian).imaginary
        reason = "" if negative == 1 else f"a stationary point with {negative} negative modes, not one"
    return SaddleResult(
        structure,
        energy,
        -gradient,
        largest_force(gradient),
        hessian,
        steps,
        landscape.gradients,
        landscape.hessians,
        converged=not reason,
        reason=reason,
        record=Convergence.of(way),
    )


class _Walk:
    """One walk: where it is, its quadratic model there, and how far it trusts the model."""

    def __init__(self, landscape: Landscape, known: Float[Array, "n 3 n 3"] | None, trust: float) -> None:
        self.landscape, self.trust = landscape, trust
        self.structure = landscape.structure
        self.energy, gradient = landscape.gradient(self.structure.positions)
        self.gradient = gradient.reshape(-1)
        self.way = [(self.energy, self.fmax)]
        self.followed: Float[Array, "d"] | None = None
        if known is None:
            self.take_hessian()
        else:
            self.model, self.age = known.reshape(self.gradient.size, -1), 0

    @property
    def fmax(self) -> float:
        return largest_force(self.gradient.reshape(-1, 3))

    @property
    def negative(self) -> int:
        """Negative eigenvalues of the model."""
        return int((self._eigen()[0] < 0).sum())

    def take_hessian(self) -> None:
        """Replace the model by the engine's Hessian."""
        self.model = self.landscape.hessian(self.structure.positions).reshape(self.gradient.size, -1)
        self.age = 0

    def step(self) -> None:
        """One step uphill along the followed mode and downhill along all others; not taken when it goes wrong."""
        if self.age >= _REFRESH:
            self.take_hessian()
        values, vectors = self._eigen()
        wanted = scaled_to(partitioned_step(self.gradient, values, vectors), self.trust)
        predicted = float(wanted @ self.gradient + 0.5 * wanted @ self.model @ wanted)
        moved = self.landscape.at(self.structure.positions + wanted.reshape(-1, 3))
        energy, gradient = self.landscape.gradient(moved.positions)
        change = gradient.reshape(-1) - self.gradient
        taken = self._judge(predicted, energy - self.energy, float(np.linalg.norm(wanted)))
        self.model = saddle_update(self.model, wanted, change)
        self.age += 1
        if taken:
            self.structure, self.energy, self.gradient = moved, energy, gradient.reshape(-1)
            self.followed = vectors[:, 0]
            self.way.append((self.energy, self.fmax))

    def _judge(self, predicted: float, actual: float, length: float) -> bool:
        """Trust the model more or less by how well it foretold the energy; whether the step may stand."""
        ratio = actual / predicted if abs(predicted) > 1e-6 else 1.0
        if 0.3 < ratio < 3.0:
            if 0.75 < ratio < 1.33 and length > 0.8 * self.trust:
                self.trust = min(1.5 * self.trust, _LARGEST_TRUST)
            return True
        stands = length <= 1.01 * _SMALLEST_TRUST or 0.0 < ratio < 5.0
        self.trust = max(0.5 * min(self.trust, length), _SMALLEST_TRUST)
        if stands:
            self.age = _REFRESH  # the next step starts from a fresh Hessian
        return stands

    def _eigen(self) -> tuple[Float[Array, "m"], Float[Array, "d m"]]:
        """Eigenpairs of the model in the internal space, the mode to follow first: the lowest one, but while the model
        has no or several negative modes, the one most like the mode followed before."""
        basis = _basis(self.structure)
        values, rows = np.linalg.eigh(basis @ self.model @ basis.T)
        vectors = basis.T @ rows
        if self.followed is not None and (values < 0).sum() != 1:
            best = int(np.abs(self.followed @ vectors).argmax())
            order = [best, *(k for k in range(len(values)) if k != best)]
            values, vectors = values[order], vectors[:, order]
        return values, vectors


def _basis(structure: Structure) -> Float[Array, "d 3n"]:
    return internal_basis(structure, np.ones(len(structure)))


def _bodies(structure: Structure) -> int:
    """How many pieces the structure is in."""
    radii = covalent_radii[structure.numbers]
    pairs = structure.neighbours(float(2.0 * _APART * radii.max()))
    bonded = pairs.distances < _APART * (radii[pairs.first] + radii[pairs.second])
    graph = np.zeros((len(structure), len(structure)))
    graph[pairs.first[bonded], pairs.second[bonded]] = 1.0
    return int(connected_components(graph, directed=False)[0])
