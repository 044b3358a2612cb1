"""Options that all recipes share, and their files: YAML text or a mapping to settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field, field_validator, model_validator

from hesse.datasets import as_dataset, names_of_files, write_dataset
from hesse.engines.names import with_base_folder
from hesse.errors import ConfigError, RequestError, did_you_mean
from hesse.recipes.judging import SUITES, Suite
from hesse.runtime.settings import Settings, validate_config
from hesse.runtime.yaml_text import read_options
from hesse.training.config_file import resolve_paths

__all__ = ["Files", "RecipeSettings", "file_list", "files_by_name", "merged", "read_recipe_settings"]

Files = Path | tuple[Path, ...]
"""One file, or a list of files whose structures are joined."""
S = TypeVar("S", bound="RecipeSettings")


class RecipeSettings(Settings):
    """Options that every recipe has.

    Attributes:
        files: names of the options that hold the path of a file or folder, a list of them, or a mapping to them.
        data_files: those of them that are data: from Python, data sets and atoms are given in their place.
        engines: names of the options that hold the name of an engine or model, or a list of names.
    """

    synonyms: ClassVar[Mapping[str, str]] = {"base": "training", "tests": "test", "out": "output", "seed": "seeds"}
    files: ClassVar[tuple[str, ...]] = ("output",)
    data_files: ClassVar[tuple[str, ...]] = ("test",)
    engines: ClassVar[tuple[str, ...]] = ()

    output: Path = Field(description="folder of the recipe; the same command continues in it")
    training: dict[str, Any] = Field(
        default_factory=dict, description="options of all training runs, as for hesse train, without data and output"
    )
    test: dict[str, Path] = Field(default_factory=dict, description="test sets by name (or one file, or a list)")
    suite: Suite = Field("basic", description="what is judged on the test sets, as in hesse evaluate --suite")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="every training run is done with each of them")
    allow_mixed_levels: bool = Field(
        False, description="train on labels of several levels of theory, where the recipe does not ask for that"
    )

    @field_validator("training")
    @classmethod
    def _check_training(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name, use in (("data", "the recipe has options for its data"), ("output", "the option is outside"),
                          ("seed", "write seeds: [0, 1, 2] beside training"),
                          ("init_from", "the recipe chooses where its runs start")):  # fmt: skip
            if name in value:
                raise ValueError(f"leave out {name}: {use}")
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _one_seed(cls, value: object) -> object:
        return [value] if isinstance(value, int) else value

    @field_validator("seeds")
    @classmethod
    def _different_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("every seed once: the same seed gives the same run")
        return value

    @field_validator("test", mode="before")
    @classmethod
    def _name_files(cls, value: object) -> object:
        return files_by_name(value)

    @model_validator(mode="before")
    @classmethod
    def _check_suite(cls, values: Any) -> Any:
        suite = values.get("suite", "basic") if isinstance(values, Mapping) else "basic"
        if isinstance(suite, str) and suite not in SUITES:
            raise ValueError(f"suite: no suite {suite!r}. {did_you_mean(suite, SUITES)}")
        return values

    def run_options(self, seed: int, **options: Any) -> dict[str, Any]:
        """Options of one training run.

        Args:
            seed: its seed.
            **options: what the recipe decides. Sections (mappings) are merged with those of `training`.

        Returns:
            Options as for `hesse train`, without output.
        """
        return merged({**self.training, "seed": seed}, options)


def files_by_name(value: object) -> object:
    """The value of an option for test sets: files by name.

    Args:
        value: one file, a list of files, or files by name.

    Returns:
        Files by name; the stem of a file where no name is given.

    Raises:
        ValueError: something else.
    """
    if isinstance(value, str | Path):
        value = [value]
    if isinstance(value, list | tuple) and all(isinstance(file, str | Path) for file in value):
        files = [Path(file) for file in value]
        return dict(zip(names_of_files(files), files, strict=True))
    if not isinstance(value, Mapping):
        raise ValueError("expected a file, a list of files, or files by name ({irc: irc.h5})")
    return value


def file_list(files: Files | None) -> tuple[Path, ...]:
    """The files of an option.

    Args:
        files: one file, several, or none.

    Returns:
        The files.
    """
    return () if files is None else files if isinstance(files, tuple) else (files,)


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Nested options, the second ones over the first.

    Args:
        first: options by section.
        second: options that replace them. Other values than mappings, and kinds of models, replace the whole section.

    Returns:
        The options.
    """
    result = dict(first)
    for name, value in second.items():
        old = result.get(name)
        result[name] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def read_recipe_settings(settings_type: type[S], source: Any) -> tuple[S, str]:
    """The settings of a recipe.

    Args:
        settings_type: their class.
        source: the path of a YAML file, whose relative paths count from its folder; a mapping, from the working folder;
            or an object of the class. In mappings, data may be data sets or atoms in memory: they are written to
            `inputs/` in the output folder.

    Returns:
        The settings, and what to call them in messages.

    Raises:
        FileFormatError: the file is missing or is not a YAML mapping.
        UnknownOptionError: an option that does not exist; the message gives the nearest valid name.
        ConfigError: a value of the wrong type or out of range, or a missing option.
        RequestError: a source of another type.
    """
    if isinstance(source, settings_type):
        return source, settings_type.__name__
    if isinstance(source, str | Path):
        options, folder, name = read_options(source), Path(source).parent, str(source)
    elif isinstance(source, Mapping):
        options, folder, name = dict(source), Path(), "config"
    else:
        raise RequestError(
            f"expected the path of a YAML file, a mapping of options or {settings_type.__name__}(...), got "
            f"{type(source).__name__}"
        )
    for key in (*settings_type.files, *settings_type.data_files):
        if key in options:
            options[key] = _moved(options[key], folder)
    for key in settings_type.engines:
        if key in options:
            options[key] = _moved_engine(options[key], folder)
    for key, field in settings_type.model_fields.items():
        if field.annotation == dict[str, Any] and isinstance(options.get(key), Mapping):  # options of training runs
            options[key] = dict(options[key])
            resolve_paths(options[key], folder)
    plain = {key: value for key, value in options.items() if key not in settings_type.data_files}
    in_memory = {key: options[key] for key in settings_type.data_files if _is_in_memory(options.get(key))}
    if not in_memory:
        return validate_config(settings_type, options, source=name), name
    if not isinstance(plain.get("output"), str | Path):
        raise ConfigError(f"{name}: output is required: the folder of the recipe")
    stand_ins = {key: {n: f"{n}.h5" for n in v} if isinstance(v, Mapping) else f"{key}.h5"
                 for key, v in in_memory.items()}  # fmt: skip
    validate_config(settings_type, {**options, **stand_ins}, source=name)  # nothing is written for a wrong request
    stored = {key: _stored(value, Path(plain["output"]) / "inputs", key) for key, value in in_memory.items()}
    return validate_config(settings_type, {**options, **stored}, source=name), name


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str | Path)


def _is_in_memory(value: Any) -> bool:
    """Whether an option for data holds them, and not names of files."""
    if isinstance(value, Mapping):
        return any(_is_in_memory(item) for item in value.values())
    if isinstance(value, list | tuple):
        return bool(value) and not all(_is_file_name(item) for item in value)
    return value is not None and not _is_file_name(value) and not isinstance(value, int | float)


def _stored(value: Any, folder: Path, name: str) -> Any:
    """Data in memory as files; files as they are."""
    if isinstance(value, Mapping):
        return {key: _stored(item, folder, f"{name}-{key}") for key, item in value.items()}
    if not _is_in_memory(value):
        return value
    dataset, target = as_dataset(value), folder / f"{name}.h5"
    if not target.exists() or as_dataset(target).content_hash() != dataset.content_hash():
        folder.mkdir(parents=True, exist_ok=True)
        write_dataset(target, dataset)
    return target


def _moved(value: Any, folder: Path) -> Any:
    """Paths relative to a folder; other values as they are."""
    if _is_file_name(value):
        return folder / value
    if isinstance(value, list | tuple):
        return [_moved(item, folder) for item in value]
    return {key: _moved(item, folder) for key, item in value.items()} if isinstance(value, dict) else value


def _moved_engine(value: Any, folder: Path) -> Any:
    if isinstance(value, str):
        return with_base_folder(value, folder)
    return [_moved_engine(item, folder) for item in value] if isinstance(value, list | tuple) else value
