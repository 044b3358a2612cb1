"""Changes of whole data sets: units, signs, symmetric Hessians, metadata. Each function returns a new data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hesse.datasets.dataset import Dataset, check_is_dataset
from hesse.errors import MissingLabelError, RequestError
from hesse.structures import Properties, Structure
from hesse.structures.hessian_blocks import symmetrize_blocks
from hesse.units import energy_unit as energy_in_ev
from hesse.units import length_unit as length_in_angstrom

__all__ = [
    "convert_units",
    "join_datasets",
    "negate_curvature",
    "negate_forces",
    "select_probes",
    "set_charge_multiplicity",
    "symmetrize_hessians",
    "with_metadata",
    "with_tag",
]


def convert_units(
    structures: Sequence[Structure], labels: Properties, *, energy: str, length: str
) -> tuple[tuple[Structure, ...], Properties]:
    """Convert structures and labels to eV and Å.

    Forces are in energy/length, curvature in energy/length², stress in energy/length³; probes have no unit.

    Args:
        structures: geometries in the unit `length`.
        labels: labels of these structures.
        energy: name of the energy unit, as in `hesse.units`.
        length: name of the length unit, as in `hesse.units`.

    Returns:
        Structures and labels in eV and Å.

    Raises:
        UnitError: a unit that is not in `hesse.units`.
    """
    e, a = energy_in_ev(energy), length_in_angstrom(length)
    if e == 1.0 and a == 1.0:
        return tuple(structures), labels
    powers = {c.name: (c.quantity.energy_power, c.quantity.length_power) for c, _ in labels.items() if not c.is_flag}
    scaled = {name: labels.__dict__[name] * (e**p * a**q) for name, (p, q) in powers.items() if p or q}
    if a != 1.0:
        structures = [replace(s, positions=s.positions * a, cell=s.cell * a) for s in structures]
    return tuple(structures), labels.replace(**scaled)


def join_datasets(parts: Sequence[Dataset], names: Sequence[str]) -> tuple[Dataset, int]:
    """Join data sets. Ids that occur in several of them get the name of their data set in front, `NAME/ID`.

    Args:
        parts: the data sets.
        names: a name for each, such as that of its file.

    Returns:
        The joined data set, and the number of structures with a new id.

    Raises:
        RequestError: no data set, or ids that occur twice nevertheless, because two data sets have the same name.
    """
    if not parts or len(parts) != len(names):
        raise RequestError(f"expected one name for each data set, got {len(parts)} data sets and {len(names)} names")
    counts = Counter(structure.id for part in parts for structure in part.structures)
    joined, n_renamed = None, 0
    for part, name in zip(parts, names, strict=True):
        check_is_dataset(part)
        repeated = [counts[s.id] > 1 for s in part.structures]
        if any(repeated):
            structures = tuple(
                replace(s, id=f"{name}/{s.id}") if again else s
                for s, again in zip(part.structures, repeated, strict=True)
            )
            part = replace(part, structures=structures)
            n_renamed += sum(repeated)
        joined = part if joined is None else joined + part
    assert joined is not None
    return joined, n_renamed


def negate_forces(dataset: Dataset) -> Dataset:
    """Negate the forces, for files in which the column of forces holds gradients.

    Args:
        dataset: the data.

    Returns:
        The data with negated forces.

    Raises:
        MissingLabelError: there are no forces.
    """
    check_is_dataset(dataset)
    dataset.check_has_labels("forces")
    assert dataset.labels.forces is not None
    return replace(dataset, labels=dataset.labels.replace(forces=-dataset.labels.forces))


def negate_curvature(dataset: Dataset) -> Dataset:
    """Negate Hessians and Hessian-vector products, for files that hold the derivative of the forces.

    Args:
        dataset: the data.

    Returns:
        The data with negated curvature.

    Raises:
        MissingLabelError: there is no curvature.
    """
    check_is_dataset(dataset)
    labels = dataset.labels
    if labels.hessian is None and labels.hvp is None:
        raise MissingLabelError(f"{dataset.source}: there are no Hessians or Hessian-vector products to negate")
    negated = {name: -value for name in ("hessian", "hvp") if (value := getattr(labels, name)) is not None}
    return replace(dataset, labels=labels.replace(**negated))


def select_probes(dataset: Dataset, probes: Sequence[int]) -> Dataset:
    """Select some of the (probe, Hessian-vector product) pairs of every structure.

    Args:
        dataset: the data.
        probes: indices of the pairs from 0, in the order of the result.

    Returns:
        The data with these pairs only; metadata about the probes (`probe`, `probes`) are adjusted.

    Raises:
        MissingLabelError: there are no pairs, or fewer than requested.
        RequestError: no index, or an index that occurs twice.
    """
    check_is_dataset(dataset)
    labels, chosen = dataset.labels, list(probes)
    available = 0 if labels.hvp is None else len(labels.hvp)
    if not chosen or len(set(chosen)) < len(chosen):
        raise RequestError(f"expected the numbers of pairs to keep, each once, got {chosen}")
    if min(chosen) < 0 or max(chosen) >= available:
        raise MissingLabelError(
            f"{dataset.source}: holds {available} (probe, product) pairs, numbered from 0; got {chosen}"
        )
    selected = {
        n: v[chosen] for n in ("probes", "hvp", "hvp_mask", "hvp_error") if (v := getattr(labels, n)) is not None
    }
    metadata = dict(dataset.metadata)
    distributions = [name.strip() for name in metadata.get("probe", "").split(",")]
    if len(distributions) == available:
        metadata["probe"] = ", ".join(distributions[k] for k in chosen)
    if "probes" in metadata:
        metadata["probes"] = str(len(chosen))
    return replace(dataset, labels=labels.replace(**selected), metadata=metadata)


def set_charge_multiplicity(dataset: Dataset, *, charge: int | None = None, multiplicity: int | None = None) -> Dataset:
    """Set charge and multiplicity of all structures, for files that do not state them.

    Args:
        dataset: the data.
        charge: total charge in e; None leaves it as it is.
        multiplicity: spin multiplicity 2S+1; None leaves it as it is.

    Returns:
        The data with changed structures.
    """
    check_is_dataset(dataset)

    def updated(structure: Structure) -> Structure:
        return replace(
            structure,
            charge=structure.charge if charge is None else charge,
            multiplicity=structure.multiplicity if multiplicity is None else multiplicity,
        )

    return replace(dataset, structures=tuple(updated(s) for s in dataset.structures))


def symmetrize_hessians(dataset: Dataset) -> Dataset:
    """Replace every Hessian by `(H + Hᵀ)/2`, which halves the variance of its noise.

    Args:
        dataset: the data.

    Returns:
        The data with symmetric Hessians.

    Raises:
        MissingLabelError: there are no Hessians.
    """
    check_is_dataset(dataset)
    labels = dataset.labels
    if labels.hessian is None:
        raise MissingLabelError(f"{dataset.source}: there are no Hessians to symmetrize")
    symmetric = symmetrize_blocks(labels.hessian, labels.n_atoms, labels.mask("hessian"))
    return replace(dataset, labels=labels.replace(hessian=symmetric))


def with_metadata(dataset: Dataset, **metadata: str) -> Dataset:
    """Add facts about all labels.

    Args:
        dataset: the data.
        **metadata: names and values, such as `level="wB97X/6-31G(d)"`; existing ones are replaced.

    Returns:
        The data with these metadata.
    """
    check_is_dataset(dataset)
    return replace(dataset, metadata={**dataset.metadata, **metadata})


def with_tag(dataset: Dataset, tag: str) -> Dataset:
    """Give all structures the same tag.

    Args:
        dataset: the data.
        tag: the kind of geometry; evaluation reports errors for each tag.

    Returns:
        The data with tagged structures.
    """
    check_is_dataset(dataset)
    return replace(dataset, structures=tuple(replace(s, tag=tag) for s in dataset.structures))
