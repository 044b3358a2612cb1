"""Structures, batches of them, and the values that belong to them."""

from hesse.structures.batch import Batch, assemble, collate
from hesse.structures.contacts import BONDED, CLOSEST, bonded_pairs, closest_contact
from hesse.structures.conversion import from_ase, to_ase
from hesse.structures.labels import Labels
from hesse.structures.neighbours import Neighbours, find_neighbours
from hesse.structures.ragged import offsets_of, owners_of, ragged_indices
from hesse.structures.request import Request
from hesse.structures.structure import Structure, structure_key

__all__ = [
    "BONDED",
    "CLOSEST",
    "Batch",
    "Labels",
    "Neighbours",
    "Request",
    "Structure",
    "assemble",
    "bonded_pairs",
    "closest_contact",
    "collate",
    "find_neighbours",
    "from_ase",
    "offsets_of",
    "owners_of",
    "ragged_indices",
    "structure_key",
    "to_ase",
]
