"""Harmonic vibrations of a structure with any engine: frequencies, normal modes and zero-point energy."""

from __future__ import annotations

from dataclasses import dataclass

from ase import Atoms
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.datasets import StructuresLike, as_structure
from hesse.engines import EngineLike, as_engine
from hesse.errors import EngineError, RequestError
from hesse.harmonic.normal_modes import NormalModes, normal_modes
from hesse.pes.minimization import minimize as relax
from hesse.pes.surface import atoms_with_results, max_force
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Request, Structure, hessian_array

__all__ = ["Vibrations", "vibrations"]


@dataclass(frozen=True, eq=False, repr=False)
class Vibrations(ShortRepr):
    """Harmonic vibrations of one structure.

    Attributes:
        structure: the geometry.
        level: level of theory of the engine.
        energy: eV.
        forces: eV/Å, `[n, 3]`.
        hessian: eV/Å², `[n, 3, n, 3]`.
        modes: normal modes, in order of their frequency.
    """

    structure: Structure
    level: str
    energy: float
    forces: Float[Array, "n 3"]
    hessian: Float[Array, "n 3 n 3"]
    modes: NormalModes

    @property
    def frequencies(self) -> Float[Array, "modes"]:
        """Harmonic frequencies in ascending order, cm⁻¹; imaginary ones are negative."""
        return self.modes.frequencies

    @property
    def n_imaginary(self) -> int:
        """Number of imaginary modes: 0 at a minimum, 1 at a transition state."""
        return self.modes.n_imaginary

    @property
    def zpe(self) -> float:
        """Zero-point energy: half the sum of the real frequencies, eV. Imaginary modes do not contribute."""
        return self.modes.zero_point_energy

    @property
    def linear(self) -> bool:
        """Whether the structure is a linear molecule, which has 3n−5 vibrations."""
        return self.modes.n_rigid == 5

    @property
    def fmax(self) -> float:
        """Largest force on an atom, eV/Å. Frequencies are meaningful only where it is small."""
        return max_force(self.forces)

    def table(self) -> str:
        """Format the frequencies as a text table.

        Returns:
            One line per mode, and a summary; imaginary frequencies end with "i".
        """
        lines = [f"{self.structure.id}, {self.level}", "mode      cm⁻¹"]
        for k, frequency in enumerate(self.frequencies, 1):
            lines.append(f"{k:4d}  {abs(frequency):8.1f}{'i' if frequency < 0 else ''}")
        lines.append(f"zero-point energy {self.zpe:.4f} eV, {self.n_imaginary} imaginary")
        lines.append(f"largest force {self.fmax:.2g} eV/Å")
        return "\n".join(lines)

    def to_ase(self) -> Atoms:
        """Convert to ASE.

        Returns:
            The geometry, whose calculator holds energy (eV) and forces (eV/Å).
        """
        return atoms_with_results(self.structure, self.energy, self.forces)


def vibrations(
    structure: StructuresLike,
    engine: EngineLike,
    *,
    hessian: ArrayLike | None = None,
    minimize: bool = False,
    fmax: float = 0.005,
    steps: int = 500,
    masses: ArrayLike | None = None,
) -> Vibrations:
    """Compute harmonic vibrations from the full Hessian of an engine.

    Translations and, for molecules, rotations are projected out.

    Args:
        structure: one structure: ASE Atoms, a Structure, the result of `minimize` or `saddle`, or the path of a file
            with one structure.
        engine: a name (`gfn2`), the path of a model, an Engine, a Potential or an ASE calculator.
        hessian: the Hessian at `structure`, eV/Å², `[n, 3, n, 3]`; None computes it.
        minimize: relax the structure first.
        fmax: limit of the largest force after relaxation, eV/Å.
        steps: maximal number of steps of the relaxation.
        masses: masses in u, `[n]`; ASE's standard atomic weights by default.

    Returns:
        Frequencies (cm⁻¹), normal modes and the zero-point energy (eV).

    Raises:
        RequestError: not one structure, or not an engine; a Hessian together with `minimize`.
        LabelShapeError, LabelValueError: the Hessian has a wrong shape, or is not finite.
        EngineError: the engine failed, or the relaxation did not converge.
        GeometryError: atoms collided.
    """
    structure, engine = as_structure(structure), as_engine(engine)
    known = None if hessian is None else hessian_array(structure, hessian)
    if minimize:
        if known is not None:
            raise RequestError("a Hessian was given for a structure that is to be relaxed: leave out one of the two")
        relaxation = relax(structure, engine, fmax=fmax, steps=steps)
        if not relaxation.converged:
            raise EngineError(
                f'structure "{structure.id}": not relaxed after {relaxation.steps} steps (largest force '
                f"{relaxation.fmax:.3g} eV/Å, limit {fmax:g}): give more steps, or relax it before"
            )
        structure = relaxation.structure
    results = engine.compute(structure, Request(forces=True, hessian=known is None))
    assert results.energy is not None
    assert results.forces is not None
    full_hessian = results.hessian_of(0).numpy() if known is None else known
    return Vibrations(
        structure,
        engine.level,
        float(results.energy[0]),
        results.forces.numpy(),
        full_hessian,
        normal_modes(structure, full_hessian, masses=masses),
    )
