"""The data of Hessian-informed training: which candidates get expensive labels, and what fine-tuning is done on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hesse.datasets import Dataset, read_dataset, write_dataset
from hesse.errors import ExecutionError
from hesse.labelling import teacher_labels
from hesse.recipes.protocols.hint_settings import HintData, HintSettings, has_curvature, read_hint_data
from hesse.recipes.protocols.recipe_settings import file_list
from hesse.recipes.protocols.stages import Paused, Stage, StageWork
from hesse.recipes.protocols.student_data import open_data
from hesse.runtime.filesystem import write_rows
from hesse.sampling.label_scores import choose_structures, score_structures
from hesse.structures import Properties

__all__ = ["CURVED", "KEPT", "ORDINARY", "REQUEST", "choice_stage", "kept_curvature_stage", "tuning_data_stage"]

REQUEST, CURVED, ORDINARY, KEPT = "request.h5", "curved.h5", "ordinary.h5", "kept.h5"


def choice_stage(settings: HintSettings, name: str, count: int, model: Path | str | None, seed: int) -> Stage:
    """A stage that chooses the candidates that get expensive labels, and writes them as a request for `hesse label`.

    Args:
        settings: the configuration.
        name: name of the stage.
        count: number of structures.
        model: the pre-trained model whose curvature is used; None for a random choice.
        seed: seed of the choice.

    Returns:
        The stage. Products: `request.h5` with the structures, `choice.json` with their scores.
    """

    def work(stage: StageWork) -> Mapping[str, Any]:
        data = read_hint_data(settings)
        structures = [data.candidates.structures[i] for i in data.free]
        if model is None:
            chosen = np.random.default_rng(seed).permutation(len(structures))[:count].tolist()
            rows = [{"id": structures[i].id, "group": structures[i].group} for i in chosen]
        else:
            scores = score_structures(structures, model, settings.score, seed=seed, quiet=stage.quiet)
            chosen = choose_structures(scores.score, scores.groups, count, per_group=settings.per_group)
            every = scores.rows()
            rows = [every[i] for i in chosen]
        request = [structures[i] for i in chosen]
        write_dataset(stage.folder / REQUEST, _without_labels(request))
        write_rows(stage.folder / "choice.json", rows)
        return {"candidates": len(structures), "chosen": len(chosen), "groups": len({s.group or s.id for s in request})}

    options: dict[str, Any] = {"count": count, "seed": seed}
    if model is not None:
        options |= {"score": settings.score.model_dump(mode="json"), "per_group": settings.per_group}
    kind = "at random" if model is None else "by energy, curvature and sparsity"
    files = (*file_list(settings.candidates), *([model] if isinstance(model, Path) else []))
    return Stage(name, f"choose {count} structures {kind}", work, options, files, (REQUEST, "choice.json"))


def tuning_data_stage(
    settings: HintSettings, data: HintData, name: str, count: int, request: Path, made: Path | None
) -> Stage:
    """A stage that puts the data of fine-tuning together: structures with curvature, and ordinary ones.

    Args:
        settings: the configuration.
        data: what its data hold.
        name: name of the stage.
        count: number of the chosen structures.
        request: the chosen structures.
        made: labels that the engine has made, if any.

    Returns:
        The stage. Products: `curved.h5` and, if there are other structures with energies and forces, `ordinary.h5`.

    Raises of its work:
        Paused: labels that the user has to make are missing.
    """
    has_ordinary = data.ordinary and len(data.candidates) > count

    def work(stage: StageWork) -> Mapping[str, Any]:
        now = read_hint_data(settings)
        requested = open_data(request).ids
        source = now.candidates if now.own_labels else open_data(made) if made is not None else now.labels
        missing = [i for i in requested if source is None or i not in set(source.ids)]
        if made is None and missing:
            where = "no labels are given" if source is None else f"{source.source} lacks {len(missing)} of them"
            raise Paused(
                f"{len(requested)} structures are chosen, and {where}. Label them: hesse label {request} labels.h5 "
                "--engine ENGINE --hessian; then write labels: labels.h5 in the configuration, and run the same "
                "command again."
            )
        assert source is not None
        curved = source.with_ids([i for i in requested if i in set(source.ids)])
        curved = curved.select(has_curvature(curved))
        if not now.own_labels and now.ordinary:  # labeled before
            curved = (
                curved + now.candidates.select(has_curvature(now.candidates))
                if has_curvature(now.candidates)
                else curved
            )
        if len(curved) == 0:
            raise ExecutionError(f"none of the {len(requested)} chosen structures has a curvature label")
        write_dataset(stage.folder / CURVED, _with_level(curved, now.level))
        result = {"chosen": len(requested), "curved": len(curved)}
        if has_ordinary:
            special = set(curved.ids)
            rest = now.candidates.select([i for i, s in enumerate(now.candidates.ids) if s not in special])
            rest = replace(rest, labels=rest.labels.pick(("energy", "forces")))
            write_dataset(stage.folder / ORDINARY, _with_level(rest, now.level))
            result["ordinary"] = len(rest)
        return result

    products = (CURVED, ORDINARY) if has_ordinary else (CURVED,)
    files = (request, *file_list(settings.candidates), *file_list(settings.labels), *([made] if made else []))
    return Stage(name, "labels of the chosen structures, and the others", work, {}, files, products)


def kept_curvature_stage(name: str, ordinary: Path, model: Path | str, cache: Path, *, full: bool) -> Stage:
    """A stage that labels the structures without an expensive label with the curvature of the pre-trained model.

    Fine-tuning on their energies and forces alone would destroy it.

    Args:
        name: name of the stage.
        ordinary: structures with energies and forces.
        model: the pre-trained model.
        cache: folder in which its curvature is kept for other choices of structures.
        full: full Hessians instead of one product of each structure, as the expensive labels have.

    Returns:
        The stage. Product: `kept.h5`.
    """

    def work(stage: StageWork) -> Mapping[str, Any]:
        data = read_dataset(ordinary)
        of_model = teacher_labels(data, str(model), cache, probes=0 if full else 1, hessian=full, quiet=stage.quiet)
        names = ("hessian",) if full else ("probes", "hvp")
        labels = data.labels.replace(**{label: getattr(of_model.labels, label) for label in names})
        level = of_model.metadata.get("level", "model")  # not that of the forces, with which it does not agree
        kept = replace(data, labels=labels, metadata={**data.metadata, "curvature_level": level})
        write_dataset(stage.folder / KEPT, kept)
        return {"structures": len(kept)}

    files = (ordinary, *([model] if isinstance(model, Path) else []))
    options = {"model": str(model) if isinstance(model, str) else "", "full": full}
    return Stage(name, "curvature of the pre-trained model, to keep", work, options, files, (KEPT,))


def _without_labels(structures: list[Any]) -> Dataset:
    pairs = [(s, Properties.single(len(s), structure_id=s.id)) for s in structures]
    return Dataset.from_pairs(pairs)


def _with_level(data: Dataset, level: str) -> Dataset:
    return replace(data, metadata={**data.metadata, **({"level": level} if level else {})})
