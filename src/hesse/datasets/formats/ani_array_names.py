"""Array names of grouped HDF5 files (OpenREACT, ANI-1, ANI-1x, Transition1x) and the labels they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hesse.errors import FileFormatError, UnknownOptionError, did_you_mean

__all__ = ["ArrayNames", "recognize_arrays"]

_COORDINATES: Final = ("coordinates", "positions", "coords")
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
"""Prefixes of ANI-1x and Transition1x, and their level of theory. If a file has several, the first of these is read."""
_REACTION_TAGS: Final = ("reactant", "transition_state", "product")


@dataclass(frozen=True)
class ArrayNames:
    """Meaning of the arrays of one HDF5 group.

    Attributes:
        coordinates: name of the array of coordinates.
        labels: name of the array of each label (energy, forces, hessian).
        negated: names of arrays that hold gradients, which are minus the forces.
        used: all names that are understood.
        layout: "transition1x", "themol" (arrays `coords` and `hessian`), or "ani" for all others.
        level: level of theory, if the names state it; otherwise empty.
    """

    coordinates: str
    labels: Mapping[str, str]
    negated: frozenset[str]
    used: frozenset[str]
    layout: str
    level: str

    def group_of(self, path: str) -> str:
        """Name the group that must stay together when data are split: a molecule or a reaction.

        Args:
            path: path of the HDF5 group in the file.

        Returns:
            The path without the parts that name a split or the end of a reaction.
        """
        parts = path.split("/")
        if self.layout == "transition1x":
            parts = [p for p in parts if p not in (*_REACTION_TAGS, "data", "train", "val", "test")]
        return "/".join(parts)

    def tag_of(self, path: str) -> str:
        """Name the end of the reaction that a group holds.

        Args:
            path: path of the HDF5 group in the file.

        Returns:
            "reactant", "transition_state", "product", or empty.
        """
        last = path.rpartition("/")[2]
        return last if last in _REACTION_TAGS else ""


def recognize_arrays(
    names: Iterable[str], rename: Mapping[str, str], source: str, *, choose_level: bool = True
) -> ArrayNames | None:
    """Recognize the arrays of one HDF5 group by their names.

    Args:
        names: names of the arrays in the group.
        rename: labels by array name, as requested by the user; they take precedence over the conventions.
        source: file, named in error messages.
        choose_level: False if only the presence of geometries matters; several levels are then not an error.

    Returns:
        The meaning of the arrays, or None if there are no coordinates among them.

    Raises:
        FileFormatError: several levels of theory, and none of them is in the list of usual ones.
        UnknownOptionError: an array is renamed to something that is not a label.
    """
    present = list(names)
    coordinates = next((n for n in _COORDINATES if n in present), None)
    if coordinates is None:
        return None
    labels = {}
    for old, new in rename.items():
        if new not in _LABEL_NAMES:
            raise UnknownOptionError(f'--rename {old}={new}: unknown label "{new}". {did_you_mean(new, _LABEL_NAMES)}')
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
        layout=_layout(coordinates, prefix),
        level=_LEVELS.get(prefix, prefix),
    )


def _layout(coordinates: str, prefix: str) -> str:
    if coordinates == "coords":
        return "themol"
    return "transition1x" if coordinates == "positions" and prefix == "wB97x_6-31G(d)" else "ani"


def _level_prefix(present: list[str], source: str) -> str:
    """Prefix of the level of theory to read (`wb97x_dz` of `wb97x_dz.energy`); empty if names have no prefix.

    Raises:
        FileFormatError: several levels, and none of them is in the list of usual ones.
    """
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
