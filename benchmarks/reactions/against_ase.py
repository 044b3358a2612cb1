"""Saddle points from reactants and products: `hesse.reaction` against ASE's NEB followed by Sella, with GFN2-xTB.

    python benchmarks/reactions/against_ase.py DATA [--count 10]

Ten reactions of `grambow_ts` and HCN -> HNC. Both start from the same relaxed ends with the same number of images,
limits and optimizer; evaluations of the engine are counted from there to the saddle point. ASE: `NEB` with a climbing
image, its default springs, IDPP start, rotation and translation removed, BFGS; Sella with its defaults, from the
highest image. Every saddle point is checked with a Hessian, which is not counted.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

from ase import Atoms
from ase.mep.neb import NEB
from ase.optimize import BFGS
from end_to_end import chosen_pairs

import hesse
from hesse.engines import EngineCalculator
from hesse.errors import HesseError
from hesse.pes import ReactionSettings, displacement
from hesse.pes.call_counter import CallCounter
from hesse.sampling import Pair
from hesse.structures import Structure, from_ase, to_ase


def by_ase(reactant: Structure, product: Structure, settings: ReactionSettings) -> tuple[str, Structure | None, int]:
    """Outcome, saddle point and number of evaluations of ASE's NEB and Sella."""
    from sella import Sella

    engine = CallCounter(hesse.make_engine("gfn2"))
    images = [to_ase(reactant) for _ in range(settings.images + 1)] + [to_ase(product)]
    for image in images:
        image.calc = EngineCalculator(engine, reactant)
    band = NEB(images, climb=True, method="improvedtangent", remove_rotation_and_translation=True)
    try:
        band.interpolate(method="idpp")
        BFGS(band, logfile=None).run(fmax=settings.path_fmax, steps=settings.path_steps)
        energies = [image.get_potential_energy() for image in images]
        top = images[1 + max(range(settings.images), key=lambda k: energies[k + 1])]
        n_path = engine.n_calls
        Sella(top, order=1, internal=True, logfile=None).run(fmax=settings.fmax, steps=settings.saddle_steps)
        n_calls = engine.n_calls
        found = reactant.with_positions(top.positions)
        check = hesse.vibrations(found, "gfn2")
    except Exception as error:  # programs raise errors of any class
        return f"{type(error).__name__}: {str(error)[:60]}", None, engine.n_calls
    if check.fmax > settings.fmax or check.n_imaginary != 1:
        return f"forces {check.fmax:.3f} eV/Å, {check.n_imaginary} negative modes", None, n_calls
    return f"saddle point ({n_path} + {n_calls - n_path})", found, n_calls


def hcn() -> Pair:
    """HCN and HNC."""
    ends = (Atoms("CNH", [[0, 0, 0], [1.16, 0, 0], [x, 0, 0]]) for x in (-1.07, 2.16))
    return Pair("HCN", *(from_ase(end) for end in ends))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    settings, totals = ReactionSettings(attempts=1), {"ours": [0, 0], "ASE + Sella": [0, 0]}
    print("| reaction | atoms | ours | evaluations | ASE + Sella | evaluations | same saddle point |")
    print("|---|---|---|---|---|---|---|")
    for pair in [hcn(), *chosen_pairs(options.data, "grambow", options.count)]:
        ours = hesse.reaction(pair.reactant, pair.product, "gfn2", settings, name=pair.id)
        if ours.reactant is None or ours.product is None or ours.path is None:
            print(f"| {pair.id} | {len(pair.reactant)} | {ours.outcome} | | | | |", flush=True)
            continue
        parts = [ours.calls[stage].evaluations for stage in ("path", "saddle") if stage in ours.calls]
        calls = sum(parts)
        try:
            outcome, top, theirs = by_ase(ours.reactant.structure, ours.product.structure, settings)
        except HesseError as error:
            outcome, top, theirs = str(error), None, 0
        converged = ours.saddle is not None and ours.saddle.converged
        same = ""
        if converged and top is not None:
            apart = displacement(ours.saddle.structure, top).rmsd
            same = "yes" if apart < 0.1 else f"no, {apart:.2f} Å apart"
        for name, found, number in (("ours", converged, calls), ("ASE + Sella", top is not None, theirs)):
            totals[name][0] += found
            totals[name][1] += number
        cells = [pair.id, len(pair.reactant), ours.outcome, " + ".join(map(str, parts)), outcome, theirs, same]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    for name, (found, number) in totals.items():
        print(f"{name}: {found} saddle points, {number} evaluations")


if __name__ == "__main__":
    main()
