"""A trained potential as an ASE calculator, with what ASE has no word for: the exact Hessian and its products."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from jaxtyping import Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.curvature import HessianOperator, dtype_and_device, evaluate
from hesse.engines import make_potential
from hesse.errors import EngineError, GeometryError, LabelShapeError, RequestError
from hesse.potential import Potential
from hesse.runtime.devices import device_from_name
from hesse.structures import Batch, Request, Structure
from hesse.structures.verlet import VerletNeighborList

__all__ = ["HesseCalculator"]

DEFAULT_SKIN = 1.0
"""Å."""

VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
"""xx, yy, zz, yz, xz, xy: ASE's order."""


class _StressUndefinedError(GeometryError, PropertyNotImplementedError):
    """A stress that cannot be, as Hesse and as ASE say it: programs that try for a stress go on without one."""


class HesseCalculator(Calculator):
    """Energy (eV), forces (eV/Å), stress (eV/Å³), energies of atoms, and exact curvature (eV/Å²).

    Args:
        potential: any `hesse.Potential`. It is switched to evaluation mode; several calculators may share one.
        dtype: "float64" (or `torch.float64`) for curvature, phonons, tight relaxations; "float32" is faster and enough
            for dynamics. By default the potential's own. For another type or device the calculator works on a copy.
        device: "cpu", "cuda", ...; by default the potential's own.
        skin: Å. Neighbors are searched this far beyond the cutoff, and again when an atom may have crossed half of it;
            results do not depend on it. 0 searches at every step.

    Charge, multiplicity, spins and constraints of the atoms are not seen by a potential: forces and Hessians are those
    of all atoms.

    Raises:
        RequestError: not a potential; another type than float32 and float64.
        ConfigError: a device that cannot be used, a skin below zero.
    """

    def __init__(
        self,
        potential: Potential,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str | None = None,
        skin: float = DEFAULT_SKIN,
    ) -> None:
        super().__init__()
        if not isinstance(potential, Potential):
            raise RequestError(
                f"expected a hesse.Potential, got a {type(potential).__name__}. Files are read by "
                'HesseCalculator.from_file("model.hesse").'
            )
        current = dtype_and_device(potential)
        target = (_parse_dtype(dtype) or current[0], current[1] if device is None else device_from_name(str(device)))
        if target != current:
            potential = copy.deepcopy(potential).to(dtype=target[0], device=target[1])
        self.potential = potential.eval()
        self.dtype, self.device = target
        self.neighbor_list = VerletNeighborList(potential.cutoff, skin)
        per_atom = ["energies"] if potential.has_atomic_energies else []
        self.implemented_properties = ["energy", "free_energy", "forces", "stress", *per_atom]
        self._include_stress = False
        self._hessian_operator: HessianOperator | None = None

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        dtype: torch.dtype | str | None = None,
        device: torch.device | str = "cpu",
        skin: float = DEFAULT_SKIN,
    ) -> HesseCalculator:
        """The calculator of a model file: `run/model.hesse`, or whatever `hesse.make_potential` understands
        (`mace:FILE`, `torchani:FILE`, ...).

        Raises:
            FileFormatError: no model file; and all that `make_potential` raises.
        """
        target_dtype = _parse_dtype(dtype)
        return cls(make_potential(str(path), dtype=target_dtype, device=device_from_name(str(device))), skin=skin)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """ASE calls this when something is asked that is not known yet. The energy alone is computed alone. A stress
        that was asked once comes along with all later forces of crystals: dynamics at constant pressure needs both.

        Raises:
            GeometryError: atoms on top of each other; stress of a structure that is not periodic in all directions.
            UnknownElementError: an element that the potential was not made for.
            EngineError: an answer that is not a finite number.
        """
        super().calculate(atoms, properties, system_changes)
        if system_changes:
            self.results = {}
            self._hessian_operator = None
        requested = set(properties or ["energy"])
        assert self.atoms is not None
        crystal = bool(self.atoms.pbc.all())
        if "stress" in requested:
            self._check_fully_periodic(self.atoms)
            self._include_stress = True
        needs_gradient = bool(requested & {"forces", "stress"})
        request = Request(
            forces=needs_gradient,
            stress=needs_gradient and crystal and self._include_stress,
            atomic_energies=self.potential.has_atomic_energies,
        )
        labels = evaluate(self.potential, self._batch(self.atoms), request)
        assert labels.energy is not None
        energy = float(labels.energy[0])
        self._check_finite(energy)
        results: dict[str, Any] = {"energy": energy, "free_energy": energy}
        if labels.atomic_energies is not None:
            results["energies"] = self._to_numpy(labels.atomic_energies)
        if labels.forces is not None:
            results["forces"] = self._to_numpy(labels.forces)
        if labels.stress is not None:
            results["stress"] = self._to_numpy(labels.stress[0])[VOIGT]
        self.results.update(results)

    def get_hessian(self, atoms: Atoms | None = None) -> Float[Array, "n 3 n 3"]:
        """Second derivatives of the energy, eV/Å², `(N, 3, N, 3)`: `H[i, a, j, b]` belongs to direction a of atom i and
        b of atom j, like `ase.vibrations.VibrationsData.get_hessian`. `.reshape(3 * N, 3 * N)` makes it a matrix, as
        `VibrationsData.from_2d` takes it; `.reshape(3 * N, N, 3)` gives the shape that MACE's calculator has.

        Args:
            atoms: by default those of the last calculation.
        """
        current = self._update_atoms(atoms)
        labels = evaluate(self.potential, self._batch(current), Request(energy=False, hessian=True))
        return self._to_numpy(labels.hessian_of(0))

    def hvp(self, atoms: Atoms | None, directions: ArrayLike) -> Float[Array, "*k n 3"]:
        """Hessian-vector products, eV/Å² times the unit of the directions, at the cost of a few evaluations of forces
        each, whatever the size of the system. Further products at the same geometry are cheaper: the graph of the
        gradient is kept until the atoms move.

        Args:
            atoms: None for those of the last calculation.
            directions: `(N, 3)`, or several, `(K, N, 3)`.

        Returns:
            The same shape.

        Raises:
            LabelShapeError: directions of another shape, or not finite.
        """
        current = self._update_atoms(atoms)
        try:
            array = np.asarray(directions, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise LabelShapeError(f"expected directions as arrays of numbers: {error}") from error
        shape = (len(current), 3)
        if array.shape[-2:] != shape or array.ndim not in (2, 3) or not array.size or not np.isfinite(array).all():
            expected = f"{shape} or (K, {shape[0]}, 3)"
            raise LabelShapeError(f"expected finite directions of shape {expected}, got {array.shape}")
        if self._hessian_operator is None:
            self._hessian_operator = HessianOperator(self.potential, self._batch(current))
        probes = torch.as_tensor(array.reshape(-1, *shape), dtype=self.dtype, device=self.device)
        return self._to_numpy(self._hessian_operator(probes)).reshape(array.shape)

    def _update_atoms(self, atoms: Atoms | None) -> Atoms:
        """The atoms whose curvature is asked; what was computed at another geometry is forgotten."""
        if atoms is not None and (self.atoms is None or self.check_state(atoms)):
            self.reset()
            self._hessian_operator = None
            self.atoms = atoms.copy()
        if self.atoms is None:
            raise RequestError("no atoms were given, and none were computed before")
        return self.atoms

    def _batch(self, atoms: Atoms) -> Batch:
        structure = Structure(
            atoms.numbers,
            atoms.positions,
            id=atoms.info.get("structure_id") or atoms.get_chemical_formula(),
            cell=np.asarray(atoms.cell),
            pbc=tuple(atoms.pbc),
        )
        return self.neighbor_list.batch(structure, dtype=self.dtype, device=self.device)

    def _check_fully_periodic(self, atoms: Atoms) -> None:
        if not atoms.pbc.all():
            raise _StressUndefinedError(
                f"stress was asked of {atoms.get_chemical_formula()}, which is periodic along {atoms.pbc.tolist()}: "
                "stress needs a volume, and so three periodic directions"
            )

    def _to_numpy(self, tensor: torch.Tensor) -> Array:
        """The values in float64 on the CPU. Raises EngineError for those that are no numbers."""
        values = tensor.detach().to("cpu", torch.float64).numpy()
        self._check_finite(values)
        return values

    def _check_finite(self, values: ArrayLike) -> None:
        if not np.isfinite(values).all():
            assert self.atoms is not None
            raise EngineError(
                f"the potential's answer is not a finite number for {self.atoms.get_chemical_formula()}. Check the "
                "geometry, and the potential (`hesse check`)."
            )


def _parse_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Raises RequestError for what is neither float32 nor float64, nor None."""
    known = {"float32": torch.float32, "float64": torch.float64, None: None}
    name = str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else dtype
    if name not in known:
        raise RequestError(f'expected dtype "float32" or "float64", got {dtype!r}')
    return known[name]
