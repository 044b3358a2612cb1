"""The recipes by name: `hesse recipe NAME CONFIG` and `hesse.run_recipe(NAME, CONFIG)`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hesse.errors import ConfigError, WriteError, check_choice
from hesse.recipes.protocols import ensemble_distillation, teacher_student
from hesse.recipes.protocols.active import active_stages, active_summary
from hesse.recipes.protocols.active_settings import ActiveSettings, check_active
from hesse.recipes.protocols.hint import hint_stages, hint_summary
from hesse.recipes.protocols.hint_settings import HintSettings, check_hint
from hesse.recipes.protocols.recipe_settings import RecipeSettings, read_recipe_settings
from hesse.recipes.protocols.stage_inputs import check_stage_inputs
from hesse.recipes.protocols.stages import Stage, StageRecord, run_stages, stage_states
from hesse.runtime.filesystem import atomic_write_text

__all__ = ["RECIPES", "Recipe", "RecipePlan", "RecipeResult", "plan_recipe", "run_recipe"]


@dataclass(frozen=True)
class Recipe:
    """A published protocol.

    Attributes:
        name: its name on the command line.
        description: what it is for, in one sentence.
        settings: class of its configuration.
        check: reads the data and refuses what cannot work, before any work; returns remarks.
        stages: the stages of a configuration.
        summary: text about the results of the stages by name, for the end.
    """

    name: str
    description: str
    settings: type[RecipeSettings]
    check: Callable[[Any], Sequence[str]]
    stages: Callable[[Any], list[Stage]]
    summary: Callable[[Any, Mapping[str, StageRecord]], str]


_ALL: Final[tuple[Recipe, ...]] = (
    Recipe(
        "hint",
        "few expensive Hessians, chosen where they tell most, after pre-training on many cheap ones",
        HintSettings,
        check_hint,
        hint_stages,
        hint_summary,
    ),
    Recipe(
        "ensemble-distillation",
        "forces and curvature from teachers that were trained on energies only",
        ensemble_distillation.EnsembleDistillation,
        ensemble_distillation.check,
        ensemble_distillation.stages,
        ensemble_distillation.summary,
    ),
    Recipe(
        "teacher-student",
        "a smaller, faster network from the labels of a larger potential",
        teacher_student.TeacherStudent,
        teacher_student.check,
        teacher_student.stages,
        teacher_student.summary,
    ),
    Recipe(
        "active",
        "labels where a committee of models disagrees, in rounds",
        ActiveSettings,
        check_active,
        active_stages,
        active_summary,
    ),
)
RECIPES: Final[dict[str, Recipe]] = {recipe.name: recipe for recipe in _ALL}
"""All recipes by name."""


@dataclass(frozen=True)
class RecipePlan:
    """The stages of a recipe, before any work.

    Attributes:
        output: its folder.
        stages: description of each stage by name.
        states: "done", "to do" or "not needed" by name of the stage.
        remarks: what was noticed in the configuration and the data.
    """

    output: Path
    stages: Mapping[str, str]
    states: Mapping[str, str]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class RecipeResult:
    """The result of a recipe.

    Attributes:
        name: name of the recipe.
        output: its folder.
        records: records of the stages that are done, by name: options, hashes of data and models, results.
        stopped: why it ended before its last stage; empty if it did not.
        summary: the results as text.
        remarks: what was noticed in the configuration and the data.
        seconds: wall time of this call.
    """

    name: str
    output: Path
    records: Mapping[str, StageRecord]
    stopped: str
    summary: str
    remarks: tuple[str, ...]
    seconds: float

    def __repr__(self) -> str:
        return f"RecipeResult({self.name!r}, {str(self.output)!r}, {len(self.records)} stages done)"

    def file(self, stage: str, name: str) -> Path:
        """A file that a stage has made.

        Args:
            stage: name of the stage.
            name: name of the file, "model.hesse" of a training run.

        Returns:
            Its path.

        Raises:
            UnknownOptionError: there is no such stage or file.
        """
        check_choice(stage, list(self.records), "stage")
        check_choice(name, list(self.records[stage].products), f"file of the stage {stage}:")
        return self.output / stage / name


def plan_recipe(name: str, config: str | Path | RecipeSettings | Mapping[str, Any]) -> RecipePlan:
    """Check the configuration of a recipe and its data, and list its stages. Nothing is computed; data in memory are
    written to the output folder.

    Args:
        name: name of the recipe.
        config: see `run_recipe`.

    Returns:
        The stages, which of them are done, and remarks.

    Raises:
        HesseError: see `run_recipe`.
    """
    _, settings, stages, remarks = _checked(name, config)
    states = stage_states(stages, settings.output)
    return RecipePlan(settings.output, {stage.name: stage.description for stage in stages}, states, tuple(remarks))


def run_recipe(
    name: str,
    config: str | Path | RecipeSettings | Mapping[str, Any],
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    quiet: bool = False,
) -> RecipeResult:
    """Do a recipe: a published protocol over the one training loop. The same call continues one that was interrupted.

    Args:
        name: "hint", "ensemble-distillation", "teacher-student" or "active".
        config: the path of its YAML file, a mapping of the same options (relative paths count from the working folder;
            data may be data sets or ASE Atoms in place of files), or an object of its settings.
        workers: processes in which models that do not need each other are trained, one thread each; by default one for
            each core, or 1 if a GPU is used or all runs are short (fewer than 200 steps). 1 trains in this process, one
            model after the other.
        scheduler: a dask cluster for training instead (address or scheduler file), which shares the folder.
        quiet: no progress on standard error.

    Returns:
        The records of its stages, and a summary of their results.

    Raises:
        UnknownOptionError: there is no such recipe or option; the message has the nearest name.
        ConfigError: a value that does not fit, or stages that were finished with other options or files.
        RequestError: data, engines or models that do not fit together.
        InterruptedRunError: SIGINT or SIGTERM; the same call continues.
        ExecutionError: a training run in another process failed.
        WriteError: the output folder cannot be made or written.
        HesseError: all errors of labeling and training.
    """
    if workers is not None and scheduler is not None:
        raise ConfigError("give either workers (processes on this machine) or a scheduler (a cluster), not both")
    started = time.monotonic()
    recipe, settings, stages, remarks = _checked(name, config)
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"cannot make the folder {settings.output}: {error.strerror}") from error
    stage_states(stages, settings.output)  # refuse finished stages of another configuration before any work
    content = {"format": "hesse-recipe", "version": 1, "recipe": name, "settings": settings.model_dump(mode="json")}
    atomic_write_text(settings.output / "recipe.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    records, stopped = run_stages(stages, settings.output, workers=workers, scheduler=scheduler, quiet=quiet)
    summary = recipe.summary(settings, records)
    return RecipeResult(name, settings.output, records, stopped, summary, tuple(remarks), time.monotonic() - started)


def _checked(name: str, config: Any) -> tuple[Recipe, RecipeSettings, Sequence[Stage], Sequence[str]]:
    """The recipe, its settings and stages, and remarks, after all checks that need no computation."""
    recipe = RECIPES[check_choice(name, RECIPES, "recipe")]
    settings, _ = read_recipe_settings(recipe.settings, config)
    remarks, stages = recipe.check(settings), recipe.stages(settings)
    check_stage_inputs(stages, settings)
    return recipe, settings, stages, remarks
