"""Readers of couplings λ: tables for electronic broadenings, and couplings of the modes at every q point."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import FileFormatError, RequestError
from hesse.runtime.filesystem import check_input_file
from hesse.runtime.short_repr import ShortRepr
from hesse.superconductivity.frequency_units import FREQUENCY_UNITS, check_same_scale, frequency_unit
from hesse.superconductivity.spectral_function import SpectralFunction
from hesse.units import BOLTZMANN

__all__ = ["LambdaRow", "ModeCouplings", "read_lambda_table", "read_mode_couplings"]

_NUMBER = r"[-+]?\d+\.?\d*(?:[EeDd][-+]?\d+)?"


@dataclass(frozen=True)
class LambdaRow:
    """The coupling for one electronic broadening.

    Attributes:
        broadening: Ry.
        coupling: λ.
        omega_log: logarithmic average frequency, eV; None if the file does not have it.
        density_of_states: at the Fermi energy, states per spin, Ry and cell.
    """

    broadening: float
    coupling: float
    omega_log: float | None
    density_of_states: float


def read_lambda_table(path: str | Path) -> list[LambdaRow]:
    """Read λ for every electronic broadening: `lambda` of matdyn.x, or `lambda.dat` of lambda.x.

    Args:
        path: the file.

    Returns:
        A row for each broadening.

    Raises:
        FileFormatError: not such a file.
    """
    path = Path(path)
    check_input_file(path)
    text = path.read_bytes().decode("utf-8", errors="replace")
    rows = [
        LambdaRow(float(m[1]), float(m[2]), None, float(m[3]))
        for m in re.finditer(rf"Broadening\s+({_NUMBER})\s+lambda\s+({_NUMBER})\s+dos\(Ef\)\s+({_NUMBER})", text)
    ]
    if not rows and re.match(r"\s*#\s*degauss\s+lambda", text):
        for line in text.splitlines()[1:]:
            if line.strip():
                try:
                    broadening, coupling, _, omega_log, density = (float(word) for word in line.split()[:5])
                except ValueError:
                    raise FileFormatError(f"{path}: expected five numbers, got: {line.strip()[:60]}") from None
                rows.append(LambdaRow(broadening, coupling, BOLTZMANN * omega_log, density))
    if not rows:
        raise FileFormatError(
            f"{path}: expected a table of λ for electronic broadenings, as matdyn.x and lambda.x write it"
        )
    return rows


@dataclass(frozen=True, eq=False, repr=False)
class ModeCouplings(ShortRepr):
    """Couplings of all modes at the q points of a grid.

    Attributes:
        q_points: [q points, 3], as in the files.
        frequencies: energies of the phonons, [q points, modes], eV; negative where imaginary.
        couplings: λ_qν, [q points, modes].
        broadening: of the electrons, Ry.
    """

    q_points: Float[Array, "q 3"]
    frequencies: Float[Array, "q modes"]
    couplings: Float[Array, "q modes"]
    broadening: float

    def spectrum(
        self, weights: ArrayLike, *, frequencies: ArrayLike | None = None, unit: str = "eV"
    ) -> SpectralFunction:
        """α²F of these modes, or of the same modes with other frequencies.

        Args:
            weights: number of equivalent points of each q point.
            frequencies: renormalized frequencies in the same order. λ_qν becomes (ω/Ω)² times as large: matrix
                elements of displacements and polarizations stay as they are.
            unit: unit of `frequencies`, such as "THz" for those of `Phonons.frequencies`.

        Returns:
            The spectral function.

        Raises:
            RequestError: arrays that do not fit, modes with a coupling and without a frequency above zero, or
                frequencies of another size than those in the files, as in another unit.
            UnitError: an unknown unit.
        """
        if frequencies is None:
            return SpectralFunction.from_modes(self.frequencies, self.couplings, weights)
        given = np.asarray(frequencies, dtype=float)
        new = frequency_unit(unit) * given
        if new.shape != self.frequencies.shape:
            raise RequestError(f"expected frequencies of shape {self.frequencies.shape}, got {new.shape}")
        check_same_scale(float(given.max()), unit, float(self.frequencies.max()), "frequencies")
        if (self.frequencies[self.couplings > 0] <= 0).any():
            raise RequestError(
                "modes with a coupling have no frequency above zero, so that their coupling has no meaning"
            )
        coupled = self.couplings > 0
        scale = np.where(coupled & (new > 0), self.frequencies / np.where(new > 0, new, 1), 1) ** 2
        return SpectralFunction.from_modes(new, self.couplings * scale, weights)


def read_mode_couplings(paths: Sequence[str | Path], broadening: float) -> ModeCouplings:
    """Read frequencies and couplings of the modes: `elph.inp_lambda.N` of Quantum ESPRESSO, one file for each q point.

    Args:
        paths: the files.
        broadening: the electronic broadening to take, Ry.

    Returns:
        The couplings.

    Raises:
        FileFormatError: not such files, or files of different crystals.
        RequestError: a broadening that the files do not have.
    """
    points, squares, couplings = [], [], []
    for path in map(Path, paths):
        check_input_file(path)
        head, *blocks = re.split(r"Gaussian Broadening:", path.read_bytes().decode("utf-8", errors="replace"))
        words = head.split()
        n = int(words[4]) if len(words) > 4 and words[4].isdigit() else 0
        numbers = [float(word) for word in words if re.fullmatch(_NUMBER, word)]
        if n == 0 or len(words) != 5 + n or len(numbers) != len(words) or not blocks:
            raise FileFormatError(
                f"{path}: expected a q point, squared frequencies and couplings of its modes, as ph.x writes them into "
                "elph.inp_lambda.N"
            )
        points.append(numbers[:3])
        squares.append(numbers[5:])
        by_mode = {}
        for block in blocks:
            width = re.match(rf"\s*({_NUMBER})\s*Ry", block)
            values = re.findall(rf"lambda\(\s*\d+\)\s*=\s*({_NUMBER})", block)
            if width is None or len(values) != n:
                raise FileFormatError(f"{path}: expected a broadening and {n} values of λ in every block")
            by_mode[float(width[1])] = [float(value) for value in values]
        chosen = next((width for width in by_mode if np.isclose(width, broadening)), None)
        if chosen is None:
            raise RequestError(f"{path}: no broadening of {broadening:g} Ry, there are {', '.join(map(str, by_mode))}")
        couplings.append(by_mode[chosen])
    if len({len(row) for row in squares}) != 1:
        raise FileFormatError("expected files of one crystal, their numbers of modes differ")
    roots = np.sign(squares) * np.sqrt(np.abs(squares)) * FREQUENCY_UNITS["Ry"]
    return ModeCouplings(np.array(points), roots, np.array(couplings), broadening)
