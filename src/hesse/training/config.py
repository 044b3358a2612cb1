"""Settings of a training run. Every field has a default that works; unknown names are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hesse.errors import did_you_mean
from hesse.losses import Loss, LossTerm, LossWeights, RampConfig, term_names
from hesse.models import HesseNetConfig, ModelConfig, ZblConfig
from hesse.runtime.settings import Settings

__all__ = [
    "BatchConfig",
    "CurvatureConfig",
    "DataConfig",
    "OptimizerConfig",
    "ProbeConfig",
    "ReplayConfig",
    "RunConfig",
    "ScheduleConfig",
    "TrainConfig",
]


class BatchConfig(Settings):
    """Size of a batch, which ends at the limit that is reached first."""

    renamed: ClassVar[Mapping[str, str]] = {"bucketing": "size_window"}

    structures: int = Field(16, ge=1, description="maximum number of structures in a step")
    atoms: int = Field(2000, ge=1, description="maximum number of atoms in a step")
    size_window: int | None = Field(
        None, ge=2, description="batches of similar sizes, sorted in windows of this number of batches; null: unsorted"
    )
    draw: Literal["by-weight"] | None = Field(
        None, description="by-weight: an epoch has structures as often as their weights say, which then do not act in "
        "the loss; null: each once"
    )  # fmt: skip


class OptimizerConfig(Settings):
    """AdamW. Weight decay acts on weight matrices only, not on biases, sensitivities or scales."""

    renamed: ClassVar[Mapping[str, str]] = {"clip": "max_grad_norm", "ema": "ema_decay"}
    synonyms: ClassVar[Mapping[str, str]] = {"lr": "learning_rate"}

    learning_rate: float = Field(5e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    max_grad_norm: float | None = Field(1.0, gt=0, description="the gradient is clipped to this norm; null: never")
    ema_decay: float | None = Field(
        0.995, gt=0, lt=1, description="decay of the exponential moving average of the parameters; null: no average"
    )


class ScheduleConfig(Settings):
    """Learning rate as a function of the step."""

    kind: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup: int = Field(50, ge=0, description="steps of linear rise at the start")
    final: float = Field(0.01, gt=0, le=1, description="cosine: last learning rate as a fraction of the first")
    factor: float = Field(0.5, gt=0, lt=1, description="plateau: the learning rate is multiplied by this")
    patience: int = Field(5, ge=0, description="plateau: validations without a new best loss to wait for")
    stop_below: float = Field(1e-5, ge=0, description="plateau: end the run below this learning rate")


class ProbeConfig(Settings):
    """Source of the Hessian-vector products: stored (probe, product) pairs, or new probes at every step, multiplied
    with stored Hessians (fresh; structures without a Hessian keep their stored pairs)."""

    renamed: ClassVar[Mapping[str, str]] = {"per_structure": "n_probes"}

    source: Literal["stored", "fresh"] = "stored"
    kind: Literal["rademacher", "gaussian", "one-hot", "sphere", "rademacher-internal", "gaussian-internal"] = Field(
        "rademacher", description="distribution of fresh probes"
    )
    n_probes: int = Field(1, ge=1, description="fresh probes for each structure")
    weighting: Literal["none", "mass", "soft-modes", "free-energy"] = Field(
        "none",
        description="fresh probes that favor light atoms (mass), soft modes of the stored Hessian (soft-modes) or what "
        "the harmonic free energy depends on (free-energy)",
    )
    soft_below: float = Field(400.0, gt=0, description="soft-modes: wavenumber in cm⁻¹ above which modes count less")

    @model_validator(mode="after")
    def _check_source(self) -> ProbeConfig:
        if self.source == "stored" and (self.kind != "rademacher" or self.n_probes != 1):
            raise ValueError(
                "kind and n_probes belong to fresh probes (source: fresh, from stored Hessians); stored pairs are used "
                "as they are, at most curvature.probes of a structure"
            )
        return self

    @model_validator(mode="after")
    def _check_weighting(self) -> ProbeConfig:
        if self.weighting != "none" and self.source != "fresh":
            raise ValueError(
                f"weighting {self.weighting} needs Hessians, from which fresh probes are weighted: source: fresh"
            )
        if self.weighting != "soft-modes" and self.soft_below != type(self).model_fields["soft_below"].default:
            raise ValueError("soft_below belongs to weighting: soft-modes (with source: fresh)")
        return self


class CurvatureConfig(Settings):
    """Curvature terms on a part of the data only. Expected loss and gradient are those of the defaults."""

    renamed: ClassVar[Mapping[str, str]] = {"every": "every_n_steps", "pairs": "probes"}

    fraction: float = Field(
        1.0, gt=0, le=1, description="fraction of a step's structures with curvature terms, drawn anew at each step"
    )
    every_n_steps: int = Field(
        1, ge=1, description="n: curvature terms in every n-th step only, with n times their weight"
    )
    probes: int | None = Field(
        None, ge=1, description="maximum number of a structure's stored pairs, drawn at each step; null: all"
    )


class ReplayConfig(Settings):
    """Steps on other data (data.replay) between the steps on training data, against forgetting. They have no curvature
    terms."""

    steps: int = Field(4, ge=1, description="steps on replay data after each step on training data")


class TrainConfig(Settings):
    """All settings of a run except its data."""

    renamed: ClassVar[Mapping[str, str]] = {
        "start_from": "init_from",
        "prior": "repulsion",
        "references": "reference_energies",
        "ramps": "weight_ramps",
        "optimiser": "optimizer",
        "include_suspect": "include_flagged",
        "threads": "cpu_threads",
        "model.kind: equivariant": "model.kind: hessenet",
    }
    synonyms: ClassVar[Mapping[str, str]] = {
        "lr": "optimizer.learning_rate",
        "batch_size": "batch.structures",
        "epochs": "steps",
    }

    model: ModelConfig = HesseNetConfig()
    repulsion: ZblConfig | None = Field(None, description="a repulsion that is added to the network")
    baseline: Path | None = Field(
        None, description="a model file whose energies are added to the network and stay as they are (a prior of beads)"
    )
    init_from: str | None = Field(
        None,
        description="a potential to start from, in place of `model`: runs/a/model.hesse, mace:FILE?trust=pickle, ...",
    )
    reference_energies: Literal["fit", "keep"] | None = Field(
        None,
        description="energies per element: fit them to the training energies, or keep those of the potential; null: "
        "fit for a new network, keep for an existing potential",
    )
    weights: LossWeights = LossWeights()
    loss: tuple[LossTerm, ...] | None = Field(
        None, description="terms of the loss with their forms and weights, in place of `weights`"
    )
    weight_ramps: dict[str, RampConfig] = Field(
        default_factory=dict, description="rise of weights, by name of the loss term"
    )
    probe: ProbeConfig = ProbeConfig()
    curvature: CurvatureConfig = CurvatureConfig()
    replay: ReplayConfig | None = Field(None, description="with data.replay; null: the default number of steps")
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    batch: BatchConfig = BatchConfig()
    steps: int = Field(2000, ge=1)
    validate_every: int = Field(100, ge=1, description="steps between validations")
    validation_probes: int = Field(
        4, ge=1, description="probes per structure from which validations estimate curvature errors, always the same"
    )
    validate_hessians: bool = Field(
        True, description="errors of full Hessians, if labeled, before the first and after the last step"
    )
    checkpoint_every: int = Field(100, ge=1, description="steps between checkpoints")
    early_stopping: int | None = Field(
        None, ge=1, description="stop after this number of validations without a new best loss; null: never"
    )
    include_flagged: bool = Field(False, description="also use structures whose labels are flagged as suspect")
    allow_mixed_charges: bool = Field(
        False, description="train on structures of several charges or multiplicities, which no potential tells apart"
    )
    allow_shared_structures: bool = Field(
        False, description="train although all validation structures are training structures too"
    )
    seed: int = Field(0, ge=0, lt=2**63)
    dtype: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    compile: Literal["auto", "always", "never"] = Field(
        "auto", description="compile the training step; auto: if the run is long enough to save time by it"
    )
    cpu_threads: int | None = Field(None, ge=1, le=1024, description="CPU threads of torch; null: its default")
    tensorboard: bool = False

    @model_validator(mode="after")
    def _check_init_from(self) -> TrainConfig:
        network_options = (self.model != HesseNetConfig(), self.repulsion is not None, self.baseline is not None)
        if self.init_from is not None and any(network_options):
            raise ValueError("init_from names a whole potential: leave out model, repulsion and baseline")
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> TrainConfig:
        if self.loss is not None and self.weights != LossWeights() and not self.weights.balance:
            raise ValueError("loss lists the terms with their weights: leave out weights (or write weights: balance)")
        if self.loss is not None and self.weights.balance and self.weights != LossWeights(balance=True):
            raise ValueError("factors of balanced weights are the weights of the terms of loss: write weights: balance")
        known = [term.name for term in self.loss] if self.loss is not None else term_names()
        for name in self.weight_ramps:
            if name not in known:
                raise ValueError(f"weight_ramps: no loss term {name!r}. {did_you_mean(name, known)}")
        for term in self.loss or ():
            if term.ramp is not None and term.name in self.weight_ramps:
                raise ValueError(f"the loss term {term.name!r} has a ramp of its own and one in weight_ramps: give one")
        names = [term.name for term in self.loss or ()]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two loss terms are called {name!r}: give one of them another name")
        return self

    def make_loss(self) -> Loss:
        """The loss of the run.

        Returns:
            The terms of `loss`, or squared errors with `weights`.

        Raises:
            ConfigError: all weights are zero.
        """
        return self.weights.loss() if self.loss is None else Loss(self.loss)


class DataConfig(Settings):
    """Files of labeled structures."""

    train: Path | tuple[Path, ...] = Field(description="a file, or a list of files whose structures are joined")
    validation: Path | tuple[Path, ...] | None = Field(
        None, description="a file or a list of files; null: a part of the training data is held out"
    )
    validation_fraction: float = Field(
        0.1, ge=0, lt=1, description="fraction of the training data to hold out; 0: no validation, the last model"
    )
    replay: Path | tuple[Path, ...] | None = Field(
        None, description="a file or a list of files for steps between those on training data (replay)"
    )
    by_group: bool = Field(True, description="keep structures of one group (molecule, reaction) together")
    memory_mib: float | None = Field(
        None, gt=0, description="stream files whose structures need more memory than this; null: all in memory"
    )

    @field_validator("train", "validation", "replay", mode="before")
    @classmethod
    def _check_files(cls, value: object, info: ValidationInfo) -> object:
        if info.field_name == "validation" and isinstance(value, int | float):
            raise ValueError(f"expected the path of a file; for a fraction write validation_fraction: {value}")
        if isinstance(value, str | Path) or (value is None and info.field_name != "train"):
            return value
        if not isinstance(value, list | tuple) or not value or not all(isinstance(v, str | Path) for v in value):
            raise ValueError("expected the path of a file or folder, or a list of paths")
        return Path(value[0]) if len(value) == 1 else tuple(Path(v) for v in value)

    @property
    def train_files(self) -> tuple[Path, ...]:
        """The training files, one or several."""
        return _as_tuple(self.train)

    @property
    def validation_files(self) -> tuple[Path, ...]:
        """The validation files; none if a part of the training data is held out."""
        return _as_tuple(self.validation)

    @property
    def replay_files(self) -> tuple[Path, ...]:
        """The files of replay data, if any."""
        return _as_tuple(self.replay)


def _as_tuple(files: Path | tuple[Path, ...] | None) -> tuple[Path, ...]:
    return () if files is None else files if isinstance(files, tuple) else (files,)


class RunConfig(TrainConfig):
    """Settings of a run, its data, and the folder it writes to: the file that `hesse train` reads."""

    data: DataConfig
    output: Path
