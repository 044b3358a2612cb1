"""Any ASE calculator as an engine, and any engine as an ASE calculator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, final

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from jaxtyping import Float

from hesse.engine import EnergyFunction, Engine, SinglePoint
from hesse.engines.force_engine import DEFAULT_GRADIENT_NOISE, FiniteDifferences, ForceEngine, checked_point
from hesse.engines.levels import calculator_digest, level_with_digest
from hesse.errors import ConfigError, EngineError, HesseError, RequestError
from hesse.structures import Request, Structure, check_cell, to_ase

__all__ = ["AseEngine", "EngineCalculator"]


@final
class AseEngine(ForceEngine):
    """An ASE calculator; curvature by differences of its forces.

    Args:
        calculator: any ASE calculator. It is reset before every point, so that a calculator that keeps its wave
            function starts afresh: in finite differences warm starts are noise.
        level: level of theory; by default the calculator's class name and a digest of its package's version, its
            parameters and the networks in it ("EMT@3f2a9c01b4").
        reads_charge: whether the calculator reads `charge` and `multiplicity` from `atoms.info`. Without it, charged
            and open-shell structures are refused rather than computed as neutral singlets.
        differences: how curvature is taken from forces.
        gradient_noise: eV/Å; see `ForceEngine`. It determines the step: about 1e-14 suits force fields in double
            precision, 1e-5 networks in single precision, 1e-6 (the default) a tightly converged self-consistent
            program.
        settings: further settings that identify the calculator (a digest of a file that it reads). Numbers, texts and
            switches among its `parameters` are included automatically.

    Raises:
        ConfigError: the gradient noise is not positive.
    """

    def __init__(
        self,
        calculator: Any,
        *,
        level: str | None = None,
        reads_charge: bool = False,
        differences: FiniteDifferences | None = None,
        gradient_noise: float = DEFAULT_GRADIENT_NOISE,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.calculator = calculator
        self.name = "ase"
        kind = type(calculator)
        parameters = _plain_parameters(calculator)
        identifying = {key: value for key, value in (settings or {}).items() if key != "factory"}  # a name only
        identity = calculator_digest(calculator, {**parameters, **identifying})
        self.level = level or level_with_digest(kind.__name__, identity)
        self.reads_charge = reads_charge
        self.differences = differences or FiniteDifferences()
        if not (np.isfinite(gradient_noise) and gradient_noise > 0):
            raise ConfigError(f"the noise of gradients must be a positive number of eV/Å, got {gradient_noise}")
        self.gradient_noise = float(gradient_noise)
        self.settings = MappingProxyType(
            {
                "calculator": f"{kind.__module__}.{kind.__qualname__}",
                **parameters,
                **(settings or {}),
                **self.differences.settings(self.gradient_noise),
            }
        )

    def energy_function(self, structure: Structure) -> EnergyFunction:
        """See `ForceEngine.energy_function`. Raises RequestError for a charge that the calculator would ignore."""
        if (structure.charge or structure.multiplicity != 1) and not self.reads_charge:
            raise RequestError(
                f'structure "{structure.id}": charge {structure.charge}, multiplicity {structure.multiplicity}, but '
                f"{self.level} may ignore them. Use AseEngine(calculator, reads_charge=True) if it does."
            )
        atoms = to_ase(structure)
        atoms.calc = self.calculator
        wants_stress = all(structure.pbc)

        def point(positions: Float[np.ndarray, "n 3"]) -> SinglePoint:
            if hasattr(self.calculator, "reset"):
                self.calculator.reset()
            atoms.positions = positions
            try:
                forces = np.array(atoms.get_forces(apply_constraint=False), dtype=np.float64)
                energy = float(atoms.get_potential_energy())
            except HesseError:
                raise
            except Exception as error:  # calculators raise errors of any class
                what = f"{type(self.calculator).__name__} failed: {type(error).__name__}: {error}"
                raise EngineError(f'structure "{structure.id}": {what}') from error
            return SinglePoint(energy, forces, _stress(atoms) if wants_stress else None)

        return point


def _plain_parameters(calculator: Any) -> dict[str, str]:
    """The `parameters` of an ASE calculator that JSON can represent: they identify the level of theory. Other objects
    have no text that is the same in every process."""
    parameters = getattr(calculator, "parameters", None)
    if not isinstance(parameters, Mapping):
        return {}
    result = {}
    for key, value in parameters.items():
        plain = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
        try:
            json.dumps(plain, sort_keys=True)
        except (TypeError, ValueError):
            continue
        result[str(key)] = plain
    return {"parameters": json.dumps(result, sort_keys=True)} if result else {}


def _stress(atoms: Atoms) -> Float[np.ndarray, "3 3"] | None:
    """The stress, or None where the calculator has none."""
    try:
        return np.array(atoms.get_stress(voigt=False), dtype=np.float64)
    except (PropertyNotImplementedError, NotImplementedError):
        return None


@final
class EngineCalculator(Calculator):
    """An engine as an ASE calculator (energy, forces, stress of crystals), for ASE's optimizers and dynamics."""

    implemented_properties = ["energy", "free_energy", "forces", "stress"]  # noqa: RUF012 (ASE declares it so)

    def __init__(self, engine: Engine, structure: Structure) -> None:
        super().__init__()
        self.engine, self.structure = engine, structure
        self._energy_function: tuple[bytes, EnergyFunction] | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute energy, forces and, where requested, stress. ASE calls this when positions or cell changed.

        Args:
            atoms: the atoms.
            properties: names of the properties to compute.
            system_changes: what changed since the last call, as ASE lists it.

        Raises:
            GeometryError: atoms on top of each other, or stress of a structure that is not periodic.
            EngineError: the engine failed.
            RequestError: stress of an engine that has none.
        """
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        structure = Structure(
            self.structure.numbers,
            self.atoms.positions,
            id=self.structure.id,
            cell=np.asarray(self.atoms.cell),
            pbc=self.structure.pbc,
            charge=self.structure.charge,
            multiplicity=self.structure.multiplicity,
            masses=self.structure.masses,
        )
        stress = "stress" in (properties or [])
        if isinstance(self.engine, ForceEngine) and not stress:
            # The points of an optimization or a trajectory need no error estimates.
            check_cell(structure)
            structure.check_no_overlap()
            point = checked_point(self._energy_function_for(structure, self.engine), structure.positions, structure)
            self.results = {"energy": point.energy, "free_energy": point.energy, "forces": point.forces}
            return
        labels = self.engine.compute(structure, Request(energy=True, forces=True, stress=stress))
        assert labels.energy is not None
        assert labels.forces is not None
        energy = float(labels.energy[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": labels.forces.numpy()}
        if labels.stress is not None:
            matrix = labels.stress[0].numpy()
            self.results["stress"] = matrix[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]

    def _energy_function_for(self, structure: Structure, engine: ForceEngine) -> EnergyFunction:
        """The energy function in the present cell."""
        cell = structure.cell.tobytes()
        if self._energy_function is None or self._energy_function[0] != cell:
            self._energy_function = cell, engine.energy_function(structure)
        return self._energy_function[1]
