"""Phonons from engines: closed forms, exact products against differences, symmetry against all columns, bad input."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT

import hesse
import oracles
from closed_form_engines import ClosedForm
from hesse.curvature import HessianOperator
from hesse.errors import ConfigError, EngineError, GeometryError, HarmonicWarning, LabelShapeError, RequestError
from hesse.harmonic.normal_modes import normal_modes
from hesse.lattice import Phonons, band_path, phonons, relax_crystal
from hesse.lattice.supercells import widths
from hesse.structures import Structure, to_ase

sys.path.insert(0, str(Path(__file__).parent))
from closed_forms import THZ, argon_like, exact_frequencies, fcc, rock_salt

pytest.importorskip("phonopy", reason="needs phonopy")

Q = np.array([[0.0, 0.0, 0.0], [0.5, 0.0, 0.5], [0.13, -0.27, 0.4], [0.31, 0.05, 0.11]])
"""Γ, a special point, and two wave vectors that fit no small supercell."""


@pytest.fixture(scope="module")
def network() -> hesse.HesseNet:
    """Random weights, float64."""
    import torch

    torch.manual_seed(3)
    return hesse.HesseNet(hesse.HesseNetConfig(features=8, cutoff=4.0), (11, 17)).double()


def quiet(*arguments: object, **options: object) -> Phonons:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HarmonicWarning)
        return phonons(*arguments, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("crystal", "supercell", "n_products"), [(fcc(), 4, 1), (rock_salt(), 3, 2)])
def test_pair_potentials_in_closed_form(crystal: Structure, supercell: int, n_products: int) -> None:
    oracle = argon_like()
    result = quiet(crystal, oracle, supercell=supercell)
    assert result.report.cutoff < result.report.half_width  # no image interacts with an atom: exact everywhere
    assert result.report.n_displacements == n_products
    expected = np.array([exact_frequencies(crystal, oracle, q) for q in Q])
    np.testing.assert_allclose(result.frequencies(Q), expected, atol=2e-5 * expected.max())
    assert result.report.sum_rule < 1e-12
    assert result.report.asymmetry < 1e-12


def test_a_chain_has_the_dispersion_of_textbooks() -> None:
    # Atoms on a line, far from other lines, with neighbors at 2 Å: ω = 2 √(k/m) |sin(π q)|.
    chain = Structure(np.array([6]), np.zeros((1, 3)), id="chain", cell=np.diag([2.0, 9.0, 9.0]), pbc=(True,) * 3)
    oracle = oracles.Morse(depth=0.5, width=1.4, r0=2.0, cutoff=3.0)
    result = quiet(chain, oracle, supercell=(4, 1, 1))
    stiffness = 2 * 0.5 * 1.4**2
    for q in (0.0, 0.1, 0.25, 0.5):
        expected = 2 * THZ * np.sqrt(stiffness / 12.011) * abs(np.sin(np.pi * q))
        assert result.frequencies([q, 0, 0])[-1] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_symmetry_gives_what_all_columns_give(network: hesse.HesseNet) -> None:
    crystal = rock_salt()
    reduced = quiet(crystal, network, supercell=2)
    full = quiet(crystal, network, supercell=2, symmetry=False)
    assert (reduced.report.n_displacements, full.report.n_displacements) == (2, 6)
    scale = np.abs(full.force_constants).max()
    np.testing.assert_allclose(reduced.force_constants, full.force_constants, atol=1e-10 * scale)
    assert full.report.asymmetry < 1e-10


def test_force_constants_are_rows_of_the_hessian_of_the_supercell(network: hesse.HesseNet) -> None:
    result = quiet(rock_salt(), network, supercell=2)
    hessian = hesse.compute(result.supercell, network, hessian=True).hessian_of(0).numpy()
    rows = hessian.transpose(0, 2, 1, 3)[result.record.primitive.p2s_map]
    np.testing.assert_allclose(result.force_constants, rows, atol=1e-10 * np.abs(rows).max())
    # The waves that fit the supercell are its normal modes.
    own = np.sort(result.frequencies(result.commensurate).ravel())
    modes = normal_modes(result.supercell, hessian)
    expected = np.sort(np.concatenate([modes.frequencies * 0.0299792458, np.zeros(3)]))
    np.testing.assert_allclose(own, expected, atol=1e-4 * np.abs(expected).max())


def test_displacements_converge_to_the_products(network: hesse.HesseNet) -> None:
    # Without inversion symmetry the error of one-sided displacements falls with their length, here of NaCl, whose
    # displacements have an equivalent opposite, with its square.
    exact = quiet(rock_salt(), network, supercell=2).force_constants
    lengths = np.array([0.04, 0.02, 0.01])
    errors = []
    for length in lengths:
        result = quiet(rock_salt(), network, supercell=2, displacement=float(length))
        assert result.report.method == f"displacements of {length:g} Å"
        errors.append(np.abs(result.force_constants - exact).max())
    order = np.polyfit(np.log(lengths), np.log(errors), 1)[0]
    assert order == pytest.approx(2.0, abs=0.15)
    assert errors[-1] < 1e-3 * np.abs(exact).max()


def test_engines_without_second_derivatives_estimate_their_error() -> None:
    oracle = argon_like()
    exact = quiet(fcc(), oracle, supercell=2)
    result = quiet(fcc(), ClosedForm(oracle), supercell=2)
    assert result.report.error is not None
    difference = np.abs(result.force_constants - exact.force_constants).max()
    assert difference < 20 * result.report.error + 1e-9
    np.testing.assert_allclose(result.frequencies(Q), exact.frequencies(Q), atol=1e-3)


def test_masses(network: hesse.HesseNet) -> None:
    oracle = argon_like()
    light = quiet(fcc(), oracle, supercell=2)
    heavy = quiet(fcc(), oracle, supercell=2, masses=[4 * 26.9815385])
    np.testing.assert_allclose(heavy.frequencies(Q[1]) * 2, light.frequencies(Q[1]), rtol=1e-6)
    # Isotopes in order: the primitive cell is that of the masses, not of the elements.
    cubic = to_ase(fcc()).repeat((2, 1, 1))
    mixed = quiet(cubic, oracle, supercell=1, masses=[26.98, 30.0])
    assert len(mixed.primitive) == 2
    q, weights, _ = mixed.mesh((2, 2, 2))
    everywhere = mixed.frequencies([[i / 2, j / 2, k / 2] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    own = np.average(mixed.frequencies(q) ** 2, axis=0, weights=weights)
    np.testing.assert_allclose(own, (everywhere**2).mean(axis=0), rtol=1e-9, atol=1e-9)
    with pytest.raises(RequestError, match="mass"):
        phonons(fcc(), oracle, masses=[1.0, 2.0])


def test_a_large_supercell_is_not_searched_for_symmetry() -> None:
    oracle = oracles.LennardJones(epsilon=0.15, sigma=2.55, cutoff=3.5)
    result = quiet(fcc(), oracle, supercell=9)
    assert len(result.supercell) == 729
    assert result.report.space_group == ""
    assert result.report.n_displacements == 3
    expected = np.array([exact_frequencies(fcc(), oracle, q) for q in Q])
    np.testing.assert_allclose(result.frequencies(Q), expected, atol=2e-5 * expected.max())


def test_bands_and_density_of_states() -> None:
    result = quiet(fcc(), argon_like(), supercell=4)
    bands = result.bands(points=11)
    assert bands.frequencies.shape == (len(bands.path.labels), 11, 3)
    assert bands.path.labels[0][0] == "Γ"
    ends = bands.frequencies[0]
    np.testing.assert_allclose(ends, result.frequencies(bands.path.q[0]), atol=1e-9)
    dos = result.dos((12, 12, 12))
    assert np.trapezoid(dos.density, dos.frequencies) == pytest.approx(3.0, rel=0.01)
    assert len(result.imaginary_modes(bands)) == 0


def test_branches_cross_without_a_corner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bands of copper cross between K and Γ; with degenerate modes at the special points and along Γ-X and Γ-L."""
    result = quiet(bulk("Cu", a=3.59), EMT(), supercell=3)
    bands = result.bands()
    np.testing.assert_array_equal(np.sort(bands.branches, axis=-1), bands.frequencies)
    assert not np.array_equal(bands.branches, bands.frequencies)
    corners = [float(np.abs(np.diff(f, 2, axis=1)).max()) for f in (bands.frequencies, bands.branches)]
    assert corners[1] < 0.02  # THz; measured: 0.011
    assert corners[0] > 0.1
    monkeypatch.setattr("hesse.lattice.phonons_result._MAX_CONNECTED", 2)
    again = result.bands()
    np.testing.assert_allclose(again.frequencies, bands.frequencies, atol=1e-6)
    assert again.branches is again.frequencies


@pytest.mark.slow
def test_the_path_does_not_depend_on_how_the_cell_is_given() -> None:
    oracle = oracles.LennardJones(epsilon=0.15, sigma=2.55, cutoff=3.5)
    conventional = quiet(bulk("Al", "fcc", a=4.05, cubic=True), oracle, supercell=2)
    turned = bulk("Al", "fcc", a=4.05)
    turned.set_cell(turned.cell[[1, 2, 0]] @ oracles.rotation(5), scale_atoms=True)
    other = quiet(turned, oracle, supercell=4)
    a, b = conventional.bands(points=5), other.bands(points=5)
    assert a.path.labels == b.path.labels
    np.testing.assert_allclose(a.path.distances, b.path.distances, atol=1e-8)
    np.testing.assert_allclose(a.frequencies[:, [0, -1]], b.frequencies[:, [0, -1]], atol=1e-3)


def test_imaginary_modes_are_found() -> None:
    # Stretched beyond the inflection of the potential: unstable everywhere but at Γ.
    crystal = Structure(np.array([18]), np.zeros((1, 3)), id="stretched", cell=3.6 * np.eye(3), pbc=(True,) * 3)
    result = quiet(crystal, oracles.LennardJones(epsilon=0.1, sigma=2.4, cutoff=4.5), supercell=3)
    modes = result.imaginary_modes(result.bands(points=5))
    assert modes
    assert modes[0].frequency < -0.05
    assert any(mode.commensurate for mode in modes)
    assert result.thermal(300.0, (4, 4, 4)).imaginary_fraction > 0
    assert "i THz at" in str(modes[0])


def test_small_supercells_forces_and_stress_are_told() -> None:
    oracle = argon_like()
    with pytest.warns(HarmonicWarning, match="exceeds half the width of the supercell"):
        result = phonons(fcc(), oracle, supercell=2)
    # What holds nevertheless: waves that fit the supercell.
    for q in result.commensurate:
        np.testing.assert_allclose(result.frequencies(q), exact_frequencies(fcc(), oracle, q), atol=2e-4)
    moved = rock_salt().with_positions(rock_salt().positions + np.array([[0, 0, 0], [0.1, 0.0, 0.05]]))
    with pytest.warns(HarmonicWarning, match="not relaxed"):
        phonons(moved, oracle, supercell=1)
    with pytest.warns(HarmonicWarning, match="the pressure is"):
        phonons(fcc(), oracle, supercell=1)


def test_relaxation_of_atoms_and_cell() -> None:
    strained = bulk("Cu", a=3.7)
    result = quiet(strained, EMT(), supercell=2, relax_cell=True)
    assert abs(result.pressure) < 0.05
    assert result.structure.cell[0, 1] == pytest.approx(3.59 / 2, abs=0.02)
    state = relax_crystal(result.structure, hesse.as_engine(EMT()), cell=True, pressure=10.0)
    assert state.pressure == pytest.approx(10.0, abs=0.1)
    with pytest.raises(EngineError, match="not relaxed after 1 step"):
        phonons(strained, EMT(), supercell=2, relax_cell=True, steps=1)
    with pytest.raises(RequestError, match="cell is not relaxed"):
        phonons(strained, EMT(), pressure=1.0)


@pytest.mark.slow
def test_matrices_of_supercells() -> None:
    oracle = oracles.LennardJones(epsilon=0.15, sigma=2.55, cutoff=3.5)
    cubic = quiet(fcc(), oracle, supercell=2 * np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]))
    np.testing.assert_allclose(np.abs(cubic.supercell.cell), 8.1 * np.eye(3), atol=1e-9)
    expected = np.array([exact_frequencies(fcc(), oracle, q) for q in Q])
    np.testing.assert_allclose(cubic.frequencies(Q), expected, atol=2e-5 * expected.max())
    default = quiet(fcc(), oracle)
    assert (widths(default.supercell.cell) >= 10.0 - 1e-6).all()


def test_wrong_input_gets_a_reply() -> None:
    oracle = argon_like()
    with pytest.raises(GeometryError, match="it is a molecule"):
        phonons(molecule("H2O"), oracle)
    slab = Atoms("Al", cell=[4, 4, 20], pbc=(True, True, False))
    with pytest.raises(GeometryError, match="periodic in three directions"):
        phonons(slab, oracle)
    with pytest.raises(GeometryError, match="placeholder"):
        phonons(Atoms("Al", cell=np.eye(3), pbc=True), oracle)
    for supercell, words in (
        ((2, 2), "three, or a matrix"),
        ((1.5, 2, 2), "fractions"),
        ((0, 2, 2), "volume"),
        ("2 2 2", "three, or a matrix"),
        ((100, 100, 100), "at most"),
        (np.diag([1, 1, -1]), "volume"),
    ):
        with pytest.raises(ConfigError, match=words):
            phonons(fcc(), oracle, supercell=supercell)
    for primitive in (np.diag([0.4, 1.0, 1.0]), "Q"):
        with pytest.raises(GeometryError, match="multiple of the primitive cell"):
            phonons(fcc(), oracle, supercell=2, primitive=primitive)
    for displacement in (0.0, -0.01, 2.0):
        with pytest.raises(ConfigError, match="displacement"):
            phonons(fcc(), oracle, supercell=2, displacement=displacement)
    with pytest.raises(ConfigError, match="symprec"):
        phonons(fcc(), oracle, supercell=2, symprec=0.0)
    with pytest.raises(RequestError):
        phonons(fcc(), None, supercell=2)  # type: ignore[arg-type]


def test_wrong_wave_vectors_and_meshes_get_a_reply() -> None:
    result = quiet(fcc(), argon_like(), supercell=3)
    for q in ([0.0, 0.0], [[0.0, np.nan, 0.0]], "gamma"):
        with pytest.raises(LabelShapeError, match="wave vectors"):
            result.frequencies(q)
    with pytest.raises(LabelShapeError, match="one wave vector"):
        result.modes(Q)
    for mesh in (0, -3.0, (2, 2), (2, 2, 0), "fine"):
        with pytest.raises(ConfigError, match="mesh"):
            result.mesh(mesh)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="temperature"):
        result.thermal(-5.0, (2, 2, 2))
    with pytest.raises(ConfigError, match="points"):
        band_path(result.record.primitive, 1)


def test_eigenvectors_diagonalize(network: hesse.HesseNet) -> None:
    result = quiet(rock_salt(), network, supercell=2)
    frequencies, vectors = result.modes([0.0, 0.0, 0.0])
    operator = HessianOperator(network, result.primitive)
    import torch

    masses = np.sqrt(result.primitive.atomic_masses)[:, None]
    vector = np.real(vectors[-1] * np.exp(-1j * np.angle(vectors[-1].ravel()[np.abs(vectors[-1]).argmax()])))
    product = operator(torch.as_tensor(vector / masses)[None])[0].numpy() / masses
    assert THZ**2 * np.vdot(vector, product) == pytest.approx(frequencies[-1] * abs(frequencies[-1]), rel=1e-4)


@pytest.mark.parametrize("displacement", [None, 0.01])
def test_interrupted_work_continues(tmp_path: Path, displacement: float | None) -> None:
    class Failing(ClosedForm):
        def compute(self, structure, request=hesse.Request(forces=True)):  # type: ignore[no-untyped-def]
            if self.done == 3:
                raise EngineError("out of memory")
            self.done += 1
            return super().compute(structure, request)

    options = {"supercell": (2, 1, 1), "symmetry": False, "displacement": displacement, "cache": tmp_path / "kept"}
    engine, whole, rest = Failing(argon_like()), ClosedForm(argon_like()), ClosedForm(argon_like())
    engine.done = 0
    with pytest.raises(EngineError, match="out of memory"):
        quiet(fcc(), engine, **options)
    found = quiet(fcc(), rest, **options)
    np.testing.assert_array_equal(
        found.force_constants, quiet(fcc(), whole, **options | {"cache": None}).force_constants
    )
    assert rest.calls < whole.calls
