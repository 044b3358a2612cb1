"""Self-consistent field calculations of one structure, with the same initial guess at every geometry."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from ase.units import Bohr, Hartree
from jaxtyping import Float

from hesse.engine import SinglePoint
from hesse.engines.pyscf.method import Method
from hesse.engines.pyscf.pyscf_settings import PyscfSettings
from hesse.errors import EngineError, HesseError, RequestError
from hesse.runtime.imports import import_optional
from hesse.structures import Structure, check_electron_count, species_name, species_names

__all__ = ["AUXILIARY_BASIS", "ScfEnergyFunction"]

AUXILIARY_BASIS = "def2-universal-jkfit"
"""Basis set that densities are fitted with: hydrogen to radon, Coulomb and exchange (Weigend, J. Comput. Chem. 29, 167
(2008))."""

_KEPT_FRACTION = 0.25
"""Part of PySCF's memory for integrals of range-separated exchange, and for orbitals on the grid; the integrals of the
full operator need as much again."""
_GRADIENT_TO_FORCES = -Hartree / Bohr
"""eV/Å per atomic unit of gradient, with the sign that turns gradients into forces."""


class ScfEnergyFunction:
    """The energy function of one structure (`EnergyFunction`): positions to energy and forces.

    Every calculation starts from the same guess, a superposition of free atoms, whatever was computed before. The
    result at the positions of the structure itself is kept for analytic second derivatives.

    Args:
        structure: the molecule, with charge and multiplicity.
        method: functional, basis set and dispersion correction.
        settings: grid, thresholds and limits.

    Raises:
        RequestError: charge and multiplicity do not fit the number of electrons; the basis set lacks an element; the
            structure is periodic.
    """

    def __init__(self, structure: Structure, method: Method, settings: PyscfSettings) -> None:
        self.structure, self.method, self.settings = structure, method, settings
        self._gto: Any = import_optional("pyscf.gto", extra="qc", purpose=method.level)
        self._reference_scf: Any = None
        if structure.periodic:
            raise RequestError(
                f'structure "{structure.id}": {method.level} is computed for molecules; this structure has a cell. '
                "Drop the cell, or use a program for crystals through ase:package.module:factory."
            )
        n_protons = int(structure.numbers.sum())
        check_electron_count(structure.id, n_protons, structure.charge, structure.multiplicity)
        self._ecp = self._effective_core_potentials()
        self._molecule(structure.positions)

    def __call__(self, positions: Float[np.ndarray, "n 3"]) -> SinglePoint:
        """See `EnergyFunction`. Raises EngineError where the calculation does not converge."""
        mean_field = self.scf_at(positions)
        with self.translate_errors():
            gradient = mean_field.nuc_grad_method()
            grid_gradient = np.zeros_like(positions)
            if self.method.xc is not None:
                # Otherwise the gradient is not the derivative of the energy on this grid, and curvature is even worse.
                gradient.grid_response = True
                extra_force = gradient.extra_force

                def recorded_extra_force(atom: int, state: Any) -> Any:
                    grid_gradient[atom] = extra_force(atom, state)
                    return grid_gradient[atom]

                gradient.extra_force = recorded_extra_force
            forces = np.asarray(gradient.kernel()) * _GRADIENT_TO_FORCES
            return SinglePoint(
                float(mean_field.e_tot) * Hartree,
                forces,
                grid_forces=None if self.method.xc is None else grid_gradient * _GRADIENT_TO_FORCES,
            )

    def scf_at(self, positions: Float[np.ndarray, "n 3"]) -> Any:
        """The converged calculation at `positions`; the one at the structure itself is computed once.

        Args:
            positions: Å, `[n, 3]`.

        Returns:
            PySCF's mean-field object.
        """
        if not np.array_equal(positions, self.structure.positions):
            return self._converged_scf(positions)
        if self._reference_scf is None:
            self._reference_scf = self._converged_scf(positions)
        return self._reference_scf

    def _converged_scf(self, positions: Float[np.ndarray, "n 3"]) -> Any:
        with self.translate_errors():
            mean_field = self._mean_field(self._molecule(positions))
            with _kept_orbital_values(mean_field):
                mean_field.kernel()
                if not mean_field.converged:
                    # The second-order method is slower per cycle and more robust. It continues where the first one
                    # stopped; the first one then converges the last digits.
                    newton = mean_field.newton()
                    newton.kernel(mean_field.mo_coeff, mean_field.mo_occ)
                    mean_field.kernel(newton.make_rdm1())
        if not mean_field.converged:
            raise EngineError(
                f'structure "{self.structure.id}": {self.method.level} did not converge in '
                f"{self.settings.max_cycles} cycles, nor with the second-order method "
                f"(multiplicity {self.structure.multiplicity}). Two states may lie close together at this geometry."
            )
        return mean_field

    def _molecule(self, positions: Float[np.ndarray, "n 3"]) -> Any:
        structure = self.structure
        symbols = species_names(structure.numbers)
        try:
            with _no_warnings():
                return self._gto.M(
                    atom=list(zip(symbols, (positions / Bohr).tolist(), strict=True)),
                    unit="Bohr",
                    basis=self.method.basis,
                    ecp=self._ecp,
                    cart=self.settings.cartesian,
                    charge=structure.charge,
                    spin=structure.multiplicity - 1,
                    verbose=0,
                )
        except (RuntimeError, KeyError) as error:
            raise RequestError(
                f'structure "{structure.id}": {self.method.level} cannot be set up: {str(error).strip()}'
            ) from error

    def _effective_core_potentials(self) -> dict[str, Any]:
        """Effective core potentials where the basis set was made for them. PySCF omits them by default."""
        potentials = {}
        for z in sorted({int(z) for z in self.structure.numbers if z > 10}):
            symbol = species_name(z)
            with _no_warnings(), contextlib.suppress(Exception):  # no potential of that name: all electrons
                potential = self._gto.basis.load_ecp(self.method.basis, symbol)
                if potential:
                    potentials[symbol] = potential
        return potentials

    def _mean_field(self, molecule: Any) -> Any:
        closed_shell = self.structure.multiplicity == 1
        if self.method.xc is None:
            scf: Any = import_optional("pyscf.scf", extra="qc", purpose=self.method.level)
            mean_field = scf.RHF(molecule) if closed_shell else scf.UHF(molecule)
        else:
            dft: Any = import_optional("pyscf.dft", extra="qc", purpose=self.method.level)
            mean_field = dft.RKS(molecule) if closed_shell else dft.UKS(molecule)
            mean_field.xc = self.method.xc
            mean_field.nlc = False
            mean_field.grids.level = self.settings.grid
            # Grid points of small density must not appear and disappear from geometry to geometry.
            mean_field.small_rho_cutoff = 0
            if not self.settings.density_fit:
                _keep_range_separated_integrals(mean_field)
        if self.settings.density_fit:
            mean_field = mean_field.density_fit(auxbasis=AUXILIARY_BASIS)
        mean_field.disp = self.method.dispersion or False
        mean_field.conv_tol = self.settings.energy_threshold
        mean_field.conv_tol_grad = self.settings.gradient_threshold
        mean_field.max_cycle = self.settings.max_cycles
        if mean_field.chkfile:  # a temporary file, created and opened by PySCF
            mean_field.chkfile = None
            mean_field._chkfile.close()
        return mean_field

    @contextlib.contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turn all exceptions of PySCF into EngineError, and suppress its warnings, which address its developers.

        Raises:
            EngineError: PySCF failed.
        """
        try:
            with _no_warnings():
                yield
        except HesseError:
            raise
        except Exception as error:
            raise EngineError(
                f'structure "{self.structure.id}": {self.method.level} failed: {type(error).__name__}: {error}'
            ) from error


def _keep_range_separated_integrals(mean_field: Any) -> None:
    """Compute the integrals of range-separated exchange once for each geometry, where they fit into memory.

    PySCF keeps those of the full Coulomb operator, and computes these again in every cycle.
    """
    from pyscf.scf.hf import dot_eri_dm

    molecule, full = mean_field.mol, mean_field.get_jk
    integrals: dict[float, Any] = {}

    def get_jk(
        mol: Any = None, dm: Any = None, hermi: int = 1, with_j: bool = True, with_k: bool = True, omega: Any = None
    ) -> Any:
        if not omega or (mol is not None and mol is not molecule):
            return full(mol, dm, hermi, with_j, with_k, omega)
        if omega not in integrals:
            with molecule.with_range_coulomb(omega):
                integrals[omega] = molecule.intor("int2e", aosym="s8")
        return dot_eri_dm(integrals[omega], mean_field.make_rdm1() if dm is None else dm, hermi, with_j, with_k)

    if molecule.nao**4 / 1e6 < _KEPT_FRACTION * mean_field.max_memory:
        mean_field.get_jk = get_jk


@contextlib.contextmanager
def _kept_orbital_values(mean_field: Any) -> Iterator[None]:
    """Compute basis functions on the grid once for all cycles, where they fit into memory; PySCF repeats it."""
    integrator = getattr(mean_field, "_numint", None)
    if integrator is None:  # Hartree-Fock
        yield
        return
    compute = integrator.block_loop
    kept: dict[int, list[tuple[Any, ...]]] = {}

    def block_loop(
        mol: Any, grids: Any, nao: int | None = None, deriv: int = 0, max_memory: float = 2000, **options: Any
    ) -> Iterator[tuple[Any, ...]]:
        if deriv not in kept:
            is_cycle = mol is mean_field.mol and grids is mean_field.grids and deriv < 2 and not options
            if not is_cycle or _megabytes(grids, mol, deriv) > _KEPT_FRACTION * mean_field.max_memory:
                yield from compute(mol, grids, nao, deriv, max_memory, **options)
                return
            kept[deriv] = [
                (ao.copy(order="K"), mask, weights, coordinates)  # PySCF writes all blocks into one buffer
                for ao, mask, weights, coordinates in compute(mol, grids, nao, deriv, max_memory)
            ]
        yield from kept[deriv]

    integrator.block_loop = block_loop
    try:
        yield
    finally:
        del integrator.block_loop


def _megabytes(grids: Any, molecule: Any, derivative: int) -> float:
    """Size of the basis functions, with their gradient where `derivative` is 1, at all points of the grid."""
    return float(grids.weights.size * molecule.nao * (1, 4)[derivative] * 8e-6)


@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
