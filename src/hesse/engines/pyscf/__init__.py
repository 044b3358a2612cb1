"""Hartree-Fock and density-functional theory with PySCF."""

from hesse.engines.pyscf.method import Method, parse_method
from hesse.engines.pyscf.pyscf_engine import PyscfEngine
from hesse.engines.pyscf.pyscf_settings import PyscfSettings

__all__ = ["Method", "PyscfEngine", "PyscfSettings", "parse_method"]
