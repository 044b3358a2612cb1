"""Weights of the loss terms, the short form of a loss: numbers, one length scale, or weights measured at the start."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from hesse.errors import did_you_mean
from hesse.losses.loss import Loss
from hesse.losses.terms import LossTerm, term_names
from hesse.runtime.settings import Settings

__all__ = ["LossWeights"]

Weight = Annotated[float, Field(ge=0)]


class LossWeights(Settings):
    """Weight of each term of the loss, as a number (the defaults result from the study in docs/choosing-weights.md).

    Other forms: `balance` measures the weights before the first step, so that the gradients of all terms have the same
    norm; `{length_scale: 0.55}` sets energy, forces and products by one length in Å.
    """

    renamed: ClassVar[Mapping[str, str]] = {"penalty": "regularizer"}

    energy: float = Field(4.0, ge=0)
    forces: float = Field(0.3, ge=0)
    hvp: float = Field(0.15, ge=0)
    hessian: float = Field(0.0, ge=0)
    atomic_energies: float = Field(0.0, ge=0)
    stress: float = Field(0.0, ge=0, description="of squared errors of the virial per atom, eV")
    regularizer: float = Field(0.0, ge=0, description="the potential's own regularizer")
    balance: bool = Field(
        False,
        description="the numbers are factors of weights that are measured before the first step, so that the gradient "
        "of each term has the same norm; factors of energy, forces and hvp are 1 unless given",
    )
    length_scale: float | None = Field(
        None, gt=0, description="in place of numbers, ℓ in Å: energy : forces : hvp = 1 : ℓ² : ℓ⁴, times `energy`"
    )
    others: dict[str, Weight] = Field(default_factory=dict, description="weights of registered quantities by name")

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, data: Any) -> Any:
        if data == "balance":
            data = {"balance": True}
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            raise ValueError("expected weights by name ({energy: 4, forces: 0.3, hvp: 0.15}), or balance")
        values = dict(data)
        registered = set(term_names()) - cls.model_fields.keys()
        moved = {name: values.pop(name) for name in list(values) if name in registered}
        if moved:
            values["others"] = {**values.get("others", {}), **moved}
        known = {*cls.model_fields, *cls.renamed} - {"others"}
        for name in values.keys() - {*known, "others"}:
            if not get_close_matches(str(name), known):
                hint = did_you_mean(str(name), known - cls.renamed.keys())
                raise ValueError(
                    f"there is no weight {name!r}. {hint} Quantities of your own: register them before "
                    "(hesse.register_quantity)"
                )
        for name in values["others"] if isinstance(values.get("others"), Mapping) else ():
            if name not in registered:
                raise ValueError(f"others: {name!r} is not a quantity of your own (hesse.register_quantity)")
        length = values.get("length_scale")
        if values.get("balance") in (True, "true", "yes", "on"):  # as pydantic reads it
            return {"energy": 1.0, "forces": 1.0, "hvp": 1.0, **values}
        if isinstance(length, int | float) and not {"forces", "hvp"} & values.keys():
            energy = values.get("energy", 1.0)
            if isinstance(energy, int | float):
                values |= {"energy": energy, "forces": energy * length**2, "hvp": energy * length**4}
        return values

    @model_validator(mode="after")
    def _check_one_form(self) -> LossWeights:
        if self.length_scale is None:
            return self
        expected = (self.energy * self.length_scale**2, self.energy * self.length_scale**4)
        if self.balance or (self.forces, self.hvp) != expected:
            raise ValueError("length_scale sets the weights of forces and hvp: leave them out, and balance too")
        return self

    @classmethod
    def from_length_scale(cls, length: float, *, energy: float = 1.0) -> LossWeights:
        """Weights `energy : energy ℓ² : energy ℓ⁴` of energy, forces and HVP from one length scale ℓ.

        ℓ is the displacement at which errors in forces (times ℓ) and in curvature (times ℓ²) contribute as much as
        errors in the energy. The published weights 1 : 0.3 : 0.09 correspond to ℓ = 0.55 Å.

        Args:
            length: ℓ, Å.
            energy: weight of the energy.

        Returns:
            The weights; all other terms are zero.
        """
        return cls(length_scale=length, energy=energy)

    def by_name(self) -> dict[str, float]:
        """The weights.

        Returns:
            Weights by name of the term, also those that are zero.
        """
        return {**{name: getattr(self, name) for name in _NUMBERS}, **self.others}

    def active(self) -> tuple[str, ...]:
        """Names of the labels with a weight above zero.

        Returns:
            The names, in the order of reports.
        """
        return tuple(name for name, weight in self.by_name().items() if weight > 0 and name != "regularizer")

    def loss(self) -> Loss:
        """The loss with these weights, of squared errors.

        Returns:
            The loss.

        Raises:
            ConfigError: all weights are zero.
        """
        return Loss(LossTerm(quantity=name, weight=weight) for name, weight in self.by_name().items())


_NUMBERS = ("energy", "forces", "hvp", "hessian", "atomic_energies", "stress", "regularizer")
