"""Data sets: in memory, on disk, and the checks at the door."""

from hesse.datasets.consistency import Consistency, diagnose_consistency, require_consistency
from hesse.datasets.dataset import Dataset, PairTable
from hesse.datasets.identities import IdentityDefects, RigidBasis, identity_defects, rigid_basis

__all__ = [
    "Consistency",
    "Dataset",
    "IdentityDefects",
    "PairTable",
    "RigidBasis",
    "diagnose_consistency",
    "identity_defects",
    "require_consistency",
    "rigid_basis",
]
