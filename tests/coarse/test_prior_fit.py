"""Priors fitted to data of known distributions, the noise of forces, and a network on top of a prior."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import hesse.reports
from hesse.coarse import check_state_points, explained_forces, fit_prior, force_noise
from hesse.datasets import Dataset
from hesse.errors import ConfigError, HesseError, MissingLabelError, RequestError
from hesse.models import BeadPrior, BeadPriorConfig, PairRepulsion, SumPotential, save_model
from hesse.reports.prior_figure import draw_prior
from hesse.structures import Properties, Structure, bead_number
from hesse.units import BOLTZMANN

KT = BOLTZMANN * 300
A, B = bead_number("A"), bead_number("B")


def grid_liquid(frames: int = 6, spacing: float = 4.0, seed: int = 0, tag: str = "300K") -> Dataset:
    """27 beads near a grid, each at most 0.4 Å away along each axis, with forces of known size."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3) * spacing
    structures, forces = [], []
    for k in range(frames):
        positions = grid + rng.uniform(-0.4, 0.4, size=grid.shape)
        structures.append(
            Structure(
                np.full(27, A), positions, id=f"{tag}/{seed}/{k}", cell=3 * spacing * np.eye(3), pbc=(True,) * 3,
                masses=np.full(27, 30.0), tag=tag, group=f"{tag} {k}",
            )
        )  # fmt: skip
        directions = rng.normal(size=(27, 3))
        forces.append(0.3 * directions / np.linalg.norm(directions, axis=1)[:, None])
    labels = Properties(n_atoms=torch.full((frames,), 27), forces=torch.from_numpy(np.concatenate(forces)))
    return Dataset(tuple(structures), labels)


def test_the_repulsion_begins_where_beads_are_seen() -> None:
    data = grid_liquid(frames=40)
    fit = fit_prior(data)
    closest = min(s.neighbors(6.0).distances.min() for s in data.structures)
    pair = fit.potential.config.pairs[0]
    assert closest <= pair.taper + 0.025
    assert pair.taper < closest + 0.15, "the first bins with a few pairs"
    assert pair.strength == pytest.approx(0.3, rel=1e-12)
    assert pair.types == ("A", "A")
    g = fit.pairs[0]
    assert g.g[g.distances < closest - 0.05].max() == 0


def test_several_state_points_give_the_smallest_taper() -> None:
    near, far = grid_liquid(spacing=3.5, tag="300K 1.0g/cm3"), grid_liquid(spacing=5.0, tag="400K 0.4g/cm3")
    tapers = [fit_prior(d).potential.config.pairs[0].taper for d in (near, far)]
    both = fit_prior(near + far)
    assert both.potential.config.pairs[0].taper == min(tapers)
    assert both.pairs[0].temperature == 350


def chains(molecules: int = 8, frames: int = 60, seed: int = 0, length: float = 24.0) -> Dataset:
    """A-B-A molecules whose bonds and angles come from harmonic distributions of known stiffness."""
    rng = np.random.default_rng(seed)
    corners = np.stack(np.meshgrid(*[[0.0, 0.5 * length]] * 3, indexing="ij"), -1).reshape(-1, 3)[:molecules]
    structures = []
    for k in range(frames):
        positions = []
        for corner in corners:
            one, two = 2.5 + np.sqrt(KT / 8.0) * rng.normal(size=2)
            cosine = np.clip(-0.4 + np.sqrt(KT / 1.5) * rng.normal(), -1, 1)
            local = np.array([[one, 0, 0], [0, 0, 0], [two * cosine, two * np.sqrt(1 - cosine**2), 0]])
            place = corner + rng.uniform(-0.8, 0.8, size=3)
            positions.append(local @ np.linalg.qr(rng.normal(size=(3, 3)))[0] + place)
        structures.append(
            Structure(
                np.array([A, B, A] * molecules), np.concatenate(positions) % length, id=str(k), cell=length * np.eye(3),
                pbc=(True,) * 3, masses=np.full(3 * molecules, 15.0), tag="300K",
            )
        )  # fmt: skip
    n = 3 * molecules * frames
    labels = Properties(n_atoms=torch.full((frames,), 3 * molecules), forces=torch.ones(n, 3, dtype=torch.float64))
    return Dataset(tuple(structures), labels, metadata={"molecules": '[["A", "B", "A"]]'})


def test_bonds_and_angles_are_those_of_the_distributions() -> None:
    molecule = fit_prior(chains(length=12.0)).potential.config.molecules[0]
    assert [bond.beads for bond in molecule.bonds] == [(0, 1), (1, 2)]
    for bond in molecule.bonds:
        assert bond.length == pytest.approx(2.5, abs=0.01)
        assert bond.stiffness == pytest.approx(8.0, rel=0.2)
    (angle,) = molecule.angles
    assert angle.beads == (0, 1, 2)
    assert angle.cosine == pytest.approx(-0.4, abs=0.02)
    assert angle.stiffness == pytest.approx(1.5, rel=0.25)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_the_picture_is_drawn(tmp_path: Path, suffix: str) -> None:
    draw_prior(tmp_path / f"prior{suffix}", fit_prior(chains(length=12.0)))
    assert (tmp_path / f"prior{suffix}").stat().st_size > 5000


def test_the_picture_has_no_markup_and_its_legend_is_below_the_panels(tmp_path: Path) -> None:
    draw_prior(tmp_path / "prior.svg", fit_prior(chains(length=12.0)))
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "prior.svg").read_text())
    assert not [text for text in texts if "$" in text]
    assert "−kT ln g" in texts
    for text in texts:  # three panels of 3.6 inches each
        assert len(text) < 45
    for module in Path(hesse.reports.__file__).parent.glob("*.py"):
        assert not re.search(r"\$[^$\n]*\$", module.read_text()), f"{module}: figures do not read LaTeX"


def test_wrong_data() -> None:
    data = grid_liquid()
    with pytest.raises(MissingLabelError, match="no forces"):
        fit_prior(Dataset(data.structures, data.labels.replace(forces=None)))
    untagged = grid_liquid(tag="")
    with pytest.raises(RequestError, match="names no temperature"):
        fit_prior(untagged)
    assert fit_prior(untagged, temperature=300).potential.config.pairs
    mixed = grid_liquid(tag="") + grid_liquid(spacing=4.5, seed=1, tag="")
    with pytest.raises(RequestError, match=r"densities from .* without tags: several state points are mixed"):
        fit_prior(mixed, temperature=300)
    check_state_points(data.structures)
    with pytest.raises(RequestError, match="are nowhere closer than 10 Å"):
        fit_prior(chains(molecules=2, frames=2))


def test_noise_and_limit_of_explained_forces() -> None:
    """Forces of a known potential plus noise of known variance."""
    prior = BeadPrior(BeadPriorConfig(pairs=(PairRepulsion(types=("A", "A"), taper=3.6, strength=2.0),)), (A,))
    data = grid_liquid(frames=5)
    exact = hesse.evaluate_structures(prior, data.structures, hesse.Request(forces=True)).forces
    assert exact is not None
    rng = np.random.default_rng(5)
    noisy, fixed = [], []
    for k, s in enumerate(data.structures):
        for copy in range(8):
            fixed.append(Structure(s.numbers, s.positions, id=f"{k}-{copy}", masses=s.masses, tag=s.tag, group=str(k)))
            noisy.append(exact[27 * k : 27 * k + 27] + 0.1 * torch.from_numpy(rng.normal(size=(27, 3))))
    repeated = Dataset(tuple(fixed), Properties(n_atoms=torch.full((40,), 27), forces=torch.cat(noisy)))
    noise = force_noise(repeated)
    tag = data.structures[0].tag
    assert noise == {(tag, "A"): pytest.approx(0.01, rel=0.05)}
    labels = Properties(n_atoms=data.labels.n_atoms, forces=torch.cat(noisy[::8]))
    (row,) = explained_forces(prior, Dataset(data.structures, labels), noise=noise)
    assert row.residual == pytest.approx(0.1, rel=0.1)
    assert row.limit is not None
    assert row.standard_error is not None
    assert abs(row.explained - row.limit) < 0.05
    with pytest.raises(RequestError, match=r"the noise is that of '350K', the frames are of .*: noise of the"):
        explained_forces(prior, data, noise={("350K", "A"): 0.01})
    moved = fixed[1].with_positions(fixed[1].positions + 0.1, id="moved")
    with pytest.raises(RequestError, match=r'"0-0" and "moved" of group .* different positions'):
        force_noise(Dataset((fixed[0], moved), Properties(n_atoms=torch.tensor([27, 27]), forces=torch.cat(noisy[:2]))))
    with pytest.raises(RequestError, match="several frames with the same positions"):
        force_noise(data)


def test_noise_in_another_form_is_refused() -> None:
    data = grid_liquid()
    prior = fit_prior(data).potential
    with pytest.raises(RequestError, match=r"by \(state point, bead type\)"):
        explained_forces(prior, data, noise={"A": 0.01})  # type: ignore[dict-item]
    assert [row.limit for row in explained_forces(prior, data, noise={})] == [None]
    mixed = [
        Structure(s.numbers, s.positions, id=f"{k}", masses=s.masses, tag=f"{k}00K", group="g")
        for k, s in enumerate([data.structures[0]] * 2)
    ]
    labels = Properties(n_atoms=torch.tensor([27, 27]), forces=torch.zeros(54, 3, dtype=torch.float64))
    with pytest.raises(RequestError, match="are of different state points"):
        force_noise(Dataset(tuple(mixed), labels))


def test_noise_of_several_bead_types_and_state_points() -> None:
    """Each state point has its own noise, each bead type too, and all beads of a state point together."""
    rng = np.random.default_rng(6)
    structures, forces = [], []
    for tag, factor in (("300K", 1.0), ("350K", 2.0)):
        for copy in range(400):
            structures.append(
                Structure([A, A, B], 4.0 * np.eye(3), id=f"{tag}-{copy}", masses=[1.0] * 3, tag=tag, group=tag)
            )
            forces.append(torch.from_numpy(rng.normal(scale=factor * np.array([[0.1], [0.1], [0.3]]), size=(3, 3))))
    noise = force_noise(Dataset(tuple(structures), Properties(n_atoms=torch.full((800,), 3), forces=torch.cat(forces))))
    expected = {"A": 0.01, "B": 0.09, "all": (2 * 0.01 + 0.09) / 3}
    assert noise == {
        (tag, bead): pytest.approx(factor**2 * value, rel=0.1)
        for tag, factor in (("300K", 1.0), ("350K", 2.0))
        for bead, value in expected.items()
    }


def test_a_network_is_trained_on_top_of_a_prior(tmp_path: Path) -> None:
    data = grid_liquid()
    fit = fit_prior(data)
    save_model(tmp_path / "prior.hesse", fit.potential)
    config = {
        "model": {"kind": "hipnn", "l_max": 2, "features": 4, "sensitivities": 4, "blocks": 1, "onsite_layers": 0,
                  "cutoff": 5.5, "shortest": 2.5, "longest": 5.0},
        "baseline": tmp_path / "prior.hesse",
        "weights": {"energy": 0, "forces": 1, "hvp": 0},
        "steps": 3, "validate_every": 3, "compile": "never", "batch": {"structures": 2},
    }  # fmt: skip
    result = hesse.train(data, data, config | {"allow_shared_structures": True}, output=tmp_path / "run", quiet=True)
    model = hesse.load_model(tmp_path / "run" / "model.hesse")
    assert isinstance(model, SumPotential)
    prior, _ = model.parts
    assert isinstance(prior, BeadPrior)
    assert prior.config == fit.potential.config
    close = Structure(np.array([A, A]), [[0, 0, 0], [2.0, 0, 0]], masses=np.ones(2))  # type: ignore[arg-type]
    force = hesse.evaluate_structures(result.potential, [close], hesse.Request(forces=True)).forces
    assert force is not None
    assert float(force[1, 0]) > 100 * 0.3, "beads on top of each other are pushed apart"
    # Another prior is another run.
    other = BeadPrior(BeadPriorConfig(pairs=(PairRepulsion(types=("A", "A"), taper=3.0, strength=1.0),)), (A,))
    save_model(tmp_path / "prior.hesse", other)
    with pytest.raises(HesseError, match="potential that it starts from"):
        hesse.train(data, data, config | {"allow_shared_structures": True}, output=tmp_path / "run", quiet=True)
    with pytest.raises(ConfigError, match="leave out model, repulsion and baseline"):
        hesse.TrainConfig(baseline=tmp_path / "prior.hesse", init_from="a.hesse")
    foreign = Structure(np.array([B, B]), [[0, 0, 0], [3.0, 0, 0]], masses=np.ones(2))  # type: ignore[arg-type]
    other_beads = Dataset((foreign,), Properties(n_atoms=torch.tensor([2]), forces=torch.zeros(2, 3)))
    with pytest.raises(HesseError, match=r"holds B; the baseline .*prior\.hesse knows A only"):
        hesse.train(other_beads, None, config, output=tmp_path / "other", quiet=True)
