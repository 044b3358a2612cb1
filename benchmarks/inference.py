"""Cost of using a potential: many molecules at once, the lowest mode without a Hessian, neighbor lists with a skin.

    python benchmarks/inference.py many      # one at a time against evaluate_many
    python benchmarks/inference.py modes     # products against columns, with springs, without, and by ARPACK
    python benchmarks/inference.py skin      # steps of dynamics per second

One thread, process time of everything including the work outside of the potential, best of the repetitions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE
from jaxtyping import Float
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

from hesse import (
    Ani,
    AniConfig,
    Batch,
    HesseCalculator,
    Hipnn,
    HipnnConfig,
    Potential,
    Request,
    Structure,
    collate,
    from_ase,
    make_engine,
)
from hesse.curvature import evaluate, evaluate_structures, lowest_eigenpairs
from hesse.engines import EngineCalculator
from hesse.harmonic.normal_modes import rigid_body_basis
from hesse.smooth import masked_norm

ELEMENTS = (1, 6, 7, 8)


class Morse(Potential):
    """`½ Σ D (1 − e^{−a(r − r0)})²`: copper, roughly."""

    depth, width, r0, cutoff = 0.34, 1.36, 2.87, 6.0

    def forward(self, batch: Batch) -> Float[Tensor, "atoms"]:
        """Energies of atoms."""
        r = masked_norm(batch.neighbor_vectors(), batch.neighbor_mask, fill=self.cutoff)
        well = self.depth * (1.0 - torch.exp(-self.width * (r - self.r0))).square()
        return 0.5 * torch.where(batch.neighbor_mask & (r < self.cutoff), well, 0.0).sum(-1)


def random_molecule(n: int, rng: np.random.Generator) -> Structure:
    """A tree of atoms with bonds of 1.0 to 1.4 Å; no two atoms are nearer than 1.0 Å."""
    points = [np.zeros(3)]
    while len(points) < n:
        step = rng.normal(size=3)
        position = points[rng.integers(len(points))] + step / np.linalg.norm(step) * rng.uniform(1.0, 1.4)
        if min(np.linalg.norm(position - p) for p in points) >= 1.0:
            points.append(position)
    return Structure(rng.choice(ELEMENTS, n), np.array(points))


def best(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Shortest process time of each action, seconds; repetitions are interleaved."""
    best_times = dict.fromkeys(actions, np.inf)
    for _ in range(repeats):
        for name, action in actions.items():
            start = time.process_time()
            action()
            best_times[name] = min(best_times[name], time.process_time() - start)
    return best_times


# --- many molecules --------------------------------------------------------------------------------------------------


def many(count: int, repeats: int) -> None:
    """Molecules of 6 to 21 atoms: products along one direction, and Hessians."""
    rng = np.random.default_rng(0)
    print(f"| {count} molecules, float64 | what | one at a time, ms | together, ms | gain |\n|---|---|---|---|---|")
    for name, network in (("HIP-NN", Hipnn(HipnnConfig(), ELEMENTS)), ("ANI", Ani(AniConfig(), ELEMENTS))):
        potential = network.double().eval()
        for what, number in (("forces", count), ("H v", count), ("Hessian", max(count // 4, 2))):
            structures = [random_molecule(int(n), rng) for n in rng.integers(6, 22, size=number)]
            directions = [torch.randn(1, len(s), 3, dtype=torch.float64) for s in structures]

            def request(probes: Tensor, what: str = what) -> Request:
                return Request(forces=True, probes=probes if what == "H v" else None, hessian=what == "Hessian")

            def alone() -> None:
                for s, v in zip(structures, directions, strict=True):  # noqa: B023 (called before they change)
                    evaluate(potential, collate([s], potential.cutoff), request(v))  # noqa: B023

            def together() -> None:
                evaluate_structures(potential, structures, request(torch.cat(directions, dim=1)))  # noqa: B023

            together()  # neighbor lists are stored in the structures, for both
            seconds = best({"alone": alone, "together": together}, repeats)
            each = {key: 1e3 * value / number for key, value in seconds.items()}
            gain = each["alone"] / each["together"]
            print(f"| {name} | {what} | {each['alone']:.2f} | {each['together']:.2f} | {gain:.1f} |", flush=True)


# --- lowest modes ----------------------------------------------------------------------------------------------------


def alkane(carbons: int) -> Atoms:
    """A stretched alkane chain, not relaxed."""
    positions, hydrogens = [], []
    for i in range(carbons):
        y, out = (0.0, -0.63) if i % 2 == 0 else (0.87, 0.63)
        positions.append([1.265 * i, y, 0.0])
        hydrogens += [[1.265 * i, y + out, z] for z in (0.89, -0.89)]
    last = 1.265 * (carbons - 1) + 0.9
    hydrogens += [[-0.9, 0.63, 0.0], [last, 0.24 if carbons % 2 == 0 else 0.63, 0.0]]
    return Atoms(f"C{carbons}H{len(hydrogens)}", positions=positions + hydrogens)


def arpack(matrix: Float[np.ndarray, "d d"], structure: Structure, relative: float) -> str:
    """Number of products that ARPACK takes for the same eigenvalue, with rigid-body motions shifted above the spectrum.
    Its tolerance is relative to an eigenvalue that only the dense Hessian gives."""
    rigid = rigid_body_basis(structure, np.ones(len(structure))).reshape(-1, len(matrix))
    top, products = float(np.abs(matrix).sum(0).max()), 0

    def multiply(x: Float[np.ndarray, "d"]) -> Float[np.ndarray, "d"]:
        nonlocal products
        products += 1
        inside = x - rigid.T @ (rigid @ x)
        image = matrix @ inside
        return image - rigid.T @ (rigid @ image) + top * (rigid.T @ (rigid @ x))

    operator = LinearOperator(matrix.shape, matvec=multiply, dtype=float)
    try:
        eigsh(operator, k=1, which="SA", ncv=min(60, len(matrix) - 1), tol=relative, maxiter=100)
    except ArpackNoConvergence:
        return f"> {products}"
    return str(products)


def modes(tolerance: float, largest: int, alkanes: list[int]) -> None:
    """Relaxed alkanes by GFN1-xTB, copper with a vacancy: columns of a Hessian against products for one eigenpair."""
    print(
        "| system | atoms | columns (3N) | springs | no springs | ARPACK | λ, eV/Å² | λ of the Hessian | seconds |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for carbons in alkanes:
        atoms = alkane(carbons)
        engine = make_engine("gfn1")
        atoms.calc = EngineCalculator(engine, from_ase(atoms))
        BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=0.005, steps=300)
        structure = from_ase(atoms)
        matrix = engine.compute(structure, Request(hessian=True)).hessian_of(0).numpy().reshape(3 * len(atoms), -1)
        _row(f"C{carbons}H{2 * carbons + 2}, GFN1-xTB", engine, structure, matrix, tolerance)
    for repeats in (3, 5, 8):
        atoms = bulk("Cu", "fcc", a=3.5, cubic=True).repeat(repeats)
        del atoms[0]
        if len(atoms) > largest:
            continue
        atoms.calc = HesseCalculator(Morse())
        FIRE(atoms, logfile=None).run(fmax=1e-3, steps=200)
        matrix = atoms.calc.get_hessian(atoms).reshape(3 * len(atoms), -1) if len(atoms) < 600 else None
        _row("copper with a vacancy, Morse", Morse(), from_ase(atoms), matrix, tolerance)


def _row(
    name: str, subject: object, structure: Structure, matrix: Float[np.ndarray, "d d"] | None, tolerance: float
) -> None:
    start = time.process_time()
    result = lowest_eigenpairs(subject, structure, tolerance=tolerance)  # type: ignore[arg-type]
    seconds = time.process_time() - start
    plain, outside, exact = "", "", ""
    if matrix is not None:
        n = len(structure)
        again = lowest_eigenpairs(
            lambda v: np.einsum("ij,kj->ki", matrix, v.reshape(len(v), -1)).reshape(v.shape),
            structure,
            tolerance=tolerance,
            preconditioned=False,
            max_products=20 * n,
        )
        rigid = rigid_body_basis(structure, np.ones(n)).reshape(-1, 3 * n)
        inside = np.eye(3 * n) - rigid.T @ rigid
        lifted = inside @ (0.5 * (matrix + matrix.T)) @ inside + 1e4 * rigid.T @ rigid
        lowest = float(np.linalg.eigvalsh(lifted)[0])
        plain, outside, exact = (
            str(again.n_products),
            arpack(matrix, structure, tolerance / abs(lowest)),
            f"{lowest:.5f}",
        )
    print(
        f"| {name} | {len(structure)} | {3 * len(structure)} | {result.n_products} | {plain} | {outside} "
        f"| {result.eigenvalues[0]:.5f} | {exact} | {seconds:.1f} |",
        flush=True,
    )


# --- skin ------------------------------------------------------------------------------------------------------------


def skin(steps: int) -> None:
    """Dynamics at about 300 K with a small network, for which the neighbor search matters, and with the default one."""
    small = HipnnConfig(features=16, sensitivities=8, cutoff=5.0, longest=4.5, l_max=0)
    print("| system | model | skin, Å | searches | steps a second |\n|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    cluster = Atoms("CO2" * 20, positions=random_molecule(60, rng).positions * 1.3)
    crystal = bulk("C", "diamond", a=3.9, cubic=True).repeat(4)
    crystal.numbers = rng.choice(ELEMENTS, len(crystal))
    cage = molecule("C60")
    for name, start in (("cluster, 60 atoms", cluster), ("C60", cage), (f"crystal, {len(crystal)} atoms", crystal)):
        for label, config in (("small", small), ("default", HipnnConfig())):
            if label == "default" and len(start) > 100:
                config = HipnnConfig(cutoff=5.0, longest=4.5)
            torch.manual_seed(0)
            network = Hipnn(config, ELEMENTS).eval()
            with torch.no_grad():  # forces of an untrained network are scaled down, so that the atoms stay together
                for readout in network.readouts:
                    readout.weight.mul_(0.01)
            runs: dict[float, tuple[Calculator, VelocityVerlet]] = {}
            for width in (0.0, 0.5, 1.0, 2.0):
                atoms = start.copy()
                atoms.calc = HesseCalculator(network, skin=width)
                thermal = np.sqrt(300 * units.kB / atoms.get_masses())[:, None]
                atoms.set_velocities(np.random.default_rng(1).normal(size=(len(atoms), 3)) * thermal)
                Stationary(atoms)
                runs[width] = atoms.calc, VelocityVerlet(atoms, 0.5 * units.fs)
            times = dict.fromkeys(runs, 0.0)
            for _ in range(5):
                for width, (_, dynamics) in runs.items():
                    begin = time.process_time()
                    dynamics.run(steps // 5)
                    times[width] += time.process_time() - begin
            for width, (calculator, _) in runs.items():
                searches = f"{calculator.neighbor_list.n_builds} of {calculator.neighbor_list.n_batches}"
                print(f"| {name} | {label} | {width} | {searches} | {steps / times[width]:.1f} |", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("many", "modes", "skin"))
    parser.add_argument("--count", type=int, default=64, help="molecules for products (a quarter of them for Hessians)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tolerance", type=float, default=1e-3, help="of the residual, eV/Å²")
    parser.add_argument("--largest", type=int, default=3000, help="atoms of the largest piece of copper")
    parser.add_argument("--alkanes", type=int, nargs="*", default=[4, 8, 14], help="carbon atoms (needs hesse[xtb])")
    parser.add_argument("--steps", type=int, default=50, help="of dynamics")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "many":
        many(options.count, options.repeats)
    elif options.what == "modes":
        modes(options.tolerance, options.largest, options.alkanes)
    else:
        skin(options.steps)


if __name__ == "__main__":
    main()
