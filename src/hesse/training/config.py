"""What a training run is made of, as typed values. Every field has a default that works; unknown names are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hesse.losses import LossWeights
from hesse.models import HipnnConfig, ModelConfig, ZblConfig

__all__ = [
    "BatchConfig",
    "CurvatureConfig",
    "DataConfig",
    "OptimizerConfig",
    "ProbeConfig",
    "RampConfig",
    "RunConfig",
    "ScheduleConfig",
    "TrainConfig",
]


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class BatchConfig(_Config):
    """How much goes into one step."""

    structures: int = Field(16, ge=1, description="at most so many structures")
    atoms: int = Field(2000, ge=1, description="and at most so many atoms")
    size_window: int | None = Field(
        None, ge=2, description="batches of structures of similar size, sorted among so many; null: of any size"
    )


class OptimizerConfig(_Config):
    """AdamW. Weight decay acts on weight matrices only, not on biases, sensitivities or scales."""

    learning_rate: float = Field(5e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0, description="largest norm of the gradient; null for none")
    ema_decay: float | None = Field(0.995, gt=0, lt=1, description="decay of the average of parameters; null for none")


class ScheduleConfig(_Config):
    """Learning rate over the run."""

    kind: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup: int = Field(50, ge=0, description="steps of linear rise at the start")
    final: float = Field(0.01, gt=0, le=1, description="cosine: last rate, as a fraction of the first")
    factor: float = Field(0.5, gt=0, lt=1, description="plateau: multiply the rate by this")
    patience: int = Field(5, ge=0, description="plateau: after so many validations without a new best loss")
    stop_below: float = Field(1e-5, ge=0, description="plateau: end the run below this learning rate")


class RampConfig(_Config):
    """A loss weight that rises from zero to its value; times as fractions of the run."""

    start: float = Field(0.0, ge=0, le=1)
    end: float = Field(0.5, ge=0, le=1)
    shape: Literal["linear", "cosine"] = "cosine"

    @model_validator(mode="after")
    def _check_order(self) -> RampConfig:
        if self.start > self.end:
            raise ValueError(f"expected start <= end, got {self.start} and {self.end}")
        return self


class ProbeConfig(_Config):
    """Where Hessian-vector products come from: the stored pairs (fixed), or new directions at every step through
    stored Hessians (fresh)."""

    source: Literal["stored", "fresh"] = "stored"
    kind: Literal["rademacher", "gaussian", "one-hot", "sphere", "rademacher-internal", "gaussian-internal"] = Field(
        "rademacher", description="family of fresh probes"
    )
    n_probes: int = Field(1, ge=1)


class CurvatureConfig(_Config):
    """How often curvature is looked at. The expected loss and gradient stay those of the defaults."""

    fraction: float = Field(
        1.0, gt=0, le=1, description="share of a step's structures, drawn anew at each step, with curvature terms"
    )
    every_n_steps: int = Field(
        1, ge=1, description="curvature terms in every so many steps, with so many times the weight"
    )
    probes: int | None = Field(
        None, ge=1, description="at most so many of a structure's stored pairs, drawn at each step; null: all"
    )


class TrainConfig(_Config):
    """One run, apart from its data."""

    model: ModelConfig = HipnnConfig()
    repulsion: ZblConfig | None = Field(None, description="a repulsion that is added to the network")
    init_from: str | None = Field(
        None,
        description="a potential to go on from, in place of `model`: runs/a/model.hesse, mace:FILE?trust=pickle, ...",
    )
    reference_energies: Literal["fit", "keep"] | None = Field(
        None,
        description="energies per element: fit them to the training energies, or keep those there are; null: fit for a "
        "new network, keep for a potential that is given",
    )
    weights: LossWeights = LossWeights()
    weight_ramps: dict[Literal["energy", "forces", "hvp", "hessian"], RampConfig] = Field(default_factory=dict)
    probe: ProbeConfig = ProbeConfig()
    curvature: CurvatureConfig = CurvatureConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    batch: BatchConfig = BatchConfig()
    steps: int = Field(2000, ge=1)
    validate_every: int = Field(100, ge=1, description="steps between validations")
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints")
    early_stopping: int | None = Field(None, ge=1, description="validations without a new best loss; null for never")
    include_flagged: bool = Field(False, description="use structures whose labels are flagged suspect too")
    seed: int = Field(0, ge=0, lt=2**63)
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    compile: Literal["auto", "always", "never"] = Field(
        "auto", description="compile energies, forces and products; auto: where the run is long enough to win by it"
    )
    cpu_threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of torch; null for its default")
    tensorboard: bool = False

    @model_validator(mode="after")
    def _check_init_from(self) -> TrainConfig:
        if self.init_from is not None and (self.model != HipnnConfig() or self.repulsion is not None):
            raise ValueError("init_from names a whole potential: leave out model and repulsion")
        return self


class DataConfig(_Config):
    """Files of labeled structures."""

    train: Path
    validation: Path | None = Field(None, description="a file; without it, a part of the training data is held out")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="that part; structures of one group stay together")
    by_group: bool = Field(True, description="keep the structures of a molecule or reaction on one side")
    memory_mib: float | None = Field(
        None, gt=0, description="stream files whose structures take more memory than this; null: all in memory"
    )


class RunConfig(TrainConfig):
    """A run with its data and the folder it writes to: what `hesse train` reads."""

    data: DataConfig
    output: Path
