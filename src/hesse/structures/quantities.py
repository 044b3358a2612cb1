"""The table of quantities: everything that structures can have values of, each described once.

`Properties`, `Request`, file formats, unit conversion, checks, evaluation and the loss follow from this table, so that
a new quantity is one more entry (docs/how-to/add-a-quantity.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal, get_args, get_type_hints

from hesse.errors import RequestError, check_whole_numbers, did_you_mean

__all__ = [
    "COLUMNS",
    "QUANTITIES",
    "Column",
    "Quantity",
    "label_names",
    "quantity",
    "register_quantity",
]

Axes = Literal["structure", "atom", "probe atom", "probe structure", "element"]
"""Leading axes of an array: structures; all atoms; probes and atoms; probes and structures; elements of Hessians."""


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One kind of values that structures can have.

    Attributes:
        name: name in Python, in files and in options.
        description: what it is, in a few words.
        per: what there is a value for: each structure, each atom, each pair of a probe and an atom, or each element of
            the Hessians (`hesse.structures.hessian_blocks`).
        components: shape of one value; () for a number, (3,) for a vector, (3, 3) for a matrix.
        energy_power, length_power: the unit is energy to this power times length to this power.
        unit: name of the unit in eV and Å; empty: from the powers.
        role: "label": references that can be predicted, compared and trained on. "input": values that belong to another
            quantity (the probes of products) or to the structure (its weight). "output": predictions, and values that
            are computed during a run; they are not stored in files.
        has_error: whether references may state an estimated error.
        source: how potentials predict it: "energy" (the energy or a derivative of it, computed for every potential) or
            "output" (a further output of the network, see `Potential.outputs`); empty if they do not.
        engines: whether engines compute it as a label.
        is_flag: whether the values are True and False instead of real numbers.
        in_double: kept in float64 when a record is converted to float32 (large numbers with small differences).
    """

    name: str
    description: str
    per: Literal["structure", "atom", "probe atom", "element"]
    components: tuple[int, ...] = ()
    energy_power: int = 0
    length_power: int = 0
    unit: str = ""
    role: Literal["label", "input", "output"] = "label"
    has_error: bool = False
    source: Literal["energy", "output", ""] = "output"
    engines: bool = True
    is_flag: bool = False
    in_double: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise RequestError(f"the name of a quantity must be a Python identifier, got {self.name!r}")
        for option in ("per", "role", "source"):
            choices = get_args(get_type_hints(Quantity)[option])
            if (value := getattr(self, option)) not in choices:
                raise RequestError(f"quantity {self.name}: {option} = {value!r}. {did_you_mean(str(value), choices)}")
        if not isinstance(self.components, tuple) or not all(isinstance(n, int) and n > 0 for n in self.components):
            raise RequestError(
                f"quantity {self.name}: components = {self.components!r}, expected the shape of one value as a tuple: "
                "() for a number, (3,) for a vector"
            )
        check_whole_numbers(energy_power=self.energy_power, length_power=self.length_power)
        if not self.unit:
            object.__setattr__(self, "unit", _unit(self.energy_power, self.length_power))

    @property
    def mask_axes(self) -> Literal["structure", "probe structure"]:
        """Axes of its mask, and of its error."""
        return "probe structure" if self.per == "probe atom" else "structure"


@dataclass(frozen=True)
class Column:
    """One array of a record: the values of a quantity, their mask, or their estimated error.

    Attributes:
        name: name of the array, for example "forces", "forces_mask", "forces_error".
        quantity: the quantity that it belongs to.
        kind: which of the three it is.
        axes: its leading axes.
        components: its other axes.
        is_flag: whether it holds True and False; otherwise it holds real numbers.
        probe_axis: whether the first axis is that of the probes.
        rows: its axis over structures, atoms or elements.
    """

    name: str
    quantity: Quantity
    kind: Literal["value", "mask", "error"]
    axes: Axes
    components: tuple[int, ...] = ()
    is_flag: bool = False
    probe_axis: bool = field(init=False)
    rows: Literal["structure", "atom", "element"] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "probe_axis", self.axes.startswith("probe"))
        object.__setattr__(self, "rows", self.axes.removeprefix("probe "))


_QUANTITIES: dict[str, Quantity] = {}
QUANTITIES: Final[Mapping[str, Quantity]] = MappingProxyType(_QUANTITIES)
"""All quantities by name, in the order of reports."""
_COLUMNS: dict[str, Column] = {}
COLUMNS: Final[Mapping[str, Column]] = MappingProxyType(_COLUMNS)
"""All arrays of a `Properties` record by name: values of all quantities, then masks, then errors."""
_METHODS: Final = frozenset({
    "atom_slice", "concatenate", "detach", "has", "hessian_lengths", "hessian_matvec", "hessian_of", "index_select",
    "items", "map_tensors", "mask", "pick", "replace", "select", "single", "suspect_mask", "to",
})  # fmt: skip
"""Methods of `Properties`, whose names its arrays cannot have."""
_RESERVED: Final = frozenset({
    # extended XYZ and ASE atoms
    "structure_id", "tag", "group", "level", "engine", "step", "code_version", "numbers", "positions", "charge",
    "multiplicity", "species", "pos", "pbc", "Lattice", "masses", "tags",
    "hessian_offsets",  # HDF5
    "balance", "length_scale", "others", "outputs",  # options and arguments
    "loss", "lr", "seconds", "processor_seconds", "kind", "text",  # the record of a run
})  # fmt: skip
_RESERVED_PATTERN: Final = re.compile(r"(probe|hvp)_\d+")
"""Names that files, options and records of runs use for something else."""


def register_quantity(new: Quantity) -> Quantity:
    """Add a quantity to the table.

    From then on it can be a label of data sets and files, a term of the loss, a prediction of potentials that output
    it, and a row of evaluations. Call it once, in the module that defines the potential or engine, before data with
    this quantity are read. Adding an equal entry again has no effect.

    Args:
        new: the quantity.

    Returns:
        The same quantity.

    Raises:
        RequestError: another quantity has this name, or one of its arrays would have the name of another array or of
            a method of `Properties`; values that are not for each structure or each atom; flags as labels.
    """
    if not isinstance(new, Quantity):
        raise RequestError(f"expected hesse.Quantity(name=..., description=..., per=...), got {new!r}")
    if _QUANTITIES.get(new.name) == new:
        return new
    if new.name in _RESERVED or _RESERVED_PATTERN.fullmatch(new.name):
        raise RequestError(f"{new.name!r} has another meaning in files or options; choose another name")
    taken = {"n_atoms", *_QUANTITIES, *_COLUMNS, *_METHODS} & set(_columns_of(new))
    if taken:
        raise RequestError(f"there is a quantity, an array or a method {min(taken)!r} already; choose another name")
    if new.per not in ("structure", "atom"):
        raise RequestError(
            f"{new.name}: values for each {new.per} cannot be added, only for each structure or each atom"
        )
    if new.is_flag and new.role == "label":
        raise RequestError(f"{new.name}: flags cannot be labels, which are compared and trained on; use role input")
    _add(new)
    return new


def _add(new: Quantity) -> None:
    _QUANTITIES[new.name] = new
    _COLUMNS.clear()
    _COLUMNS.update(_ordered_columns())


def quantity(name: str) -> Quantity:
    """Look a quantity up.

    Args:
        name: its name.

    Returns:
        Its entry in the table.

    Raises:
        RequestError: there is no such quantity.
    """
    if name not in _QUANTITIES:
        raise RequestError(f"unknown property {name!r}. {did_you_mean(str(name), label_names())}")
    return _QUANTITIES[name]


def label_names() -> tuple[str, ...]:
    """Quantities that can be labels: references that can be predicted, compared and trained on.

    Returns:
        Their names, in the order of reports.
    """
    return tuple(entry.name for entry in _QUANTITIES.values() if entry.role == "label")


def _columns_of(entry: Quantity) -> dict[str, Column]:
    result = {entry.name: Column(entry.name, entry, "value", entry.per, entry.components, entry.is_flag)}
    if entry.role == "label":
        mask = f"{entry.name}_mask"
        result[mask] = Column(mask, entry, "mask", entry.mask_axes, is_flag=True)
    if entry.has_error:
        error = f"{entry.name}_error"
        result[error] = Column(error, entry, "error", entry.mask_axes)
    return result


def _ordered_columns() -> dict[str, Column]:
    """Values of labels and inputs, masks, errors, and last the outputs and flags: digests of data depend on it."""
    every = [column for entry in _QUANTITIES.values() for column in _columns_of(entry).values()]
    ranks = {"value": 0, "mask": 1, "error": 2}

    def rank(column: Column) -> int:
        return ranks[column.kind] if column.quantity.role == "label" or column.name == "probes" else 3

    return {column.name: column for column in sorted(every, key=rank)}


def _unit(energy_power: int, length_power: int) -> str:
    energy = {0: "", 1: "eV"}.get(energy_power, f"eV^{energy_power}")
    length = {0: "", 1: "Å", 2: "Å²", 3: "Å³"}.get(abs(length_power), f"Å^{abs(length_power)}")
    if not length:
        return energy
    if length_power < 0:
        return f"{energy or 1}/{length}"
    return f"{energy} {length}" if energy else length


for _entry in (
    Quantity(
        name="energy",
        description="energy of the structure",
        per="structure",
        energy_power=1,
        has_error=True,
        source="energy",
        in_double=True,
    ),
    Quantity(
        name="forces",
        description="minus the gradient of the energy",
        per="atom",
        components=(3,),
        energy_power=1,
        length_power=-1,
        has_error=True,
        source="energy",
    ),
    Quantity(
        name="probes",
        description="directions of the Hessian-vector products, dimensionless",
        per="probe atom",
        components=(3,),
        role="input",
        source="",
    ),
    Quantity(
        name="hvp",
        description="Hessian-vector products along the probes",
        per="probe atom",
        components=(3,),
        energy_power=1,
        length_power=-2,
        has_error=True,
        source="energy",
    ),
    Quantity(
        name="hessian",
        description="second derivatives of the energy",
        per="element",
        energy_power=1,
        length_power=-2,
        has_error=True,
        source="energy",
    ),
    Quantity(
        name="atomic_energies",
        description="energy of each atom; their sum is the energy",
        per="atom",
        energy_power=1,
        source="energy",
        engines=False,
        in_double=True,
    ),
    Quantity(
        name="stress",
        description="derivative of the energy with respect to strain, divided by the volume",
        per="structure",
        components=(3, 3),
        energy_power=1,
        length_power=-3,
        source="energy",
    ),
    Quantity(
        name="regularizer",
        description="regularizer of a potential, dimensionless",
        per="structure",
        role="output",
        source="output",
        engines=False,
    ),
    Quantity(
        name="probe_transform",
        description="matrix of weighted probes (hesse.harmonic.probe_weighting), dimensionless",
        per="element",
        role="output",
        source="",
        engines=False,
    ),
    Quantity(
        name="suspect",
        description="whether labels failed a check",
        per="structure",
        role="input",
        source="",
        is_flag=True,
    ),
    Quantity(
        name="weight",
        description="weight of the structure in the loss, dimensionless",
        per="structure",
        role="input",
        source="",
        engines=False,
    ),
):
    _add(_entry)
