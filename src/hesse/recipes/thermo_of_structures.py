"""Thermochemistry of structures with any engine, or from Hessians that are known already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, overload

from ase import Atoms
from numpy.typing import ArrayLike

from hesse.datasets import Dataset, DatasetSource, as_dataset
from hesse.engines import EngineLike
from hesse.errors import ExecutionError, RequestError
from hesse.harmonic.masses import MassesLike
from hesse.harmonic.thermo_result import Thermochemistry
from hesse.harmonic.thermochemistry import ThermoSettings
from hesse.pes import Vibrations, vibrations
from hesse.recipes.vibrations_of_many import VibrationsReport, analyze_vibrations, thermo_of
from hesse.structures import Structure

__all__ = ["ThermoSource", "thermo"]

ThermoSource: TypeAlias = "Vibrations | VibrationsReport | DatasetSource | Any"
"""Vibrations that are known, or structures."""


class _Options(TypedDict, total=False):
    temperature: ArrayLike
    pressure: float | None
    concentration: float | None
    method: str
    enthalpy: str
    cutoff: float
    symmetry: int | Literal["auto"]
    degeneracy: int | None
    scale: float
    invert_below: float
    hessian: ArrayLike | None
    atoms: ArrayLike | None
    masses: MassesLike
    isotopes: Mapping[int, str | float] | None
    minimize: bool


@overload
def thermo(
    source: Vibrations | Atoms | Structure, engine: EngineLike | None = None, **options: Unpack[_Options]
) -> Thermochemistry: ...


@overload
def thermo(
    source: ThermoSource, engine: EngineLike | None = None, **options: Unpack[_Options]
) -> Thermochemistry | list[Thermochemistry]: ...


def thermo(
    source: ThermoSource,
    engine: EngineLike | None = None,
    *,
    temperature: ArrayLike = 298.15,
    pressure: float | None = None,
    concentration: float | None = None,
    method: str = "rrho",
    enthalpy: str = "rrho",
    cutoff: float = 100.0,
    symmetry: int | Literal["auto"] = "auto",
    degeneracy: int | None = None,
    scale: float = 1.0,
    invert_below: float = 0.0,
    hessian: ArrayLike | None = None,
    atoms: ArrayLike | None = None,
    masses: MassesLike = None,
    isotopes: Mapping[int, str | float] | None = None,
    minimize: bool = False,
) -> Thermochemistry | list[Thermochemistry]:
    """Compute enthalpies, entropies and Gibbs energies of structures as an ideal gas.

    Args:
        source: the result of `hesse.vibrations` or `hesse.analyze_vibrations`; or structures: ASE Atoms, a Structure,
            VibrationsData, a Dataset, the path of a file, a list.
        engine: an engine that computes Hessians; None uses those in `source`.
        temperature: K, one or several.
        pressure: Pa; 1 atm by default.
        concentration: mol/L, instead of the pressure (1 for the standard state of solutions).
        method: entropy of vibrations: "rrho" (harmonic), "grimme" or "truhlar", see `hesse.harmonic.thermochemistry`.
        enthalpy: their energy: "rrho" or "head-gordon".
        cutoff: cm⁻¹, of the methods for soft modes.
        symmetry: rotational symmetry number; "auto" finds it.
        degeneracy: degeneracy of the electronic state; None takes the spin multiplicity.
        scale: factor for all frequencies.
        invert_below: cm⁻¹; imaginary modes of smaller magnitude count as real ones.
        hessian: the Hessian at one structure, eV/Å², `[n, 3, n, 3]`.
        atoms: see `hesse.vibrations`.
        masses: see `hesse.vibrations`.
        isotopes: see `hesse.vibrations`.
        minimize: relax first.

    Returns:
        The thermochemistry of one structure at all temperatures; a list of them for several structures. Energies are in
        eV, entropies in eV/K.

    Raises:
        ConfigError: a temperature below zero, a method that does not exist, another value out of range.
        RequestError: an engine with vibrations that are known; a Hessian with several structures.
        ExecutionError: the vibrations of one of several structures failed.
        HesseError: what `hesse.vibrations` raises.
    """
    settings = ThermoSettings(
        temperature, pressure, concentration, method, enthalpy, cutoff, symmetry, degeneracy, scale, invert_below
    )
    if isinstance(source, Vibrations | VibrationsReport):
        if engine is not None or hessian is not None or minimize:
            raise RequestError("vibrations are known here: leave out engine, hessian and minimize")
        return thermo_of(source, settings) if isinstance(source, Vibrations) else source.thermo(settings)
    if isinstance(source, list | tuple) and source and all(isinstance(item, Vibrations) for item in source):
        return [thermo_of(item, settings) for item in source]
    how: dict[str, Any] = {"atoms": atoms, "masses": masses, "isotopes": isotopes, "minimize": minimize}
    if isinstance(source, str | Path):
        source = as_dataset(source)
    if isinstance(source, list | tuple | Dataset) and len(as_dataset(source)) > 1:
        if hessian is not None:
            raise RequestError("a Hessian was given with several structures: give the structure that it belongs to")
        report = analyze_vibrations(source, engine, quiet=True, **how)
        if report.failures:
            first = report.failures[0]
            raise ExecutionError(
                f"{len(report.failures)} of {len(report.ids)} structures failed, first {first.id}: {first.reason}. "
                "hesse.analyze_vibrations keeps the others"
            )
        return report.thermo(settings)
    return thermo_of(vibrations(source, engine, hessian=hessian, **how), settings)
