"""Which of the energies in a Gaussian file is that of the job, and whether the job was of the molecule alone."""

from __future__ import annotations

import re
from typing import Final

from hesse.errors import GeometryError

__all__ = ["check_isolated", "energy_names_of", "is_correlated_energy", "uncertain_energy"]

_CORRELATED: Final = (
    ("CCSD(T)", ("CCSD(T)",)),
    ("QCISD(T)", ("QCISD(T)",)),
    ("CCSD", ("CCSD",)),
    ("QCISD", ("QCISD",)),
    ("MP4", ("MP4SDTQ", "MP4SDQ", "MP4DQ")),
    ("MP3", ("MP3",)),
    ("MP2", ("MP2",)),
)
"""Methods by a part of their names, and the names of their energies."""
_DOUBLE_HYBRID: Final = re.compile(r"2PLYP|2K-?PLYP|2GP-?PLYP|DSD|0DH|QIDH|XYG3")
"""Functionals with a second-order correlation energy; the archive lists their total energy as MP2."""
_CORRELATED_ENERGY: Final = re.compile(r"P?MP\d\w*(-\d)?|QCI\w*(\(\w+\))?|(CC|BD|CI)\w*(\(\w+\))?")
_NOT_ONE_ENERGY: Final = (
    (re.compile(r"\b(RO|R|U)?(td|tda|cis|eom-?ccsd|sac-?ci)\b", re.IGNORECASE), "the energy of an excited state"),
    (re.compile(r"\bcounterpoise\b", re.IGNORECASE), "the energy of a counterpoise correction"),
    (re.compile(r"\boniom\b", re.IGNORECASE), "the energy of an ONIOM job (several layers and levels)"),
    (
        re.compile(r"(?<![\w/-])(g[1-4](mp2)?(b3)?|w1\w*|(ro)?cbs-(qb3|apno|4m))(?![\w-])", re.IGNORECASE),
        "the energy of a composite method",
    ),
)
"""Keywords of jobs whose archive lists several energies, none of which is certainly the one of gradient and Hessian."""
_OUTSIDE: Final = (
    (re.compile(r"(?:^#?[pnt]?|[\s,])charge(?=$|[\s,=])", re.IGNORECASE), "point charges (keyword Charge)"),
    (re.compile(r"(?:^#?[pnt]?|[\s,])field(?=$|[\s,=])", re.IGNORECASE), "electric field (keyword Field)"),
)


def energy_names_of(method: str) -> tuple[str, ...]:
    """Names under which Gaussian stores the energy of a correlated method or a double hybrid.

    Args:
        method: name of the method, such as "RCCSD(T)-FC".

    Returns:
        The names; none for Hartree-Fock, density functionals, and methods whose names do not tell.
    """
    name = method.upper()
    if _DOUBLE_HYBRID.search(name):
        return ("MP2",)
    return next((names for part, names in _CORRELATED if part in name), ())


def is_correlated_energy(name: str) -> bool:
    """Recognize names of correlated energies in an archive.

    Args:
        name: such as "MP2", "BD(T)" or "Dipole".

    Returns:
        True for an energy of a method above Hartree-Fock.
    """
    return _CORRELATED_ENERGY.fullmatch(name) is not None


def uncertain_energy(method: str, route: str) -> str:
    """Reason why the energy of a job is not certainly that of its gradient and Hessian.

    Args:
        method: name of the method.
        route: keywords of the job.

    Returns:
        What the energy is; empty if it is certain.
    """
    meanings = (meaning for keyword, meaning in _NOT_ONE_ENERGY if keyword.search(route) or keyword.search(method))
    return next(meanings, "")


def check_isolated(route: str) -> None:
    """Refuse a molecule in external charges or fields, which no potential knows.

    Args:
        route: keywords of the job.

    Raises:
        GeometryError: the route states charges or a field.
    """
    keywords = route
    for _ in range(3):  # options, which may hold parentheses themselves, have other meanings
        keywords = re.sub(r"\([^()]*\)", "", keywords)
    what = next((what for pattern, what in _OUTSIDE if pattern.search(keywords)), "")
    if what:
        raise GeometryError(
            f"a job with external {what}, which no potential knows: its labels are not those of the molecule alone. "
            "Compute it without"
        )
