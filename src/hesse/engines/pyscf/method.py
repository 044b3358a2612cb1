"""Names of levels of theory (METHOD/BASIS) for PySCF, and refusal of names that would silently mean something else.

A functional is refused where PySCF would compute, without a warning, something other than the method that chemists know
by that name: names that include a dispersion term (libxc has the functional part alone), composite methods, exchange
without correlation.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

from hesse.errors import RequestError, UnknownOptionError, did_you_mean
from hesse.runtime.imports import import_optional

__all__ = ["Method", "parse_method"]

_EXTRA = "qc"

DISPERSION_CORRECTIONS = ("d3bj", "d3zero", "d4")
"""Grimme's D3 with Becke-Johnson or zero damping, and D4."""

_COMBINED_FUNCTIONALS = {
    # name: (functional without its nonlocal part, the damping, the parameters' name)
    "wb97x-d3bj": ("wb97x_v", "d3bj", "wb97x"),
    "wb97m-d3bj": ("wb97m_v", "d3bj", "wb97m"),
    "b97m-d3bj": ("b97m_v", "d3bj", "b97m"),
    "wb97x-d4": ("wb97x_v", "d4", "wb97x"),
    "wb97m-d4": ("wb97m_v", "d4", "wb97m"),
    "b97m-d4": ("b97m_v", "d4", "b97m"),
    "cf22d": ("cf22d", "d3zero", "cf22d"),
}
"""Functionals in which a dispersion correction replaces the nonlocal correlation they were fitted with (Najibi,
Goerigk, JCTC 14, 5725 (2018); J. Comput. Chem. 41, 2562 (2020)), or is part of the functional. They are listed here
because the meaning of some of these names depends on the version of PySCF."""

_MISMATCHED_DISPERSION = {("b97", "d3bj"), ("b97", "d3zero"), ("b97", "d4"), ("wb97x", "d3zero")}
"""Parameters that were fitted for another functional with a similar name (B97-D, wB97X-D3)."""

_WAVE_FUNCTIONS = re.compile(r"(r|u|ro)?(mp[234]|ci|cc|casscf|casci|nevpt|fci|dmrg|eom|adc|rpa|gw)", re.IGNORECASE)
_DOUBLE_HYBRIDS = re.compile(r"(b2|dsd|dod|pwpb|xyg|wb2|wb97x?-?2|pbe-?(qidh|0-?dh)|mpw2)", re.IGNORECASE)
_COMMON_FUNCTIONALS = (
    "hf",
    *("pbe", "pbe0", "blyp", "b3lyp", "cam-b3lyp", "bp86", "tpss", "tpssh", "m06-2x", "m06-l", "r2scan", "wb97x"),
    *(f"{name}-{damping}" for name in ("pbe", "pbe0", "b3lyp", "r2scan") for damping in ("d3bj", "d4")),
    *_COMBINED_FUNCTIONALS,
)
"""Names that are suggested for an unknown one."""


@dataclass(frozen=True)
class Method:
    """A level of theory.

    Attributes:
        xc: libxc's name of the functional; None for Hartree-Fock.
        basis: name of the basis set.
        dispersion: damping and parameters in PySCF's form ("d3bj:pbe"); None for no dispersion.
        level: canonical text ("wb97x/6-31g*").
    """

    xc: str | None
    basis: str
    dispersion: str | None
    level: str


def parse_method(text: str) -> Method:
    """Parse the name of a level of theory.

    Args:
        text: METHOD/BASIS: "wb97x/6-31g*", "hf/def2-svp", "b3lyp-d3bj/def2-tzvp".

    Returns:
        The functional, basis set and dispersion correction in PySCF's terms.

    Raises:
        UnknownOptionError: an unknown functional or basis set.
        RequestError: a name that means something else to PySCF. The message names an alternative.
        MissingExtraError: PySCF, or for a dispersion term pyscf-dispersion, is not installed.
    """
    import_optional("pyscf", extra=_EXTRA, purpose=f"pyscf:{text}")
    name, slash, basis = text.strip().lower().rpartition("/")
    if not (slash and name and basis):
        raise RequestError(f'engine "pyscf:{text}": expected pyscf:METHOD/BASIS, for example pyscf:wb97x/6-31g*')
    name, basis = name.strip(), _canonical_basis(basis.strip())
    _check_basis(text, basis)
    if name in _COMBINED_FUNCTIONALS:
        functional, damping, parameters = _COMBINED_FUNCTIONALS[name]
    else:
        match = re.fullmatch(rf"(.+)-({'|'.join(DISPERSION_CORRECTIONS)})", name)
        functional, damping = match.groups() if match else (name, "")
        parameters = functional
    if name not in _COMBINED_FUNCTIONALS and functional not in ("hf", "rhf", "uhf"):
        _refuse_ambiguous(text, functional, damping)
    dispersion = None
    if damping:
        parameters = "hf" if functional in ("rhf", "uhf") else parameters
        _check_dispersion_parameters(text, damping, parameters)
        dispersion = f"{damping}:{parameters}"
    if functional in ("hf", "rhf", "uhf"):
        return Method(None, basis, dispersion, f"hf{'-' + damping if damping else ''}/{basis}")
    return Method(functional, basis, dispersion, f"{name}/{basis}")


def _canonical_basis(basis: str) -> str:
    """Pople's polarization functions in one spelling: (d,p) becomes **."""
    return basis.replace("(d,p)", "**").replace("(d)", "*") if basis.startswith(("3-21", "6-31")) else basis


def _check_basis(text: str, basis: str) -> None:
    """Check that PySCF has the basis set for at least one of a few common elements."""
    gto = import_optional("pyscf.gto", extra=_EXTRA, purpose=f"pyscf:{text}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for symbol in ("H", "C", "I"):
            try:
                gto.basis.load(basis, symbol)
            except Exception:  # KeyError, RuntimeError or PySCF's own, depending on the version
                continue
            return
    known = ("sto-3g", "3-21g", "6-31g", "6-31g*", "6-31g**", "6-311g**", "def2-svp", "def2-tzvp", "cc-pvdz", "cc-pvtz")
    raise UnknownOptionError(f'engine "pyscf:{text}": PySCF has no basis set "{basis}". {did_you_mean(basis, known)}')


def _check_dispersion_parameters(text: str, damping: str, parameters: str) -> None:
    """Check on a hydrogen molecule that the dispersion package has parameters for this functional."""
    gto = import_optional("pyscf.gto", extra=_EXTRA, purpose=f"pyscf:{text}")
    kind = "dftd4" if damping == "d4" else "dftd3"
    module = import_optional(f"pyscf.dispersion.{kind}", extra=_EXTRA, purpose=f"the dispersion term of pyscf:{text}")
    hydrogen = gto.M(atom="H 0 0 0; H 0 0 0.74", verbose=0)
    try:
        if damping == "d4":
            module.DFTD4Dispersion(hydrogen, xc=parameters)
        else:
            module.DFTD3Dispersion(hydrogen, xc=parameters, version=damping)
    except RuntimeError as error:
        raise RequestError(
            f'engine "pyscf:{text}": {damping} has no parameters for "{parameters}" ({str(error).strip()})'
        ) from error


def _refuse_ambiguous(text: str, functional: str, damping: str) -> None:
    """Raise RequestError or UnknownOptionError for names whose calculation would not be what the name promises."""
    prefix = f'engine "pyscf:{text}": '
    if functional.endswith("3c"):
        raise RequestError(
            f"{prefix}composite methods have their own basis set and corrections, which PySCF does not apply. "
            "A similar method: r2scan-d4/def2-svp or wb97x-d3bj/def2-svp."
        )
    if re.search(r"-d[23]?$", functional) or (functional, damping) in _MISMATCHED_DISPERSION:
        alternative = "wb97x" if "b97" in functional else re.sub(r"-d[23]?$", "", functional)
        raise RequestError(
            f"{prefix}PySCF does not have the dispersion term that this name means. It has -d3bj, -d3zero and "
            f"-d4; a similar method: {alternative}-d3bj."
        )
    if _DOUBLE_HYBRIDS.match(functional):
        raise RequestError(f"{prefix}double hybrids need a perturbation term that is not computed here")
    try:
        codes = _libxc_names(functional)
    except Exception as error:  # KeyError, ValueError, NotImplementedError, ...
        if _WAVE_FUNCTIONS.match(functional):
            raise RequestError(f"{prefix}only Hartree-Fock and density functionals, no correlated methods") from error
        raise UnknownOptionError(
            f'{prefix}no functional "{functional}". {did_you_mean(functional, _COMMON_FUNCTIONALS)}'
        ) from error
    incomplete = [code for code in codes if code.endswith(("_D", "_D3", "_3C"))]
    if incomplete:
        raise RequestError(
            f"{prefix}libxc has the functional {incomplete[0]} but not the dispersion term that belongs to it, "
            "and PySCF would omit it without a warning. Without dispersion: wb97x; with it: wb97x-d3bj, wb97x-d4."
        )
    libxc = import_optional("pyscf.dft.libxc", extra=_EXTRA, purpose=f"pyscf:{text}")
    if libxc.is_nlc(functional):
        raise RequestError(
            f"{prefix}the nonlocal correlation (VV10) uses a separate grid, whose errors in curvature are not "
            "estimated here. The same functionals with a dispersion term: wb97x-d3bj, wb97m-d3bj, b97m-d3bj."
        )
    if codes and "," not in functional and all(re.search("_X(_|$)", code) for code in codes):
        raise RequestError(
            f'{prefix}"{functional}" is exchange without correlation. If that is meant, write "{functional},"; '
            "otherwise name the correlation too, as in pbe or svwn."
        )


def _libxc_names(functional: str) -> list[str]:
    """libxc's names of the parts of a functional. For unknown names it raises PySCF's errors."""
    libxc: Any = import_optional("pyscf.dft.libxc", extra=_EXTRA, purpose=functional)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hybrid, parts = libxc.parse_xc(functional)
    if not parts and not any(hybrid):
        raise KeyError(functional)
    numbers = {int(number) for number, _ in parts}
    return [name for name, code in libxc.XC_CODES.items() if code in numbers and "_" in name]
