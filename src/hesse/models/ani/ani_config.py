"""Hyperparameters of ANI."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from ase.data import atomic_numbers
from pydantic import Field, model_validator

from hesse.runtime.settings import Settings

__all__ = ["AniConfig"]

Width = Annotated[int, Field(ge=1)]
Widths = Annotated[tuple[Width, ...], Field(max_length=64)]
Distance = Annotated[float, Field(ge=0)]
# Angles from 0 to π keep 1 + cos(θ − θ_s) away from zero, where a power of it has no third derivative.
Angle = Annotated[float, Field(ge=0, le=math.pi)]


class AniConfig(Settings):
    """Hyperparameters of ANI. Lengths in Å, angles in radians.

    The defaults are the constants of ANI-1x (Smith et al., J. Chem. Phys. 148, 241733, 2018) and the widths of
    Projected Hessian Learning (arXiv 2603.04523), with two differences, because training on curvature differentiates
    three times: a cutoff that is smooth to third order, and a smooth activation. The published choices are
    `cutoff_function="cosine"`, `activation="celu"` and, in ANI-1x,
    `hidden_of={"H": (160, 128, 96), "C": (144, 112, 96), "N": (128, 112, 96), "O": (128, 112, 96)}`.
    """

    kind: Literal["ani"] = "ani"
    radial_cutoff: float = Field(5.2, gt=0, description="no interaction beyond")
    angular_cutoff: float = Field(3.5, gt=0, description="only angles between neighbors closer than this")
    cutoff_function: Literal["smooth", "cosine", "exponential"] = Field(
        "smooth", description="smooth polynomial; cos² as in ANI-1x and 2x; exp(1 − 1/(1 − x²)) as in ANI-2xr"
    )
    radial_eta: float = Field(16.0, gt=0, description="EtaR: sharpness of the radial bells, 1/Å²")
    radial_shifts: tuple[Distance, ...] = Field(
        tuple(0.9 + 0.26875 * k for k in range(16)), min_length=1, description="ShfR: centers of the radial bells"
    )
    angular_eta: float = Field(8.0, gt=0, description="EtaA: sharpness of the bells in the mean distance, 1/Å²")
    angular_shifts: tuple[Distance, ...] = Field(
        tuple(0.9 + 0.65 * k for k in range(4)), min_length=1, description="ShfA: centers of those bells"
    )
    zeta: float = Field(32.0, ge=1, description="Zeta: sharpness of the peaks in the angle")
    sections: tuple[Angle, ...] = Field(
        tuple(math.pi / 16 + math.pi / 8 * k for k in range(8)), min_length=1, description="ShfZ: angles of the peaks"
    )
    hidden: Widths = Field((256, 64, 256), description="widths of the hidden layers, for every element")
    hidden_of: dict[str, Widths] = Field(
        default_factory=dict, description="widths of single elements where they differ, by symbol"
    )
    activation: Literal["celu", "gelu", "smooth-celu"] = Field(
        "gelu",
        description="gelu is smooth; celu(x, 0.1) is that of ANI-1x and 2x, its second derivative jumps at zero; "
        "smooth-celu is close to it and smooth",
    )

    @model_validator(mode="after")
    def _possible(self) -> AniConfig:
        if self.angular_cutoff > self.radial_cutoff:
            raise ValueError(
                f"expected angular_cutoff <= radial_cutoff, got {self.angular_cutoff} and {self.radial_cutoff} Å"
            )
        for symbol in self.hidden_of:
            if not atomic_numbers.get(symbol):
                raise ValueError(f'expected symbols of elements in hidden_of, got "{symbol}"')
        return self
