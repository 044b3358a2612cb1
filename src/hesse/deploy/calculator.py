"""A trained potential as an ASE calculator, with exact Hessians and Hessian-vector products."""

from __future__ import annotations

import contextlib
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from jaxtyping import Float, Int
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.curvature import CompiledEvaluation, HessianOperator, dtype_and_device, evaluate
from hesse.engines import PotentialLike, as_potential
from hesse.errors import (
    EngineError,
    ExtrapolationWarning,
    GeometryError,
    LabelShapeError,
    LabelValueError,
    RequestError,
)
from hesse.potential import known_environments, warn_of_charge_states
from hesse.runtime.devices import device_from_name
from hesse.runtime.dtypes import DTypeLike, as_dtype
from hesse.structures import Batch, Extrapolation, Request, Structure, species_numbers, to_structure
from hesse.structures.verlet import VerletNeighborList

__all__ = ["HesseCalculator", "StressUndefinedError"]

DEFAULT_SKIN = 1.0
"""Skin of the neighbor list, Å."""

_SMALL_STRUCTURE, _LARGE_INTERVAL = 100, 10
"""Structures up to this number of atoms are compared with the training data at every geometry, larger ones at every
tenth, so that dynamics on an accelerator does not wait for it."""

VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])
"""Order of stress components in ASE: xx, yy, zz, yz, xz, xy."""


class StressUndefinedError(GeometryError, PropertyNotImplementedError):
    """Stress of a structure that is not periodic in all directions. Derived from an error of ASE too, because programs
    of ASE catch that error and continue without a stress."""


class HesseCalculator(Calculator):
    """ASE calculator: energy (eV), forces (eV/Å), stress (eV/Å³), atomic energies, and exact curvature (eV/Å²).

    A potential does not depend on charge, multiplicity, spins and constraints of the atoms: forces and Hessians are
    those of all atoms.

    A model file keeps a summary of its training data: the first geometry outside of them gives an
    `ExtrapolationWarning`, and `extrapolation` tells how far the present one is from them.

    Args:
        potential: a path (`run/model.hesse`), a name as on the command line (`mace:FILE`, `torchani:FILE`, ...), a
            `hesse.Potential`, or the result of `hesse.train`. A potential is switched to evaluation mode; several
            calculators may share one.
        dtype: "float64" (or that of torch or numpy) for curvature, phonons and tight relaxations; "float32" is faster
            and enough for dynamics. Default: that of the potential. For another dtype or device, the calculator works
            on a copy.
        device: "cpu", "cuda", ...; default: that of the potential, the CPU for files.
        skin: Å. Neighbors are searched this far beyond the cutoff, and again when an atom may have moved by half of it;
            results do not depend on it. With 0, they are searched at every step.
        compile: translate energies, forces and stress to machine code (`torch.compile`), for dynamics of many steps:
            two to five times as fast for small molecules. The first call takes half a minute to minutes, seconds if an
            earlier process has compiled the same model. The results are compared with those of the plain path.

    Raises:
        CompilationError: the potential cannot be compiled; at the first call.
        RequestError: not a potential; a dtype other than float32 and float64.
        ConfigError: an unavailable device, a negative skin.
        HesseError: as `hesse.make_potential`, for paths and names.
    """

    def __init__(
        self,
        potential: PotentialLike,
        *,
        dtype: DTypeLike | None = None,
        device: torch.device | str | None = None,
        skin: float = DEFAULT_SKIN,
        compile: bool = False,
    ) -> None:
        super().__init__()
        target_dtype = None if dtype is None else as_dtype(dtype)
        target_device = None if device is None else device_from_name(str(device))
        model = as_potential(potential)
        current = dtype_and_device(model)
        self.dtype, self.device = target_dtype or current[0], target_device or current[1]
        if (self.dtype, self.device) != current:
            model = as_potential(model, dtype=self.dtype, device=self.device)  # a copy
        self.potential = model.eval()
        self.neighbor_list = VerletNeighborList(model.cutoff, skin)
        self._evaluate = CompiledEvaluation(model) if compile else partial(evaluate, model)
        per_atom = ["energies"] if model.has_atomic_energies else []
        self.implemented_properties = ["energy", "free_energy", "forces", "stress", *per_atom]
        self._include_stress = False
        self._hessian_operator: HessianOperator | None = None
        self._environments = known_environments(self.potential)
        self._n_geometries = 0
        self._has_warned = False
        self._formula: tuple[Int[Array, "n"], str] | None = None

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        dtype: DTypeLike | None = None,
        device: torch.device | str = "cpu",
        skin: float = DEFAULT_SKIN,
        compile: bool = False,
    ) -> HesseCalculator:
        """The calculator of a model file; `HesseCalculator(path)` does the same.

        Args:
            path: `run/model.hesse`, or a name as on the command line (`mace:FILE`, `torchani:FILE`, ...).
            dtype: as for `HesseCalculator`; default: as stored.
            device: "cpu", "cuda", ...
            skin: Å.
            compile: as for `HesseCalculator`.

        Returns:
            The calculator.

        Raises:
            FileFormatError: not a model file.
            HesseError: as `hesse.make_potential`.
        """
        return cls(path, dtype=dtype, device=device, skin=skin, compile=compile)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Compute properties; ASE calls this when it needs one that is not yet known.

        An energy alone is computed without forces. Once a stress has been requested, it is computed together with all
        later forces of crystals, because dynamics at constant pressure needs both.

        Args:
            atoms: default: those of the last calculation.
            properties: names in ASE's sense; default: the energy.
            system_changes: names of what changed since the last calculation.

        Raises:
            GeometryError: two atoms are closer than 0.3 Å; stress without three periodic directions.
            UnknownElementError: an element that the potential does not support.
            EngineError: a result that is not finite.
        """
        super().calculate(atoms, properties, system_changes)
        if system_changes:
            self.results = {}
            self._hessian_operator = None
        requested = set(properties or ["energy"])
        assert self.atoms is not None
        if system_changes:
            self._warn_if_outside(self.atoms)
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
        labels = self._evaluate(self._batch(self.atoms), request)
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

    @property
    def extrapolation(self) -> Extrapolation | None:
        """How far the atoms of the last calculation are from the training data of the model: a grade above 1 is outside
        of them. None for a model without a summary of its training data."""
        if self._environments is None or self.atoms is None:
            return None
        return self._environments.compare(self._structure(self.atoms))

    def get_hessian(self, atoms: Atoms | None = None) -> Float[Array, "n 3 n 3"]:
        """Exact second derivatives of the energy.

        `H[i, a, j, b]` is `∂²E/∂x_ia ∂x_jb`, as in `ase.vibrations.VibrationsData.get_hessian`.
        `.reshape(3 * N, 3 * N)` gives the matrix that `VibrationsData.from_2d` takes, and `.reshape(3 * N, N, 3)` the
        shape that MACE's calculator returns.

        Args:
            atoms: default: those of the last calculation.

        Returns:
            eV/Å², shape `(N, 3, N, 3)`.
        """
        current = self._update_atoms(atoms)
        labels = evaluate(self.potential, self._batch(current), Request(energy=False, hessian=True))
        return self._to_numpy(labels.hessian_of(0))

    def hvp(self, directions: ArrayLike, atoms: Atoms | None = None) -> Float[Array, "*k n 3"]:
        """Exact Hessian-vector products.

        Each costs about as much as a few evaluations of forces, for any number of atoms. Further products at the same
        geometry are cheaper: the graph of the gradient is kept until the atoms move.

        Args:
            directions: one direction `(N, 3)` or several `(K, N, 3)`.
            atoms: default: those of the last calculation.

        Returns:
            eV/Å² times the unit of the directions, in the shape of `directions`.

        Raises:
            RequestError: atoms in place of the directions; no atoms at all.
            LabelShapeError: directions of another shape, or not finite.
        """
        if isinstance(directions, Atoms):
            raise RequestError("hvp takes the directions first: calculator.hvp(directions, atoms)")
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
        """The atoms to compute; results of another geometry are dropped."""
        if atoms is not None and (self.atoms is None or self.check_state(atoms)):
            self.reset()
            self._hessian_operator = None
            self.atoms = atoms.copy()
        if self.atoms is None:
            raise RequestError("there are no atoms yet: pass them, or compute their energy or forces first")
        return self.atoms

    def _batch(self, atoms: Atoms) -> Batch:
        return self.neighbor_list.batch(self._structure(atoms), dtype=self.dtype, device=self.device)

    def _structure(self, atoms: Atoms) -> Structure:
        numbers = species_numbers(atoms)
        if self._formula is None or not np.array_equal(self._formula[0], numbers):
            self._formula = np.array(numbers), atoms.get_chemical_formula()  # slow: once for all steps of dynamics
        return Structure(
            numbers,
            atoms.positions,
            id=atoms.info.get("structure_id") or self._formula[1],
            cell=np.asarray(atoms.cell),
            pbc=tuple(atoms.pbc),
        )

    def _warn_if_outside(self, atoms: Atoms) -> None:
        """Warn of the first geometry outside the training data."""
        due = len(atoms) <= _SMALL_STRUCTURE or self._n_geometries % _LARGE_INTERVAL == 0
        if self._n_geometries == 0:  # what atoms say about their charge does not change along a trajectory
            with contextlib.suppress(LabelValueError):  # statements that contradict each other
                warn_of_charge_states(self.potential, [to_structure(atoms)])
        self._n_geometries += 1
        if self._has_warned or not due:
            return
        extrapolation = self.extrapolation
        if extrapolation is not None and extrapolation.outside:
            self._has_warned = True
            warnings.warn(
                f"{atoms.get_chemical_formula()} is outside the training data of the model, which may be wrong there: "
                f"{extrapolation.reason}. Later geometries are not reported; calculator.extrapolation has the present "
                "one.",
                ExtrapolationWarning,
                stacklevel=2,
            )

    def _check_fully_periodic(self, atoms: Atoms) -> None:
        if not atoms.pbc.all():
            raise StressUndefinedError(
                f"stress was requested for {atoms.get_chemical_formula()} with pbc = {atoms.pbc.tolist()}: it needs a "
                "volume, that is, three periodic directions"
            )

    def _to_numpy(self, tensor: torch.Tensor) -> Array:
        """The values in float64 on the CPU. Raises EngineError if one is not finite."""
        values = tensor.detach().to("cpu", torch.float64).numpy()
        self._check_finite(values)
        return values

    def _check_finite(self, values: ArrayLike) -> None:
        if not np.isfinite(values).all():
            assert self.atoms is not None
            raise EngineError(
                f"the potential gives a result that is not finite for {self.atoms.get_chemical_formula()}. Check the "
                "geometry and the potential (`hesse check`)."
            )
