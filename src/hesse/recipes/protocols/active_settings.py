"""The configuration of active learning, and its checks before any work."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from hesse.datasets import Dataset
from hesse.engines import make_engine
from hesse.engines.levels import levels_agree
from hesse.errors import ConfigError, MissingLabelError, RequestError, UnknownElementError
from hesse.evaluation.reaction_errors import REACTION_TAGS
from hesse.models import load_model
from hesse.recipes.protocols.hint_settings import has_curvature
from hesse.recipes.protocols.recipe_settings import Files, RecipeSettings
from hesse.recipes.protocols.student_data import check_held_out, open_data
from hesse.sampling import MDSampling
from hesse.structures import Structure

__all__ = ["ActiveData", "ActiveSettings", "PickBy", "check_active", "read_active_data"]

PickBy = Literal["curvature", "forces", "energy", "random"]


class ActiveSettings(RecipeSettings):
    """Active learning: a committee of models labels what it disagrees about."""

    files: ClassVar[tuple[str, ...]] = ("output", "pretrained")
    data_files: ClassVar[tuple[str, ...]] = ("start", "pool", "validation", "test")
    engines: ClassVar[tuple[str, ...]] = ("engine",)

    start: Files = Field(description="labeled structures to begin with")
    pool: Files = Field(
        description="structures to pick from; for other sources the starts of dynamics or guesses of transition states"
    )
    source: Literal["pool", "dynamics", "transition-states", "stationary-points"] = Field(
        "pool", description="pick from the pool, from dynamics of the committee, from its transition-state searches, "
        "or from its transition states (of guesses tagged ts) and minima (of all other structures of the pool)"
    )  # fmt: skip
    engine: str | None = Field(None, description="makes the labels; null: the labels in the pool")
    probes: int = Field(2, ge=1, description="products H v of each label, and probes of the disagreement in curvature")
    hessian: bool = Field(True, description="full Hessians from the engine: fresh probes in training")
    workers: int | None = Field(None, ge=1, description="processes of the engine, one thread each")
    validation: Files | None = Field(None, description="validation data; null: a part of the labels is held out")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="the part that every member holds out for itself")
    by_group: bool = Field(True, description="keep structures of one molecule or reaction together when holding out")
    label_weight: float = Field(
        1.0,
        gt=0,
        description="how often an epoch has a structure labeled by the recipe, relative to one of start",
    )
    members: int = Field(3, ge=2, description="models of the committee")
    pretrained: tuple[Path, ...] | None = Field(
        None, description="model files to begin with in place of the first training, as many as members"
    )
    pick_by: tuple[PickBy, ...] = Field(
        ("curvature",), min_length=1, description="disagreement in curvature, forces or energy, or random; several "
        "for a comparison"
    )  # fmt: skip
    rounds: int = Field(3, ge=1, description="largest number of rounds of picks")
    per_round: int = Field(20, ge=1, description="labels of a round")
    per_group: int | None = Field(None, ge=1, description="at most so many of one molecule or reaction in a round")
    tolerance: float = Field(0.05, gt=0, description="Å; closer structures are not picked in the same round")
    budget: int | None = Field(None, ge=1, description="largest number of labels of all rounds")
    curvature_error: float | None = Field(
        None, gt=0, description="eV/Å²; end when the calibrated error of H v over the candidates is below"
    )
    begin: Literal["new", "previous"] = Field(
        "new", description="members of a round begin as new networks, or as those of the round before"
    )
    updates: dict[str, Any] = Field(
        default_factory=dict, description="options over those of training for all rounds after the first"
    )
    explore: int = Field(20, ge=1, description="starts of dynamics or searches in a round, drawn from the pool")
    include_starts: bool = Field(
        False, description="starts of dynamics and searches can be picked too, each once: good guesses are good labels"
    )
    dynamics: dict[str, Any] = Field(
        default_factory=dict, description="options of dynamics: temperatures, count, stride, equilibration, ..."
    )
    search: dict[str, Any] = Field(
        default_factory=dict, description="options of transition-state searches: method, fmax, steps"
    )
    relaxation: dict[str, Any] = Field(default_factory=dict, description="options of relaxations: fmax, steps")

    @field_validator("pick_by", mode="before")
    @classmethod
    def _one_way(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_source(self) -> ActiveSettings:
        if self.source != "pool" and self.engine is None:
            raise ValueError(f"structures of {self.source} have no labels: give an engine that makes them")
        if self.dynamics and self.source != "dynamics":
            raise ValueError("dynamics are options of source: dynamics")
        if self.search and self.source not in ("transition-states", "stationary-points"):
            raise ValueError("search holds options of source: transition-states or stationary-points")
        if self.include_starts and self.source == "pool":
            raise ValueError("include_starts is for dynamics and searches: from a pool everything is picked")
        if self.relaxation and self.source != "stationary-points":
            raise ValueError("relaxation holds options of source: stationary-points")
        if self.pretrained is not None and len(self.pretrained) != self.members:
            raise ValueError(f"pretrained names {len(self.pretrained)} models, and members is {self.members}")
        if self.pretrained is not None and len(self.seeds) > 1:
            raise ValueError("pretrained models are one committee: give one seed, or leave them out")
        self.sampling(0)
        return self

    def sampling(self, seed: int) -> MDSampling:
        """Settings of dynamics.

        Args:
            seed: seed of a round.

        Returns:
            The settings: 600 K without relaxation unless others are given.
        """
        defaults = {"temperatures": (600.0,), "count": 5, "equilibration": 200, "relax": False}
        return MDSampling(**{**defaults, **self.dynamics, "seed": seed})

    def picks(self) -> list[int]:
        """Number of labels of each round.

        Returns:
            `per_round` for each, less at the end of the budget.
        """
        left = self.budget if self.budget is not None else self.rounds * self.per_round
        sizes = [min(self.per_round, left - k * self.per_round) for k in range(self.rounds)]
        return [size for size in sizes if size > 0]


@dataclass(frozen=True)
class ActiveData:
    """Contents of the data of a configuration.

    Attributes:
        start: labeled structures to begin with.
        pool: the structures of the pool.
        full: whether all labels have full Hessians.
    """

    start: Dataset
    pool: Dataset
    full: bool

    def candidates(self, settings: ActiveSettings, known: Collection[str] = ()) -> list[int]:
        """Structures of the pool that can be picked.

        Args:
            settings: the configuration.
            known: ids of further structures that are labeled.

        Returns:
            Their indices: without those that are labeled, and with labels if no engine makes them.
        """
        labeled = {*self.start.ids, *known}
        usable = has_curvature(self.pool) if settings.engine is None else range(len(self.pool))
        return [i for i in usable if self.pool.ids[i] not in labeled]


SADDLE_TAGS = tuple(tag for tag, role in REACTION_TAGS.items() if role == "saddle")


def is_saddle_guess(structure: Structure) -> bool:
    """Whether a structure of the pool is the guess of a transition state, by its tag.

    Args:
        structure: the structure.

    Returns:
        True if so.
    """
    return REACTION_TAGS.get(structure.tag) == "saddle"


def read_active_data(settings: ActiveSettings) -> ActiveData:
    """Read the data.

    Args:
        settings: the configuration.

    Returns:
        The data.

    Raises:
        HesseError: a file that cannot be read.
    """
    start, pool = open_data(settings.start), open_data(settings.pool)
    full = start.has("hessian") and (pool.has("hessian") if settings.engine is None else settings.hessian)
    return ActiveData(start, pool, full)


def check_active(settings: ActiveSettings) -> list[str]:
    """Refuse what cannot work, before any work.

    Args:
        settings: the configuration.

    Returns:
        Remarks.

    Raises:
        RequestError: nothing to pick, labels of several levels of theory, or too few to hold some out.
        ConfigError: more picks than there are structures.
        MissingLabelError: labels to begin with that hold no curvature.
        UnknownElementError: the pool has an element that no labeled structure has, or a pretrained model lacks one.
    """
    data = read_active_data(settings)
    start, pool, remarks = data.start, data.pool, []
    if not has_curvature(start):
        raise MissingLabelError(f"{start.source}: no structure has products or a Hessian, which the committee learns")
    for file in settings.pretrained or ():
        missing = set(start.elements) - set(load_model(file).elements)
        if missing:
            raise UnknownElementError(
                f"pretrained: {file} does not know the elements {sorted(missing)} of {start.source}"
            )
    unknown = set(pool.elements) - set(start.elements)
    if unknown:
        raise UnknownElementError(
            f"{pool.source}: the pool holds elements {sorted(unknown)}, which no labeled structure in {start.source} "
            "has"
        )
    if settings.validation is None:
        check_held_out(start, settings.validation_fraction, by_group=settings.by_group)
    if not settings.allow_mixed_levels:
        _check_levels(settings, data)
    if settings.source == "stationary-points" and not any(is_saddle_guess(s) for s in pool.structures):
        raise RequestError(
            f"{pool.source}: no structure of the pool has a tag of a transition state ({', '.join(SADDLE_TAGS)}), so "
            "that all would be relaxed to minima. Tag the guesses, or use source: transition-states if all are guesses"
        )
    if settings.source == "pool":
        candidates = data.candidates(settings)
        if not candidates:
            reason = "is labeled already (its id is in start)"
            if settings.engine is None and not has_curvature(pool):
                reason = "has no curvature label: give an engine that makes them"
            raise RequestError(f"{pool.source}: every structure of the pool {reason}: there is nothing to pick")
        if sum(settings.picks()) > len(candidates):
            raise ConfigError(
                f"{sum(settings.picks())} labels in {len(settings.picks())} rounds, and the pool has {len(candidates)} "
                "structures to pick from: fewer rounds, or a smaller per_round"
            )
        if len(candidates) < len(pool):
            remarks.append(f"{len(pool) - len(candidates)} of {len(pool)} structures of the pool cannot be picked")
    return remarks


def _check_levels(settings: ActiveSettings, data: ActiveData) -> None:
    level = str(data.start.metadata.get("level") or "")
    others = {"pool": str(data.pool.metadata.get("level") or "")} if settings.engine is None else {}
    if settings.engine is not None:
        others["engine"] = make_engine(settings.engine).level
    if settings.validation is not None:
        others["validation"] = str(open_data(settings.validation).metadata.get("level") or "")
    if "; " in level:
        raise RequestError(f"start: labels of several levels of theory: {level}. {_ALLOW}")
    for name, other in others.items():
        if level and other and not levels_agree(level, other):
            raise RequestError(f"{name}: labels of {other}, and those to begin with are of {level}. {_ALLOW}")


_ALLOW = "Give labels of one level, or write allow_mixed_levels: true if that is meant."
