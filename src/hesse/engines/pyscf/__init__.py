"""Hartree-Fock and density-functional theory with PySCF."""

from hesse.engines.pyscf.method import Method, parse_method
from hesse.engines.pyscf.pyscf_engine import PyscfEngine

__all__ = ["Method", "PyscfEngine", "parse_method"]
