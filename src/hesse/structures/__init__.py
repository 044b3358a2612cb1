"""Structures, batches of them, and the values that belong to them."""

from hesse.structures.batch import Batch, batch_from_pairs, collate
from hesse.structures.contacts import BOND_FACTOR, COLLISION_FACTOR, bonded_pairs, closest_collision
from hesse.structures.conversion import from_ase, to_ase
from hesse.structures.labels import Properties
from hesse.structures.neighbours import Neighbours, find_neighbours
from hesse.structures.ragged import segment_offsets, segment_ids, segment_indices
from hesse.structures.request import Request
from hesse.structures.structure import Structure, rng_key

__all__ = [
    "BOND_FACTOR",
    "COLLISION_FACTOR",
    "Batch",
    "Properties",
    "Neighbours",
    "Request",
    "Structure",
    "batch_from_pairs",
    "bonded_pairs",
    "closest_collision",
    "collate",
    "find_neighbours",
    "from_ase",
    "segment_offsets",
    "segment_ids",
    "segment_indices",
    "rng_key",
    "to_ase",
]
