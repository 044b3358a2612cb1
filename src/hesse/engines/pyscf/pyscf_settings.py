"""Settings of calculations with PySCF."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from hesse.runtime.settings import Settings

__all__ = ["PyscfSettings"]


class PyscfSettings(Settings):
    """Settings of PySCF.

    For the error that the grid causes in a Hessian-vector product see docs/label-errors.md. PySCF's own threshold of
    the orbital gradient (the square root of that of the energy) leaves errors of 1e-5 eV/Å in gradients, this one 5e-8,
    for two more cycles. Where the cycle does not converge, the second-order method gets as many cycles, and then the
    first one again.
    """

    grid: int = Field(5, ge=0, le=9, description="level of the integration grid of functionals, 0 to 9")
    hvp: Literal["differences", "analytic", "auto"] = Field(
        "differences",
        description="Hessian-vector products: auto is analytic for Hartree-Fock if probes reaches 4, else differences",
    )
    probes: int | None = Field(None, ge=0, description="number of products planned per structure, for hvp=auto only")
    hessian: Literal["differences", "analytic"] | None = Field(
        None, description="by default analytic for Hartree-Fock, differences for functionals"
    )
    cartesian: bool = Field(False, description="six d functions instead of five, as in Gaussian's 6-31G*")
    density_fit: bool = Field(
        False,
        description="integrals by density fitting (def2-universal-jkfit): a fraction of the time, products by finite "
        "differences only",
    )
    energy_threshold: float = Field(1e-10, gt=0, lt=1, description="convergence of the energy, Hartree")
    gradient_threshold: float = Field(1e-7, gt=0, lt=1, description="convergence of the norm of the orbital gradient")
    max_cycles: int = Field(100, ge=1, description="limit of the self-consistent cycle")

    @model_validator(mode="after")
    def _check_density_fit(self) -> PyscfSettings:
        analytic = [name for name in ("hvp", "hessian") if getattr(self, name) not in ("differences", None)]
        if self.density_fit and analytic:
            raise ValueError(
                f"expected {analytic[0]}=differences together with density_fit: PySCF's second derivatives with fitted "
                f'densities are not used here; got {analytic[0]} "{getattr(self, analytic[0])}"'
            )
        return self

    @model_validator(mode="after")
    def _check_probes(self) -> PyscfSettings:
        if (self.hvp == "auto") != (self.probes is not None):
            raise ValueError(
                f'expected hvp "auto" with the number of probes planned per structure (probes=...), or neither; got '
                f'hvp "{self.hvp}", probes {self.probes}'
            )
        return self
