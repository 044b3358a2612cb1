"""The work of a round of active learning: candidates, picks by disagreement, labels, and their calibration."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from hesse.datasets import Dataset, write_dataset
from hesse.errors import ExtrapolationWarning
from hesse.evaluation import spread_calibration
from hesse.evaluation.spread_calibration import structure_spreads
from hesse.labelling import teacher_labels
from hesse.recipes.protocols.active_settings import ActiveSettings, PickBy, is_saddle_guess, read_active_data
from hesse.recipes.protocols.common_stages import LABELS, weight_option, with_weight
from hesse.recipes.protocols.recipe_settings import file_list
from hesse.recipes.protocols.stages import Stage, StageWork
from hesse.recipes.protocols.student_data import open_data
from hesse.runtime.filesystem import write_rows
from hesse.sampling import sample_md, search_minima, search_saddles, unique_structures
from hesse.sampling.label_scores import choose_structures
from hesse.structures import Properties, Structure

__all__ = ["PICKED", "Round", "calibration_stage", "exploration_stage", "pick_stage", "pool_labels_stage"]

PICKED, EXPLORED, PICKS = "request.h5", "explored.h5", "picks.json"
_SHORTLIST = 4
"""Duplicates are looked for among so many times the structures that are picked."""


@dataclass(frozen=True)
class Round:
    """One round of one branch.

    Attributes:
        folder: name of its stages, in front of what they do.
        branch: name of its branch.
        by: how it picks.
        number: its number, from 0.
        count: number of structures to pick.
        seed: seed of random choices.
        members: files of the models of the committee.
        committee: file of their mean.
        earlier: requests of the rounds before.
        calibrated: name of the calibration of the round before, if there was one.
    """

    folder: str
    branch: str
    by: PickBy
    number: int
    count: int
    seed: int
    members: Sequence[Path]
    committee: Path
    earlier: Sequence[Path]
    calibrated: str = ""


def exploration_stage(settings: ActiveSettings, current: Round) -> Stage:
    """A stage that makes candidates by dynamics or transition-state searches of the committee.

    Args:
        settings: the configuration.
        current: the round.

    Returns:
        The stage; its product is `explored.h5`.
    """

    def work(stage: StageWork) -> Mapping[str, Any]:
        pool = open_data(settings.pool).structures
        order = np.random.default_rng(current.seed).permutation(len(pool))[: settings.explore]
        starts, model = [pool[i] for i in order.tolist()], str(current.committee)
        if settings.source == "dynamics":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExtrapolationWarning)  # structures outside the data are looked for
                samples = sample_md(starts, model, settings.sampling(current.seed), workers=0, quiet=stage.quiet)
            structures, failed = list(samples.structures), len(samples.failures)
        else:
            structures, failed = _stationary_points(settings, starts, model, stage)
        named = [replace(s, id=f"{current.folder}/{s.id}") for s in structures]
        if settings.include_starts:
            labeled = _labeled_before(current)
            named += [s for s in starts if s.id not in labeled]
        if not named:
            return {"stop": f"none of {len(starts)} starts gave a structure", "candidates": 0}
        write_dataset(stage.folder / EXPLORED, _unlabeled(named))
        return {"starts": len(starts), "failed": failed, "candidates": len(named)}

    options: dict[str, Any] = {"source": settings.source, "explore": settings.explore, "seed": current.seed}
    options |= {"dynamics": settings.dynamics, "search": settings.search}
    if settings.include_starts:
        options["include_starts"] = True
    if settings.relaxation:
        options["relaxation"] = settings.relaxation
    return Stage(
        f"{current.folder}/explore", f"candidates from {settings.source.replace('-', ' ')} of the committee", work,
        options, (*file_list(settings.pool), current.committee, *(current.earlier if settings.include_starts else ())),
        (EXPLORED,), branch=current.branch,
    )  # fmt: skip


def _labeled_before(current: Round) -> set[str]:
    """Ids of the structures that earlier rounds have labeled."""
    return {name for request in current.earlier for name in open_data(request).ids}


def _stationary_points(
    settings: ActiveSettings, starts: Sequence[Structure], model: str, stage: StageWork
) -> tuple[list[Structure], int]:
    """Where searches and relaxations by the committee end, also those that fail, and the number of these."""
    only_saddles = settings.source == "transition-states"
    guesses = [s for s in starts if only_saddles or is_saddle_guess(s)]
    others = [] if only_saddles else [s for s in starts if not is_saddle_guess(s)]
    results = [
        search(part, model, stage.folder / name, workers=0, quiet=stage.quiet, **options)
        for search, part, name, options in (
            (search_saddles, guesses, EXPLORED, settings.search),
            (search_minima, others, "minima.h5", settings.relaxation),
        )
        if part
    ]
    parts = [part for result in results for part in (result.dataset, result.failed) if part is not None]
    return [s for part in parts for s in part.structures], sum(len(result.failures) for result in results)


def pick_stage(settings: ActiveSettings, current: Round, explored: Path | None) -> Stage:
    """A stage that picks structures by the disagreement of the committee.

    Args:
        settings: the configuration.
        current: the round.
        explored: candidates; None: those of the pool.

    Returns:
        The stage. Products: `request.h5`, which `hesse label` takes, and `picks.json` with the disagreements. It ends
        the branch if the calibrated error of the candidates is small enough, or if there are no candidates.
    """

    def work(stage: StageWork) -> Mapping[str, Any]:
        known = _labeled_before(current)
        if explored is not None:
            candidates: Sequence[Structure] = open_data(explored).structures
        else:
            data = read_active_data(settings)
            candidates = [data.pool.structures[i] for i in data.candidates(settings, known)]
        if not candidates:
            return {"stop": "no structure is left to pick"}
        spreads = _disagreement(settings, candidates, current.members, stage)
        typical = float(np.sqrt(np.mean(spreads["curvature"] ** 2)))
        result: dict[str, Any] = {"candidates": len(candidates), "curvature_spread": typical}
        factor = stage.results.get(current.calibrated, {}).get("factor") if current.calibrated else None
        if factor is not None:
            result["curvature_error"] = factor * typical
            if settings.curvature_error is not None and factor * typical < settings.curvature_error:
                reason = f"calibrated error of H v {factor * typical:.3g} eV/Å² over {len(candidates)} candidates"
                return {**result, "stop": f"{reason}, below {settings.curvature_error:g}"}
        if current.by == "random":
            scores: Float[Array, "candidates"] = np.random.default_rng(current.seed).permutation(len(candidates)) * 1.0
        else:
            scores = spreads[current.by]
        picked = _pick(settings, candidates, scores, current.count)
        rows = [
            {"id": candidates[i].id, "group": candidates[i].group,
             **{name: float(values[i]) for name, values in spreads.items()}}
            for i in picked
        ]  # fmt: skip
        write_dataset(stage.folder / PICKED, _unlabeled([candidates[i] for i in picked]))
        write_rows(stage.folder / PICKS, rows)
        return {**result, "picked": len(picked)}

    names = ("per_group", "tolerance", "probes", "curvature_error")
    options = {"by": current.by, "count": current.count, "seed": current.seed}
    options |= {name: getattr(settings, name) for name in names}
    inputs = (*current.members, *current.earlier, *(file_list(settings.pool) if explored is None else [explored]))
    what = "at random" if current.by == "random" else f"by the disagreement in {current.by}"
    return Stage(
        f"{current.folder}/pick", f"pick {current.count} structures {what}", work, options, inputs, (PICKED, PICKS),
        branch=current.branch,
    )  # fmt: skip


def pool_labels_stage(settings: ActiveSettings, current: Round) -> Stage:
    """A stage that takes the labels of the picked structures from the pool.

    Args:
        settings: the configuration.
        current: the round.

    Returns:
        The stage; its product is `labels.h5`.
    """
    request = settings.output / current.folder / "pick" / PICKED

    def work(stage: StageWork) -> Mapping[str, Any]:
        pool = open_data(settings.pool)
        chosen = with_weight(pool.with_ids(open_data(request).ids), settings.label_weight)
        write_dataset(stage.folder / LABELS, chosen)
        return {"labeled": len(chosen)}

    return Stage(
        f"{current.folder}/labels", "their labels in the pool", work, weight_option(settings.label_weight),
        (request, *file_list(settings.pool)), (LABELS,), branch=current.branch,
    )  # fmt: skip


def calibration_stage(settings: ActiveSettings, current: Round, labels: Path) -> Stage:
    """A stage that compares the disagreement about the picked structures with the errors that the labels show.

    Args:
        settings: the configuration.
        current: the round.
        labels: labels of the picked structures.

    Returns:
        The stage. Its results hold `factor`: root mean square error of H v over the disagreement.
    """

    def work(stage: StageWork) -> Mapping[str, Any]:
        data = open_data(labels)
        mean = _predictions(settings, data.structures, current.members, stage)
        rows = [asdict(row) for row in spread_calibration(data, mean)]
        spreads_by_name = {spreads.name: spreads for spreads in structure_spreads(data, mean)}
        return {
            "rows": rows,
            **({"factor": spreads_by_name["hvp"].error_over_spread} if "hvp" in spreads_by_name else {}),
        }

    return Stage(
        f"{current.folder}/calibration", "errors of the committee on what it has picked", work,
        {"probes": settings.probes}, (labels, *current.members), branch=current.branch,
    )  # fmt: skip


def test_calibration(
    settings: ActiveSettings, test: Dataset, members: Sequence[Path], stage: StageWork
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Predicted and true errors of a committee on a test set.

    Args:
        settings: the configuration.
        test: the test set.
        members: files of the models.
        stage: the stage in whose folder predictions are kept.

    Returns:
        A row for each property, and a point for each property and structure.
    """
    data = test.without_suspects()
    mean = _predictions(settings, data.structures, members, stage)
    points = [
        {"property": spreads.name, "spread": float(spread), "error": float(error)}
        for spreads in structure_spreads(data, mean)
        for spread, error in zip(spreads.spreads, spreads.errors, strict=True)
    ]
    return [asdict(row) for row in spread_calibration(data, mean)], points


def _predictions(
    settings: ActiveSettings, structures: Sequence[Structure], members: Sequence[Path], stage: StageWork
) -> Properties:
    """Means and standard deviations of the committee; kept in the folder of the stage."""
    device = str(settings.training.get("device", "cpu"))
    files = [str(file) for file in members]
    folder = stage.folder / "predictions"
    return teacher_labels(structures, files, folder, probes=settings.probes, device=device, quiet=stage.quiet).labels


def _disagreement(
    settings: ActiveSettings, structures: Sequence[Structure], members: Sequence[Path], stage: StageWork
) -> dict[str, Float[Array, "structures"]]:
    """Standard deviations by name: energy (eV per atom), forces (eV/Å), curvature (of H v, eV/Å²)."""
    labels = _predictions(settings, structures, members, stage)
    energy, forces, products = labels.energy_error, labels.forces_error, labels.hvp_error
    assert energy is not None
    assert forces is not None
    assert products is not None
    return {
        "energy": (energy / labels.n_atoms).numpy(),
        "forces": forces.numpy(),
        "curvature": products.square().mean(0).sqrt().numpy(),
    }


def _pick(
    settings: ActiveSettings, candidates: Sequence[Structure], scores: Float[Array, "candidates"], count: int
) -> list[int]:
    """The highest scores without near duplicates, at most so many of a group."""
    order = np.argsort(-scores, kind="stable")
    shortlist = order[: _SHORTLIST * count].tolist() if settings.per_group is None else order.tolist()
    different = [shortlist[k] for k in unique_structures([candidates[i] for i in shortlist], settings.tolerance)]
    groups = [candidates[i].group or candidates[i].id for i in different]
    chosen = choose_structures(scores[different], groups, count, per_group=settings.per_group)
    return [different[k] for k in chosen]


def _unlabeled(structures: Sequence[Structure]) -> Dataset:
    return Dataset.from_pairs((s, Properties.single(len(s), structure_id=s.id)) for s in structures)
