"""The cells of a study: every combination of the values of its axes, as the options of one run each."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from hesse.datasets import COUNTED_BY_STRUCTURE, FIXED_PROBE_KINDS
from hesse.errors import ConfigError, HesseError, UnknownOptionError, did_you_mean
from hesse.losses import LossWeights
from hesse.probes import PROBE_KINDS
from hesse.runtime.settings import validate_config
from hesse.studies.study_config import Label, StudyConfig
from hesse.training import RunConfig, TrainConfig

__all__ = ["SCHEMES", "Cell", "cell_name", "expand_cells"]

SCHEMES: Final[Mapping[str, str]] = {
    "e": "energies",
    "ef": "energies and forces",
    "ef-hvp": "energies, forces and Hessian-vector products",
    "ef-h": "energies, forces and full Hessians",
}
"""Names of the axis `scheme`."""

_CURVATURE: Final[Mapping[str, str]] = {"ef-hvp": "hvp", "ef-h": "hessian"}

_SPECIAL: Final = ("network", "scheme", "probe", "data_fraction", "seed")
"""Axes that are no options, in the order in which they are applied, after all other axes."""


@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        name: readable name, that of its folder.
        labels: its value on every axis that has an effect on it; values are names, numbers or yes and no.
        options: options of the run as plain values, without output; `data` is that of the whole training data.
        pairs: which (probe, product) pairs the training data hold: "stored", "pair-K" or "fixed-KIND".
        fraction: fraction of the training data.
        probe_seed: seed of the probes of "fixed-KIND".
    """

    name: str
    labels: Mapping[str, Label]
    options: Mapping[str, Any]
    pairs: str = "stored"
    fraction: float = 1.0
    probe_seed: int = 0

    def run_config(self, output: Path, source: str) -> RunConfig:
        """The configuration of its run.

        Args:
            output: folder of the run.
            source: what to call the study in messages.

        Returns:
            The configuration.

        Raises:
            ConfigError: options that do not fit together.
        """
        return validate_config(RunConfig, {**self.options, "output": str(output)}, source=f"{source}, cell {self.name}")


def expand_cells(study: StudyConfig, source: str = "study") -> tuple[Cell, ...]:
    """All cells of a study. Combinations that are the same run (probes of a scheme without products) are one cell.

    Args:
        study: the configuration.
        source: what to call it in messages.

    Returns:
        The cells, in the order of the axes.

    Raises:
        UnknownOptionError: an axis, scheme, probe or option that does not exist; the message has the nearest name.
        ConfigError: a value that does not fit; the message names the axis and the cell.
    """
    axes = {str(name): _axis_values(str(name), values, source) for name, values in study.axes.items()}
    for number, pattern in enumerate(study.exclude):
        _check_pattern(pattern, axes, f"{source}, exclude {number}")
    _check_pattern(study.baseline, axes, f"{source}, baseline")
    merged: dict[str, tuple[dict[str, Label], Cell]] = {}
    for combination in itertools.product(*(values.items() for values in axes.values())):
        chosen = dict(zip(axes, combination, strict=True))
        labels = {name: label for name, (label, _) in chosen.items()}
        if any(all(labels[name] == label for name, label in pattern.items()) for pattern in study.exclude):
            continue
        cell = _cell(study, {name: value for name, (_, value) in chosen.items()}, labels, source)
        key = json.dumps([cell.options, cell.pairs, cell.fraction, cell.probe_seed], sort_keys=True, default=str)
        own = dict(cell.labels)
        known = merged[key][0] if key in merged else own
        merged[key] = ({name: known[name] for name in known if own.get(name) == known[name]}, cell)
    if not merged:
        raise ConfigError(f"{source}: exclude leaves no cell")
    cells = tuple(replace(cell, name=cell_name(labels), labels=labels) for labels, cell in merged.values())
    names = [cell.name for cell in cells]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(
            f"{source}: several cells would be called {sorted(twice)[0]!r}: give the values of the axes names that "
            "differ in more than special characters, AXIS: {NAME: VALUE, ...}"
        )
    return cells


def _axis_values(name: str, values: Any, source: str) -> dict[Label, Any]:
    """Values of an axis by label."""
    where = f"{source}, [axes], {name}"
    if isinstance(values, Mapping):
        result: dict[Label, Any] = {str(label): value for label, value in values.items()}
    elif isinstance(values, list | tuple):
        result = {}
        for value in values:
            if not isinstance(value, str | int | float):
                raise ConfigError(f"{where}: give the value {value!r} a name: {name}: {{NAME: {value!r}, ...}}")
            if value in result:
                raise ConfigError(f"{where}: {value!r} occurs twice")
            result[value] = value
    else:
        raise ConfigError(f"{where}: expected a list of values, or values by name, got {values!r}")
    if not result:
        raise ConfigError(f"{where}: expected one or more values, got none")
    _check_axis(name, result, named=isinstance(values, Mapping), where=where)
    return result


def _check_axis(name: str, values: Mapping[Label, Any], *, named: bool, where: str) -> None:
    """Raise a ConfigError for an axis that does not exist, or values of the wrong kind."""
    if name == "scheme":
        for value in values.values():
            if value not in SCHEMES:
                raise UnknownOptionError(f"{where}: no scheme {value!r}. {did_you_mean(str(value), list(SCHEMES))}")
    elif name == "probe":
        for value in values.values():
            _check_probe(str(value), where)
    elif name == "network":
        for value in values.values():
            if not isinstance(value, str | Mapping):
                raise ConfigError(f"{where}: expected the kind of a network, or options of model, got {value!r}")
    elif name == "seed":
        for value in values.values():
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"{where}: expected whole numbers from 0 on, got {value!r}")
    elif name == "data_fraction":
        for value in values.values():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
                raise ConfigError(f"{where}: expected fractions above 0 and up to 1, got {value!r}")
    elif (first := name.partition(".")[0]) in TrainConfig.model_fields or first == "data":
        return
    elif not (named and all(isinstance(value, Mapping) for value in values.values())):
        known = [*_SPECIAL, *TrainConfig.model_fields]
        raise UnknownOptionError(
            f"{where}: no axis of this name. {did_you_mean(name, known)} An axis is one of {', '.join(_SPECIAL)}, an "
            f"option of a run (optimizer.learning_rate), or options by name: {name}: {{NAME: {{OPTION: VALUE}}}}"
        )


def _check_probe(value: str, where: str) -> None:
    family, _, kind = value.partition("-")
    if value == "stored" or (family == "pair" and kind.isdecimal()) or kind in _FAMILIES.get(family, ()):
        return
    known = ["stored", "pair-0", *(f"{family}-{kind}" for family, kinds in _FAMILIES.items() for kind in kinds)]
    raise UnknownOptionError(
        f"{where}: no probe {value!r}. {did_you_mean(value, known)} Probes are stored, pair-K (the K-th stored pair), "
        "fixed-KIND (one pair for each structure, made from its Hessian) and fresh-KIND (new at every step, from "
        f"Hessians), with KIND one of {', '.join(PROBE_KINDS)}; fixed also {', '.join(_DESIGNED)}"
    )


_FIXED: Final = tuple(kind for kind in FIXED_PROBE_KINDS if kind not in COUNTED_BY_STRUCTURE)  # one pair for each
_FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {"fixed": _FIXED, "fresh": PROBE_KINDS}
_DESIGNED: Final = _FIXED[len(PROBE_KINDS) :]


def _check_pattern(pattern: Mapping[str, Label], axes: Mapping[str, Mapping[Label, Any]], where: str) -> None:
    for name, label in pattern.items():
        if name not in axes:
            raise UnknownOptionError(f"{where}: no axis {name!r} in this study. {did_you_mean(name, list(axes))}")
        if label not in axes[name]:
            raise UnknownOptionError(
                f"{where}, {name}: no value {label!r} on this axis. {did_you_mean(str(label), map(str, axes[name]))}"
            )


def _cell(study: StudyConfig, values: Mapping[str, Any], labels: Mapping[str, Label], source: str) -> Cell:
    """One cell, with labels that may have no effect."""
    where = f"{source}, cell {cell_name(labels)}"
    options: dict[str, Any] = json.loads(json.dumps(study.base, default=str))
    for name, value in values.items():
        if name in _SPECIAL:
            continue
        first = name.partition(".")[0]
        if first in TrainConfig.model_fields or first == "data":
            _set_option(options, name, value, where)
        else:
            for key, inner in _leaves(value):
                _set_option(options, key, inner, where)
    if "network" in values:
        network = values["network"]
        options["model"] = {"kind": network} if isinstance(network, str) else dict(network)
    if "scheme" in values:
        options["weights"] = _scheme_weights(options, values["scheme"], where)
    pairs = _apply_probe(options, str(values["probe"])) if "probe" in values else "stored"
    if "seed" in values:
        options["seed"] = values["seed"]
    fraction = float(values.get("data_fraction", 1.0))
    config = validate_config(RunConfig, {**options, "output": "run"}, source=where)
    supervised = {term.quantity for term in _loss(config, where) if term.weight > 0}
    if "hvp" not in supervised:
        options.pop("probe", None)
        pairs = "stored"
        labels = {name: label for name, label in labels.items() if name != "probe"}
    if not supervised & {"hvp", "hessian"}:
        options.pop("curvature", None)
    if fraction < 1 and study.fraction_keeps == "steps-per-epoch":
        _set_option(options, "batch.structures", max(1, round(fraction * config.batch.structures)), where)
    if fraction < 1 and study.fraction_keeps == "epochs":
        options["steps"] = max(1, round(fraction * config.steps))
    whole = validate_config(RunConfig, {**options, "output": "run"}, source=where).model_dump(mode="json")
    del whole["output"]
    own = config.seed if pairs.startswith("fixed-") else 0
    return Cell("", labels, whole, pairs, fraction, own if study.probe_seed == "seed" else study.probe_seed)


def _loss(config: RunConfig, where: str) -> Any:
    try:
        return config.make_loss()
    except HesseError as error:
        raise ConfigError(f"{where}: {error}") from error


def _set_option(options: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Set the option with a dotted name."""
    *sections, name = key.split(".")
    for section in sections:
        inner = options.setdefault(section, {})
        if inner == "balance":  # the short form of the section `weights`
            inner = options[section] = {"balance": True}
        if not isinstance(inner, dict):
            raise ConfigError(f"{where}: {key}: {section} is a value, not a section")
        options = inner
    options[name] = value


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Options by dotted name; a section with a `kind` is one option, because its other options depend on the kind."""
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner and "kind" not in inner:
            yield from _leaves(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _scheme_weights(options: Mapping[str, Any], scheme: str, where: str) -> dict[str, Any]:
    """The weights of a scheme: those of the base, without the terms that it does not have. The weight of Hessians is
    that of products, which means the same (docs/training.md)."""
    if options.get("loss") is not None:
        raise ConfigError(f"{where}: scheme sets weights, and the base has a loss: leave out one of them")
    weights = validate_config(LossWeights, options.get("weights", {}), source=f"{where}, [weights]")
    values: dict[str, Any] = {name: weight for name, weight in weights.by_name().items() if weight > 0}
    curvature = weights.hvp or weights.hessian or LossWeights().hvp
    values |= {"hvp": 0.0, "hessian": 0.0}
    if scheme == "e":
        values["forces"] = 0.0
    else:
        values["forces"] = weights.forces or LossWeights().forces
    if scheme in _CURVATURE:
        values[_CURVATURE[scheme]] = curvature
    return {**values, "balance": True} if weights.balance else values


def _apply_probe(options: dict[str, Any], probe: str) -> str:
    """Set the options of fresh probes; returns the pairs that the data are to hold."""
    family, _, kind = probe.partition("-")
    if family != "fresh":
        options.pop("probe", None)
        return probe
    section = options.get("probe")
    options["probe"] = {**(section if isinstance(section, dict) else {}), "source": "fresh", "kind": kind}
    return "stored"


def cell_name(labels: Mapping[str, Label]) -> str:
    """A readable name that is a name of a folder on every system.

    Args:
        labels: labels by axis.

    Returns:
        The labels, with the name of their axis where they do not speak for themselves.
    """
    words = []
    for axis, label in labels.items():
        if axis == "data_fraction":
            word = f"{100 * float(label):g}pct"
        elif axis in _SPECIAL[:3] or (isinstance(label, str) and "." not in axis):
            word = str(label)
        else:
            word = f"{axis.rpartition('.')[2]}{'' if axis == 'seed' else '-'}{label}"
        words.append(re.sub(r"[^A-Za-z0-9.+-]+", "-", word).strip(".-") or "x")
    return "_".join(words) or "run"
