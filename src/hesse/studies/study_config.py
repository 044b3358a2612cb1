"""The file of a study: YAML text to a `StudyConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from hesse.errors import ConfigError, did_you_mean
from hesse.recipes.judging import SUITES, Suite
from hesse.recipes.protocols.recipe_settings import files_by_name
from hesse.runtime.settings import Settings, validate_config
from hesse.runtime.yaml_text import read_options
from hesse.training.config_file import resolve_paths

__all__ = ["StudyConfig", "load_study"]

Label = str | int | float | bool


class StudyConfig(Settings):
    """A matrix of runs: what all runs have in common, the axes along which they differ, and the test sets."""

    synonyms: ClassVar[Mapping[str, str]] = {"matrix": "axes", "common": "base", "tests": "test", "out": "output"}

    base: dict[str, Any] = Field(description="options of all runs, as in a file for hesse train, without output")
    axes: dict[str, Any] = Field(description="values by name of the axis; every combination is a cell")
    output: Path = Field(description="folder of the study")
    test: dict[str, Path] = Field(default_factory=dict, description="test sets by name (or one file, or a list)")
    suite: str | dict[str, str] = Field(
        "basic", description="what is judged, as in hesse evaluate --suite; of all test sets, or by name"
    )
    hessian: bool = Field(True, description="errors of Hessians on test sets that have them")
    exclude: tuple[dict[str, Label], ...] = Field((), description="combinations to leave out: {axis: value, ...}")
    baseline: dict[str, Label] = Field(
        default_factory=dict,
        description="{axis: value, ...}: what a cell is compared with; by default the first scheme, or the first value "
        "of the first axis",
    )
    fraction_keeps: Literal["steps", "steps-per-epoch", "epochs"] = Field(
        "steps",
        description="with less data (data_fraction), what stays the same: the number of steps and the batch; steps and "
        "steps per epoch (smaller batches); or epochs and the batch (fewer steps)",
    )
    fraction_seed: int = Field(0, ge=0, description="seed of the order in which groups enter the parts of the data")
    probe_seed: NonNegativeInt | Literal["seed"] = Field(
        0,
        description="seed of fixed probes that are made from stored Hessians; seed: that of each run, so that runs of "
        "other seeds have other probes",
    )

    def suite_of(self, test: str) -> Suite:
        """The suite of a test set.

        Args:
            test: its name.

        Returns:
            Its suite; "basic" unless another one was chosen.
        """
        name = self.suite.get(test, "basic") if isinstance(self.suite, dict) else self.suite
        return next(suite for suite in SUITES if suite == name)

    @model_validator(mode="after")
    def _check_suite(self) -> StudyConfig:
        by_test = self.suite if isinstance(self.suite, dict) else dict.fromkeys(self.test, self.suite)
        for name, suite in by_test.items():
            if name not in self.test:
                raise ValueError(f"suite: no test set {name!r}. {did_you_mean(name, list(self.test))}")
            if suite not in SUITES:
                raise ValueError(f"suite: no suite {suite!r}. {did_you_mean(suite, SUITES)}")
        if not self.hessian and any(self.suite_of(name) == "curvature" for name in self.test):
            raise ValueError("the suite curvature compares Hessians: leave out hessian: false")
        return self

    @field_validator("test", mode="before")
    @classmethod
    def _name_files(cls, value: object) -> object:
        return files_by_name(value)

    @field_validator("base")
    @classmethod
    def _check_base(cls, value: dict[str, Any]) -> dict[str, Any]:
        if "output" in value:
            raise ValueError("leave out output: every cell has its own folder inside the output of the study")
        if "data" not in value:
            raise ValueError("data is required: data: {train: FILE, ...}, as for hesse train")
        return value


def load_study(path: str | Path) -> StudyConfig:
    """Read the configuration of a study from a YAML file.

    Args:
        path: the file. Relative paths in it are relative to its folder.

    Returns:
        The configuration, with defaults for all options that were not given. Axes are checked by
        `hesse.studies.expand_cells`.

    Raises:
        FileFormatError: the file is missing or is not a YAML mapping.
        UnknownOptionError: an option that does not exist; the message gives the nearest valid name.
        ConfigError: a value of the wrong type or out of range, or a missing option.
    """
    content = read_options(path, what="study")
    return study_from_mapping(content, Path(path).parent, source=str(path))


def study_from_mapping(content: Mapping[str, Any], folder: Path, *, source: str) -> StudyConfig:
    """A study from plain values.

    Args:
        content: the options.
        folder: the folder from which relative paths count.
        source: what to call the options in messages.

    Returns:
        The configuration.

    Raises:
        ConfigError: see `load_study`.
    """
    options = dict(content)
    if isinstance(options.get("base"), Mapping):
        options["base"] = _copy(options["base"])
        resolve_paths(options["base"], folder)
    if isinstance(options.get("output"), str | Path):
        options["output"] = folder / options["output"]
    test = options.get("test")
    if isinstance(test, str | Path):
        options["test"] = folder / test
    elif isinstance(test, list | tuple):
        options["test"] = [folder / file if isinstance(file, str | Path) else file for file in test]
    elif isinstance(test, Mapping):
        options["test"] = {k: folder / v if isinstance(v, str | Path) else v for k, v in test.items()}
    axes = options.get("axes")
    if isinstance(axes, Mapping):
        options["axes"] = {name: _resolve_axis(str(name), values, folder) for name, values in axes.items()}
    config = validate_config(StudyConfig, options, source=source)
    if not config.axes:
        raise ConfigError(f"{source}: axes is empty: give at least one, for example axes: {{seed: [0, 1, 2]}}")
    return config


def _resolve_axis(name: str, values: Any, folder: Path) -> Any:
    """The values of an axis with paths of data relative to the folder of the file."""
    if name in ("data.train", "data.validation"):
        items = values.items() if isinstance(values, Mapping) else enumerate(values if isinstance(values, list) else ())
        moved = {key: _moved(name, value, folder) for key, value in items}
        return moved if isinstance(values, Mapping) else list(moved.values()) if isinstance(values, list) else values
    if isinstance(values, Mapping):  # bundles of options
        bundles = {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}
        for value in bundles.values():
            if isinstance(value, dict):
                resolve_paths(value, folder)
        return bundles
    return values


def _moved(name: str, value: Any, folder: Path) -> Any:
    options = {"data": {name.partition(".")[2]: value}}
    resolve_paths(options, folder)
    return options["data"][name.partition(".")[2]]


def _copy(value: Any) -> Any:
    """A copy of nested mappings, which callers keep unchanged."""
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list | tuple) else value
