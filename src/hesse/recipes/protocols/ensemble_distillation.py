"""Ensemble distillation: teachers that are trained on energies give their mean forces and curvature to a student.

Matin et al., arXiv 2503.14293: several teachers are trained on energies only, as they are at hand from coupled-cluster
calculations; the mean of their forces is a label for every structure; a student is trained on the true energies and
these forces. Here also, if asked for, on mean Hessian-vector products along fixed probes, and with weights from the
spread of the teachers.

For beads (coarse graining) there are no energies, but forces with noise: teachers are trained on these, and the student
on the mean of the teachers alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from hesse.datasets import read_dataset
from hesse.errors import MissingLabelError, RequestError
from hesse.evaluation import spread_calibration
from hesse.labelling import teacher_labels
from hesse.losses import LossWeights
from hesse.probes import make_probe
from hesse.recipes.protocols.common_stages import MODEL, ensemble_stage, error_table, errors_stage, train_stage
from hesse.recipes.protocols.recipe_settings import Files, RecipeSettings, merged
from hesse.recipes.protocols.stages import Stage, StageRecord, StageWork
from hesse.recipes.protocols.student_data import (
    LABELS,
    Targets,
    check_held_out,
    loss_terms,
    open_data,
    open_unlabeled,
    student_data_stage,
)
from hesse.recipes.protocols.teacher_checks import DOUBTFUL_ABOVE

__all__ = ["EnsembleDistillation"]

Variant = Literal["forces-only", "equal-weights", "true-forces"]


class EnsembleDistillation(RecipeSettings):
    """Configuration of the recipe `ensemble-distillation`."""

    renamed: ClassVar[Mapping[str, str]] = {}
    synonyms: ClassVar[Mapping[str, str]] = {
        **RecipeSettings.synonyms, "structures": "train", "data": "train", "n_teachers": "teachers",
    }  # fmt: skip
    data_files: ClassVar[tuple[str, ...]] = ("train", "unlabeled", "test")

    train: Files = Field(description="structures with energies: a file, or a list of files; other labels are not used")
    train_on: Literal["energies", "forces"] = Field(
        "energies",
        description="what the teachers are trained on: energies, which the student gets too; or forces, for beads, "
        "whose student gets only labels of the teachers",
    )
    unlabeled: Files = Field((), description="further structures for the student, of which no label is used")
    teachers: int = Field(5, ge=2, description="number of teachers, each with its own network and held-out structures")
    teacher: dict[str, Any] = Field(default_factory=dict, description="options of the teachers, over those of training")
    student: dict[str, Any] = Field(default_factory=dict, description="options of the student, over those of training")
    weights: LossWeights = Field(
        LossWeights(),
        description="weights of the student: true energies (without them none), forces and products of the teachers",
    )
    probes: int = Field(
        0, ge=0, description="products of the teachers for each structure; 0: forces only, which measured better"
    )
    probe: str = Field("rademacher", description="distribution of their directions")
    structure_weights: Literal["spread", "equal"] = Field(
        "spread", description="weights of the structures in the terms of the teachers, see docs/recipes"
    )
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="fraction of the data that every run holds out to choose its best step"
    )
    by_group: bool = Field(True, description="keep structures of one group (molecule, reaction) together when held out")
    compare: tuple[Variant, ...] = Field(
        (),
        description="also train students without products (forces-only), without weights from the spread "
        "(equal-weights), or on the true forces of the data (true-forces), for comparison",
    )

    @model_validator(mode="after")
    def _check_parts(self) -> EnsembleDistillation:
        for section in ("training", "teacher", "student"):
            for name in ("weights", "loss"):
                if name in getattr(self, section):
                    raise ValueError(
                        f"{section}: leave out {name}: teachers are trained on {self.train_on}, and the terms of the "
                        "student are those of the option weights beside it"
                    )
            for name in ("data", "output", "seed", "init_from"):
                if name in getattr(self, section):
                    raise ValueError(f"{section}: leave out {name}: the recipe decides it")
        if self.probes == 0 and self.weights.hvp > 0 and "hvp" in self.weights.model_fields_set:
            raise ValueError("weights.hvp needs products of the teachers: probes above 0")
        if self.probes == 0 and "forces-only" in self.compare:
            raise ValueError("compare: forces-only is the student itself without products: set probes above 0")
        if self.train_on == "forces":
            if self.weights.energy > 0 and "energy" in self.weights.model_fields_set:
                raise ValueError(
                    "weights.energy: teachers trained on forces give no energies: leave it out, or write 0"
                )
            if "true-forces" in self.compare:
                raise ValueError("compare: true-forces is what every teacher is, with train_on: forces")
        for name in ("hessian", "atomic_energies", "stress", "regularizer"):
            if self.weights.by_name()[name] > 0 and name != "regularizer":
                raise ValueError(f"weights: the student of this recipe has no term {name}: see teacher-student")
        return self

    @property
    def student_weights(self) -> LossWeights:
        """Weights of the student's terms: without energies where the teachers know none."""
        return self.weights if self.train_on == "energies" else self.weights.model_copy(update={"energy": 0.0})

    def run(
        self, section: Mapping[str, Any], data: Path | tuple[Path, ...], seed: int, **options: Any
    ) -> dict[str, Any]:
        """Options of one training run.

        Args:
            section: `teacher` or `student`.
            data: its file or files.
            seed: its seed.
            **options: further options.

        Returns:
            Options as for `hesse train`, without output.
        """
        files = [str(file) for file in data] if isinstance(data, tuple) else str(data)
        held_out = {"train": files, "validation_fraction": self.validation_fraction, "by_group": self.by_group}
        return merged(self.run_options(seed, **dict(section)), {"data": held_out, **options})


def check(settings: EnsembleDistillation) -> Sequence[str]:
    """Check data before any work.

    Args:
        settings: the configuration.

    Returns:
        Remarks.

    Raises:
        MissingLabelError: no energies (or forces) for the teachers; no forces for a comparison with true ones.
        UnknownElementError: further structures with an element that no labeled structure has.
        RequestError: labels of several levels, or ids that repeat.
        UnknownOptionError: an unknown distribution of directions.
        HesseError: a file that cannot be read.
    """
    make_probe(settings.probe, 1)
    data = open_data(settings.train)
    if settings.train_on == "energies" and not data.has("energy"):
        also = ". For beads: train_on: forces" if data.has("forces") else ""
        raise MissingLabelError(f"{data.source}: no structure has an energy, on which the teachers are trained{also}")
    if settings.train_on == "forces" and not data.has("forces"):
        raise MissingLabelError(f"{data.source}: no structure has forces, on which the teachers are trained")
    check_held_out(data, settings.validation_fraction, by_group=settings.by_group)
    if "true-forces" in settings.compare and not data.has("forces"):
        raise MissingLabelError(f"{data.source}: no structure has forces: leave true-forces out of compare")
    level = str(data.metadata.get("level") or "")
    if "; " in level and not settings.allow_mixed_levels:
        raise RequestError(
            f"{data.source}: {settings.train_on} of several levels of theory: {level}. Train on one of them, or write "
            "allow_mixed_levels: true."
        )
    remarks = []
    if settings.unlabeled:
        open_unlabeled(settings.unlabeled, data)
    for name, file in settings.test.items():
        test = read_dataset(file)
        other = str(test.metadata.get("level") or "")
        if other and level and other.lower() != level.lower():
            remarks.append(f"the {settings.train_on} are of {level}, the test set {name} of {other}")
    return remarks


def stages(settings: EnsembleDistillation) -> list[Stage]:
    """The stages of the recipe: teachers, their mean, the labels of the student, students, errors.

    Args:
        settings: the configuration.

    Returns:
        The stages.
    """
    output = settings.output
    learned = "energy" if settings.train_on == "energies" else "forces"
    terms = {"energy": 0.0, "forces": 0.0, "hvp": 0.0, learned: settings.weights.by_name()[learned] or 1.0}
    result = []
    teachers = [f"teachers/{k}" for k in range(settings.teachers)]
    for k, name in enumerate(teachers):
        options = settings.run(settings.teacher, settings.train, k, weights=terms)
        result.append(train_stage(output, name, f"a teacher, trained on {settings.train_on}", options))
    models = [output / name / MODEL for name in teachers]
    result.append(ensemble_stage("ensemble", models))
    true = ("energy",) if settings.train_on == "energies" else ()
    weighted = settings.structure_weights == "spread"
    targets = Targets(true, settings.probes, settings.probe, spread_weights=weighted, energies=bool(true))
    device = str(merged(settings.training, settings.student).get("device", "cpu"))
    files = [str(model) for model in models]
    result.append(student_data_stage("labels", settings.train, settings.unlabeled, files, targets, device=device))
    runs = {f"teacher {k}": output / name for k, name in enumerate(teachers)} | {"ensemble": output / "ensemble"}
    for variant in ("student", *settings.compare):
        for seed in settings.seeds:
            name = f"{variant}/seed-{seed}"
            description = _DESCRIPTIONS[variant] if variant != "student" or true else _OF_FORCES
            result.append(train_stage(output, name, description, _student(settings, variant, seed)))
            runs[f"{variant} {seed}"] = output / name
    if settings.test:
        result.append(errors_stage("errors", runs, settings.test, suite=settings.suite, device=device))
        result.append(_calibration_stage(files, settings.test, device=device))
    return result


_DESCRIPTIONS = {
    "student": "the student, on true energies and labels of the teachers",
    "forces-only": "a student without products of the teachers",
    "equal-weights": "a student without weights from the spread",
    "true-forces": "for comparison, a model trained on true energies and forces",
}

_OF_FORCES = "the student, on labels of the teachers"


def _student(settings: EnsembleDistillation, variant: str, seed: int) -> dict[str, Any]:
    """Options of a student."""
    weights = settings.student_weights
    if variant in ("forces-only", "true-forces") or settings.probes == 0:
        weights = weights.model_copy(update={"hvp": 0.0})
    data = settings.train if variant == "true-forces" else settings.output / "labels" / LABELS
    equal = ("energy", "forces", "hvp") if variant == "equal-weights" else ("energy",)
    balance = {"weights": "balance"} if weights.balance else {}
    return settings.run(settings.student, data, seed, loss=loss_terms(weights, equal=equal), **balance)


def _calibration_stage(teachers: Sequence[str], tests: Mapping[str, Path], *, device: str) -> Stage:
    """A stage that compares the spread of the teachers with the errors of their mean."""

    def work(stage: StageWork) -> dict[str, Any]:
        rows = []
        for name, file in tests.items():
            data = read_dataset(file).without_suspects()
            mean = teacher_labels(data, list(teachers), probes=1, device=device, quiet=True).labels
            rows += [{"dataset": name, **asdict(row)} for row in spread_calibration(data, mean)]
        return {"rows": rows}

    options = {"tests": sorted(tests)}
    inputs = (*tests.values(), *map(Path, teachers))
    return Stage("calibration", "does the spread of the teachers tell their error?", work, options, inputs)


def summary(settings: EnsembleDistillation, records: Mapping[str, StageRecord]) -> str:
    """Text about the results.

    Args:
        settings: the configuration.
        records: the records of the stages.

    Returns:
        How well teachers agree with the energies and with each other, and the errors on the test sets.
    """
    labels = records["labels"].results
    spreads = [
        f"{name} {labels[f'{name}_spread']:.3g} {unit}" for name, unit in _UNITS.items() if f"{name}_spread" in labels
    ]
    told = f"spread of the teachers (median over the structures): {', '.join(spreads)}"
    energies = settings.train_on == "energies"
    if energies:
        told = (
            f"mean of the teachers: energies within {labels['energy_deviation']:.3g} eV of the labels, which vary by "
            f"{labels['energy_variation']:.3g} eV; {told}"
        )
    lines = [told]
    if energies and labels["energy_deviation"] > DOUBTFUL_ABOVE * labels["energy_variation"]:
        lines.append(
            "warning: the teachers have not learned the energies, so that their forces say little: train them longer "
            "(teacher: {steps: ...}), or with more energies"
        )
    if "errors" in records:
        lines.append(error_table(records["errors"].results["rows"]))
        lines += [
            f"{row['dataset']}, {row['property']}: error of the mean of the teachers / their spread "
            f"{row['error_over_spread']:.2g}, rank correlation over {row['n']} structures {row['rank_correlation']:.2f}"
            for row in records["calibration"].results["rows"]
        ]
    else:
        lines.append("without test sets (test: FILE) the errors of teachers and student are not known")
    return "\n".join(lines)


_UNITS = {"energy": "eV", "forces": "eV/Å", "hvp": "eV/Å²"}
