"""Settings of an engine or potential behind its name: `gfn2?accuracy=0.01`, `pyscf:hf/6-31g*?hvp=analytic,grid=3`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hesse.errors import RequestError, UnknownOptionError, did_you_mean

__all__ = ["PYSCF_OPTIONS", "XTB_OPTIONS", "parse_settings"]


def _parse_yes_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(text)
    return text == "yes"


PYSCF_OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "grid": int,
    "hvp": str,
    "probes": int,
    "hessian": str,
    "cartesian": _parse_yes_no,
    "energy_threshold": float,
    "gradient_threshold": float,
    "max_cycles": int,
}
"""Arguments of `PyscfEngine`, and how their text is read."""

XTB_OPTIONS: Mapping[str, Callable[[str], Any]] = {"accuracy": float, "max_iterations": int}
"""Arguments of `XtbEngine`."""

_EXPECTED_BY_NAME = {"trust": "pickle"}
_EXPECTED_BY_TYPE = {int: "a whole number", float: "a number", _parse_yes_no: "yes or no"}


def parse_settings(text: str, known: Mapping[str, Callable[[str], Any]]) -> tuple[str, dict[str, Any]]:
    """What stands before the question mark, and the settings after it, `name=value` with commas between.

    Raises:
        UnknownOptionError: a setting that is not in `known`; the message has the nearest name.
        RequestError: no `=`, a setting given twice, or a value that cannot be read.
    """
    head, _, tail = text.partition("?")
    settings: dict[str, Any] = {}
    for part in tail.split(",") if tail else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise RequestError(f'"{text}": expected name=value after the question mark, got "{part}"')
        if name not in known:
            raise UnknownOptionError(f'"{text}": no setting "{name}". {did_you_mean(name, known)}')
        if name in settings:
            raise RequestError(f'"{text}": the setting "{name}" is given twice')
        try:
            settings[name] = known[name](value)
        except ValueError as error:
            expected = _EXPECTED_BY_TYPE.get(known[name], _EXPECTED_BY_NAME.get(name, "another value"))
            raise RequestError(f'"{text}": {name} must be {expected}, got "{value}"') from error
    return head, settings
