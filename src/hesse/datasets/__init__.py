"""Data sets: in memory, on disk, and the checks at the door."""

from hesse.datasets.dataset import Dataset, PairTable

__all__ = ["Dataset", "PairTable"]
