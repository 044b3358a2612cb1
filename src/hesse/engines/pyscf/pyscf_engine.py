"""Hartree-Fock and density-functional theory with PySCF: energies, forces, Hessian-vector products, Hessians.

Curvature comes from differences of gradients, or from the coupled-perturbed equations (analytic). For Hartree-Fock both
are exact within their thresholds. For a functional the differences contain the response of the integration grid and the
analytic derivatives do not: their error grows with the coarseness of the grid. Sun et al., J. Chem. Phys. 153, 024109
(2020) (PySCF).
"""

from __future__ import annotations

from importlib.metadata import version
from types import MappingProxyType
from typing import Any, final

import numpy as np
from ase.units import Bohr, Hartree
from jaxtyping import Float

from hesse.engine import EnergyFunction
from hesse.engines.force_engine import AnalyticDerivatives, FiniteDifferences, ForceEngine
from hesse.engines.pyscf.method import parse_method
from hesse.engines.pyscf.scf import ScfEnergyFunction
from hesse.errors import ConfigError, EngineError, check_choice
from hesse.runtime.imports import import_optional
from hesse.structures import Request, Structure

__all__ = ["PyscfEngine"]

_HVP_METHODS = ("differences", "analytic", "auto")
_HESSIAN_METHODS = ("differences", "analytic")

_ANALYTIC_BREAK_EVEN = 4
"""Number of probes per structure from which analytic Hartree-Fock products are cheaper: their preparation costs 6 to 8
gradients (formaldehyde to ethanol, 6-31G*), each product after it almost nothing, a difference two gradients."""

_RESPONSE_ERROR = 5e-7
"""eV/Å²; error that the threshold of the coupled-perturbed equations leaves in Hartree-Fock products (28 jittered
molecules: median 4e-7, worst 6e-6)."""

_DIRECTION_SCALE = 1e4
"""Bohr; largest component of a direction in the coupled-perturbed equations. Error of an open-shell product at
1 Bohr: 4e-3 eV/Å², at 1e4: 7e-5 (formaldehyde cation, STO-3G)."""

_NOISE_PER_THRESHOLD = 0.5
"""eV/Å; error of a gradient divided by the threshold of the orbital gradient (1e-7: 2e-8 to 5e-8 for water,
formaldehyde)."""


@final
class PyscfEngine(ForceEngine):
    """Restricted (multiplicity 1) or unrestricted Hartree-Fock and Kohn-Sham theory of molecules.

    Charge and multiplicity are those of the structure. The wave function is not tested for stability, and an open-shell
    singlet is computed as a closed shell.

    Args:
        method: METHOD/BASIS, see `parse_method`: "wb97x/6-31g*", "hf/def2-svp", "b3lyp-d3bj/6-31g**".
        grid: 0 to 9, PySCF's level of the integration grid (functionals only). For the error that it causes in a
            Hessian-vector product see docs/label-errors.md.
        hvp: "differences", "analytic", or "auto": analytic for Hartree-Fock when `probes` reaches 4, differences
            otherwise (always for functionals, whose analytic products lack the response of the grid). The choice is
            made here, not structure by structure, and recorded in `settings`.
        probes: planned number of products per structure, for "auto".
        hessian: "differences" or "analytic"; None: analytic for Hartree-Fock, differences for functionals.
        cartesian: six d functions instead of five, as in Gaussian's 6-31G*.
        energy_threshold: Hartree; convergence of the self-consistent cycle.
        gradient_threshold: convergence of the norm of its orbital gradient. PySCF's default (the square root of the
            energy threshold) leaves errors of 1e-5 eV/Å in gradients, this one 5e-8, for two more cycles.
        max_cycles: limit of the cycle. Where it does not converge, the second-order method gets as many cycles, and
            then the first one again.
        differences: how curvature is taken from forces.

    Raises:
        MissingExtraError: PySCF is not installed.
        UnknownOptionError, RequestError: see `parse_method`.
        ConfigError: a setting out of its range.
    """

    def __init__(
        self,
        method: str = "wb97x/6-31g*",
        *,
        grid: int = 5,
        hvp: str = "differences",
        probes: int | None = None,
        hessian: str | None = None,
        cartesian: bool = False,
        energy_threshold: float = 1e-10,
        gradient_threshold: float = 1e-7,
        max_cycles: int = 100,
        differences: FiniteDifferences | None = None,
    ) -> None:
        import_optional("pyscf", extra="qc", purpose=f"pyscf:{method}")
        if not 0 <= grid <= 9:
            raise ConfigError(f"PySCF's grids have levels 0 to 9, got {grid}")
        if not (0 < energy_threshold < 1 and 0 < gradient_threshold < 1) or max_cycles < 1:
            raise ConfigError(
                "PySCF needs thresholds between 0 and 1 and at least one cycle, got "
                f"{energy_threshold:g}, {gradient_threshold:g} and {max_cycles}"
            )
        check_choice(hvp, _HVP_METHODS, "method for Hessian-vector products")
        check_choice(hessian or "analytic", _HESSIAN_METHODS, "method for Hessians")
        if (hvp == "auto") != (probes is not None) or (probes is not None and probes < 0):
            raise ConfigError(
                f'hvp "auto" needs the number of probes planned per structure (probes=...), the others do not; got '
                f'hvp "{hvp}", probes {probes}'
            )
        self.name = "pyscf"
        self.method = parse_method(method)
        self.level = self.method.level
        self.grid, self.cartesian = int(grid), bool(cartesian)
        self.energy_threshold, self.gradient_threshold = float(energy_threshold), float(gradient_threshold)
        self.max_cycles = int(max_cycles)
        is_hartree_fock = self.method.xc is None
        if hvp == "auto":
            hvp = (
                "analytic"
                if is_hartree_fock and probes is not None and probes >= _ANALYTIC_BREAK_EVEN
                else "differences"
            )
        self.hvp, self.hessian = hvp, hessian or ("analytic" if is_hartree_fock else "differences")
        self.differences = differences or FiniteDifferences()
        self.gradient_noise = _NOISE_PER_THRESHOLD * self.gradient_threshold
        self.settings = MappingProxyType(self._settings())

    def _settings(self) -> dict[str, str]:
        settings = {
            "program": f"pyscf {version('pyscf')}",
            "hvp_by": self.hvp,
            "hessian_by": self.hessian,
            "energy_threshold": f"{self.energy_threshold:g}",
            "gradient_threshold": f"{self.gradient_threshold:g}",
            "max_cycles": str(self.max_cycles),
            "scf": "from atoms at every point; DIIS, else second order and DIIS",
            **self.differences.settings(
                self.gradient_noise, hvp=self.hvp == "differences", hessian=self.hessian == "differences"
            ),
        }
        if self.cartesian:
            settings["cartesian"] = "yes"
        if self.method.xc is not None:
            settings |= {"grid": str(self.grid), "grid_response": "yes"}
        if self.method.dispersion:
            settings |= {
                "dispersion": self.method.dispersion,
                "dispersion_program": f"pyscf-dispersion {version('pyscf-dispersion')}",
            }
        return settings

    def energy_function(self, structure: Structure) -> ScfEnergyFunction:
        """See `ForceEngine.energy_function`.

        Raises:
            RequestError: a periodic structure; a number of electrons that the multiplicity does not allow; an element
                that the basis set does not have.
        """
        return ScfEnergyFunction(
            structure,
            self.method,
            grid=self.grid,
            cartesian=self.cartesian,
            energy_threshold=self.energy_threshold,
            gradient_threshold=self.gradient_threshold,
            max_cycles=self.max_cycles,
        )

    def analytic_derivatives(
        self, structure: Structure, energy_function: EnergyFunction, request: Request
    ) -> AnalyticDerivatives:
        """See `ForceEngine.analytic_derivatives`: products and Hessians, each where the settings choose "analytic".

        Raises:
            EngineError: PySCF failed or ran out of memory.
        """
        assert isinstance(energy_function, ScfEnergyFunction)
        wants_hvp = request.probes is not None and self.hvp == "analytic"
        wants_hessian = request.hessian and self.hessian == "analytic"
        if not (wants_hvp or wants_hessian):
            return AnalyticDerivatives()
        hvp = hessian = None
        try:
            with energy_function.translate_errors():
                pyscf_hessian = energy_function.scf_at(structure.positions).Hessian()
                if wants_hessian:
                    blocks = np.asarray(pyscf_hessian.kernel())
                    hessian = blocks.transpose(0, 2, 1, 3) * (Hartree / Bohr**2)
                    hessian = 0.5 * (hessian + hessian.transpose(2, 3, 0, 1))
                if wants_hvp and request.probes is not None:
                    probes = request.probes.detach().cpu().double().numpy()
                    hvp = _analytic_hvp(pyscf_hessian, probes) * (Hartree / Bohr**2)
        except MemoryError as error:
            raise EngineError(f'structure "{structure.id}": {self.level} ran out of memory') from error
        return AnalyticDerivatives(hvp, hessian, error=_RESPONSE_ERROR)


def _analytic_hvp(pyscf_hessian: Any, probes: Float[np.ndarray, "k n 3"]) -> Float[np.ndarray, "k n 3"]:
    """`H v` in Hartree/Bohr²: the coupled-perturbed equations are prepared once and solved for each probe."""
    operator, _ = pyscf_hessian.gen_hop()
    # The equations are linear and their threshold is absolute: for long directions it is relatively tighter.
    scales = _DIRECTION_SCALE / np.abs(probes).max((1, 2))
    products = np.stack(
        [np.asarray(operator(s * probe)).reshape(probe.shape) / s for s, probe in zip(scales, probes, strict=True)]
    )
    if pyscf_hessian.base.do_disp():
        blocks = pyscf_hessian.get_dispersion()
        products += np.einsum("abxy,kax->kby", blocks, probes)
    return products
