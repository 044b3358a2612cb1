"""Terms of the loss: which quantity, which function of its residual, which normalization, which weight."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hesse.errors import did_you_mean
from hesse.runtime.settings import Settings
from hesse.structures import QUANTITIES, Quantity, label_names

__all__ = ["LossTerm", "RampConfig", "term_names"]

Form = Literal["mse", "mae", "huber", "rmse"]
Normalization = Literal["structure", "components", "atom"]


class RampConfig(Settings):
    """A loss weight that rises from zero to its value. `start` and `end` are fractions of the run."""

    start: float = Field(0.0, ge=0, le=1)
    end: float = Field(0.5, ge=0, le=1)
    shape: Literal["linear", "cosine"] = "cosine"

    @model_validator(mode="after")
    def _check_order(self) -> RampConfig:
        if self.start > self.end:
            raise ValueError(f"expected start <= end, got {self.start} and {self.end}")
        return self

    def factor(self, fraction_done: float) -> float:
        """The factor of the weight.

        Args:
            fraction_done: fraction of the run that is done, from 0 to 1.

        Returns:
            From 0 to 1.
        """
        if fraction_done >= self.end:
            return 1.0
        if fraction_done <= self.start:
            return 0.0
        x = (fraction_done - self.start) / (self.end - self.start)
        return x if self.shape == "linear" else 0.5 * (1 - math.cos(math.pi * x))


class LossTerm(Settings):
    """One term of the loss: a mean over the structures with the label, in which each structure counts with

        (1/n) Σ_c ρ(r_c / s)

    with its n residuals r_c, their scale s (`normalization`) and a function ρ (`form`). A term of a further output of a
    potential, such as its regularizer, is the mean of this output.
    """

    quantity: str = Field(description="energy, forces, hvp, hessian, atomic_energies, stress or regularizer")
    weight: float = Field(1.0, ge=0)
    form: Form = Field(
        "mse", description="ρ(x): x² (mse), |x| (mae), x² up to delta and linear beyond (huber); rmse: root of the mse"
    )
    delta: float | None = Field(None, gt=0, description="huber: where it becomes linear, in eV and Å (of r / s)")
    normalization: Normalization = Field(
        "structure",
        description="scale s: N^¼ for the energy of N atoms, √(3N) for products, N/V for stress (virial per atom, "
        "eV), 1 for others (structure); N for energies (atom); 1, and a mean over all components of the batch "
        "(components)",
    )
    mass_weighted: bool = Field(
        False, description="squared residuals of atoms count with 1/mass, so that hydrogen counts most (vectors only)"
    )
    structure_weights: bool = Field(True, description="use the weights of structures, if the data have them")
    ramp: RampConfig | None = Field(None, description="rise of the weight during the run")
    name: str = Field("", description="name in records; by default that of the quantity")

    @field_validator("quantity")
    @classmethod
    def _check_quantity(cls, value: str) -> str:
        if value not in term_names():
            raise ValueError(f"there is no loss term of {value!r}. {did_you_mean(value, term_names())}")
        return value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if value in ("step", "loss", "lr", "seconds", "processor_seconds", "kind", "text"):
            raise ValueError(f"rows of the record have an entry {value!r} already: give the term another name")
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name") and isinstance(data.get("quantity"), str):
            return {**data, "name": data["quantity"]}
        return data

    @model_validator(mode="after")
    def _check_options(self) -> LossTerm:
        if (self.form == "huber") != (self.delta is not None):
            raise ValueError("form huber needs delta, and only this form has it")
        if self.normalization == "atom" and self.quantity != "energy":
            raise ValueError(f"normalization atom is meant for energies, not for {self.quantity}")
        if self.mass_weighted and (self.entry.per not in ("atom", "probe atom") or self.entry.components != (3,)):
            raise ValueError(f"mass_weighted is meant for vectors of atoms (forces, hvp), not for {self.quantity}")
        if self.entry.role == "output" and (self.form != "mse" or self.normalization != "structure"):
            raise ValueError(f"the term of {self.quantity} is its mean: it has no form and no normalization")
        return self

    @property
    def entry(self) -> Quantity:
        """The quantity's entry in the table."""
        return QUANTITIES[self.quantity]


def term_names() -> list[str]:
    """Quantities that can have a term in the loss.

    Returns:
        Their names: all labels, and the regularizer of a potential.
    """
    return [*label_names(), "regularizer"]
