"""Which array of a group is which label, by the names that grouped HDF5 files use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hesse.errors import FileFormatError, UnknownOptionError, did_you_mean

__all__ = ["ArrayNames", "recognize_arrays"]

_COORDINATES: Final = ("coordinates", "positions")
_SPECIES: Final = frozenset({"species", "atomic_numbers"})
_LABEL_NAMES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "energy": ("energies", "energy"),
        "forces": ("forces", "force"),
        "hessian": ("hessian", "hessians"),
    }
)
_GRADIENT_NAMES: Final = ("gradient", "gradients", "grad")
_LEVELS: Final[Mapping[str, str]] = MappingProxyType(
    {"wb97x_dz": "wB97X/6-31G(d)", "wB97x_6-31G(d)": "wB97X/6-31G(d)", "wb97x_tz": "wB97X/def2-TZVPP"}
)
"""Prefixes of ANI-1x and Transition1x; where several levels are there, the first of these is taken."""
_REACTION_TAGS: Final = ("reactant", "transition_state", "product")


@dataclass(frozen=True)
class ArrayNames:
    """What the arrays of one group are.

    Attributes:
        coordinates: name of that array.
        labels: from label (energy, forces, hessian) to the name of its array.
        negated: names of arrays that hold gradients, by their own word.
        used: all names that are understood.
        style: "transition1x", or "ani" for all others.
        level: of theory, where the names state it.
    """

    coordinates: str
    labels: Mapping[str, str]
    negated: frozenset[str]
    used: frozenset[str]
    layout: str
    level: str

    def group_of(self, path: str) -> str:
        """What must stay together when data are split: the molecule, or the reaction."""
        parts = path.split("/")
        if self.layout == "transition1x":
            parts = [p for p in parts if p not in (*_REACTION_TAGS, "data", "train", "val", "test")]
        return "/".join(parts)

    def tag_of(self, path: str) -> str:
        """The end of a reaction that a group holds; empty elsewhere."""
        last = path.rpartition("/")[2]
        return last if last in _REACTION_TAGS else ""


def recognize_arrays(
    names: Iterable[str], rename: Mapping[str, str], source: str, *, choose_level: bool = True
) -> ArrayNames | None:
    """What the arrays `names` of one group are; None where no geometries are among them.

    Args:
        rename: from names to labels, as the user says; wins over the conventions.
        choose: off where it only matters whether there are geometries: several levels are no error then.

    Raises:
        FileFormatError: several levels of theory, none of which is the usual one.
        UnknownOptionError: renamed to something that is no label.
    """
    present = list(names)
    coordinates = next((n for n in _COORDINATES if n in present), None)
    if coordinates is None:
        return None
    labels = {}
    for old, new in rename.items():
        if new not in _LABEL_NAMES:
            raise UnknownOptionError(f'--rename {old}={new}: no label "{new}" here. {did_you_mean(new, _LABEL_NAMES)}')
        if old in present:
            labels[new] = old
    prefix = ""
    if "energy" in labels:
        prefix = labels["energy"].rpartition(".")[0]
    elif choose_level:
        prefix = _level_prefix(present, source)
    for label, usual_names in _LABEL_NAMES.items():
        options = (f"{prefix}.{label}",) if prefix else ()
        name = next((n for n in (*options, *usual_names) if n in present), None)
        if label not in labels and name is not None:
            labels[label] = name
    negated = set()
    if "forces" not in labels:
        gradient = next((n for n in _GRADIENT_NAMES if n in present), None)
        if gradient is not None:
            labels["forces"] = gradient
            negated.add(gradient)
    return ArrayNames(
        coordinates=coordinates,
        labels=labels,
        negated=frozenset(negated),
        used=frozenset({coordinates, *_SPECIES, *labels.values()}),
        layout="transition1x" if coordinates == "positions" and prefix == "wB97x_6-31G(d)" else "ani",
        level=_LEVELS.get(prefix, prefix),
    )


def _level_prefix(present: list[str], source: str) -> str:
    """The level of theory whose energies are meant (`wb97x_dz` of `wb97x_dz.energy`); empty where names have none."""
    if any(n in present for n in _LABEL_NAMES["energy"]):
        return ""
    prefixes = [n.removesuffix(".energy") for n in present if n.endswith(".energy")]
    if len(prefixes) <= 1:
        return "".join(prefixes)
    usual = next((p for p in _LEVELS if p in prefixes), None)
    if usual is None:
        raise FileFormatError(
            f"{source}: energies at several levels of theory ({', '.join(sorted(prefixes))}). Say which one: "
            f"`--rename '{sorted(prefixes)[0]}.energy=energy'`."
        )
    return usual
