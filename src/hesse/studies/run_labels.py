"""Options and training data in which runs differ, from the files of their models."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hesse.errors import FileFormatError
from hesse.losses import LossWeights
from hesse.models import best_model, read_model_header
from hesse.studies.study_config import Label
from hesse.training.run_identity import WITHOUT_EFFECT, flat_settings

__all__ = ["differences", "provenance_of"]

_NO_LABELS: Final = {*WITHOUT_EFFECT, "seed"}


def provenance_of(folder: Path) -> Mapping[str, Any]:
    """How the best model of a run was trained.

    Args:
        folder: folder of the run.

    Returns:
        The record in the file of the model.

    Raises:
        FileFormatError: there is no model, or it has no record.
    """
    model = best_model(folder)
    provenance = read_model_header(model)["provenance"]
    if not isinstance(provenance, Mapping) or not isinstance(provenance.get("config"), Mapping):
        raise FileFormatError(f"{model}: this model does not tell how it was trained")
    return provenance


def differences(origins: Sequence[Mapping[str, Any]]) -> list[dict[str, Label]]:
    """Labels that distinguish runs: the scheme, other options, and the training data.

    Args:
        origins: how each was trained, see `provenance_of`.

    Returns:
        The labels of each run; none if nothing but the seed differs.
    """
    settings = [flat_settings(origin["config"]) for origin in origins]
    names = [name for name in dict.fromkeys(n for s in settings for n in s) if name.split(".")[0] not in _NO_LABELS]
    different = [name for name in names if len({json.dumps(s.get(name)) for s in settings}) > 1]
    result: list[dict[str, Label]] = [{} for _ in origins]
    weights = [name for name in different if name.startswith("weights.")]
    if weights:
        schemes = [_scheme(s) for s in settings]
        kinds = {json.dumps([s.get(name) for name in weights]) for s in settings}
        pairs = {(scheme, json.dumps([s.get(n) for n in weights])) for scheme, s in zip(schemes, settings, strict=True)}
        if len(set(schemes)) > 1:
            for labels, scheme in zip(result, schemes, strict=True):
                labels["scheme"] = scheme
        if len(set(schemes)) == len(kinds) == len(pairs):
            different = [name for name in different if name not in weights]
    for name in different:
        for labels, each in zip(result, settings, strict=True):
            value = each.get(name)
            labels[name] = (
                value if isinstance(value, str | int | float) else "none" if value is None else json.dumps(value)
            )
    if len({origin.get("data_hash") for origin in origins}) > 1:
        counts = [origin.get("structures") for origin in origins]
        hashes = [str(origin.get("data_hash"))[:6] for origin in origins]
        for labels, count, word in zip(result, counts, hashes, strict=True):
            same = {h for c, h in zip(counts, hashes, strict=True) if c == count} == {word}
            labels["structures"] = f"{count}-structures" if same else f"{count}-structures-{word}"
    return result


def _scheme(settings: Mapping[str, Any]) -> str:
    """Name of the scheme of a run by its weights."""
    weights = {
        name: float(settings.get(f"weights.{name}") or 0.0) for name in LossWeights.model_fields if name != "others"
    }
    if weights["hessian"] > 0:
        return "ef-h"
    return "ef-hvp" if weights["hvp"] > 0 else "ef" if weights["forces"] > 0 else "e"
