"""Bands between known minima: four Morse atoms turn inside out through a planar rhombus; HCN becomes HNC."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write

import closed_form_engines
import hesse
import oracles
from hesse.engines import PotentialEngine
from hesse.errors import ConfigError, EngineError, GeometryError, RequestError, UnknownElementError
from hesse.pes.points import Point, PointEvaluator
from hesse.structures import Structure, to_ase

TETRAHEDRON = np.array([[0.55, 0, -0.39], [-0.55, 0, -0.39], [0, 0.55, 0.39], [0, -0.55, 0.39]])
"""Four Morse atoms at their minimum."""


def inversion(numbers=(6, 6, 6, 6)) -> tuple[Structure, Structure]:
    """A tetrahedron and its mirror image, turned and shifted: four equal atoms with labels."""
    return (
        Structure(numbers, TETRAHEDRON, id="left", group="g"),
        Structure(numbers, TETRAHEDRON * [1, 1, -1] @ oracles.rotation(3) + [3, 1, 2], id="right"),
    )


class Counted(oracles.Morse):
    """How many structures each pass evaluates."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, batch):
        self.sizes.append(len(batch.n_atoms))
        return super().forward(batch)


@pytest.fixture(scope="module")
def exact_top() -> hesse.Structure:
    return hesse.saddle(oracles.rhombus(0), closed_form_engines.own_engine(), fmax=1e-4)


def test_the_band_climbs_to_the_known_saddle(exact_top):
    result = hesse.neb(*inversion(), closed_form_engines.own_engine(), images=5, fmax=0.02)
    assert result.converged, result.reason
    assert result.top.energy == pytest.approx(exact_top.energy, abs=1e-3)
    assert result.barrier == pytest.approx(exact_top.energy, abs=1e-3)  # the minimum is at zero
    assert result.reaction_energy == pytest.approx(0.0, abs=1e-5)
    assert result.has_barrier
    assert len(result.images) == 7
    assert result.fmax < 0.02
    assert [image.structure.id for image in result.images[:2]] == ["left/neb/00", "left/neb/01"]
    assert {image.structure.group for image in result.images} == {"g"}
    assert (result.change.formed, result.change.broken) == ((), ())
    lengths = [image.path_length for image in result.images]
    assert np.diff(lengths).min() > 0.7 * np.diff(lengths).mean()  # about equally spaced, without rigid motions
    # Forces belong to their geometries, of the product too, which was turned.
    for image in result.images:
        exact = oracles.Morse().exact(image.structure)
        assert image.energy == pytest.approx(exact.energy, abs=1e-9)
        np.testing.assert_allclose(image.forces, -exact.gradient, atol=1e-8)
    assert np.linalg.norm(result.tangent) == pytest.approx(1.0)
    modes = hesse.normal_modes(result.top.structure, oracles.Morse().exact(result.top.structure).hessian)
    assert modes.n_imaginary == 1
    assert abs(float((modes.vectors[0] * result.tangent).sum())) > 0.9
    frames = result.to_ase()
    assert frames[result.highest].get_potential_energy() == result.top.energy


def test_a_model_evaluates_all_images_in_one_pass():
    model = Counted()
    together = hesse.neb(*inversion(), PotentialEngine(model, "morse"), images=6, fmax=0.05, relax_ends=False)
    assert set(model.sizes) <= {1, 6}
    assert model.sizes.count(6) >= together.steps
    assert together.n_gradients == 2 + 6 * model.sizes.count(6)
    single = hesse.neb(*inversion(), closed_form_engines.own_engine(), images=6, fmax=0.05, relax_ends=False)
    assert together.steps == single.steps
    np.testing.assert_allclose(together.energies, single.energies, atol=1e-7)


def test_a_search_continues_from_its_images(tmp_path):
    ends, file = inversion(), tmp_path / "band.extxyz"
    engine = closed_form_engines.own_engine()
    short = hesse.neb(*ends, engine, images=5, steps=3, keep=file)
    assert not short.converged
    assert "after 3 iterations, limit 0.1" in short.reason
    assert len(read(file, ":")) == 7
    again = hesse.neb(*ends, engine, images=5, keep=file)
    fresh = hesse.neb(*ends, engine, images=5)
    assert again.converged
    assert again.n_gradients < fresh.n_gradients
    assert again.top.energy == pytest.approx(fresh.top.energy, abs=0.02)
    # The images of a result are a start too.
    started = hesse.neb(*ends, engine, images=5, start=[image.structure for image in again.images])
    assert started.steps <= 2
    with pytest.raises(RequestError, match="another path"):
        hesse.neb(*ends, engine, images=4, keep=file)
    with pytest.raises(RequestError, match="expected 4 images"):
        hesse.neb(*ends, engine, images=4, start=[image.structure for image in again.images])


def test_an_interruption_keeps_the_images(tmp_path):
    file, engine = tmp_path / "band.extxyz", closed_form_engines.own_engine()
    stops_at = 60

    class Stops(oracles.Morse):
        def exact(self, structure):
            if engine.calls > stops_at:
                raise KeyboardInterrupt
            return super().exact(structure)

    engine.oracle = Stops()
    with pytest.raises(KeyboardInterrupt):
        hesse.neb(*inversion(), engine, images=5, keep=file)
    kept = read(file, ":")
    assert len(kept) == 7
    stops_at = 10**9
    again = hesse.neb(*inversion(), engine, images=5, steps=1, keep=file)
    moved = [
        np.abs(a.get_all_distances() - b.get_all_distances()).max() for a, b in zip(read(file, ":"), kept, strict=True)
    ]
    assert max(moved) < 0.5
    assert again.n_gradients < 30


def test_ends_with_other_atoms_get_a_reply_that_names_them():
    left, right = inversion((6, 8, 1, 1))
    engine = closed_form_engines.own_engine()
    swapped = Structure([6, 1, 8, 1], right.positions, id="right")
    with pytest.raises(RequestError, match="atom 1 is O and H, atom 2 is H and O"):
        hesse.neb(left, swapped, engine)
    with pytest.raises(RequestError, match="they are CH2O and CH4"):
        hesse.neb(left, Structure([6, 1, 1, 1, 1], np.eye(5, 3) * 2), engine)
    charged = Structure(right.numbers, right.positions, charge=1)
    with pytest.raises(RequestError, match="different charges: 0 and 1"):
        hesse.neb(left, charged, engine)
    with pytest.raises(ConfigError, match="positive images"):
        hesse.neb(left, right, engine, images=0)


@pytest.mark.parametrize("kind", [EngineError, GeometryError])
def test_a_failure_names_its_image(kind):
    class Fails(oracles.Morse):
        def exact(self, structure):
            # The middle of the path is flat, the ends are not.
            if np.linalg.svd(structure.positions - structure.positions.mean(0))[1][2] < 0.05:
                raise kind("no convergence")
            return super().exact(structure)

    with pytest.raises(kind, match="failed at image 3 of 5: no convergence"):
        hesse.neb(*inversion(), closed_form_engines.ClosedForm(Fails()), images=5)


def test_a_model_without_an_element_gets_a_reply():
    model = hesse.HesseNet(hesse.HesseNetConfig(features=4, channels=2, radial=3, cutoff=3.0), (1, 8)).double()
    with pytest.raises(UnknownElementError, match="C"):
        hesse.neb(*inversion(), model)


def test_failures_of_a_pass_stay_with_their_structures():
    class NotFinite(oracles.Morse):
        def forward(self, batch):
            energies = super().forward(batch)
            return energies + torch.where(batch.numbers == 9, float("nan"), 0.0)

    structures = [
        oracles.molecule(4, 1),
        Structure([9, 1], [[0, 0, 0], [0, 0, 1.0]], id="fluorine"),
        Structure([1, 1], [[0, 0, 0], [0, 0, 0.1]], id="crowded"),
        oracles.molecule(5, 2),
    ]
    found = PointEvaluator(PotentialEngine(NotFinite(), "morse"))(structures)
    assert isinstance(found[1], EngineError)
    assert "fluorine" in str(found[1])
    assert isinstance(found[2], GeometryError)
    for k in (0, 3):
        exact = oracles.Morse().exact(structures[k])
        assert isinstance(found[k], Point)
        assert found[k].energy == pytest.approx(exact.energy)
        np.testing.assert_allclose(found[k].gradient, exact.gradient, atol=1e-9)


def test_atoms_that_meet_on_a_straight_path_go_around_each_other(tmp_path):
    pytest.importorskip("tblite.interface", reason="tblite is not installed")
    hcn = Atoms("CNH", [[0, 0, 0], [1.16, 0, 0], [-1.07, 0, 0]])
    write(tmp_path / "hnc.xyz", Atoms("CNH", [[0, 0, 0], [1.17, 0, 0], [2.17, 0, 0]]))
    result = hesse.neb(hcn, tmp_path / "hnc.xyz", "gfn2")
    assert result.converged, result.reason
    assert result.change.formed == ((1, 2),)
    assert result.change.broken == ((0, 2),)
    top = hesse.saddle(result.top.structure, "gfn2")
    assert top.converged
    assert top.energy == pytest.approx(result.top.energy, abs=0.01)
    assert to_ase(result.images[0].structure).get_chemical_formula() == "CHN"


def test_periodic_images_take_the_shortest_way():
    cell = 6.0 * np.eye(3)
    left = Structure([6, 6], [[0.1, 0, 0], [1.2, 0, 0]], cell=cell, pbc=(True,) * 3, id="cell")
    right = Structure([6, 6], [[5.9, 0, 0], [1.1, 0, 0]], cell=cell, pbc=(True,) * 3)
    result = hesse.neb(
        left, right, PotentialEngine(oracles.Morse(cutoff=2.9), "morse"), images=3, relax_ends=False, steps=1
    )
    gaps = [image.structure.positions[0, 0] for image in result.images]
    assert max(abs(x - 0.1) for x in gaps) < 0.5  # not across the cell
    with pytest.raises(RequestError, match="different cells"):
        hesse.neb(left, Structure([6, 6], right.positions, cell=1.1 * cell, pbc=(True,) * 3), oracles.Morse())
