"""Data sets in extended XYZ, with ASE's conventions (eV, Å); the keys are listed in docs/formats.md."""

from hesse.datasets.extxyz.reading import read_extxyz
from hesse.datasets.extxyz.writing import write_extxyz

__all__ = ["read_extxyz", "write_extxyz"]
