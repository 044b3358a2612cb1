"""Checks of the files that the stages of a recipe read, before any of them works."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from hesse.datasets.opening import read_elements
from hesse.errors import FileFormatError, UnknownElementError
from hesse.models import read_model_header
from hesse.recipes.protocols.recipe_settings import RecipeSettings, file_list
from hesse.recipes.protocols.stages import Stage
from hesse.structures import species_name
from hesse.training import RunConfig

__all__ = ["check_stage_inputs"]


def check_stage_inputs(stages: Sequence[Stage], settings: RecipeSettings) -> None:
    """Check the files that are there before a recipe begins. Files in its output folder are made by its stages, and
    need not exist yet.

    Args:
        stages: its stages.
        settings: its settings.

    Raises:
        FileFormatError: a file that does not exist, or cannot be read.
        UnknownElementError: a baseline (prior) that does not know an element of the training data; a test set with an
            element that no training data have.
    """
    output = settings.output
    runs = [stage.run for stage in stages if stage.run is not None]
    given = {path: stage.name for stage in reversed(stages) for path in stage.inputs if not _inside(path, output)}
    for path, stage in given.items():
        if not path.is_file():
            raise FileFormatError(f"{path}: there is no such file, which the stage {stage} of the recipe reads")
    elements_of = cache(read_elements)
    for run in runs:
        data = [file for file in _data_files(run) if not _inside(file, output)]
        if run.baseline is not None and not _inside(run.baseline, output):
            known = {int(z) for z in read_model_header(run.baseline)["elements"]}
            for file in data if known else ():
                _check(elements_of(file), known, f"{file}", f"which the baseline {run.baseline} does not know")
    if any(run.init_from is not None and not _inside(Path(str(run.init_from)), output) for run in runs):
        return  # the model that is trained on may know further elements
    names = [name for name in settings.data_files if name != "test" and "validation" not in name]
    options = [getattr(settings, name) for name in names]
    trained_on = {file for option in options for file in file_list(option) if file.is_file()}
    known = {z for file in trained_on for z in elements_of(file)}
    for name, file in settings.test.items() if known else ():
        _check(elements_of(file), known, f"{file}: the test set {name}", "which no training data have")


def _inside(path: Path, output: Path) -> bool:
    return path.resolve().is_relative_to(output.resolve()) and not path.resolve().is_relative_to(
        (output / "inputs").resolve()
    )


def _data_files(run: RunConfig) -> tuple[Path, ...]:
    return (*run.data.train_files, *run.data.replay_files)


def _check(elements: frozenset[int], known: set[int], what: str, reason: str) -> None:
    unknown = sorted(elements - known)
    if unknown:
        names = ", ".join(species_name(z) for z in unknown)
        raise UnknownElementError(f"{what} holds {names}, {reason}")
