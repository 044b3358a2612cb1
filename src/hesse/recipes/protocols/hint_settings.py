"""The configuration of Hessian-informed training, and its checks before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, get_args

from pydantic import Field, field_validator, model_validator

from hesse.datasets import Dataset
from hesse.engines import as_potential, make_engine
from hesse.engines.levels import levels_agree
from hesse.errors import ConfigError, MissingLabelError, RequestError
from hesse.losses import RampConfig
from hesse.potential import check_elements, structure_at
from hesse.recipes.protocols.recipe_settings import Files, RecipeSettings
from hesse.recipes.protocols.student_data import check_held_out, open_data
from hesse.sampling.label_scores import ScoreSettings

__all__ = ["RUNGS", "HintData", "HintSettings", "Rung", "check_hint", "read_hint_data"]

Rung = Literal["random", "selection", "pre-training", "curriculum", "replay", "kept-curvature", "all-labels"]
RUNGS: Final[tuple[Rung, ...]] = get_args(Rung)
"""The rungs of the ladder: each of the first five adds one part of the published protocol. `kept-curvature` is
`pre-training` with the curvature of the pre-trained model as a label of all other structures; the last one is a new
network trained on all curvature labels."""


class HintSettings(RecipeSettings):
    """Hessian-informed training: pre-training on cheap curvature, few expensive labels where they tell most, and
    fine-tuning with a curriculum and replay."""

    data_files: ClassVar[tuple[str, ...]] = (
        "candidates", "labels", "validation", "pretraining_data", "pretraining_validation", "test",
    )  # fmt: skip
    engines: ClassVar[tuple[str, ...]] = ("engine", "pretrained")

    candidates: Files = Field(
        description="structures to choose from; their energies and forces are trained on if they are of the level of "
        "the expensive labels, their curvature only where it is chosen"
    )
    pretraining_data: Files | None = Field(None, description="many cheap labels with curvature, to pre-train on")
    pretraining_validation: Files | None = Field(None, description="validation data of pre-training")
    validation_fraction: float = Field(
        0.1, ge=0, lt=1, description="without such data, the part of the cheap labels that is held out; 0: none"
    )
    by_group: bool = Field(True, description="keep structures of one molecule or reaction together when holding out")
    pretrained: str | None = Field(None, description="a model in place of pre-training")
    engine: str | None = Field(None, description="makes the expensive labels: pyscf:wb97x-d/6-31g*, gfn2, ...")
    labels: Files | None = Field(
        None, description="expensive labels that were made elsewhere, of the requests that the recipe has written"
    )
    probes: int = Field(1, ge=0, description="products H v of each label that the engine makes")
    hessian: bool = Field(True, description="full Hessians from the engine: fresh random projections at every step")
    workers: int | None = Field(None, ge=1, description="processes of the engine, one thread each")
    validation: Files | None = Field(None, description="validation data of fine-tuning, of the expensive level")
    count: tuple[int, ...] = Field((100,), min_length=1, description="number of expensive labels; several for a curve")
    per_group: int | None = Field(3, ge=1, description="at most so many of one molecule or reaction (group)")
    score: ScoreSettings = ScoreSettings()
    curriculum: RampConfig = Field(
        RampConfig(start=0.1, end=0.5), description="rise of the curvature weight, as fractions of the run"
    )
    replay: int = Field(4, ge=1, description="ordinary steps after each step with curvature")
    rungs: tuple[Rung, ...] = Field(
        ("replay",),
        min_length=1,
        description="rungs of the ladder of ablations, or all; replay is the published protocol",
    )
    pretraining: dict[str, Any] = Field(default_factory=dict, description="options of pre-training, over training")
    tuning: dict[str, Any] = Field(default_factory=dict, description="options of fine-tuning, over training")

    @field_validator("count", mode="before")
    @classmethod
    def _one_count(cls, value: object) -> object:
        return [value] if isinstance(value, int) else value

    @field_validator("count")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1 or len(set(value)) < len(value):
            raise ValueError("expected different numbers of 1 or more")
        return value

    @field_validator("rungs", mode="before")
    @classmethod
    def _all_rungs(cls, value: object) -> object:
        return list(RUNGS[:6]) if value == "all" else [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_sources(self) -> HintSettings:
        if self.engine is not None and self.labels is not None:
            raise ValueError("engine makes labels, and labels are files of them: give one of the two")
        if self.pretrained is not None and self.pretraining_data is not None:
            raise ValueError("pretrained is a model in place of pre-training: leave out pretraining_data")
        if self.needs_model and self.pretrained is None and self.pretraining_data is None:
            raise ValueError("give pretraining_data (cheap labels with curvature), or pretrained (a model)")
        if self.engine is not None and not self.hessian and not self.probes:
            raise ValueError("labels without curvature: set hessian: true, or probes to 1 or more")
        return self

    @property
    def needs_model(self) -> bool:
        """Whether a rung uses a pre-trained model: for the choice, or to start from."""
        return not set(self.rungs) <= {"random", "all-labels"}


@dataclass(frozen=True)
class HintData:
    """Contents of the data of a configuration.

    Attributes:
        candidates: the structures to choose from, with their labels.
        labels: labels that were made elsewhere, if any.
        own_labels: whether the curvature of the candidates is the source of the expensive labels.
        ordinary: whether energies and forces of the candidates are trained on.
        level: level of the expensive labels; empty if it is not known yet.
        full: whether expensive labels have full Hessians.
    """

    candidates: Dataset
    labels: Dataset | None
    own_labels: bool
    ordinary: bool
    level: str
    full: bool

    @property
    def free(self) -> list[int]:
        """Indices of the candidates to choose from: without those that have expensive curvature already."""
        if self.own_labels:
            return has_curvature(self.candidates)
        known = set(has_curvature(self.candidates)) if self.ordinary else set()
        return [i for i in range(len(self.candidates)) if i not in known]


def has_curvature(data: Dataset) -> list[int]:
    """Structures with products or a Hessian.

    Args:
        data: the data.

    Returns:
        Their indices.
    """
    mask = data.mask("hessian") | data.mask("hvp").any(0)
    return mask.nonzero()[:, 0].tolist()


def read_hint_data(settings: HintSettings) -> HintData:
    """Read the candidates and labels, and find out where expensive labels come from.

    Args:
        settings: the configuration.

    Returns:
        The data.

    Raises:
        HesseError: a file that cannot be read.
    """
    candidates = open_data(settings.candidates)
    labels = None if settings.labels is None else open_data(settings.labels)
    own = settings.engine is None and labels is None and bool(has_curvature(candidates)) and _is_one_level(candidates)
    level, full = str(candidates.metadata.get("level") or ""), candidates.has("hessian")
    if settings.engine is not None:
        level, full = make_engine(settings.engine).level, settings.hessian
    elif labels is not None:
        level, full = str(labels.metadata.get("level") or ""), labels.has("hessian")
    elif own and settings.pretraining_data is not None:
        cheap = open_data(settings.pretraining_data).metadata.get("level") or ""
        own = not (level and levels_agree(level, str(cheap)))  # the candidates have the cheap labels only
    if not own and settings.engine is None and labels is None:
        level = ""
    same = (not settings.engine and labels is None) or levels_agree(str(candidates.metadata.get("level") or ""), level)
    ordinary = own or (bool(level) and same and candidates.has("forces"))
    return HintData(candidates, labels, own, ordinary, level, full)


def check_hint(settings: HintSettings) -> list[str]:
    """Refuse what cannot work, before any work.

    Args:
        settings: the configuration.

    Returns:
        Remarks.

    Raises:
        RequestError: nothing to choose from, levels of theory that do not fit together, or too few cheap labels to hold
            some out.
        ConfigError: more labels than can be chosen.
        MissingLabelError: data without the labels that they are for.
        UnknownElementError: the pre-trained model does not know an element.
    """
    data, remarks = read_hint_data(settings), []
    candidates, free = data.candidates, data.free
    if not free:
        raise RequestError(
            f"{candidates.source}: all {len(candidates)} candidates have curvature of {data.level} already: there is "
            "nothing to choose. Train on them (hesse train), or give other candidates."
        )
    groups = [candidates.structures[i].group or candidates.ids[i] for i in free]
    limit = len(free) if settings.per_group is None else _largest_choice(groups, settings.per_group)
    needs_choice = set(settings.rungs) != {"all-labels"}
    if needs_choice and max(settings.count) > limit:
        capped = "" if settings.per_group is None else f" with at most {settings.per_group} per group (per_group)"
        raise ConfigError(
            f"count: {max(settings.count)} of {len(free)} candidates, of which {limit} can be chosen{capped}"
        )
    if "kept-curvature" in settings.rungs and not data.ordinary:
        raise ConfigError(
            "the rung kept-curvature needs candidates with energies and forces of the expensive level, to train on "
            "together with the curvature of the pre-trained model"
        )
    if "all-labels" in settings.rungs and not data.own_labels:
        raise ConfigError("the rung all-labels needs candidates with expensive curvature labels of their own")
    if not settings.allow_mixed_levels:
        _check_levels(settings, data)
    if settings.pretraining_data is not None and settings.needs_model:
        pretraining = open_data(settings.pretraining_data)
        if not has_curvature(pretraining):
            raise MissingLabelError(f"{pretraining.source}: pre-training needs products or Hessians (hesse label)")
        if settings.pretraining_validation is None and settings.validation_fraction > 0:
            check_held_out(pretraining, settings.validation_fraction, by_group=settings.by_group)
        _check_known(set(pretraining.elements), candidates, "the pre-training data")
    if settings.pretrained is not None and settings.needs_model:
        potential = as_potential(settings.pretrained)
        check_elements(
            potential, candidates.numbers, where=structure_at(candidates.ids, candidates.n_atoms, candidates.source)
        )
    if "replay" in settings.rungs and not data.ordinary:
        remarks.append("the candidates have no energies and forces of the expensive level: there is no replay")
    if not data.own_labels and len(free) < len(candidates):
        remarks.append(f"{len(candidates) - len(free)} candidates have curvature of {data.level} already; it is used")
    return remarks


def _check_levels(settings: HintSettings, data: HintData) -> None:
    named = {"candidates": data.candidates, "labels": data.labels,
             "validation": None if settings.validation is None else open_data(settings.validation)}  # fmt: skip
    for name, dataset in named.items():
        if dataset is not None and not _is_one_level(dataset):
            raise RequestError(
                f"{name}: labels of several levels of theory: {dataset.metadata['level']}. Give data of one level, or "
                "write allow_mixed_levels: true if that is meant."
            )
    validation = named["validation"]
    stated = "" if validation is None else str(validation.metadata.get("level") or "")
    if stated and data.level and not levels_agree(stated, data.level):
        raise RequestError(
            f"validation: labels of {stated}, and the expensive labels are of {data.level}: give validation data of "
            "that level, or write allow_mixed_levels: true if that is meant."
        )


def _is_one_level(data: Dataset) -> bool:
    return "; " not in str(data.metadata.get("level") or "")


def _check_known(elements: set[int], candidates: Dataset, what: str) -> None:
    unknown = set(candidates.elements) - elements
    if unknown:
        raise RequestError(f"{candidates.source}: the candidates hold elements {sorted(unknown)}, which {what} lack")


def _largest_choice(groups: list[str], per_group: int) -> int:
    return sum(min(groups.count(name), per_group) for name in dict.fromkeys(groups))
