"""Hartree-Fock and density functionals by PySCF."""

from hesse.engines.pyscf.engine import PyscfEngine
from hesse.engines.pyscf.method import Method, parse_method

__all__ = ["Method", "PyscfEngine", "parse_method"]
