"""From a potential to T_c on a soft-mode crystal: harmonic and self-consistent phonons, renormalized α²F, Eliashberg.

    python benchmarks/soft_mode_chain.py OUT --matrices SnTe_ToyModel [--seeds 0 1 2]

`SnTe_ToyModel` is the folder of python-sscha's tutorial: dynamical matrices of a force field (`ffield_dynq1`, ...) and
the self-consistent ones of python-sscha (`final_sscha_T100_1`, ...). The reference energy is that force field: its
harmonic matrices, and cubic and quartic springs between nearest neighbors with the parameters of the tutorial. It has a
soft optical mode at Γ, as SnTe has.

Per seed a HesseNet is trained from scratch on the energies and forces of displaced supercells (`E-F`), or on them and
one product of the Hessian and a random vector each (`E-F-HVP`). Harmonic frequencies, self-consistent ones at
temperatures, and T_c follow from the model alone. α²F is ASSUMED: all modes couple alike to displacements, so that
λ_qν ∝ 1/ω², with λ = 1 for the matrices of python-sscha at 100 K; there is no electron-phonon calculation of this force
field, and its T_c is no prediction for SnTe. Finished parts are kept: the same command continues.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

import hesse
from hesse.engine import ENERGY_AND_FORCES, Engine
from hesse.errors import HarmonicWarning
from hesse.lattice import THZ, Phonons, anharmonic, phonons, read_phonons
from hesse.lattice.fixed_point import full_constants
from hesse.lattice.thermal_gaussian import ThermalGaussian
from hesse.structures import Properties, Request, Structure
from hesse.superconductivity import SpectralFunction
from hesse.units import energy_unit, length_unit

CUBIC, QUARTIC, CROSS = 0.036475, -0.022, -0.014
"""Hartree/bohr³ and Hartree/bohr⁴: p3, p4 and p4x of the tutorial."""
FRAMES, SAMPLED_AT = 48, (100.0, 300.0)
TEMPERATURES = (100.0, 300.0)
COUPLING, MU_STAR, LOWEST = 1.0, 0.10, 0.05  # λ, μ*, THz
TRAINING: dict[str, Any] = {
    "model": {"kind": "hessenet", "features": 16, "cutoff": 5.0},
    "batch": {"structures": 6},
    "steps": 400,
    "compile": "never",
    "cpu_threads": 1,
    "optimizer": {"learning_rate": 4e-3},
    "checkpoint_every": 50,
}
SCHEMES = {
    "E-F-HVP": {"energy": 1.0, "forces": 1.0, "hvp": 1.0},
    "E-F": {"energy": 1.0, "forces": 1.0, "hvp": 0.0},
}


class SpringsOfRockSalt(Engine):
    """Harmonic force constants, and springs between nearest neighbors, with exact products.

    A spring whose ends move by d from each other, a along it and b across, has the energy c₃ a³ + c₄ a⁴ + c a² b².

    Args:
        harmonic: phonons of the crystal, whose supercell is the only one that has an energy.
    """

    level = "springs of rock salt"
    settings = MappingProxyType({})

    def __init__(self, harmonic: Phonons) -> None:
        rest = harmonic.supercell
        hartree, bohr = energy_unit("hartree"), length_unit("bohr")
        self.rest, n = rest.positions, len(rest)
        self.matrix = full_constants(harmonic).transpose(0, 2, 1, 3).reshape(3 * n, 3 * n)
        self.cubic = -CUBIC / 8**0.5 * hartree / bohr**3
        self.quartic, self.cross = -QUARTIC / 4 * hartree / bohr**4, -CROSS / 4 * hartree / bohr**4
        gaps = rest.positions[None] - rest.positions[:, None]
        fractional = gaps @ np.linalg.inv(rest.cell)
        images = np.array(list(np.ndindex(3, 3, 3))) - 1
        vectors = (fractional - np.rint(fractional))[..., None, :] @ rest.cell + images @ rest.cell
        lengths = np.linalg.norm(vectors, axis=-1)
        nearest = lengths[lengths > 0.1].min()
        positive = (np.abs(lengths - nearest) < 0.05) & (vectors.max(axis=-1) > 0.9 * nearest)
        self.first, self.second, image = np.nonzero(positive)
        self.axis = vectors[self.first, self.second, image].argmax(axis=-1)
        if len(self.axis) != 3 * n:
            raise ValueError(f"expected three springs for each of {n} atoms, got {len(self.axis)}: no rock salt")

    def compute(self, structure: Structure, request: Request = ENERGY_AND_FORCES) -> Properties:
        u = structure.positions - self.rest
        rows, flat = np.arange(len(self.axis)), u.ravel()
        d = u[self.second] - u[self.first]
        a = d[rows, self.axis]
        across = d.copy()
        across[rows, self.axis] = 0.0
        square = (across**2).sum(axis=1)
        energy = 0.5 * flat @ self.matrix @ flat
        energy += (self.cubic * a**3 + self.quartic * a**4 + self.cross * a**2 * square).sum()
        slope = 2 * self.cross * a[:, None] ** 2 * across
        slope[rows, self.axis] = 3 * self.cubic * a**2 + 4 * self.quartic * a**3 + 2 * self.cross * a * square
        fields: dict[str, Any] = {"energy": energy, "forces": -(self.matrix @ flat).reshape(-1, 3) - self._sum(slope)}
        if request.probes is not None:
            products = []
            for probe in np.asarray(request.probes, dtype=float):
                w = probe[self.second] - probe[self.first]
                along, aside = w[rows, self.axis], w.copy()
                aside[rows, self.axis] = 0.0
                bent = 4 * self.cross * a[:, None] * across * along[:, None] + 2 * self.cross * a[:, None] ** 2 * aside
                stiff = 6 * self.cubic * a + 12 * self.quartic * a**2 + 2 * self.cross * square
                bent[rows, self.axis] = stiff * along + 4 * self.cross * a * (across * aside).sum(axis=1)
                products.append((self.matrix @ probe.ravel()).reshape(-1, 3) + self._sum(bent))
            fields |= {"probes": request.probes, "hvp": np.array(products)}
        if request.stress:
            fields["stress"] = np.zeros((1, 3, 3))  # the cell is as it is
        return Properties.single(len(u), **{name: torch.as_tensor(value) for name, value in fields.items()})

    def _sum(self, springs: np.ndarray) -> np.ndarray:
        total = np.zeros_like(self.rest)
        np.add.at(total, self.second, springs)
        np.subtract.at(total, self.first, springs)
        return total


def frames(harmonic: Phonons, engine: Engine, count: int = FRAMES, seed: int = 0) -> hesse.Dataset:
    """Supercells with thermal displacements, with energies, forces and one product each."""
    rest, rng = harmonic.supercell, np.random.default_rng(seed)
    items = []
    for k, temperature in enumerate(SAMPLED_AT):
        gaussian = ThermalGaussian(full_constants(harmonic), rest.atomic_masses, temperature)
        for j, move in enumerate(gaussian.sample(count // len(SAMPLED_AT), rng)):
            structure = rest.with_positions(rest.positions + move, id=f"moved-{k}-{j}")
            probes = torch.as_tensor(rng.choice([-1.0, 1.0], (1, len(rest), 3)))
            items.append((structure, engine.compute(structure, Request(probes=probes, forces=True))))
    return hesse.Dataset(tuple(s for s, _ in items), Properties.concatenate([p for _, p in items]))


def spectrum(renormalized: Phonons, scale: float | None = None) -> tuple[SpectralFunction, float]:
    """α²F with couplings ∝ 1/ω² of all modes of a mesh, by a scale that gives λ = 1 if it is None; and that scale."""
    _, weights, values = renormalized.mesh((8, 8, 8))
    energies = values * THZ
    kept = energies > LOWEST * THZ
    couplings = np.where(kept, 1.0 / np.where(kept, energies, 1.0) ** 2, 0.0)
    scale = COUPLING / float((weights / weights.sum()) @ couplings.sum(axis=1)) if scale is None else scale
    share = (weights / weights.sum())[:, None] * couplings * scale
    order = np.argsort(energies[kept])
    # ∫α²F dω around a mode is half its λ times its frequency.
    return SpectralFunction(energies[kept][order], (0.5 * share * energies)[kept][order]), scale


def summary(renormalized: Phonons, scale: float) -> dict[str, float]:
    """Soft mode, highest mode and T_c."""
    result = hesse.tc(spectrum(renormalized, scale)[0], MU_STAR)
    row = result.rows[0]
    modes = np.sort(renormalized.frequencies([0.0, 0.0, 0.0]))
    return {"soft": float(modes[3]), "highest": float(renormalized.frequencies(renormalized.commensurate).max()),
            "lambda": result.spectrum.coupling, "tc": row.eliashberg}  # fmt: skip


def difference(own: Phonons, reference: Phonons) -> float:
    """Root mean square difference of the frequencies on the commensurate wave vectors, THz, without translations."""
    q = own.commensurate
    gap = own.frequencies(q) - reference.frequencies(q)
    optical = np.ones(gap.shape, dtype=bool)
    optical[~q.any(axis=1), :] = [False] * 3 + [True] * (gap.shape[1] - 3)
    return float(np.sqrt(np.mean(gap[optical] ** 2)))


def judge(harmonic: Phonons, engine: Any, folder: Path, cache: Path, snapshots: int) -> dict[str, Any]:
    """Harmonic and self-consistent phonons of an engine against the reference, and T_c."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmonicWarning)
        own = harmonic
        if not isinstance(engine, SpringsOfRockSalt):
            own = phonons(harmonic.structure, engine, supercell=harmonic.record.supercell_matrix.T)
        scale = spectrum(read_phonons(folder / "final_sscha_T100_1"))[1]
        rows: dict[str, Any] = {"harmonic soft": own.imaginary_modes()[0].frequency if own.imaginary_modes() else 0.0}
        rows["harmonic rms"] = difference(own, harmonic)
        for temperature in TEMPERATURES:
            result = anharmonic(own, engine, temperature, snapshots=snapshots, cache=cache)
            expected = read_phonons(folder / f"final_sscha_T{temperature:.0f}_1")
            rows[f"{temperature:.0f}"] = summary(result.phonons, scale) | {
                "rms": difference(result.phonons, expected),
                "error": float(result.frequency_errors.max()),
                "converged": result.converged,
            }
            if temperature == TEMPERATURES[-1]:
                result.phonons.save(cache.parent / f"{cache.name}-{temperature:.0f}K.yaml")
    return rows


def main() -> None:
    """Run what is missing, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--matrices", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--snapshots", type=int, default=100)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    harmonic = read_phonons(options.matrices / "ffield_dynq1").symmetrized()
    engine = SpringsOfRockSalt(harmonic)
    data = frames(harmonic, engine)
    scale = spectrum(read_phonons(options.matrices / "final_sscha_T100_1"))[1]
    for temperature in TEMPERATURES:
        expected = read_phonons(options.matrices / f"final_sscha_T{temperature:.0f}_1")
        print(f"python-sscha {temperature:.0f} K", summary(expected, scale), flush=True)
    for name in ("reference", *(f"{scheme}-{seed}" for seed in options.seeds for scheme in SCHEMES)):
        done = options.out / f"{name}.json"
        if not done.is_file():
            source: Any = engine
            if name != "reference":
                scheme, seed = name.rsplit("-", 1)
                settings = TRAINING | {"weights": SCHEMES[scheme], "seed": int(seed)}
                hesse.train(data, config=settings, output=options.out / name, quiet=True)
                source = hesse.as_potential(options.out / name / "model.hesse", dtype=torch.float64)
            rows = judge(harmonic, source, options.matrices, options.out / f"{name}-forces", options.snapshots)
            done.write_text(json.dumps(rows))
        print(name, done.read_text(), flush=True)


if __name__ == "__main__":
    main()
