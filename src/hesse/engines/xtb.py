"""GFN-xTB energies and forces through tblite's native interface.

One calculator per structure is moved from geometry to geometry, and every point starts from the same initial guess, so
that the result of a point does not depend on earlier points. Bannwarth, Ehlert, Grimme, JCTC 15, 1652 (2019) (GFN2);
Grimme, Bannwarth, Shushkov, JCTC 13, 1989 (2017) (GFN1).
"""

from __future__ import annotations

from importlib.metadata import version
from types import MappingProxyType
from typing import Any, final

import numpy as np
from ase import units
from jaxtyping import Float
from pydantic import Field

from hesse.engine import EnergyFunction, SinglePoint
from hesse.engines.force_engine import FiniteDifferences, ForceEngine
from hesse.errors import EngineError, RequestError, check_choice, first_line
from hesse.runtime.imports import import_optional
from hesse.runtime.settings import Settings, settings_from
from hesse.structures import Structure, check_electron_count

__all__ = ["XTB_METHODS", "XtbEngine", "XtbSettings", "xtb_name"]

XTB_METHODS = {"gfn2": "GFN2-xTB", "gfn1": "GFN1-xTB"}
"""Names on the command line, and the levels of theory they mean."""

_MAX_ATOMIC_NUMBER = 86

_NOISE_PER_ACCURACY = 1e-4
"""eV/Å; one cycle more or less moves gradients by up to this, times the accuracy (12 molecules, accuracy 1 to 1e-5:
median 2e-5, worst 1.5e-4)."""

_ROUNDING_NOISE = 1e-13
"""eV/Å; of gradients with the same number of cycles (45 molecules: median 1e-14)."""

_HARTREE, _BOHR = units.Hartree, units.Bohr


def xtb_name(text: str) -> str:
    """The name of an engine as on the command line, from the level of theory that labels and reports state.

    Args:
        text: any name of an engine, with or without settings.

    Returns:
        `gfn2` for `GFN2-xTB`, in capitals or not and with its settings; other names as they are.
    """
    head, mark, settings = text.partition("?")
    name = head.lower().removesuffix("-xtb")
    return f"{name}{mark}{settings}" if name in XTB_METHODS else text


class XtbSettings(Settings):
    """Settings of xTB.

    Incomplete self-consistency is a smooth bias of the curvature that no choice of the step reveals. Errors of an HVP
    on 42 geometries of 14 molecules (median, worst), eV/Å²: accuracy 0.1: 6e-5, 5e-3; 0.01: 1e-5, 5e-4; 1e-5: 7e-8,
    3e-7, for 20 % more time.
    """

    accuracy: float = Field(1e-5, gt=0, description="tblite's multiplier of convergence thresholds")
    max_iterations: int = Field(250, ge=1, description="limit of the self-consistent cycle")


@final
class XtbEngine(ForceEngine):
    """GFN2-xTB or GFN1-xTB.

    Args:
        method: "gfn2" or "gfn1", or the level: "GFN2-xTB", "GFN1-xTB".
        settings: settings of the program.
        differences: how curvature is taken from forces.
        **options: the fields of `XtbSettings` in place of `settings`.

    Raises:
        MissingExtraError: tblite is not installed.
        UnknownOptionError: an unknown method or option.
        ConfigError: an option out of range.
    """

    def __init__(
        self,
        method: str = "gfn2",
        settings: XtbSettings | None = None,
        *,
        differences: FiniteDifferences | None = None,
        **options: Any,
    ) -> None:
        self.name = check_choice(xtb_name(str(method)), XTB_METHODS, "xTB method")
        self.options = settings_from(XtbSettings, settings, options)
        self.level = XTB_METHODS[self.name]
        self._tblite = import_optional("tblite.interface", extra="xtb", purpose=self.level)
        self._runtime_error = import_optional("tblite.exceptions", extra="xtb", purpose=self.level).TBLiteRuntimeError
        self.differences = differences or FiniteDifferences()
        self.gradient_noise = max(_NOISE_PER_ACCURACY * self.options.accuracy, _ROUNDING_NOISE)
        self.settings = MappingProxyType(
            {
                "program": f"tblite {version('tblite')}",
                "accuracy": f"{self.options.accuracy:g}",
                **self.differences.settings(self.gradient_noise),
            }
        )

    def energy_function(self, structure: Structure) -> EnergyFunction:
        """See `ForceEngine.energy_function`.

        Raises:
            RequestError: an element beyond radon, or a multiplicity that the number of electrons does not allow.
        """
        if structure.numbers.max() > _MAX_ATOMIC_NUMBER:
            raise RequestError(f'structure "{structure.id}": {self.level} has elements up to Z = {_MAX_ATOMIC_NUMBER}')
        n_protons = int(structure.numbers.sum())
        check_electron_count(structure.id, n_protons, structure.charge, structure.multiplicity)
        lattice = structure.cell / _BOHR if structure.periodic else None
        try:
            calculator = self._tblite.Calculator(
                self.level,
                structure.numbers,
                structure.positions / _BOHR,
                charge=float(structure.charge),
                uhf=structure.multiplicity - 1,
                lattice=lattice,
                periodic=np.array(structure.pbc) if structure.periodic else None,
            )
            calculator.set("verbosity", 0)
            calculator.set("accuracy", self.options.accuracy)
            calculator.set("max-iter", self.options.max_iterations)
        except self._runtime_error as error:
            raise EngineError(f'structure "{structure.id}": {self.level} cannot start: {first_line(error)}') from error
        volume = abs(float(np.linalg.det(structure.cell))) / _BOHR**3 if all(structure.pbc) else None

        def point(positions: Float[np.ndarray, "n 3"]) -> SinglePoint:
            try:
                calculator.update(positions / _BOHR)
                result = calculator.singlepoint()
                energy, gradient = result.get("energy"), result.get("gradient")
                stress = None if volume is None else result.get("virial") / volume * (_HARTREE / _BOHR**3)
            except self._runtime_error as error:
                raise EngineError(
                    f'structure "{structure.id}": {self.level} did not converge or failed: {first_line(error)}'
                ) from error
            return SinglePoint(float(energy) * _HARTREE, gradient * (-_HARTREE / _BOHR), stress)

        return point
