"""The path between two geometries: a nudged elastic band (NEB) with a climbing image.

The method is that of ASE (`ase.mep.NEB`, improved tangents: Henkelman and Jónsson, J. Chem. Phys. 113, 9978 (2000);
climbing image: Henkelman, Uberuaga, Jónsson, J. Chem. Phys. 113, 9901 (2000)), from a start by image-dependent pair
potentials (Smidstrup et al., J. Chem. Phys. 140, 214106 (2014)). What is added here: all images of an iteration are
evaluated together, an error names its image, and the images are kept when a run is interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.datasets import StructuresLike, as_structure, as_structures
from hesse.engines import Engine, EngineLike, as_engine
from hesse.errors import (
    ConfigError,
    EngineError,
    GeometryError,
    HesseError,
    RequestError,
    check_numbers,
    check_whole_numbers,
)
from hesse.pes.band_file import BandFile
from hesse.pes.band_result import NEBResult
from hesse.pes.end_identity import SAME_GEOMETRY
from hesse.pes.geometry_changes import check_same_atoms, displacement, rotation_onto, superposed
from hesse.pes.minimization import minimize
from hesse.pes.points import Point, PointEvaluator
from hesse.pes.reaction_path import PathPoint
from hesse.pes.surface import max_force
from hesse.pes.training_range import extrapolation, warn_if_outside
from hesse.runtime.progress import track
from hesse.structures import Structure, closest_collision, to_ase

__all__ = ["band_tangent", "neb"]

_CLIMB_FACTOR = 5.0
"""The highest image starts to climb when no force exceeds this multiple of the limit."""
_PUSH = 0.1
"""Å; displacement of the middle of a straight path on which atoms collide."""
_IDENTICAL = 1e-3
"""Å; ends that are closer are one geometry. Starts further apart may relax to different minima."""


def neb(
    reactant: StructuresLike,
    product: StructuresLike,
    engine: EngineLike,
    *,
    images: int = 8,
    fmax: float = 0.1,
    steps: int = 200,
    climb: bool = True,
    spring: float = 1.0,
    relax_ends: bool = True,
    start: StructuresLike | None = None,
    keep: str | Path | None = None,
    quiet: bool = True,
) -> NEBResult:
    """Find the path of lowest energy between two geometries.

    The atoms of both ends must be the same in the same order: atom k of the reactant becomes atom k of the product.
    Molecules are superposed first. A model evaluates all images of an iteration in one pass.

    Args:
        reactant: one structure: ASE Atoms, a Structure, or the path of a file with one structure.
        product: the other end.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator.
        images: number of images between the ends.
        fmax: the search ends when no force on an atom of an image exceeds this, eV/Å (forces across the path, and
            springs along it).
        steps: maximal number of iterations.
        climb: whether the highest image climbs to the saddle point.
        spring: stiffness of the springs between images, eV/Å². Soft ones leave images where the path is flat.
        relax_ends: relax the ends first, to 0.01 eV/Å.
        start: the images to start from, without or with the ends; None interpolates.
        keep: a file (.extxyz) in which the images are kept while the search runs. Where it holds the images of an
            interrupted search of the same path, the search continues from them.
        quiet: no progress.

    Returns:
        The images with energies and forces, and whether the search converged; not converging is not an error.

    Raises:
        RequestError: the ends do not have the same atoms (the message says which), or are the same geometry; `start`
            does not fit; not one structure, or not an engine; `keep` belongs to another path.
        ConfigError: `images`, `fmax`, `steps` or `spring` is not positive.
        EngineError: the engine failed; the message names the image.
        GeometryError: atoms collided; the message names the image.
        WriteError: `keep` cannot be written.
    """
    ends, engine = (as_structure(reactant), as_structure(product)), as_engine(engine)
    check_numbers(fmax=fmax, spring=spring)
    check_whole_numbers(images=images, steps=steps)
    if not (np.isfinite(fmax) and fmax > 0 and np.isfinite(spring) and spring > 0) or steps < 1 or images < 1:
        raise ConfigError(
            f"neb needs positive images, fmax, steps and spring, got {images}, {fmax}, {steps} and {spring}"
        )
    check_same_atoms(*ends)
    if start is None:
        _check_apart(*ends, _IDENTICAL, "as given")
    given = None if start is None else as_structures(start)
    n_gradients = 0
    if relax_ends:
        relaxed = [minimize(end, engine, fmax=0.01) for end in ends]
        n_gradients = sum(len(run.history) for run in relaxed)
        ends = relaxed[0].structure, relaxed[1].structure
        if start is None:
            _check_apart(*ends, SAME_GEOMETRY, "once relaxed")
    ends = ends[0], superposed(ends[1], ends[0])
    band = _Band(ends, engine, images, spring, keep)
    initial = band.positions_of(given) if given is not None else band.kept()
    band.place(initial)
    with track("path", steps, quiet=quiet) as advance:
        result = band.optimize(fmax, steps, climb, advance)
    result = replace(result, n_gradients=result.n_gradients + n_gradients)
    warn_if_outside(result.extrapolation, f'structure "{ends[0].id}": a part of the path')
    return result


def _check_apart(first: Structure, second: Structure, distance: float, when: str) -> None:
    """Raise RequestError for ends that are one geometry: the path between them is a point."""
    apart = displacement(first, second)
    if apart.is_below(distance):
        raise RequestError(
            f'structure "{first.id}": reactant and product are the same geometry {when} ({apart.rmsd:.3f} Å apart), so '
            "that there is no path between them. Give another product"
        )


class _Band:
    """The images between two ends while they are optimized."""

    def __init__(
        self,
        ends: tuple[Structure, Structure],
        engine: Engine,
        n_images: int,
        spring: float,
        keep: str | Path | None,
    ) -> None:
        self.ends, self.engine, self.n_images = ends, engine, n_images
        self.evaluate = PointEvaluator(engine)
        self.end_points = [
            self._sound(k, self.evaluate([end])[0]) for k, end in zip((0, n_images + 1), ends, strict=True)
        ]
        self.atoms = [to_ase(ends[0] if k <= n_images else ends[1]) for k in range(n_images + 2)]
        for k, point in ((0, self.end_points[0]), (-1, self.end_points[1])):
            _set_results(self.atoms[k], point)
        self.band = _band_class()(self.atoms, self._evaluate_images, spring)
        self.points: list[Point] = []
        self.positions: list[Float[Array, "n 3"]] = []
        self.file = None if keep is None else BandFile(Path(keep), ends, n_images, engine.level)

    def positions_of(self, given: Sequence[Structure]) -> list[Float[Array, "n 3"]]:
        """Positions of the images of a start that was given. Raises RequestError where they do not fit."""
        inner = list(given[1:-1]) if len(given) == self.n_images + 2 else list(given)
        if len(inner) != self.n_images:
            raise RequestError(
                f"start: expected {self.n_images} images (or {self.n_images + 2} with the ends), got {len(given)}"
            )
        for image in inner:
            check_same_atoms(self.ends[0], image)
        positions, before = [], self.ends[0]
        for image in inner:
            before = superposed(image, before)
            positions.append(before.positions)
        return positions

    def kept(self) -> list[Float[Array, "n 3"]] | None:
        """Positions of the images of an interrupted search; None without one."""
        return None if self.file is None else self.file.read()

    def place(self, positions: Sequence[Float[Array, "n 3"]] | None) -> None:
        """Put the images where the search starts: interpolated where there are no positions."""
        if positions is not None:
            for atoms, x in zip(self.atoms[1:-1], positions, strict=True):
                atoms.positions = x
            return
        from ase.mep.neb import NEB, idpp_interpolate, interpolate

        interpolate(self.atoms)  # linear; both ends are in the same frame, and in the same cell image
        inner, n = self.atoms[1:-1], len(self.ends[0])
        if any(closest_collision(self.ends[0].with_positions(atoms.positions)) for atoms in inner):
            # Atoms that pass through each other on a line leave it only if something pushes them aside.
            aside = np.random.default_rng(0).normal(size=(n, 3))
            for k, atoms in enumerate(inner, 1):
                atoms.positions += _PUSH * np.sin(np.pi * k / (len(inner) + 1)) * aside
        copies = [atoms.copy() for atoms in self.atoms]
        idpp_interpolate(NEB(copies, method="improvedtangent"), traj=None, log=None, mic=self.ends[0].periodic)
        for atoms, copy in zip(inner, copies[1:-1], strict=True):
            atoms.positions = copy.positions

    def optimize(self, fmax: float, steps: int, climb: bool, advance: Any) -> NEBResult:
        """Optimize the images, and keep them where the search ends in any other way than by itself."""
        try:
            n_steps, largest = self._optimize(fmax, steps, climb, advance)
        except BaseException:
            self._keep()
            raise
        self._keep()
        return self._result(n_steps, largest, fmax)

    def _optimize(self, fmax: float, steps: int, climb: bool, advance: Any) -> tuple[int, float]:
        from ase.optimize import BFGS

        search, n_steps = BFGS(self.band, logfile=None), 0
        # A band climbs only once it is near the path: before, the highest image is often not where the saddle is.
        for limit, climbing in ((_CLIMB_FACTOR * fmax, False), (fmax, True)) if climb else ((fmax, False),):
            self.band.climb = climbing
            while (largest := max_force(self.band.get_forces())) >= limit and n_steps < steps:
                search.step()
                n_steps += 1
                advance(1, note=f"largest force {largest:.2f} eV/Å")
        return n_steps, largest

    def _evaluate_images(self) -> None:
        """Compute energies and forces of all images whose positions changed."""
        inner = self.atoms[1:-1]
        if self.points and all(np.array_equal(a.positions, x) for a, x in zip(inner, self.positions, strict=True)):
            return
        moved = self._aligned(inner)
        points = [self._sound(k, point) for k, point in enumerate(self.evaluate(moved), 1)]
        self.points, self.positions = points, [np.array(a.positions) for a in inner]
        for atoms, point in zip(inner, points, strict=True):
            _set_results(atoms, point)
        if self.file is not None and self.file.due:
            self._keep()

    def _aligned(self, inner: Sequence[Atoms]) -> list[Structure]:
        """The images, each superposed on the one before: rigid motions would pull at the springs."""
        moved, before = [], self.ends[0]
        for atoms in inner:
            before = superposed(self.ends[0].with_positions(atoms.positions, id=self.ends[0].id), before)
            atoms.positions = before.positions
            moved.append(before)
        if not before.periodic:
            turned = superposed(self.ends[1], before)
            self.end_points[1] = Point(
                self.end_points[1].energy, self.end_points[1].gradient @ rotation_onto(self.ends[1], turned)
            )
            self.ends = self.ends[0], turned
            self.atoms[-1].positions = turned.positions
            _set_results(self.atoms[-1], self.end_points[1])
        return moved

    def _sound(self, index: int, point: Point | HesseError) -> Point:
        if isinstance(point, Point):
            return point
        which = {0: "the reactant", self.n_images + 1: "the product"}.get(index, f"image {index} of {self.n_images}")
        kind = GeometryError if isinstance(point, GeometryError) else EngineError
        if isinstance(point, RequestError) and not isinstance(point, GeometryError):
            raise point
        raise kind(f"the path failed at {which}: {point}") from point

    def _keep(self) -> None:
        if self.file is not None and self.points:
            self.file.write(self._path_points())

    def _path_points(self) -> tuple[PathPoint, ...]:
        positions = [self.ends[0].positions, *self.positions, self.ends[1].positions]
        points = [self.end_points[0], *self.points, self.end_points[1]]
        masses = np.sqrt(self.ends[0].atomic_masses)[:, None]
        lengths = np.cumsum([0.0, *(float(np.linalg.norm(masses * d)) for d in np.diff(positions, axis=0))])
        first = self.ends[0]
        return tuple(
            PathPoint(
                first.with_positions(x, id=f"{first.id}/neb/{k:02d}", tag="neb"),
                point.energy,
                -point.gradient,
                max_force(point.gradient),
                float(length),
            )
            for k, (x, point, length) in enumerate(zip(positions, points, lengths, strict=True))
        )

    def _result(self, n_steps: int, largest: float, fmax: float) -> NEBResult:
        images = self._path_points()
        highest = 1 + int(np.argmax([point.energy for point in self.points]))
        converged = largest < fmax
        return NEBResult(
            images,
            highest,
            band_tangent(
                [image.structure.positions for image in images[highest - 1 : highest + 2]],
                [image.energy for image in images[highest - 1 : highest + 2]],
            ),
            n_steps,
            largest,
            converged,
            "" if converged else f"largest force {largest:.3g} eV/Å after {n_steps} iterations, limit {fmax:g}",
            self.evaluate.n_gradients,
            displacement(*self.ends),
            extrapolation(self.engine, *(image.structure for image in images)),
        )


def band_tangent(positions: Sequence[Float[Array, "n 3"]], energies: ArrayLike) -> Float[Array, "n 3"]:
    """Direction of a path at an image: the mean of the directions to its neighbors, weighted towards the higher one
    (Henkelman and Jónsson 2000).

    Args:
        positions: Å, of the image before, the image itself and the one after.
        energies: eV, of the same three.

    Returns:
        The direction, of length one over all atoms, `[n, 3]`.
    """
    (x0, x1, x2), (e0, e1, e2) = positions, np.asarray(energies, dtype=float)
    low, high = sorted((abs(e2 - e1), abs(e0 - e1)))
    forward, backward = x2 - x1, x1 - x0
    tangent = high * forward + low * backward if e2 > e0 else low * forward + high * backward
    length = float(np.linalg.norm(tangent))
    result: Float[Array, "n 3"] = (
        tangent / length if length > 0 else forward / max(float(np.linalg.norm(forward)), 1e-12)
    )
    return result


def _set_results(atoms: Atoms, point: Point) -> None:
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms.calc = SinglePointCalculator(atoms, energy=point.energy, forces=-point.gradient)


@cache
def _band_class() -> Any:
    """The class of bands, defined late: ASE's is slow to import."""
    from ase.mep.neb import NEB

    class Band(NEB):
        """ASE's band, all of whose images are evaluated together."""

        def __init__(self, images: list[Atoms], evaluate: Any, spring: float) -> None:
            super().__init__(images, k=spring, climb=False, method="improvedtangent")
            self.evaluate_images = evaluate

        def get_forces(self) -> Float[Array, "d 3"]:
            """Forces on the images, as the optimizers of ASE ask for them."""
            self.evaluate_images()
            return super().get_forces()

    return Band
