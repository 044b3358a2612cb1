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
from hesse.engines.pyscf.pyscf_settings import PyscfSettings
from hesse.engines.pyscf.scf import AUXILIARY_BASIS, ScfEnergyFunction
from hesse.errors import EngineError
from hesse.runtime.imports import import_optional
from hesse.runtime.settings import settings_from
from hesse.structures import Request, Structure

__all__ = ["PyscfEngine"]

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
        settings: settings of the program. The choice of hvp "auto" is made here, not structure by structure, and
            recorded; products of functionals by `analytic` lack the response of the grid.
        differences: how curvature is taken from forces.
        **options: the fields of `PyscfSettings` in place of `settings`.

    Raises:
        MissingExtraError: PySCF is not installed.
        UnknownOptionError: an unknown option, functional or basis set.
        RequestError: see `parse_method`.
        ConfigError: an option out of range, or options that do not fit together.
    """

    def __init__(
        self,
        method: str = "wb97x/6-31g*",
        settings: PyscfSettings | None = None,
        *,
        differences: FiniteDifferences | None = None,
        **options: Any,
    ) -> None:
        import_optional("pyscf", extra="qc", purpose=f"pyscf:{method}")
        self.options = settings_from(PyscfSettings, settings, options)
        self.name = "pyscf"
        self.method = parse_method(method)
        self.level = self.method.level
        is_hartree_fock, hvp, probes = self.method.xc is None, self.options.hvp, self.options.probes or 0
        if hvp == "auto":
            hvp = "analytic" if is_hartree_fock and probes >= _ANALYTIC_BREAK_EVEN else "differences"
        self.hvp = hvp
        analytic_by_default = is_hartree_fock and not self.options.density_fit
        self.hessian = self.options.hessian or ("analytic" if analytic_by_default else "differences")
        self.differences = differences or FiniteDifferences()
        self.gradient_noise = _NOISE_PER_THRESHOLD * self.options.gradient_threshold
        self.settings = MappingProxyType(self._settings())

    def _settings(self) -> dict[str, str]:
        options = self.options
        settings = {
            "program": f"pyscf {version('pyscf')}",
            "hvp_by": self.hvp,
            "hessian_by": self.hessian,
            "energy_threshold": f"{options.energy_threshold:g}",
            "gradient_threshold": f"{options.gradient_threshold:g}",
            "max_cycles": str(options.max_cycles),
            "scf": "from atoms at every point; DIIS, else second order and DIIS",
            **self.differences.settings(
                self.gradient_noise, hvp=self.hvp == "differences", hessian=self.hessian == "differences"
            ),
        }
        if options.cartesian:
            settings["cartesian"] = "yes"
        if options.density_fit:
            settings["density_fit"] = AUXILIARY_BASIS
        if self.method.xc is not None:
            settings |= {"grid": str(options.grid), "grid_response": "yes"}
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
        return ScfEnergyFunction(structure, self.method, self.options)

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
