"""Harmonic vibrations of one structure: frequencies, normal modes, error bars, warnings, and files of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from jaxtyping import Float, Int
from numpy import ndarray as Array

from hesse.harmonic.error_propagation import error_of_sum, frequency_errors
from hesse.harmonic.mode_files import write_modes
from hesse.harmonic.normal_modes import NormalModes
from hesse.pes.surface import atoms_with_results, max_force
from hesse.runtime.filesystem import atomic_write
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Structure, to_ase
from hesse.units import INVERSE_CM

if TYPE_CHECKING:
    from ase.vibrations import VibrationsData

__all__ = ["MAX_FORCE", "Vibrations"]

MAX_FORCE = 0.02
"""eV/Å; above it a structure is not called a stationary point (Gaussian's limit is 0.023)."""
SOFT_IMAGINARY = 50.0
"""cm⁻¹; imaginary modes below it are often no property of the molecule, but of its relaxation or its Hessian."""
MAX_FREQUENCY_ERROR = 10.0
"""cm⁻¹; larger error bars are told."""


@dataclass(frozen=True, eq=False, repr=False)
class Vibrations(ShortRepr):
    """Harmonic vibrations of one structure.

    Attributes:
        structure: the geometry.
        level: level of theory of the Hessian; empty if it is not known.
        energy: eV; None if it is not known.
        forces: eV/Å, `[n, 3]`; None if they are not known.
        hessian: eV/Å², `[n, 3, n, 3]`; of the m atoms that move, `[m, 3, m, 3]`, where others are frozen.
        modes: normal modes, in order of their frequency.
        hessian_error: estimated root mean square error of the elements of the Hessian, eV/Å²; None if it is not known.
        suspect: whether the labels, to which the Hessian belongs, failed a check.
    """

    structure: Structure
    level: str
    energy: float | None
    forces: Float[Array, "n 3"] | None
    hessian: Float[Array, "m 3 m 3"]
    modes: NormalModes
    hessian_error: float | None = None
    suspect: bool = False

    @property
    def atoms(self) -> Int[Array, "m"] | None:
        """Indices of the atoms that move; None if all do."""
        return self.modes.atoms

    @property
    def frequencies(self) -> Float[Array, "modes"]:
        """Harmonic frequencies in ascending order, cm⁻¹; imaginary ones are negative."""
        return self.modes.frequencies

    @property
    def frequency_errors(self) -> Float[Array, "modes"] | None:
        """Standard errors of the frequencies from the error of the Hessian, cm⁻¹; None if that is not known."""
        return None if self.hessian_error is None else frequency_errors(self.modes, self.hessian_error)

    @property
    def n_imaginary(self) -> int:
        """Number of imaginary modes: 0 at a minimum, 1 at a transition state."""
        return self.modes.n_imaginary

    @property
    def zpe(self) -> float:
        """Zero-point energy: half the sum of the real frequencies, eV. Imaginary modes do not contribute."""
        return self.modes.zero_point_energy

    @property
    def zpe_error(self) -> float | None:
        """Standard error of the zero-point energy from the error of the Hessian, eV; None if that is not known."""
        if self.hessian_error is None:
            return None
        return float(
            error_of_sum(self.modes, self.hessian_error, lambda nu: np.where(nu > 0, 0.5 * INVERSE_CM * nu, 0.0))
        )

    @property
    def linear(self) -> bool:
        """Whether the structure is a linear molecule, which has 3n−5 vibrations."""
        return self.modes.atoms is None and self.modes.n_rigid == 5

    @property
    def fmax(self) -> float | None:
        """Largest force on an atom that moves, eV/Å; None if forces are not known. Frequencies are meaningful only
        where it is small."""
        if self.forces is None:
            return None
        return max_force(self.forces if self.atoms is None else self.forces[self.atoms])

    def warnings(self) -> list[str]:
        """Remarks about forces, modes and errors that a reader of the frequencies should know.

        Returns:
            Sentences about suspect labels, large forces, modes in (-50, 0) cm⁻¹, and error bars that matter; none if
            all is well.
        """
        return list(self.warnings_by_kind().values())

    def warnings_by_kind(self) -> dict[str, str]:
        """The warnings by what they are about.

        Returns:
            Sentences under "suspect", "forces", "soft modes" and "errors"; none if all is well.
        """
        texts = {}
        if self.suspect:
            texts["suspect"] = "its labels are flagged suspect: they failed a check when they were made or read"
        if self.fmax is not None and self.fmax > MAX_FORCE:
            texts["forces"] = (
                f"the largest force is {self.fmax:.2g} eV/Å: not a stationary point, where frequencies have no simple "
                "meaning. Relax it first"
            )
        soft = self.frequencies[(self.frequencies < 0) & (self.frequencies > -SOFT_IMAGINARY)]
        if len(soft):
            names = ", ".join(f"{-nu:.1f}i" for nu in soft)
            texts["soft modes"] = (
                f"{len(soft)} imaginary mode{'s' if len(soft) > 1 else ''} near zero ({names} cm⁻¹): perhaps only the "
                "relaxation or the Hessian is not tight enough; hesse minimize --remove-imaginary follows them"
            )
        errors = self.frequency_errors
        if errors is not None and len(errors) and errors.max() > MAX_FREQUENCY_ERROR:
            worst, count = int(errors.argmax()), int((errors > MAX_FREQUENCY_ERROR).sum())
            texts["errors"] = (
                f"the estimated error of the Hessian ({self.hessian_error:.2g} eV/Å²) makes {count} "
                f"frequenc{'ies' if count > 1 else 'y'} uncertain by more than {MAX_FREQUENCY_ERROR:g} cm⁻¹ (at most "
                f"{self.frequencies[worst]:.1f} ± {errors[worst]:.1f}); zero-point energy {self.zpe:.4f} ± "
                f"{self.zpe_error:.4f} eV"
            )
        return texts

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Format the frequencies as a text table.

        Returns:
            One line per mode, and a summary with the warnings; imaginary frequencies end with "i".
        """
        errors = self.frequency_errors
        lines = [f"{self.structure.id}, {self.level or 'level of theory not known'}", "mode      cm⁻¹"]
        for k, frequency in enumerate(self.frequencies, 1):
            error = "" if errors is None or errors[k - 1] < 0.05 else f" ± {errors[k - 1]:.1f}"
            lines.append(f"{k:4d}  {abs(frequency):8.1f}{'i' if frequency < 0 else ' ' if error else ''}{error}")
        error = "" if self.zpe_error is None or self.zpe_error < 5e-5 else f" ± {self.zpe_error:.4f}"
        lines.append(f"zero-point energy {self.zpe:.4f}{error} eV, {self.n_imaginary} imaginary")
        if self.atoms is not None:
            lines.append(f"{len(self.structure) - len(self.atoms)} of {len(self.structure)} atoms are frozen")
        fmax = "is not known" if self.fmax is None else f"{self.fmax:.2g} eV/Å"
        lines.append(f"largest force {fmax}")
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings())])

    def row(self) -> dict[str, Any]:
        """The numbers as JSON values, as `hesse vibrations --json` writes them.

        Returns:
            Values by name: frequencies in cm⁻¹ (imaginary ones negative), energies in eV.
        """
        errors = self.frequency_errors
        return {
            "id": self.structure.id,
            "frequencies": self.frequencies.tolist(),
            "n_imaginary": self.n_imaginary,
            "zpe": self.zpe,
            "linear": self.linear,
            "level": self.level,
            "frequency_errors": None if errors is None else errors.tolist(),
            "zpe_error": self.zpe_error,
            "n_rigid": self.modes.n_rigid,
            "atoms": None if self.atoms is None else self.atoms.tolist(),
            "energy": self.energy,
            "fmax": self.fmax,
            "hessian_error": self.hessian_error,
            "warnings": self.warnings(),
            "reason": "",
        }

    def to_ase(self) -> Atoms:
        """Convert to ASE.

        Returns:
            The geometry, whose calculator holds energy (eV) and forces (eV/Å) where they are known.
        """
        if self.energy is None or self.forces is None:
            return to_ase(self.structure)
        return atoms_with_results(self.structure, self.energy, self.forces)

    def to_vibrations_data(self) -> VibrationsData:
        """Convert to ASE's VibrationsData.

        Returns:
            Geometry, with the masses of these vibrations, and Hessian. ASE does not project out rigid-body motions.
        """
        from ase.vibrations import VibrationsData

        atoms = to_ase(self.structure)
        atoms.set_masses(self.modes.masses)
        indices = None if self.atoms is None else [int(k) for k in self.atoms]
        return VibrationsData(atoms, self.hessian, indices=indices)

    def write(self, path: str | Path) -> None:
        """Write the modes to a file for viewers and other programs.

        Args:
            path: `.molden`; `.xyz` or `.extxyz` for moving geometries; `.log` or `.out` for text like that of Gaussian
                (read by GoodVibes, pyQRC, cclib); `.json` for ASE's VibrationsData.

        Raises:
            FileFormatError: another suffix.
            WriteError: the file cannot be written.
        """
        if not isinstance(path, str | Path) or Path(path).suffix.lower() != ".json":
            write_modes(path, self.structure, self.modes, energy=self.energy, level=self.level)
            return
        from ase.io.jsonio import write_json

        with atomic_write(path) as temporary:
            write_json(temporary, self.to_vibrations_data())
