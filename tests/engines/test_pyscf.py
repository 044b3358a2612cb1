"""PySCF: Hartree-Fock against analytic Hessians, functionals against finer grids, charge and spin, replies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.build import molecule as g2

from hesse.datasets import sum_rule_errors
from hesse.errors import ConfigError, EngineError, RequestError, UnknownOptionError
from hesse.structures import Request, Structure, from_ase

pytest.importorskip("pyscf", reason="PySCF is not installed")

from pyscf.dft.numint import NumInt
from pyscf.scf.hf import SCF

from hesse.engines import FiniteDifferences, PyscfEngine, make_engine
from hesse.engines.pyscf import scf

HF = "hf/sto-3g"


def rms(values):
    return float(np.sqrt(np.mean(np.square(np.asarray(values)))))


def rattled(name, seed=0, **state):
    atoms = g2(name)
    atoms.positions += 0.05 * np.random.default_rng(seed).normal(size=atoms.positions.shape)
    plain = from_ase(atoms, id=name)
    return Structure(plain.numbers, plain.positions, id=name, **state) if state else plain


def signs(structure, count=1, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).choice([-1.0, 1.0], size=(count, len(structure), 3)))


CATION = {"charge": 1, "multiplicity": 2}


@pytest.mark.parametrize("structure", [rattled("H2O"), rattled("H2O", **CATION)], ids=["closed", "open"])
@pytest.mark.parametrize("is_richardson", [False, True], ids=["two", "four"])
def test_products_by_differences_equal_the_analytic_hessian(structure, is_richardson):
    probes = signs(structure, 2)
    exact = PyscfEngine(HF, gradient_threshold=1e-9).compute(structure, Request(forces=True, hessian=True))
    engine = PyscfEngine(HF, differences=FiniteDifferences(richardson=is_richardson))
    labels = engine.compute(structure, Request(forces=True, probes=probes))
    expected = torch.einsum("iajb,kjb->kia", exact.hessian_of(0), probes)
    true = (labels.hvp - expected).square().mean((1, 2)).sqrt()
    assert float(true.max()) < (2e-4 if is_richardson else 2e-3)
    assert bool((true < 3 * labels.hvp_error[:, 0]).all())
    if not is_richardson:
        assert bool((labels.hvp_error[:, 0] < 3 * true).all())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["wb97x/sto-3g", "hse06/sto-3g"], ids=["long", "short"])
@pytest.mark.parametrize("state", [{}, CATION], ids=["closed", "open"])
def test_range_separated_exchange_is_that_of_pyscf(method, state, monkeypatch):
    """With integrals that are kept, also in the analytic Hessian; they are computed once."""
    structure, calls = rattled("H2", **state), []
    settings = {"grid": 0, "hvp": "analytic"}
    request = Request(forces=True, probes=signs(structure), hessian=True)
    kept = PyscfEngine(method, **settings).compute(structure, request)
    monkeypatch.setattr(scf, "_KEPT_FRACTION", 0.0)
    original = SCF.get_jk

    def counted(self, *arguments, **options):
        calls.append(options.get("omega") or (arguments[5] if len(arguments) > 5 else None))
        return original(self, *arguments, **options)

    monkeypatch.setattr(SCF, "get_jk", counted)
    direct = PyscfEngine(method, **settings).compute(structure, request)
    assert any(calls), "this functional has no range-separated exchange"
    assert kept.energy == pytest.approx(direct.energy, abs=1e-8)
    for name in ("forces", "hessian", "hvp"):
        torch.testing.assert_close(kept[name], direct[name], rtol=0, atol=1e-6)
    calls.clear()
    monkeypatch.setattr(scf, "_KEPT_FRACTION", 0.25)
    PyscfEngine(method, **settings).compute(structure, request)
    assert not any(calls)


@pytest.mark.parametrize("method", ["svwn/sto-3g", "pbe/sto-3g", "r2scan/sto-3g"], ids=["LDA", "GGA", "meta-GGA"])
@pytest.mark.parametrize("state", [{}, CATION], ids=["closed", "open"])
def test_basis_functions_are_computed_once_for_all_cycles(method, state, monkeypatch):
    structure, calls = rattled("H2", **state), []
    original = NumInt.block_loop

    def counted(self, *arguments, **options):
        calls.append(arguments)
        return original(self, *arguments, **options)

    monkeypatch.setattr(NumInt, "block_loop", counted)
    engine = PyscfEngine(method, grid=0)
    kept = engine.compute(structure, Request(forces=True))
    assert len(calls) == 1
    monkeypatch.setattr(scf, "_KEPT_FRACTION", 0.0)
    computed_again = engine.compute(structure, Request(forces=True))
    assert len(calls) > 3
    assert kept.energy == pytest.approx(computed_again.energy, abs=1e-9)
    torch.testing.assert_close(kept.forces, computed_again.forces, rtol=0, atol=1e-7)


@pytest.mark.parametrize("method", [HF, "wb97x/6-31g*"])
def test_fitted_densities(method):
    """Close to the exact integrals, and forces are derivatives of the fitted energy."""
    structure = rattled("H2O")
    request = Request(forces=True, probes=signs(structure))
    options = {} if method == HF else {"grid": 1}
    exact = PyscfEngine(method, **options).compute(structure, request)
    engine = PyscfEngine(method, density_fit=True, **options)
    fitted = engine.compute(structure, request)
    assert 1e-6 < abs(float(fitted.energy - exact.energy)) < 0.01
    assert rms(fitted.forces - exact.forces) < 5e-3
    assert rms(fitted.hvp - exact.hvp) < 0.05
    direction, step = np.random.default_rng(3).normal(size=structure.positions.shape), 1e-4
    ends = [structure.with_positions(structure.positions + s * step * direction, id=f"at {s}") for s in (-1, 1)]
    below, above = (float(engine.compute(end, Request()).energy) for end in ends)
    slope = -float((fitted.forces.numpy() * direction).sum())
    assert (above - below) / (2 * step) == pytest.approx(slope, abs=3e-5)
    assert engine.settings["density_fit"] == "def2-universal-jkfit"
    assert engine.settings["hessian_by"] == "differences"


@pytest.mark.parametrize("structure", [rattled("H2CO"), rattled("H2O", **CATION)], ids=["closed", "open"])
def test_analytic_labels_fulfil_the_sum_rules(structure):
    probes = signs(structure)
    labels = PyscfEngine(HF, hvp="analytic").compute(structure, Request(forces=True, probes=probes, hessian=True))
    hessian = labels.hessian_of(0)
    assert torch.equal(hessian, hessian.permute(2, 3, 0, 1))
    defects = sum_rule_errors([structure], labels)
    for name in ("hvp_translation", "hvp_rotation", "hessian_translation", "hessian_rotation"):
        assert float(getattr(defects, name).max()) < 2e-5, name
    assert rms(torch.einsum("iajb,kjb->kia", hessian, probes) - labels.hvp) < 5e-5


def test_hessians_by_differences_equal_analytic_ones():
    water = rattled("H2O")
    exact = PyscfEngine(HF).compute(water, Request(hessian=True))
    labels = PyscfEngine(HF, hessian="differences").compute(water, Request(hessian=True))
    true = rms(labels.hessian - exact.hessian)
    assert true < 1e-4
    assert true / 3 < float(labels.hessian_error[0]) < 4 * true


def test_grid_errors_of_functionals_are_estimated():
    """Against a finer grid. The error of the coarse one is much larger than those of step and convergence."""
    molecule = rattled("HF")
    request = Request(forces=True, probes=signs(molecule))
    coarse, fine = (PyscfEngine("pbe/sto-3g", grid=grid).compute(molecule, request) for grid in (0, 4))
    true = rms(coarse.hvp - fine.hvp)
    assert true > 5e-3
    assert true / 3 < float(coarse.hvp_error[0, 0]) < 3 * true
    assert float(fine.hvp_error[0, 0]) < float(coarse.hvp_error[0, 0])


def test_error_of_the_grid_is_part_of_the_estimate_of_analytic_products():
    pytest.importorskip("pyscf.dispersion", reason="pyscf-dispersion is not installed")
    molecule = rattled("HF")
    probes = signs(molecule)
    plain, everything = Request(forces=True, probes=probes), Request(forces=True, probes=probes, hessian=True)
    with_grid = PyscfEngine("pbe-d3bj/sto-3g", grid=1).compute(molecule, plain)
    without = PyscfEngine("pbe-d3bj/sto-3g", grid=1, hvp="analytic", hessian="analytic").compute(molecule, everything)
    difference = rms(with_grid.hvp - without.hvp)
    assert difference > 5e-3
    assert float(without.hvp_error[0, 0]) > difference / 3
    # Dispersion is part of the products too: analytic products and Hessians agree.
    assert rms(torch.einsum("iajb,kjb->kia", without.hessian_of(0), probes) - without.hvp) < 1e-4


@pytest.mark.parametrize("method", ["wb97x-d3bj/sto-3g", "wb97x-d4/sto-3g", "hf-d3bj/sto-3g"])
def test_dispersion_is_included_and_forces_are_derivatives(method):
    pytest.importorskip("pyscf.dispersion", reason="pyscf-dispersion is not installed")
    dimer = Structure([2, 2], [[0, 0, 0], [0, 0, 3.0]], id="dimer")
    engine = PyscfEngine(method, grid=1)
    energies = []
    for z in (2.999, 3.001):
        energies.append(engine.compute(Structure([2, 2], [[0, 0, 0], [0, 0, z]]), Request()).energy.item())
    labels = engine.compute(dimer, Request(forces=True))
    assert -labels.forces[1, 2].item() == pytest.approx((energies[1] - energies[0]) / 2e-3, abs=2e-5)
    if method.startswith("hf"):
        assert labels.energy.item() < PyscfEngine(HF).compute(dimer, Request()).energy.item() - 1e-4
    assert engine.settings["dispersion"].startswith(("d3bj:", "d4:"))


def test_charge_and_multiplicity_are_those_of_the_structure():
    water = rattled("H2O")
    energies = [
        PyscfEngine(HF).compute(Structure(water.numbers, water.positions, **state), Request()).energy.item()
        for state in ({}, CATION, {"multiplicity": 3}, {"charge": -1, "multiplicity": 2})
    ]
    assert energies[1] - energies[0] > 5.0
    assert energies[2] - energies[0] > 3.0
    hydrogen = PyscfEngine("hf/cc-pvtz").compute(Structure([1], [[0, 0, 0]], multiplicity=2), Request(forces=True))
    assert hydrogen.energy.item() == pytest.approx(-13.6057, abs=0.006)


def test_a_point_does_not_depend_on_earlier_points():
    water = rattled("H2O")
    surface = PyscfEngine(HF).energy_function(water)
    first = surface(water.positions + 0.01)
    surface(water.positions * 1.3)
    again = surface(water.positions + 0.01)
    assert again.energy == first.energy
    assert np.array_equal(again.forces, first.forces)


def test_nothing_is_printed_and_no_files_are_left(capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PyscfEngine("pbe/sto-3g", grid=0).compute(rattled("HF"), Request(forces=True))
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_core_potentials_come_with_their_basis_sets():
    iodide = Structure([1, 53], [[0, 0, 0], [0, 0, 1.62]], id="HI")
    labels = PyscfEngine("hf/def2-svp").compute(iodide, Request(forces=True))
    # 28 electrons replaced: a few hundred Hartree, where all 54 would make thousands.
    assert -400 * 27.2 < labels.energy.item() < -200 * 27.2


def test_cartesian_d_functions():
    water = rattled("H2O")
    five, six = (
        PyscfEngine("hf/6-31g*", cartesian=cartesian).compute(water, Request()).energy.item()
        for cartesian in (False, True)
    )
    assert six < five - 1e-3


def test_the_second_order_method_is_used_where_the_first_fails():
    water = rattled("H2O")
    engine = PyscfEngine(HF, max_cycles=5)
    usual = PyscfEngine(HF).compute(water, Request(forces=True))
    labels = engine.compute(water, Request(forces=True))
    assert labels.energy.item() == pytest.approx(usual.energy.item(), abs=1e-7)
    with pytest.raises(EngineError, match=r'"H2O".*did not converge in 1 cycles'):
        PyscfEngine(HF, max_cycles=1).compute(water, Request())


def test_the_choice_of_auto_is_recorded():
    assert PyscfEngine(HF, hvp="auto", probes=8).settings["hvp_by"] == "analytic"
    assert PyscfEngine(HF, hvp="auto", probes=2).settings["hvp_by"] == "differences"
    assert PyscfEngine("pbe/sto-3g", hvp="auto", probes=99).settings["hvp_by"] == "differences"
    engine = make_engine("pyscf:hf/sto-3g?hvp=auto,probes=8")
    assert dict(engine.settings) == dict(make_engine("pyscf:hf/sto-3g?hvp=analytic").settings)
    assert "step" not in engine.settings
    settings = make_engine("pyscf:wb97x/6-31g*?grid=3").settings
    assert (settings["grid"], settings["hvp_by"], settings["hessian_by"]) == ("3", "differences", "differences")
    assert settings["program"].startswith("pyscf ")


def test_invalid_structures_and_settings_get_a_reply():
    water = rattled("H2O")
    engine = PyscfEngine(HF)
    with pytest.raises(RequestError, match=r'"w".*9 electrons.*multiplicity 1'):
        engine.compute(Structure(water.numbers, water.positions, charge=1, id="w"), Request())
    with pytest.raises(RequestError, match=r'"p".*0 electrons'):
        engine.compute(Structure([1], [[0, 0, 0]], charge=1, id="p"), Request())
    with pytest.raises(RequestError, match=r'"c".*has a cell'):
        engine.compute(Structure([2], [[0, 0, 0]], cell=5 * np.eye(3), pbc=(True, True, True), id="c"), Request())
    with pytest.raises(RequestError, match=r'"u".*U in 6-31g\*'):
        PyscfEngine("hf/6-31g*").compute(Structure([92], [[0, 0, 0]], id="u"), Request())
    with pytest.raises(ConfigError, match='"grid" = 12: expected 9 or less'):
        PyscfEngine(HF, grid=12)
    with pytest.raises(ConfigError, match="hvp=differences together with density_fit"):
        PyscfEngine(HF, density_fit=True, hvp="analytic")
    with pytest.raises(ConfigError, match=r"probes=\.\.\."):
        PyscfEngine(HF, hvp="auto")
    with pytest.raises(ConfigError, match=r'"gradient_threshold" = 0\.0: expected more than 0'):
        PyscfEngine(HF, gradient_threshold=0.0)
    with pytest.raises(UnknownOptionError, match="differences"):
        PyscfEngine(HF, hvp="difference")


@pytest.mark.long
def test_a_structure_of_reference_data_is_reproduced(shared_data):
    """Energy, forces and H v of the smallest molecule computed elsewhere with wB97X/6-31G(d). Minutes: 8 atoms. The
    reference's own noise floor is 0.02 to 0.1 eV/Å²."""
    path = shared_data / "horm_sample" / "horm_sample_dev.npz"
    if not path.exists():
        pytest.skip("no HORM sample")
    data = np.load(path)
    sizes = {key.removeprefix("z_"): len(data[key]) for key in data if key.startswith("z_")}
    name = min(sizes, key=lambda key: (sizes[key], data[f"z_{key}"].sum(), key))
    structure = Structure(data[f"z_{name}"], data[f"pos_{name}"].astype(float), id=name)
    probes = signs(structure)
    labels = PyscfEngine("wb97x/6-31g*", grid=3).compute(structure, Request(forces=True, probes=probes))
    index = next(i for i, key in enumerate(data["ids"]) if f"{int(key):03d}" == name)
    assert labels.energy.item() == pytest.approx(float(data["energy"][index]), abs=5e-3)
    assert labels.forces.numpy() == pytest.approx(data[f"forces_{name}"], abs=5e-3)
    hessian = data[f"hessian_{name}"].astype(float)
    expected = 0.5 * (hessian + hessian.T) @ probes[0].numpy().reshape(-1)
    # 3n independent errors of 0.1 eV/Å² at most in each row, added up with random signs.
    assert rms(labels.hvp[0].numpy().reshape(-1) - expected) < 0.1 * np.sqrt(3 * len(structure))
