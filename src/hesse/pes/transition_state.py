"""First-order saddle points: transition states of reactions.

There are three methods. "prfo" is implemented here: partitioned rational-function optimization in Cartesian coordinates
without rigid motions, with the full Hessian of the engine at the start, every few steps and whenever the quadratic
model fails; in between the Hessian is updated. "davidson" is the same for large systems: without Hessians, with the
lowest modes by Hessian-vector products, and springs between neighboring atoms for all others. "sella" uses the package
Sella (Hermes, Sargsyan, Najm, Zádor, JCTC 18, 6974 (2022)), which works in internal coordinates and starts from the
Hessian of the engine. All results are checked with the Hessian, or the lowest modes, of the engine at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.curvature import LowestModes
from hesse.datasets import StructuresLike, as_structure
from hesse.engines import EngineCalculator, EngineLike, as_engine
from hesse.errors import ConfigError, RequestError, check_choice, check_numbers, check_whole_numbers
from hesse.harmonic.normal_modes import internal_basis, normal_modes
from hesse.pes.band_result import NEBResult
from hesse.pes.geometry_changes import displacement
from hesse.pes.quasi_newton import limit_length, prfo_step, ts_bfgs_update
from hesse.pes.saddle_curvature import ExactCurvature, LowestCurvature, SaddleCurvature
from hesse.pes.saddle_result import SaddleResult
from hesse.pes.surface import CountedSurface, OptimizationHistory, max_force
from hesse.pes.training_range import extrapolation, warn_if_outside
from hesse.runtime.imports import import_optional
from hesse.structures import Structure, hessian_array, species_radii, to_ase

__all__ = ["SADDLE_METHODS", "SaddleResult", "saddle"]

SADDLE_METHODS = ("prfo", "davidson", "sella")
"""Methods of saddle search."""

_HESSIAN_INTERVAL = 5
"""Steps between full Hessians."""
_MIN_TRUST, _MAX_TRUST = 0.01, 0.25
"""Å; bounds of the trust radius."""
_FRAGMENT_FACTOR = 3.0
"""Atoms within this multiple of the sum of their covalent radii belong to one fragment."""
_MAX_CHECKS = 5
"""How often a search may reach a stationary point that is not a first-order saddle, and continue."""


def saddle(
    structure: StructuresLike | NEBResult,
    engine: EngineLike,
    *,
    method: Literal["prfo", "davidson", "sella"] = "prfo",
    hessian: ArrayLike | None = None,
    mode: ArrayLike | int | None = None,
    fmax: float = 0.005,
    steps: int = 200,
    trust: float = 0.1,
) -> SaddleResult:
    """Search for a transition state: a first-order saddle point near a guess.

    The lowest mode at the start (or the one asked for) is followed uphill, then in every step the mode most similar to
    the one followed before. Translations and, for structures that are not periodic, rotations are excluded; a cell
    stays as it is.

    Args:
        structure: the guess, one structure: ASE Atoms, a Structure, or the path of a file with one structure; or the
            result of `neb`, whose highest image it is, with the direction of the path as mode.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator.
        method: "prfo", "davidson" (without full Hessians, for large systems) or "sella", see the module.
        hessian: the Hessian at `structure`, eV/Å², `[n, 3, n, 3]`; None computes it. Not for "davidson".
        mode: the mode to follow: a direction `[n, 3]`, such as that of a path, which decides where the Hessian has no
            negative mode or several; or the number of a mode of the Hessian at the start (0 is the lowest), which is
            followed in any case. Not for "sella", which finds its own.
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
        RequestError: a structure that has rigid motions only; a mode that it does not have; options that the method
            does not have; not one structure, or not an engine.
        MissingExtraError: Sella is not installed.
        EngineError: the engine failed.
        GeometryError: atoms collided.
    """
    if isinstance(structure, NEBResult):
        mode = structure.tangent if mode is None and method != "sella" else mode
        structure = structure.top.structure
    structure, engine = as_structure(structure), as_engine(engine)
    check_numbers(fmax=fmax, trust=trust)
    check_whole_numbers(steps=steps)
    if not (np.isfinite(fmax) and fmax > 0 and np.isfinite(trust) and trust > 0) or steps < 1:
        raise ConfigError(f"saddle needs positive fmax, trust and steps, got {fmax}, {trust} and {steps}")
    check_choice(method, SADDLE_METHODS, "method of saddle search")
    initial_hessian = None if hessian is None else hessian_array(structure, hessian)
    if len(_internal_basis(structure)) == 0:
        raise RequestError(f'structure "{structure.id}" has rigid motions only: it has no saddle point')
    if (method == "sella" and mode is not None) or (method == "davidson" and initial_hessian is not None):
        raise RequestError(f'method "{method}" takes no {"mode" if method == "sella" else "Hessian"}: leave it out')
    surface = CountedSurface(engine, structure)
    if method == "sella":
        result = _by_sella(surface, initial_hessian, fmax, steps, trust)
    else:
        curvature = LowestCurvature(surface) if method == "davidson" else ExactCurvature(surface)
        followed = None if mode is None else _checked_mode(structure, mode)
        result = _by_prfo(surface, curvature, initial_hessian, followed, fmax, steps, trust)
    warn_if_outside(result.extrapolation, f'structure "{structure.id}": the last geometry of the search')
    return result


def _checked_mode(structure: Structure, mode: ArrayLike | int) -> Float[Array, "d"] | int:
    """The mode to follow, of length one without rigid motions, or its number. Raises RequestError."""
    basis = _internal_basis(structure)
    if isinstance(mode, int | np.integer) and not isinstance(mode, bool):
        if not 0 <= mode < len(basis):
            raise RequestError(f'structure "{structure.id}" has the modes 0 to {len(basis) - 1}, not {mode}')
        return int(mode)
    try:
        direction = np.asarray(mode, dtype=float)
    except (TypeError, ValueError):
        direction = np.zeros(0)
    if direction.shape != (len(structure), 3) or not np.isfinite(direction).all():
        raise RequestError(f"mode: expected a number, or a finite direction [{len(structure)}, 3], got {mode!r}")
    internal: Float[Array, "d"] = basis.T @ (basis @ direction.reshape(-1))
    length = float(np.linalg.norm(internal))
    if length < 1e-6 * max(float(np.linalg.norm(direction)), 1e-12):
        raise RequestError("mode: the direction is zero, or moves the structure as a whole")
    return internal / length


def _by_prfo(
    surface: CountedSurface,
    curvature: SaddleCurvature,
    initial_hessian: Float[Array, "n 3 n 3"] | None,
    mode: Float[Array, "d"] | int | None,
    fmax: float,
    steps: int,
    trust: float,
) -> SaddleResult:
    search = _PRFOSearch(surface, curvature, initial_hessian, mode, trust)
    n_fragments = _n_fragments(surface.structure)
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
    gradient, hessian, lowest = search.gradient.reshape(-1, 3), None, None
    if converged and isinstance(curvature, LowestCurvature):
        lowest = curvature.lowest(search.structure, search.followed_mode)
    elif converged:
        hessian = search.model.reshape((len(surface.structure), 3) * 2)
    result = _result(surface, search.structure, search.energy, gradient, hessian, n_steps, reason, search.history)
    if not isinstance(curvature, LowestCurvature):
        return result
    if lowest is not None and not reason:
        reason = _order_by_modes(lowest)
    return replace(result, reason=reason, converged=not reason, lowest_modes=lowest, n_products=curvature.n_products)


def _order_by_modes(lowest: LowestModes) -> str:
    """Why a stationary point with these lowest modes is no first-order saddle point; empty if it is one."""
    if not lowest.converged.all():
        return f"its lowest modes did not converge (residual {lowest.residuals.max():.2g} eV/(Å² u))"
    n_negative = int((lowest.eigenvalues < 0).sum())
    return "" if n_negative == 1 else f"a stationary point with {n_negative} negative modes, not one"


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

    def __init__(
        self,
        surface: CountedSurface,
        curvature: SaddleCurvature,
        initial_hessian: Float[Array, "n 3 n 3"] | None,
        mode: Float[Array, "d"] | int | None,
        trust: float,
    ) -> None:
        self.surface, self.curvature, self.trust = surface, curvature, trust
        self.structure = surface.structure
        self.energy, gradient = surface.gradient(self.structure.positions)
        self.gradient = gradient.reshape(-1)
        self.history = [(self.energy, self.fmax)]
        self.followed_mode: Float[Array, "d"] | None = None if isinstance(mode, int) else mode
        self.by_number = isinstance(mode, int)
        self.known_model: Float[Array, "d d"] | None = None
        if initial_hessian is None:
            self.recompute_hessian()
        else:
            self.model, self.hessian_age = initial_hessian.reshape(self.gradient.size, -1), 0
        if isinstance(mode, int):
            self.followed_mode = self._ascending()[1][:, mode]

    @property
    def fmax(self) -> float:
        return max_force(self.gradient.reshape(-1, 3))

    @property
    def n_negative(self) -> int:
        """Negative eigenvalues of the model."""
        return int((self._eigenpairs()[0] < 0).sum())

    def recompute_hessian(self) -> None:
        """Replace the model by the engine's Hessian."""
        self.model = self.curvature.model(self.structure, self.followed_mode, self.known_model)
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
        self.model = self.known_model = ts_bfgs_update(self.model, displacement, gradient_change)
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

    def _ascending(self) -> tuple[Float[Array, "m"], Float[Array, "d m"]]:
        """Eigenpairs of the model in the internal space."""
        basis = _internal_basis(self.structure)
        values, rows = np.linalg.eigh(basis @ self.model @ basis.T)
        return values, basis.T @ rows

    def _eigenpairs(self) -> tuple[Float[Array, "m"], Float[Array, "d m"]]:
        """Eigenpairs, the mode to follow first. That is the lowest one, or, while the model has no or several negative
        modes, the one most similar to the mode followed before. A mode that was asked for by its number is followed
        until it is the only negative one."""
        values, vectors = self._ascending()
        if self.followed_mode is None:
            return values, vectors
        best = int(np.abs(self.followed_mode @ vectors).argmax())
        one_negative = (values < 0).sum() == 1
        self.by_number = self.by_number and not (one_negative and best == 0)
        if one_negative and not self.by_number:
            return values, vectors
        order = [best, *(k for k in range(len(values)) if k != best)]
        return values[order], vectors[:, order]


def _internal_basis(structure: Structure) -> Float[Array, "d 3n"]:
    return internal_basis(structure, np.ones(len(structure)))


def _n_fragments(structure: Structure) -> int:
    """Number of fragments of the structure."""
    from scipy.sparse.csgraph import connected_components

    radii = species_radii(structure.numbers)
    pairs = structure.neighbors(float(2.0 * _FRAGMENT_FACTOR * radii.max()))
    bonded = pairs.distances < _FRAGMENT_FACTOR * (radii[pairs.centers] + radii[pairs.neighbors])
    graph = np.zeros((len(structure), len(structure)))
    graph[pairs.centers[bonded], pairs.neighbors[bonded]] = 1.0
    return int(connected_components(graph, directed=False)[0])
