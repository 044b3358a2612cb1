"""Hessian-informed training (HINT): few expensive Hessians, chosen where they tell most.

A potential is pre-trained on many cheap curvature labels. It chooses the structures that get expensive labels: high in
energy, stiff, and in sparse regions. It is then fine-tuned: energies per element are fitted again, the optimizer is
new, the weight of curvature rises slowly, curvature is compared along random projections, and ordinary steps between
those with curvature keep it from forgetting. Source: arXiv 2603.25373 (parts a to d); replay from arXiv 2601.07742.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hesse.labelling import LabelSpec
from hesse.recipes.protocols.common_stages import MODEL, errors_stage, label_stage, train_stage
from hesse.recipes.protocols.hint_data import (
    CURVED,
    KEPT,
    ORDINARY,
    REQUEST,
    choice_stage,
    kept_curvature_stage,
    tuning_data_stage,
)
from hesse.recipes.protocols.hint_settings import HintData, HintSettings, Rung, read_hint_data
from hesse.recipes.protocols.label_curve import curve_table
from hesse.recipes.protocols.recipe_settings import file_list, merged
from hesse.recipes.protocols.stages import Stage, StageRecord
from hesse.recipes.protocols.student_data import open_data
from hesse.runtime.settings import validate_config
from hesse.training import TrainConfig
from hesse.training.replay_data import CURVATURE

__all__ = ["hint_stages", "hint_summary"]

RESULTS = "results"
FROM_SCRATCH: tuple[Rung, ...] = ("random", "selection", "all-labels")


def hint_stages(settings: HintSettings) -> list[Stage]:
    """The stages: pre-training, choice, labels, fine-tuning, errors.

    Args:
        settings: the configuration, which `check_hint` has accepted.

    Returns:
        The stages.
    """
    data = read_hint_data(settings)
    stages: dict[str, Stage] = {}
    runs: dict[str, Path] = {}
    for stage, run in _stages(settings, data):
        stages.setdefault(stage.name, stage)
        if run:
            runs[run] = settings.output / stage.name
    errors = [errors_stage(RESULTS, runs, settings.test, suite=settings.suite)] if settings.test else []
    return [*stages.values(), *errors]


def _stages(settings: HintSettings, data: HintData) -> Iterator[tuple[Stage, str]]:
    """Stages, and the name of the model for those whose model is judged."""
    output, candidates = settings.output, file_list(settings.candidates)
    models: dict[int, Path | str | None] = {}
    for seed in settings.seeds:
        models[seed] = settings.pretrained
        if settings.needs_model and settings.pretrained is None:
            pretrain = train_stage(
                output, f"pretrain/seed-{seed}", "pre-train on cheap curvature", _pretraining_options(settings, seed)
            )
            models[seed] = output / pretrain.name / MODEL
            yield pretrain, f"pretrained/seed-{seed}"
        if "all-labels" in settings.rungs:
            options = _tuning_options(settings, data, "all-labels", seed, candidates, None, None)
            all_labels = train_stage(output, f"tune/all-labels-seed-{seed}", "a new network on all labels", options)
            yield all_labels, f"all-labels/{len(data.free)}/seed-{seed}"
        # Labels are made for one choice only; where they are there already, each seed chooses for itself.
        chooser = seed if data.own_labels else settings.seeds[0]
        for count in settings.count:
            for rung in (rung for rung in settings.rungs if rung != "all-labels"):
                kind = f"{'random' if rung == 'random' else 'selection'}-{count}-seed-{chooser}"
                chosen_by = None if rung == "random" else models[chooser]
                choice = choice_stage(settings, f"choice/{kind}", count, chosen_by, chooser)
                request, made = output / choice.name / REQUEST, None
                yield choice, ""
                if settings.engine is not None:
                    spec = LabelSpec(settings.probes, hessian=settings.hessian)
                    what = f"label with {settings.engine}"
                    labels = label_stage(
                        f"labels/{kind}", what, request, settings.engine, spec, workers=settings.workers
                    )
                    made = output / labels.name / "labels.h5"
                    yield labels, ""
                together = tuning_data_stage(settings, data, f"data/{kind}", count, request, made)
                yield together, ""
                curved = output / together.name / CURVED
                ordinary = output / together.name / ORDINARY if ORDINARY in together.products else None
                if rung == "kept-curvature" and ordinary is not None:
                    model = models[seed]
                    assert model is not None
                    name = f"kept/selection-{count}-chosen-{chooser}-seed-{seed}"
                    kept = kept_curvature_stage(name, ordinary, model, output / "kept" / "cache", full=data.full)
                    yield kept, ""
                    ordinary = output / kept.name / KEPT
                options = _tuning_options(settings, data, rung, seed, (curved,), ordinary, models[seed])
                tune = train_stage(output, f"tune/{rung}-{count}-seed-{seed}", f"train, rung {rung}", options)
                yield tune, f"{rung}/{count}/seed-{seed}"


def _pretraining_options(settings: HintSettings, seed: int) -> dict[str, Any]:
    assert settings.pretraining_data is not None
    data = _data_options(file_list(settings.pretraining_data), file_list(settings.pretraining_validation))
    if settings.pretraining_validation is None:
        data |= {"validation_fraction": settings.validation_fraction, "by_group": settings.by_group}
    options = merged(settings.run_options(seed, data=data), settings.pretraining)
    return _with_projections(options, full=open_data(settings.pretraining_data).has("hessian"))


def _tuning_options(
    settings: HintSettings,
    data: HintData,
    rung: Rung,
    seed: int,
    curved: tuple[Path, ...],
    ordinary: Path | None,
    model: Path | str | None,
) -> dict[str, Any]:
    """Options of a fine-tuning run: what the rung adds to the one before."""
    rest = () if ordinary is None else (ordinary,)
    data_options = _data_options((*curved, *(() if rung == "replay" else rest)), file_list(settings.validation))
    own: dict[str, Any] = {"data": {"validation_fraction": 0.0, **data_options}}
    if rung == "replay" and rest:
        own["data"]["replay"] = list(rest)
        own["replay"] = {"steps": settings.replay}
    options = merged(settings.run_options(seed, **own), settings.tuning)
    if rung not in FROM_SCRATCH:
        options = {key: value for key, value in options.items() if key not in ("model", "repulsion")}
        options |= {"init_from": str(model), "reference_energies": "fit"}
    options = _with_projections(options, full=data.full)
    if rung in ("curriculum", "replay"):
        loss = {key: options[key] for key in ("weights", "loss") if key in options}
        terms = validate_config(TrainConfig, loss, source="training").make_loss()
        ramps = {term.name: settings.curriculum.model_dump() for term in terms if term.quantity in CURVATURE}
        options["weight_ramps"] = {**ramps, **options.get("weight_ramps", {})}
    return options


def _data_options(train: tuple[Path, ...], validation: tuple[Path, ...]) -> dict[str, Any]:
    return {"train": list(train), **({"validation": list(validation)} if validation else {})}


def _with_projections(options: dict[str, Any], *, full: bool) -> dict[str, Any]:
    """Fresh random projections where there are full Hessians, unless another probe is chosen."""
    return {**({"probe": {"source": "fresh"}} if full else {}), **options}


def hint_summary(settings: HintSettings, records: Mapping[str, StageRecord]) -> str:
    """The errors of all rungs as a table.

    Args:
        settings: the configuration.
        records: records of the stages that are done.

    Returns:
        The table; empty without test sets.
    """
    return curve_table(records[RESULTS].results["rows"]) if RESULTS in records else ""
