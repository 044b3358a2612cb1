"""First-order saddle points: transition states of reactions.

There are two methods. "prfo" is implemented here: partitioned rational-function optimization in Cartesian coordinates
without rigid motions, with the full Hessian of the engine at the start, every few steps and whenever the quadratic
model fails; in between the Hessian is updated. "sella" uses the package Sella (Hermes, Sargsyan, Najm, Zádor, JCTC 18,
6974 (2022)), which works in internal coordinates and starts from the Hessian of the engine. The results of both are
checked with the Hessian of the engine at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.datasets import StructuresLike, as_structure
from hesse.engines import EngineCalculator, EngineLike, as_engine
from hesse.errors import ConfigError, RequestError, check_choice, check_numbers, check_whole_numbers
from hesse.harmonic.normal_modes import NormalModes, internal_basis, normal_modes
from hesse.pes.geometry_changes import Displacement, displacement
from hesse.pes.quasi_newton import limit_length, prfo_step, ts_bfgs_update
from hesse.pes.surface import CountedSurface, OptimizationHistory, atoms_with_results, max_force
from hesse.pes.training_range import extrapolation, warn_if_outside
from hesse.runtime.imports import import_optional
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Extrapolation, Structure, hessian_array, to_ase

__all__ = ["SADDLE_METHODS", "SaddleResult", "saddle"]

SADDLE_METHODS = ("prfo", "sella")
"""Methods of saddle search."""

_HESSIAN_INTERVAL = 5
"""Steps between full Hessians."""
_MIN_TRUST, _MAX_TRUST = 0.01, 0.25
"""Å; bounds of the trust radius."""
_FRAGMENT_FACTOR = 3.0
"""Atoms within this multiple of the sum of their covalent radii belong to one fragment."""
_MODE_ATOMS, _MODE_SHARE = 4, 0.1
"""Largest number of atoms that are named of a mode, and the least part of its squared displacements that each has."""
_MAX_CHECKS = 5
"""How often a search may reach a stationary point that is not a first-order saddle, and continue."""


@dataclass(frozen=True, eq=False, repr=False)
class SaddleResult(ShortRepr):
    """The result of a saddle search.

    Attributes:
        structure: the last geometry; id, tag and group are those of the start.
        energy: eV.
        forces: eV/Å, `[n, 3]`.
        fmax: largest force on an atom, eV/Å.
        hessian: the Hessian of the engine at `structure`, eV/Å², `[n, 3, n, 3]`; None where forces did not converge.
        steps: number of steps taken.
        n_gradients: number of gradients computed.
        n_hessians: number of Hessians computed.
        converged: whether forces are below the limit and exactly one mode is negative.
        reason: the reason of not converging; empty otherwise.
        history: energy and largest force of every accepted geometry.
        displacement: how far `structure` is from the start, and the bonds that changed on the way. A saddle far from
            the start, or far below it, is often another one than was meant.
        extrapolation: how far `structure` is from the training data of a model; None for other engines, and for models
            that keep no summary of them.
    """

    structure: Structure
    energy: float
    forces: Float[Array, "n 3"]
    fmax: float
    hessian: Float[Array, "n 3 n 3"] | None
    steps: int
    n_gradients: int
    n_hessians: int
    converged: bool
    reason: str
    history: OptimizationHistory
    displacement: Displacement
    extrapolation: Extrapolation | None = None

    @property
    def energy_change(self) -> float:
        """Energy of `structure` minus that of the start, eV."""
        return self.energy - float(self.history.energies[0])

    @property
    def mode_atoms(self) -> tuple[int, ...]:
        """Indices of the atoms that move most in the reaction mode, the first most; empty without a Hessian."""
        modes = self.modes
        if modes is None or not len(modes):
            return ()
        shares = (modes.cartesian[0] ** 2).sum(axis=1)
        order = np.argsort(-shares, kind="stable")[:_MODE_ATOMS]
        return tuple(int(i) for i in order if shares[i] > _MODE_SHARE * shares.sum())

    @property
    def modes(self) -> NormalModes | None:
        """Normal modes at `structure`, the reaction mode first; None where there is no Hessian."""
        return None if self.hessian is None else normal_modes(self.structure, self.hessian)

    def to_ase(self) -> Atoms:
        """Convert to ASE.

        Returns:
            The last geometry, whose calculator holds energy (eV) and forces (eV/Å).
        """
        return atoms_with_results(self.structure, self.energy, self.forces)


def saddle(
    structure: StructuresLike,
    engine: EngineLike,
    *,
    method: Literal["prfo", "sella"] = "prfo",
    hessian: ArrayLike | None = None,
    fmax: float = 0.005,
    steps: int = 200,
    trust: float = 0.1,
) -> SaddleResult:
    """Search for a transition state: a first-order saddle point near a guess.

    The lowest mode at the start is followed uphill, then in every step the mode most similar to the one followed
    before. Translations and, for structures that are not periodic, rotations are excluded; a cell stays as it is.

    Args:
        structure: the guess, one structure: ASE Atoms, a Structure, or the path of a file with one structure.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator.
        method: "prfo" or "sella", see the module.
        hessian: the Hessian at `structure`, eV/Å², `[n, 3, n, 3]`; None computes it.
        fmax: the search ends when no force on an atom exceeds this, eV/Å.
        steps: maximal number of steps.
        trust: maximal length of the first step over all coordinates, Å.

    Returns:
        The last geometry with its energy, forces and Hessian, and whether it is a first-order saddle point; not
        converging is not an error, the result has the reason.

    Raises:
        ConfigError: `fmax`, `steps` or `trust` is not positive.
        UnknownOptionError: an unknown method.
        LabelShapeError, LabelValueError: the Hessian has a wrong shape, or is not finite.
        RequestError: a structure that has rigid motions only; not one structure, or not an engine.
        MissingExtraError: Sella is not installed.
        EngineError: the engine failed.
        GeometryError: atoms collided.
    """
    structure, engine = as_structure(structure), as_engine(engine)
    check_numbers(fmax=fmax, trust=trust)
    check_whole_numbers(steps=steps)
    if not (np.isfinite(fmax) and fmax > 0 and np.isfinite(trust) and trust > 0) or steps < 1:
        raise ConfigError(f"saddle needs positive fmax, trust and steps, got {fmax}, {trust} and {steps}")
    check_choice(method, SADDLE_METHODS, "method of saddle search")
    initial_hessian = None if hessian is None else hessian_array(structure, hessian)
    if len(_internal_basis(structure)) == 0:
        raise RequestError(f'structure "{structure.id}" has rigid motions only: it has no saddle point')
    surface = CountedSurface(engine, structure)
    search = _by_sella if method == "sella" else _by_prfo
    result = search(surface, initial_hessian, fmax, steps, trust)
    warn_if_outside(result.extrapolation, f'structure "{structure.id}": the last geometry of the search')
    return result


def _by_prfo(
    surface: CountedSurface, initial_hessian: Float[Array, "n 3 n 3"] | None, fmax: float, steps: int, trust: float
) -> SaddleResult:
    search, n_fragments = _PRFOSearch(surface, initial_hessian, trust), _n_fragments(surface.structure)
    converged = checks = n_steps = 0
    for n_steps in range(steps + 1):
        converged = search.fmax < fmax
        if converged:
            search.recompute_hessian()
            checks += 1
            if search.n_negative == 1 or checks > _MAX_CHECKS:
                break
        if n_steps == steps or _n_fragments(search.structure) > n_fragments:
            break
        search.step()
    reason = ""
    if _n_fragments(search.structure) > n_fragments:
        reason = f"the structure fell apart after {n_steps} steps"
    elif not converged:
        reason = f"largest force {search.fmax:.3g} eV/Å after {n_steps} steps, limit {fmax:g}"
    hessian = search.model.reshape((len(surface.structure), 3) * 2) if converged else None
    gradient = search.gradient.reshape(-1, 3)
    return _result(surface, search.structure, search.energy, gradient, hessian, n_steps, reason, search.history)


def _by_sella(
    surface: CountedSurface, initial_hessian: Float[Array, "n 3 n 3"] | None, fmax: float, steps: int, trust: float
) -> SaddleResult:
    package = import_optional("sella", extra="saddles", purpose='method="sella"')
    structure = surface.structure
    first = [] if initial_hessian is None else [initial_hessian]

    def exact_hessian(moved: object) -> Float[Array, "3n 3n"]:
        full = first.pop() if first else surface.hessian(moved.positions)  # type: ignore[attr-defined]
        return full.reshape(3 * len(structure), -1)

    atoms = to_ase(structure)
    atoms.calc = EngineCalculator(surface.engine, structure)
    search = package.Sella(
        atoms, order=1, internal=not structure.periodic, logfile=None, delta0=trust, hessian_function=exact_hessian
    )
    history: list[tuple[float, float]] = []
    search.attach(lambda: history.append((float(atoms.get_potential_energy()), max_force(atoms.get_forces()))))
    search.run(fmax=fmax, steps=steps)
    surface.n_gradients += int(search.pes.neval)
    energy, gradient = surface.gradient(atoms.positions)
    largest = max_force(gradient)
    final, converged = surface.structure_at(atoms.positions), largest < fmax
    reason = "" if converged else f"largest force {largest:.3g} eV/Å after {search.nsteps} steps, limit {fmax:g}"
    if _n_fragments(final) > _n_fragments(structure):
        reason = f"the structure fell apart after {search.nsteps} steps"
    hessian = surface.hessian(atoms.positions) if converged else None
    return _result(surface, final, energy, gradient, hessian, int(search.nsteps), reason, history)


def _result(
    surface: CountedSurface,
    structure: Structure,
    energy: float,
    gradient: Float[Array, "n 3"],
    hessian: Float[Array, "n 3 n 3"] | None,
    steps: int,
    reason: str,
    history: Sequence[tuple[float, float]],
) -> SaddleResult:
    if hessian is not None and not reason:
        n_negative = normal_modes(structure, hessian).n_imaginary
        reason = "" if n_negative == 1 else f"a stationary point with {n_negative} negative modes, not one"
    return SaddleResult(
        structure,
        energy,
        -gradient,
        max_force(gradient),
        hessian,
        steps,
        surface.n_gradients,
        surface.n_hessians,
        converged=not reason,
        reason=reason,
        history=OptimizationHistory.from_points(history),
        displacement=displacement(surface.structure, structure),
        extrapolation=extrapolation(surface.engine, structure),
    )


class _PRFOSearch:
    """State of a search: current geometry, quadratic model and trust radius."""

    def __init__(self, surface: CountedSurface, initial_hessian: Float[Array, "n 3 n 3"] | None, trust: float) -> None:
        self.surface, self.trust = surface, trust
        self.structure = surface.structure
        self.energy, gradient = surface.gradient(self.structure.positions)
        self.gradient = gradient.reshape(-1)
        self.history = [(self.energy, self.fmax)]
        self.followed_mode: Float[Array, "d"] | None = None
        if initial_hessian is None:
            self.recompute_hessian()
        else:
            self.model, self.hessian_age = initial_hessian.reshape(self.gradient.size, -1), 0

    @property
    def fmax(self) -> float:
        return max_force(self.gradient.reshape(-1, 3))

    @property
    def n_negative(self) -> int:
        """Negative eigenvalues of the model."""
        return int((self._eigenpairs()[0] < 0).sum())

    def recompute_hessian(self) -> None:
        """Replace the model by the engine's Hessian."""
        self.model = self.surface.hessian(self.structure.positions).reshape(self.gradient.size, -1)
        self.hessian_age = 0

    def step(self) -> None:
        """One step uphill along the followed mode and downhill along the others; rejected where the model fails."""
        if self.hessian_age >= _HESSIAN_INTERVAL:
            self.recompute_hessian()
        values, vectors = self._eigenpairs()
        displacement = limit_length(prfo_step(self.gradient, values, vectors), self.trust)
        predicted = float(displacement @ self.gradient + 0.5 * displacement @ self.model @ displacement)
        trial = self.surface.structure_at(self.structure.positions + displacement.reshape(-1, 3))
        energy, gradient = self.surface.gradient(trial.positions)
        gradient_change = gradient.reshape(-1) - self.gradient
        accepted = self._update_trust(predicted, energy - self.energy, float(np.linalg.norm(displacement)))
        self.model = ts_bfgs_update(self.model, displacement, gradient_change)
        self.hessian_age += 1
        if accepted:
            self.structure, self.energy, self.gradient = trial, energy, gradient.reshape(-1)
            self.followed_mode = vectors[:, 0]
            self.history.append((self.energy, self.fmax))

    def _update_trust(self, predicted: float, actual: float, length: float) -> bool:
        """Adapt the trust radius to the error of the predicted energy; return whether the step is accepted."""
        ratio = actual / predicted if abs(predicted) > 1e-6 else 1.0
        if 0.3 < ratio < 3.0:
            if 0.75 < ratio < 1.33 and length > 0.8 * self.trust:
                self.trust = min(1.5 * self.trust, _MAX_TRUST)
            return True
        accepted = length <= 1.01 * _MIN_TRUST or 0.0 < ratio < 5.0
        self.trust = max(0.5 * min(self.trust, length), _MIN_TRUST)
        if accepted:
            self.hessian_age = _HESSIAN_INTERVAL  # the next step starts from a fresh Hessian
        return accepted

    def _eigenpairs(self) -> tuple[Float[Array, "m"], Float[Array, "d m"]]:
        """Eigenpairs of the model in the internal space, the mode to follow first. That is the lowest one, or, while
        the model has no or several negative modes, the one most similar to the mode followed before."""
        basis = _internal_basis(self.structure)
        values, rows = np.linalg.eigh(basis @ self.model @ basis.T)
        vectors = basis.T @ rows
        if self.followed_mode is not None and (values < 0).sum() != 1:
            best = int(np.abs(self.followed_mode @ vectors).argmax())
            order = [best, *(k for k in range(len(values)) if k != best)]
            values, vectors = values[order], vectors[:, order]
        return values, vectors


def _internal_basis(structure: Structure) -> Float[Array, "d 3n"]:
    return internal_basis(structure, np.ones(len(structure)))


def _n_fragments(structure: Structure) -> int:
    """Number of fragments of the structure."""
    from scipy.sparse.csgraph import connected_components

    radii = covalent_radii[structure.numbers]
    pairs = structure.neighbors(float(2.0 * _FRAGMENT_FACTOR * radii.max()))
    bonded = pairs.distances < _FRAGMENT_FACTOR * (radii[pairs.centers] + radii[pairs.neighbors])
    graph = np.zeros((len(structure), len(structure)))
    graph[pairs.centers[bonded], pairs.neighbors[bonded]] = 1.0
    return int(connected_components(graph, directed=False)[0])
