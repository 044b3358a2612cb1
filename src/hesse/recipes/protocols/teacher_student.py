"""Teacher and student: a potential gives its energies, forces, atomic energies and curvature to a smaller network.

Matin et al., arXiv 2502.05379: the energies of atoms that a teacher predicts are further labels for a student, which is
faster, needs less memory, and can be better than its teacher. Here also Hessian-vector products of the teacher: atomic
energies, forces and curvature weight vibrational modes by 1, ω² and ω⁴.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from hesse.datasets import read_dataset
from hesse.engines.names import path_in_name
from hesse.errors import did_you_mean
from hesse.labelling import as_teachers
from hesse.losses import LossWeights
from hesse.models import Ensemble
from hesse.potential import Potential
from hesse.probes import make_probe
from hesse.recipes.judging import Suite, evaluate
from hesse.recipes.protocols.common_stages import MODEL, error_rows, error_table, errors_stage, train_stage
from hesse.recipes.protocols.inference_comparison import cost_stage, cost_table
from hesse.recipes.protocols.recipe_settings import Files, RecipeSettings
from hesse.recipes.protocols.stages import Stage, StageRecord, StageWork
from hesse.recipes.protocols.student_data import (
    LABELS,
    Targets,
    check_held_out,
    loss_terms,
    open_data,
    student_data_stage,
)
from hesse.recipes.protocols.teacher_checks import read_teachers
from hesse.structures import label_names

__all__ = ["TeacherStudent"]


class TeacherStudent(RecipeSettings):
    """Configuration of the recipe `teacher-student`."""

    synonyms: ClassVar[Mapping[str, str]] = {
        **RecipeSettings.synonyms, "structures": "train", "data": "train", "teachers": "teacher", "student": "training",
    }  # fmt: skip
    data_files: ClassVar[tuple[str, ...]] = ("train", "test")
    engines: ClassVar[tuple[str, ...]] = ("teacher",)

    teacher: tuple[str, ...] = Field(
        min_length=1,
        description="a potential, or a list of them whose mean is taken: runs/a/model.hesse, mace:FILE, ...",
    )
    train: Files = Field(
        description="structures: a file, or a list of files; labels are used where true_labels says so"
    )
    weights: LossWeights = Field(
        LossWeights(atomic_energies=4.0), description="weights of the terms; every term with a weight is a target"
    )
    true_labels: tuple[str, ...] = Field(
        (), description="targets that are taken from the data instead of the teacher, such as [energy]"
    )
    products: Literal["fixed", "fresh"] = Field(
        "fixed",
        description="Hessian-vector products along `probes` directions that stay the same; or along new ones in every "
        "step, from full Hessians that the teacher computes once",
    )
    probes: int = Field(2, ge=1, description="fixed: directions of each structure; fresh: directions in every step")
    probe: str = Field("rademacher", description="distribution of the directions")
    structure_weights: Literal["spread", "equal"] | None = Field(
        None, description="weights of the structures by the spread of several teachers; null: if there are several"
    )
    compare: dict[str, LossWeights] = Field(
        default_factory=dict,
        description="further students on the same labels, with other weights: {energy and forces: {energy: 4, forces: "
        "0.3, hvp: 0}}",
    )
    validation_fraction: float = Field(
        0.1, gt=0, lt=1, description="fraction of the data that a run holds out to choose its best step"
    )
    by_group: bool = Field(True, description="keep structures of one group (molecule, reaction) together when held out")
    md_steps: int = Field(
        200, ge=0, description="steps of molecular dynamics by which teacher and student are timed; 0: not timed"
    )

    @field_validator("teacher", mode="before")
    @classmethod
    def _one_teacher(cls, value: object) -> object:
        names = [getattr(n, "model_file", n) for n in (value if isinstance(value, list | tuple) else [value])]
        for name in names:
            if not isinstance(name, str | Path):
                raise ValueError(
                    f"expected the name or file of a potential, got {type(name).__name__}; a potential in memory is "
                    "saved by hesse.save_model(FILE, potential)"
                )
        return [str(name) for name in names]

    @model_validator(mode="after")
    def _check_parts(self) -> TeacherStudent:
        for name in ("weights", "loss", "probe"):
            if name in self.training:
                raise ValueError(f"training: leave out {name}: write it beside training")
        for name in self.true_labels:
            if name not in label_names():
                raise ValueError(f"true_labels: no label {name!r}. {did_you_mean(name, label_names())}")
            if name in ("hvp", "hessian"):
                raise ValueError(
                    "true_labels: curvature is the teacher's in this recipe; train on true one by hesse train"
                )
        if self.structure_weights == "spread" and len(self.teacher) < 2:
            raise ValueError("structure_weights: spread needs several teachers")
        for weights in (self.weights, *self.compare.values()):
            if weights.hessian > 0 or weights.stress > 0:
                raise ValueError("weights: targets are energy, forces, hvp and atomic_energies")
        for name, weights in self.compare.items():
            if name == "student" or not re.fullmatch(r"\w[\w +-]*", name):
                raise ValueError(
                    f"compare: {name!r} cannot be the name of a further student, which is that of a folder"
                )
            for term in ("hvp", "atomic_energies"):
                if getattr(weights, term) > 0 and not getattr(self.weights, term) > 0:
                    raise ValueError(
                        f"compare: {name!r} has a term {term}, and there are no such labels: give it a weight"
                    )
        return self

    @property
    def targets(self) -> Targets:
        """The labels of the student."""
        curvature = self.weights.hvp > 0
        return Targets(
            true=self.true_labels,
            probes=self.probes if curvature and self.products == "fixed" else 0,
            probe=self.probe,
            hessian=curvature and self.products == "fresh",
            atomic_energies=self.weights.atomic_energies > 0,
            spread_weights=(self.structure_weights or ("spread" if len(self.teacher) > 1 else "equal")) == "spread",
        )


def check(settings: TeacherStudent) -> Sequence[str]:
    """Check teachers and data before any work.

    Args:
        settings: the configuration.

    Returns:
        Remarks.

    Raises:
        HesseError: see `read_teachers`.
    """
    for weights in (settings.weights, *settings.compare.values()):
        loss_terms(weights, equal=())
    make_probe(settings.probe, 1)
    data = open_data(settings.train)
    check_held_out(data, settings.validation_fraction, by_group=settings.by_group)
    remarks, _ = read_teachers(
        settings.teacher, data, atomic_energies=settings.weights.atomic_energies > 0,
        true=settings.true_labels, allow_mixed_levels=settings.allow_mixed_levels,
    )  # fmt: skip
    return remarks


def stages(settings: TeacherStudent) -> list[Stage]:
    """The stages of the recipe: labels of the teacher, students, errors, costs.

    Args:
        settings: the configuration.

    Returns:
        The stages.
    """
    output, targets = settings.output, settings.targets
    device = str(settings.training.get("device", "cpu"))
    result = [student_data_stage("labels", settings.train, (), settings.teacher, targets, device=device)]
    runs = {}
    for student, weights in {"student": settings.weights, **settings.compare}.items():
        for seed in settings.seeds:
            name = f"{student}/seed-{seed}"
            what = "the student, on labels of the teacher" if student == "student" else "a student with other weights"
            result.append(train_stage(output, name, what, _options(settings, weights, seed)))
            runs[f"{student} {seed}"] = output / name
    if settings.test:
        result.append(_teacher_errors_stage(settings.teacher, settings.test, settings.suite))
        result.append(errors_stage("errors", runs, settings.test, suite=settings.suite, device=device))
    if settings.md_steps:
        student = str(output / f"student/seed-{settings.seeds[0]}" / MODEL)
        models = {"teacher": settings.teacher, "student": (student,)}
        result.append(cost_stage("costs", models, settings.train, settings.md_steps))
    return result


def _options(settings: TeacherStudent, weights: LossWeights, seed: int) -> dict[str, Any]:
    """Options of a student."""
    labels = settings.output / "labels" / LABELS
    options: dict[str, Any] = {
        "data": {
            "train": str(labels),
            "validation_fraction": settings.validation_fraction,
            "by_group": settings.by_group,
        },
        "loss": loss_terms(weights, equal=settings.true_labels),
    }
    if weights.balance:
        options["weights"] = "balance"
    if settings.targets.hessian and weights.hvp > 0:
        options["probe"] = {"source": "fresh", "kind": settings.probe, "n_probes": settings.probes}
    return settings.run_options(seed, **options)


def _teacher_errors_stage(teacher: Sequence[str], tests: Mapping[str, Path], suite: Suite) -> Stage:
    """A stage with the errors of the teacher on the test sets."""
    files = [Path(path) for name in teacher if (path := path_in_name(name)) is not None]

    def work(stage: StageWork) -> dict[str, Any]:
        rows = []
        for name, file in tests.items():
            cache = None if suite == "basic" else stage.folder / f"{name}.json"
            data = read_dataset(file)
            evaluation = evaluate(teacher_potential(teacher), data, suite=suite, by_tag=False, output=cache)
            rows += error_rows("teacher", name, evaluation)
        return {"rows": rows}

    options = {"suite": suite, "tests": sorted(tests)}
    return Stage("teacher", "errors of the teacher on the test sets", work, options, (*tests.values(), *files))


def teacher_potential(names: Sequence[str]) -> Potential:
    """One teacher, or the mean of several, as a potential.

    Args:
        names: names of the teachers.

    Returns:
        The potential.
    """
    potentials = [teacher.potential for teacher in as_teachers(list(names))]
    return potentials[0] if len(potentials) == 1 else Ensemble(potentials)


def summary(settings: TeacherStudent, records: Mapping[str, StageRecord]) -> str:
    """Text about the results.

    Args:
        settings: the configuration.
        records: the records of the stages.

    Returns:
        Errors of teacher and student on the test sets, and their costs.
    """
    lines = []
    if "errors" in records:
        lines.append(error_table([*records["teacher"].results["rows"], *records["errors"].results["rows"]]))
    else:
        lines.append("without test sets (test: FILE) the errors of teacher and student are not known")
    if "costs" in records:
        lines.append(cost_table(records["costs"].results))
    return "\n".join(lines)
