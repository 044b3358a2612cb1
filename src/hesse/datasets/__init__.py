"""Data sets: in memory, on disk, and the checks at the door."""

from hesse.datasets.dataset import Dataset, PairTable
from hesse.datasets.identities import IdentityDefects, RigidBasis, identity_defects, rigid_basis

__all__ = ["Dataset", "IdentityDefects", "PairTable", "RigidBasis", "identity_defects", "rigid_basis"]
