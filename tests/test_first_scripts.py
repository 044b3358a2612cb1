"""Three scripts that a chemist writes first, with ASE atoms: vibrations, two schemes of training, a barrier."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write

import hesse

pytest.importorskip("tblite", reason="needs tblite")


def test_vibrations_of_water() -> None:
    relaxed = hesse.minimize(molecule("H2O"), "gfn2", fmax=1e-3)
    water = hesse.vibrations(relaxed, "gfn2")
    assert water.frequencies == pytest.approx([1539.6, 3642.4, 3650.5], abs=2.0)
    # The same step by step.
    properties = hesse.make_engine("gfn2").compute(relaxed.structure, hesse.Request(energy=False, hessian=True))
    modes = hesse.normal_modes(relaxed.structure, properties.hessian_of(0))
    np.testing.assert_allclose(modes.frequencies, water.frequencies, atol=0.1)


@pytest.mark.slow
def test_energies_and_forces_with_and_without_products(tmp_path: Path) -> None:
    frames = [molecule(name) for name in ("H2O", "NH3", "CH4", "C2H2")]
    samples = hesse.sample_normal_modes(frames, "gfn2", temperatures=(300.0,), count=6, workers=0, quiet=True)
    data = hesse.label(samples.structures, "gfn2", probes=1, hessian=True, quiet=True).dataset
    train, test = data.split(0.7, 0.3, by_group=False)
    hessian_errors = {}
    for name, weights in {"E-F": {"hvp": 0.0}, "E-F-HVP": {}}.items():
        config = hesse.TrainConfig(weights=weights, steps=300, compile="never")
        run = hesse.train(train, config=config, output=tmp_path / name, quiet=True)
        evaluation = hesse.evaluate(run, test)
        assert "hessian" in evaluation.table().lower()
        row = next(r for r in evaluation.rows if (r.property, r.metric, r.tag) == ("hessian", "rmse", ""))
        hessian_errors[name] = row.value
    assert hessian_errors["E-F-HVP"] < hessian_errors["E-F"]


def test_barrier_of_ammonia(tmp_path: Path) -> None:
    """Inversion of ammonia: the paths from the planar saddle point end in two mirror images of the minimum."""
    flat = molecule("NH3")
    flat.positions[:, 2] *= 0.02
    saddle = hesse.saddle(flat, "gfn2")
    assert saddle.modes.frequencies[0] < -100.0
    assert saddle.modes.n_imaginary == 1
    path = hesse.irc(saddle.structure, "gfn2", hessian=saddle.hessian)
    barrier = saddle.energy - min(point.energy for point in path.points)
    minimum = hesse.minimize(molecule("NH3"), "gfn2")
    assert barrier == pytest.approx(saddle.energy - minimum.energy, rel=0.05)
    write(tmp_path / "path.xyz", path.to_ase())
    frames = read(tmp_path / "path.xyz", ":")
    assert len(frames) == len(path.points)
    assert frames[0].get_potential_energy() == pytest.approx(frames[-1].get_potential_energy(), abs=2e-3)
