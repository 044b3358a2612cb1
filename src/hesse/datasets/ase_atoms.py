"""Labels in ASE atoms, under the names that extended XYZ files use (docs/formats.md). Units: eV, Å.

Energy, forces and stress are results of the calculator; values per atom (forces, atomic energies, probes and products)
are in `atoms.arrays`, all others (Hessian, error estimates, id, level of theory) in `atoms.info`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress

from hesse.errors import LabelShapeError, LabelValueError, RequestError
from hesse.structures import BEAD_COLUMN, COLUMNS, Column, Properties, Structure, charge_state_of, from_ase, to_ase

__all__ = [
    "ATTRIBUTE_KEYS",
    "TEXT_KEYS",
    "AtomsReader",
    "atoms_with_labels",
    "label_columns",
    "label_info",
]

TEXT_KEYS: Final = ("structure_id", "tag", "group")
ATTRIBUTE_KEYS: Final = ("level", "engine", "step", "code_version")
"""Metadata of the data set that have their own keys; other metadata get the key `hesse_NAME`."""
_GEOMETRY_KEYS: Final = ("numbers", "positions", "charge", "multiplicity", "masses", BEAD_COLUMN)
_VIRIAL_KEYS: Final = ("virial", "virials")
_PROBE: Final = re.compile(r"(probe|hvp)_(\d+)$")


class AtomsReader:
    """Collects structures, labels and metadata from atoms, one by one.

    Attributes:
        structures: geometries so far.
        labels: the labels of each.
        not_read: keys and columns that were not read, and the number of atoms that have them.
    """

    def __init__(self) -> None:
        self.structures: list[Structure] = []
        self.labels: list[Properties] = []
        self.not_read: Counter[str] = Counter()
        self._metadata: dict[str, set[str]] = {}
        self._index_of: dict[str, int] = {}

    def add(self, atoms: Atoms) -> None:
        """Read the next atoms.

        Args:
            atoms: with labels as described above; all are optional.

        Raises:
            RequestError: an id in `atoms.info["structure_id"]` that occurred before.
            GeometryError: atoms that are not a valid structure.
            LabelShapeError, LabelValueError: a label of a wrong shape, not a number, or of another geometry.
        """
        self.not_read.update(dict.fromkeys(_unknown_keys(atoms), 1))
        structure = _to_structure(atoms)
        if structure.id in self._index_of:
            structure = self._with_new_id(structure, explicit="structure_id" in atoms.info)
        self.labels.append(_to_labels(atoms, structure.id))
        self._index_of[structure.id] = len(self.structures)
        self.structures.append(structure)
        for key, value in _to_metadata(atoms.info).items():
            self._metadata.setdefault(key, set()).add(value)

    def metadata(self) -> dict[str, str]:
        """Collect the metadata of all atoms.

        Returns:
            Keys and values; different values of one key are joined with semicolons.
        """
        return {key: "; ".join(sorted(values)) for key, values in self._metadata.items()}

    def _with_new_id(self, structure: Structure, *, explicit: bool) -> Structure:
        """A copy with another id, for content that occurred before under an id that was made from the content."""
        if explicit:
            raise RequestError(
                f'structure_id "{structure.id}" occurs in frame {self._index_of[structure.id]} too; every structure '
                "needs its own id"
            )
        copy = 2
        while f"{structure.id}-{copy}" in self._index_of:
            copy += 1
        return structure.with_positions(structure.positions, id=f"{structure.id}-{copy}")


def atoms_with_labels(structure: Structure, labels: Properties, index: int, metadata: Mapping[str, str]) -> Atoms:
    """Make ASE atoms that carry their labels.

    Args:
        structure: the geometry.
        labels: labels of several structures.
        index: which of them is `structure`.
        metadata: facts about all labels; they go to `atoms.info`.

    Returns:
        The atoms; energy (eV), forces (eV/Å) and stress (eV/Å³, six components) are results of a calculator.
    """
    atoms = to_ase(structure)
    arrays, info = label_columns(labels, index), label_info(structure, labels, index, metadata)
    results: dict[str, Any] = {}
    if "energy" in info:
        results["energy"] = float(info.pop("energy"))
    if "forces" in arrays:
        results["forces"] = arrays.pop("forces")
    if info.pop("stress", None) is not None and labels.stress is not None:
        results["stress"] = full_3x3_to_voigt_6_stress(labels.stress[index].numpy())
    for key, column in arrays.items():
        atoms.arrays[key] = column[:, 0] if column.shape[1] == 1 else column
    atoms.info |= info
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def label_columns(labels: Properties, index: int) -> dict[str, np.ndarray]:
    """Collect the labels of one structure that have a value for each atom.

    Args:
        labels: labels of several structures.
        index: which of them.

    Returns:
        Arrays `[atoms, 3]` (or `[atoms, 1]`) by name, in eV and Å: forces, atomic_energies, probe_0, hvp_0, ...
    """
    atoms = labels.atom_slice(index)
    arrays: dict[str, np.ndarray] = {}
    for column, value in labels.items():
        if column.axes == "atom" and bool(labels.mask(column.name)[index]):
            arrays[column.name] = value[atoms].reshape(atoms.stop - atoms.start, -1).numpy()
    if labels.hvp is not None and labels.probes is not None:
        for slot, k in enumerate(labels.mask("hvp")[:, index].nonzero()[:, 0].tolist()):
            arrays[f"probe_{slot}"] = labels.probes[k, atoms].numpy()
            arrays[f"hvp_{slot}"] = labels.hvp[k, atoms].numpy()
    return arrays


def label_info(structure: Structure, labels: Properties, index: int, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Collect identity, metadata and the labels of one structure that have one value.

    Args:
        structure: the geometry.
        labels: labels of several structures.
        index: which of them is `structure`.
        metadata: facts about all labels.

    Returns:
        Values by key, in eV and Å, without those that are absent or have their default; the stress is given as nine
        numbers column by column, the Hessian as `9 n²` numbers row by row.
    """
    info: dict[str, Any] = {"structure_id": structure.id}
    info |= {key: value for key in ("tag", "group") if (value := getattr(structure, key))}
    if structure.charge:
        info["charge"] = np.int64(structure.charge)
    if structure.multiplicity != 1:
        info["multiplicity"] = np.int64(structure.multiplicity)
    for key, value in metadata.items():
        info[key if key in ATTRIBUTE_KEYS else f"hesse_{key}"] = value
    errors: dict[str, Any] = {}
    for column, value in labels.items():
        if column.axes != "structure" or column.kind == "mask" or column.is_flag:
            continue
        if column.quantity.role == "output":
            continue
        if column.kind == "error":
            if not value[index].isnan():
                errors[column.name] = value[index].numpy()
        elif column.quantity.role != "label" or bool(labels.mask(column.name)[index]):
            # Matrices column by column, as in ASE.
            info[column.name] = (value[index].T.reshape(-1) if len(column.components) == 2 else value[index]).numpy()
    if labels.hessian is not None and labels.mask("hessian")[index]:
        info["hessian"] = labels.hessian_of(index).reshape(-1).numpy()
    info |= errors
    if labels.hvp_error is not None:
        has_hvp = labels.mask("hvp")[:, index]
        if has_hvp.any() and not labels.hvp_error[has_hvp, index].isnan().any():
            info["hvp_error"] = labels.hvp_error[has_hvp, index].numpy()
    if bool(labels.suspect_mask()[index]):
        info["suspect"] = True
    return info


# --- reading -------------------------------------------------------------------------------------------------------


def _unknown_keys(atoms: Atoms) -> list[str]:
    """Keys and columns that are neither geometry nor labels nor metadata."""
    results = {} if atoms.calc is None else atoms.calc.results
    known = {*TEXT_KEYS, *ATTRIBUTE_KEYS, *_GEOMETRY_KEYS, *_label_keys()}
    if atoms.pbc.all():
        known |= set(_VIRIAL_KEYS)
    keys = [key for mapping in (atoms.info, atoms.arrays, results) for key in mapping]
    unknown = [k for k in keys if k not in known and not k.startswith("hesse_") and not _PROBE.match(k)]
    state = charge_state_of(atoms)
    of_atoms = ["initial_charges", *([] if atoms.pbc.any() else ["initial_magmoms"])]
    understood = {*state.read, *(key for key in of_atoms if key not in state.not_read)}
    unknown = [f"{k} ({state.not_read[k]})" if k in state.not_read else k for k in unknown if k not in understood]
    return [*unknown, *(["constraints (move_mask)"] if atoms.constraints else [])]


def _to_structure(atoms: Atoms) -> Structure:
    return from_ase(atoms)


def _to_labels(atoms: Atoms, structure_id: str) -> Properties:
    n = len(atoms)
    values: dict[str, Any] = {**atoms.info, **atoms.arrays, **_results(atoms, structure_id)}
    fields: dict[str, Any] = {}
    for key, column in _label_keys().items():
        if key in values and column.axes in ("structure", "atom") and not column.is_flag:
            fields[key] = _shaped(_to_floats(values[key], key, structure_id), column, n, structure_id)
    if "hessian" in values:
        flat = _to_floats(values["hessian"], "hessian", structure_id).reshape(-1)
        if flat.size != 9 * n * n:
            raise LabelShapeError(
                f'structure "{structure_id}": hessian of {flat.size} numbers, expected 9 × {n}² = {9 * n * n}'
            )
        fields["hessian"] = flat.reshape(n, 3, n, 3)
    if (virial := _stress_of_virial(values, atoms, structure_id)) is not None:
        fields.setdefault("stress", virial)
    fields |= _probe_pairs(atoms, structure_id)
    if "hvp_error" in values:
        fields["hvp_error"] = _to_floats(values["hvp_error"], "hvp_error", structure_id).reshape(-1)
    if "suspect" in values:
        if not isinstance(values["suspect"], bool | np.bool_):
            raise LabelValueError(f'structure "{structure_id}": suspect must be T or F, got {values["suspect"]!r}')
        fields["suspect"] = bool(values["suspect"])
    return Properties.single(n, structure_id=structure_id, **fields)


def _stress_of_virial(values: Mapping[str, Any], atoms: Atoms, structure_id: str) -> np.ndarray | None:
    """The stress of a crystal whose virial is stated: minus the virial divided by the volume."""
    key = next((k for k in _VIRIAL_KEYS if k in values), None)
    if key is None or not atoms.pbc.all():
        return None
    virial = _shaped(_to_floats(values[key], key, structure_id), COLUMNS["stress"], len(atoms), structure_id)
    if virial.shape != (3, 3):
        raise LabelShapeError(f'structure "{structure_id}": {key} needs six or nine numbers, got shape {virial.shape}')
    stress = -virial / atoms.get_volume()
    if "stress" in values:
        stated = _to_floats(values["stress"], "stress", structure_id)
        stated = _shaped(stated, COLUMNS["stress"], len(atoms), structure_id)
        if stated.shape == (3, 3) and np.abs(stated - stress).max() > 1e-3 * max(np.abs(stress).max(), 1e-6):
            raise LabelValueError(
                f'structure "{structure_id}": stress and {key} contradict each other: the stress must be minus the '
                "virial divided by the volume. Remove the wrong one."
            )
    return stress


def _label_keys() -> dict[str, Column]:
    """Keys and columns of labels, except those of probes and products."""
    arrays = COLUMNS.values()
    return {c.name: c for c in arrays if c.kind != "mask" and c.quantity.role != "output" and c.axes != "probe atom"}


def _shaped(values: np.ndarray, column: Column, n: int, structure_id: str) -> np.ndarray:
    """Values of a key with the shape that the label has for one structure."""
    key, shape = column.name, column.components
    if column.axes == "atom":
        if shape and values.shape != (n, *shape):
            raise LabelShapeError(
                f'structure "{structure_id}": {key} need {math.prod(shape)} columns, got shape {values.shape}'
            )
        return values
    if shape == (3, 3) and values.shape == (6,):
        return voigt_6_to_full_3x3_stress(values)
    if shape == () and values.size != 1:
        raise LabelShapeError(f'structure "{structure_id}": {key} must be one number, got {values.size}')
    if len(shape) == 2 and values.shape == (math.prod(shape),):
        return values.reshape(shape[::-1]).T
    return values.reshape(()) if shape == () else values


def _results(atoms: Atoms, structure_id: str) -> dict[str, Any]:
    """Results of the calculator; ASE's reader moves energy, forces and stress there."""
    if atoms.calc is None or not getattr(atoms.calc, "results", None):
        return {}
    check_state = getattr(atoms.calc, "check_state", None)
    changes = [] if check_state is None else check_state(atoms)
    if changes:
        raise LabelValueError(
            f'structure "{structure_id}": the results of its calculator belong to another geometry (changed since: '
            f"{', '.join(changes)}). Calculate them again, or leave them out with atoms.calc = None."
        )
    return dict(atoms.calc.results)


def _probe_pairs(atoms: Atoms, structure_id: str) -> dict[str, np.ndarray]:
    columns: dict[str, dict[int, np.ndarray]] = {"probe": {}, "hvp": {}}
    for key, column in atoms.arrays.items():
        match = _PROBE.match(key)
        if match:
            values = _to_floats(column, key, structure_id)
            if values.shape != (len(atoms), 3):
                raise LabelShapeError(f'structure "{structure_id}": {key} needs 3 columns, got shape {values.shape}')
            columns[match.group(1)][int(match.group(2))] = values
    if set(columns["probe"]) != set(columns["hvp"]) or sorted(columns["hvp"]) != list(range(len(columns["hvp"]))):
        raise LabelShapeError(
            f'structure "{structure_id}": expected pairs probe_0, hvp_0, probe_1, hvp_1, …; got probes '
            f"{sorted(columns['probe'])} and products {sorted(columns['hvp'])}"
        )
    if not columns["hvp"]:
        return {}
    order = range(len(columns["hvp"]))
    return {
        "probes": np.stack([columns["probe"][k] for k in order]),
        "hvp": np.stack([columns["hvp"][k] for k in order]),
    }


def _to_floats(value: Any, key: str, structure_id: str) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise LabelValueError(f'structure "{structure_id}": {key} is not a number: {str(value)[:60]!r}')
    return array.astype(np.float64)


def _to_metadata(info: Mapping[str, Any]) -> dict[str, str]:
    metadata = {key: info[key] for key in ATTRIBUTE_KEYS if isinstance(info.get(key), str)}
    return metadata | {k.removeprefix("hesse_"): v for k, v in info.items() if k.startswith("hesse_") and v}
