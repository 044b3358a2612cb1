"""Structures, batches of structures, neighbor lists, and properties (energies, forces, Hessians, ...)."""

from hesse.structures.batch import Batch, batch_from_pairs, collate, segment_ids, segment_indices, segment_offsets
from hesse.structures.cell_checks import check_cell
from hesse.structures.charge_state import (
    ChargeState,
    check_electron_count,
    electronic_state,
    is_charge_key,
    read_charge_state,
)
from hesse.structures.distances import (
    BEAD_OVERLAP,
    BOND_FACTOR,
    COLLISION_FACTOR,
    Contacts,
    bonded_pairs,
    closest_collision,
    collision_distances,
)
from hesse.structures.elements import own_masses, parse_element, parse_elements
from hesse.structures.environments import Extrapolation, TrainingEnvironments, describe_states, environment_sample
from hesse.structures.hessian_arrays import hessian_array
from hesse.structures.pairs import Neighbors, find_neighbors
from hesse.structures.properties import Properties
from hesse.structures.property_arrays import component_counts
from hesse.structures.quantities import (
    COLUMNS,
    QUANTITIES,
    Column,
    Quantity,
    label_names,
    quantity,
    register_quantity,
)
from hesse.structures.request import Request, check_request
from hesse.structures.species import (
    BEAD_RADIUS,
    LAST_ELEMENT,
    bead_number,
    chemical_formula,
    is_bead,
    is_species,
    species_name,
    species_names,
    species_radii,
    standard_masses,
)
from hesse.structures.structure import (
    BEAD_COLUMN,
    NO_BEAD,
    Structure,
    charge_state_of,
    from_ase,
    rng_key,
    species_numbers,
    to_ase,
    to_structure,
)

__all__ = [
    "BEAD_COLUMN",
    "BEAD_OVERLAP",
    "BEAD_RADIUS",
    "BOND_FACTOR",
    "COLLISION_FACTOR",
    "COLUMNS",
    "LAST_ELEMENT",
    "NO_BEAD",
    "QUANTITIES",
    "Batch",
    "ChargeState",
    "Column",
    "Contacts",
    "Extrapolation",
    "Neighbors",
    "Properties",
    "Quantity",
    "Request",
    "Structure",
    "TrainingEnvironments",
    "batch_from_pairs",
    "bead_number",
    "bonded_pairs",
    "charge_state_of",
    "check_cell",
    "check_electron_count",
    "check_request",
    "chemical_formula",
    "closest_collision",
    "collate",
    "collision_distances",
    "component_counts",
    "describe_states",
    "electronic_state",
    "environment_sample",
    "find_neighbors",
    "from_ase",
    "hessian_array",
    "is_bead",
    "is_charge_key",
    "is_species",
    "label_names",
    "own_masses",
    "parse_element",
    "parse_elements",
    "quantity",
    "read_charge_state",
    "register_quantity",
    "rng_key",
    "segment_ids",
    "segment_indices",
    "segment_offsets",
    "species_name",
    "species_names",
    "species_numbers",
    "species_radii",
    "standard_masses",
    "to_ase",
    "to_structure",
]
