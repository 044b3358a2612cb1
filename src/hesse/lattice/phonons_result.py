"""Phonons of a crystal: force constants, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray as Array
from numpy.typing import ArrayLike

from hesse.errors import ConfigError, EngineError, LabelShapeError
from hesse.lattice.band_structure import BandPath, Bands, DensityOfStates, ImaginaryMode, band_path, connect_branches
from hesse.lattice.force_constants import ForceConstantsReport
from hesse.lattice.remarks import phonon_remarks
from hesse.lattice.supercells import phonopy_errors, structure_of
from hesse.lattice.thermal import ThermalProperties, thermal_properties
from hesse.runtime.short_repr import ShortRepr
from hesse.structures import Structure

__all__ = ["DEFAULT_MESH", "MeshLike", "Phonons", "as_mesh"]

MeshLike = float | Iterable[int]
"""Numbers of wave vectors along the three reciprocal lattice vectors, or a length in Å from which they follow."""
DEFAULT_MESH = 100.0
"""Å; phonopy's default: along a lattice vector of 5 Å (reciprocal 0.2/Å) 20 wave vectors."""
IMAGINARY = 0.05
"""THz; modes above minus this number are not called imaginary."""
_MAX_CONNECTED = 100
"""Number of modes up to which branches are connected: eigenvectors along a path take memory."""
_GAMMA = np.zeros((1, 3))


@dataclass(frozen=True, eq=False, repr=False)
class Phonons(ShortRepr):
    """Harmonic phonons of a crystal.

    Frequencies are in THz, imaginary ones negative; wave vectors are in reciprocal lattice vectors of the primitive
    cell.

    Attributes:
        structure: the crystal as it was given, or as it was relaxed.
        level: level of theory of the force constants; empty if it is not known.
        report: how the force constants were computed, and their checks.
        energy: of `structure`, eV; None if it is not known.
        fmax: largest force on an atom of `structure`, eV/Å; None if it is not known.
        pressure: trace of the stress over minus three, GPa; None if it is not known.
        shear: largest deviation of the stress from that pressure, GPa; None if it is not known.
    """

    structure: Structure
    level: str
    report: ForceConstantsReport
    record: Any = field(repr=False)
    energy: float | None = None
    fmax: float | None = None
    pressure: float | None = None
    shear: float | None = None

    @property
    def force_constants(self) -> Float[Array, "primitive supercell 3 3"]:
        """Force constants between the atoms of the primitive cell and those of the supercell, eV/Å²."""
        return np.array(self.record.force_constants) * self._force_unit

    @property
    def _force_unit(self) -> float:
        """The unit of force constants of the record in eV/Å²: that of the program that made the files."""
        units = _units(self.record)
        return float(units.force_to_eVperA / units.distance_to_A)

    @cached_property
    def primitive(self) -> Structure:
        """The primitive cell."""
        return structure_of(self.record.primitive, f"{self.structure.id}/primitive", _units(self.record).distance_to_A)

    @cached_property
    def supercell(self) -> Structure:
        """The supercell."""
        return structure_of(self.record.supercell, f"{self.structure.id}/supercell", _units(self.record).distance_to_A)

    @property
    def polar(self) -> bool:
        """Whether Born charges are set, so that longitudinal optical modes split off at Γ."""
        return self.record.nac_params is not None

    def frequencies(self, q: ArrayLike, *, direction: ArrayLike | None = None) -> Float[Array, "*q modes"]:
        """Frequencies at wave vectors.

        Args:
            q: one wave vector, or many, `[q, 3]`.
            direction: direction from which Γ is approached, which matters with Born charges.

        Returns:
            THz, ascending.

        Raises:
            LabelShapeError: wave vectors of another shape, or not finite.
        """
        points = _wave_vectors(q)
        values = self._at(points.reshape(-1, 3), direction).frequencies
        return np.array(values).reshape(*points.shape[:-1], -1)

    def modes(
        self, q: ArrayLike, *, direction: ArrayLike | None = None
    ) -> tuple[Float[Array, "modes"], Complex[Array, "modes atoms 3"]]:
        """Frequencies and eigenvectors at one wave vector.

        Args:
            q: the wave vector.
            direction: direction from which Γ is approached.

        Returns:
            THz; and mass-weighted eigenvectors of unit length, with phonopy's phases.

        Raises:
            LabelShapeError: not one finite wave vector.
        """
        point = _wave_vectors(q)
        if point.ndim != 1:
            raise LabelShapeError(f"expected one wave vector of three numbers, got the shape {point.shape}")
        result = self._at(point[None], direction, with_eigenvectors=True)
        vectors = np.array(result.eigenvectors)[0].T
        return np.array(result.frequencies)[0], vectors.reshape(len(vectors), -1, 3)

    def _at(self, points: Float[Array, "q 3"], direction: ArrayLike | None = None, **options: bool) -> Any:
        towards = None if direction is None else _wave_vectors(direction)
        with phonopy_errors("phonopy cannot compute frequencies", EngineError):
            self.record.run_qpoints(points, nac_q_direction=towards, **options)
        return self.record.qpoints

    def bands(self, path: BandPath | None = None, *, points: int = 51) -> Bands:
        """Frequencies along a path.

        Args:
            path: the path; None for the usual one of the lattice (needs seekpath).
            points: number of wave vectors of each segment of that path.

        Returns:
            The bands.

        Raises:
            MissingExtraError: seekpath is not installed.
            ConfigError, GeometryError: see `band_path`.
        """
        if path is None:
            path = band_path(self.record.primitive, points, self.record.symmetry.tolerance)
        with phonopy_errors("phonopy cannot compute bands", EngineError):
            connect = 3 * len(self.primitive) <= _MAX_CONNECTED
            self.record.run_band_structure(list(path.q), with_eigenvectors=connect)
            result = self.record.band_structure
        frequencies = np.array(result.frequencies)
        branches = connect_branches(frequencies, np.array(result.eigenvectors)) if connect else frequencies
        return Bands(path, frequencies, branches)

    def mesh(self, mesh: MeshLike = DEFAULT_MESH) -> tuple[Float[Array, "q 3"], Float[Array, "q"], Array]:
        """Frequencies on a regular mesh that contains Γ.

        Args:
            mesh: numbers of wave vectors in the three directions, or a length in Å from which they follow.

        Returns:
            Symmetry-distinct wave vectors, their weights, and frequencies (THz, `[q, modes]`).

        Raises:
            ConfigError: a mesh that is none.
        """
        self._run_mesh(mesh)
        stored = self.record.mesh
        return np.array(stored.qpoints), np.array(stored.weights, dtype=float), np.array(stored.frequencies)

    def _run_mesh(self, mesh: MeshLike) -> None:
        with phonopy_errors("phonopy cannot compute frequencies on the mesh", EngineError):
            self.record.run_mesh(as_mesh(mesh), is_gamma_center=True, is_mesh_symmetry=not self._has_isotopes)

    @cached_property
    def _has_isotopes(self) -> bool:
        """Whether atoms of one element differ in mass: waves then lack symmetries that the elements have."""
        numbers, masses = self.primitive.numbers, self.primitive.atomic_masses
        return any(np.ptp(masses[numbers == z]) > 1e-6 for z in np.unique(numbers))

    def dos(self, mesh: MeshLike = DEFAULT_MESH, *, points: int = 401) -> DensityOfStates:
        """Density of states by the linear tetrahedron method.

        Args:
            mesh: see `mesh`.
            points: number of frequencies.

        Returns:
            The density of states.

        Raises:
            ConfigError: a mesh that is none.
        """
        self._run_mesh(mesh)
        values = np.array(self.record.mesh.frequencies)
        low, high = min(0.0, float(values.min())), float(values.max())
        margin = 0.02 * (high - low) or 0.1
        with phonopy_errors("phonopy cannot compute the density of states", EngineError):
            self.record.run_total_dos(
                freq_min=low - (margin if low < -IMAGINARY else 0.0),
                freq_max=high + margin,
                freq_pitch=(high - low + margin) / (points - 1),
            )
            result = self.record.total_dos
            return DensityOfStates(np.array(result.frequency_points), np.array(result.dos))

    def thermal(self, temperatures: ArrayLike = 300.0, mesh: MeshLike = DEFAULT_MESH) -> ThermalProperties:
        """Free energy, entropy and heat capacity at constant volume, per primitive cell.

        Args:
            temperatures: K.
            mesh: see `mesh`.

        Returns:
            The functions, in eV.

        Raises:
            ConfigError: a mesh or temperatures that are none.
        """
        _, weights, frequencies = self.mesh(mesh)
        return thermal_properties(frequencies, weights, temperatures)

    @cached_property
    def gamma(self) -> Float[Array, "modes"]:
        """Frequencies at Γ, THz; the lowest three in size are rigid translations."""
        return self.frequencies(_GAMMA[0])

    @cached_property
    def commensurate(self) -> Float[Array, "q 3"]:
        """Wave vectors whose waves fit the supercell: their frequencies follow from its Hessian, those of others are
        interpolated."""
        from phonopy.harmonic.dynmat_to_fc import get_commensurate_points

        ratio = np.linalg.inv(self.record.primitive_matrix) @ self.record.supercell_matrix
        return np.array(get_commensurate_points(np.rint(ratio).astype("int64")))

    def imaginary_modes(self, bands: Bands | None = None) -> list[ImaginaryMode]:
        """Wave vectors with imaginary modes, on the commensurate wave vectors and along a path.

        Args:
            bands: bands along a path; None looks at the commensurate wave vectors alone.

        Returns:
            The lowest mode of each commensurate wave vector that has one, and the lowest of each segment of the path,
            lowest first.
        """
        lowest = self.frequencies(self.commensurate)[:, 0]
        modes = [
            ImaginaryMode(_triple(q), float(nu), True, "Γ" if not np.any(q) else "")
            for q, nu in zip(self.commensurate, lowest, strict=True)
            if nu < -IMAGINARY
        ]
        for k in range(0 if bands is None else len(bands.frequencies)):
            assert bands is not None
            values, q = bands.frequencies[k, :, 0], bands.path.q[k]
            i = int(values.argmin())
            if values[i] < -IMAGINARY:
                ends = {0: bands.path.labels[k][0], len(q) - 1: bands.path.labels[k][1]}
                name = ends.get(i, "-".join(bands.path.labels[k]))
                modes.append(ImaginaryMode(_triple(q[i]), float(values[i]), self._fits(q[i]), name))
        unique = {(np.round(mode.frequency, 4), mode.commensurate): mode for mode in reversed(modes)}
        return sorted(unique.values(), key=lambda mode: mode.frequency)

    def _fits(self, q: Float[Array, "3"]) -> bool:
        away = self.commensurate - q
        return bool((np.abs(away - np.rint(away)).max(axis=1) < 1e-6).any())

    def warnings(self) -> list[str]:
        """Remarks about forces, stress, the size of the supercell and its symmetries that a reader should know.

        Returns:
            Sentences; none if all is well.
        """
        return phonon_remarks(self)

    def to_phonopy(self) -> Any:
        """The record of phonopy, for all that it can do.

        Returns:
            `phonopy.Phonopy` with force constants; a copy.
        """
        copy = self.record.replicate()
        copy.dataset = self.record.dataset
        copy.force_constants = np.array(self.record.force_constants)
        if self.polar:
            copy.nac_params = self.record.nac_params
        return copy

    def with_born(self, born: str | Path | Mapping[str, Any]) -> Phonons:
        """The same phonons with Born effective charges, which split longitudinal from transverse optical modes.

        Args:
            born: a BORN file of phonopy, or a mapping with "born" (`[primitive atoms, 3, 3]`, e) and "dielectric"
                (`[3, 3]`).

        Returns:
            New phonons.

        Raises:
            FileFormatError: the file is damaged, or of another crystal.
            LabelShapeError: charges of another number of atoms.
        """
        from dataclasses import replace

        from hesse.lattice.born import born_charges

        record = self.to_phonopy()
        record.nac_params = born_charges(record, born)
        return replace(self, record=record)

    def symmetrized(self) -> Phonons:
        """The same phonons with sum rule, space group and the symmetry of second derivatives imposed, as those that are
        computed here have it; for force constants that were stored by another program.

        Returns:
            New phonons.
        """
        from dataclasses import replace

        from hesse.lattice.force_constants import finish_force_constants

        record = self.to_phonopy()
        report = finish_force_constants(record, self.report.method, self.report.n_displacements)
        return replace(self, record=record, report=report)

    def save(self, path: str | Path, kind: Literal["params", "text", "hdf5"] = "params") -> None:
        """Write a file that phonopy reads.

        Args:
            path: the file.
            kind: "params": `phonopy_params.yaml` with cells, displacements, forces, force constants and Born charges;
                "text": `FORCE_CONSTANTS`; "hdf5": `force_constants.hdf5`. The last two are in units of the record.

        Raises:
            UnknownOptionError: another kind.
            WriteError: the file cannot be written.
        """
        from hesse.lattice.files import save_phonons

        save_phonons(self.record, path, kind)


def _units(record: Any) -> Any:
    from phonopy.physical_units import get_calculator_physical_units

    return get_calculator_physical_units(record.calculator)


def _wave_vectors(q: ArrayLike) -> Float[Array, "*q 3"]:
    try:
        points = np.asarray(q, dtype=np.float64)
    except (TypeError, ValueError):
        points = np.empty(0)
    if points.shape[-1:] != (3,) or points.ndim > 2 or not np.isfinite(points).all():
        raise LabelShapeError(
            "expected wave vectors of three finite numbers each, in reciprocal lattice vectors of the primitive cell; "
            f"got {q!r}"
        )
    return points


def _triple(q: Float[Array, "3"]) -> tuple[float, float, float]:
    return float(q[0]), float(q[1]), float(q[2])


def as_mesh(mesh: MeshLike) -> float | list[int]:
    """Convert to what phonopy takes as a mesh, and check it.

    Args:
        mesh: a length in Å, or three numbers of wave vectors.

    Returns:
        The length, or the numbers.

    Raises:
        ConfigError: neither.
    """
    message = f"mesh: expected a positive length in Å, or three positive whole numbers; got {mesh!r}"
    if isinstance(mesh, int | float) and not isinstance(mesh, bool):
        if not (np.isfinite(mesh) and 0 < mesh < 1e4):
            raise ConfigError(message)
        return float(mesh)
    try:
        numbers = list(mesh)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigError(message) from None
    if len(numbers) != 3 or not all(isinstance(n, int | np.integer) and n > 0 for n in numbers):
        raise ConfigError(message)
    return [int(n) for n in numbers]
