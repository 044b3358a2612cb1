"""The study of loss schemes: errors of modes and free energies against closed forms, and the script on tiny data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy import ndarray

HERE = Path(__file__).parents[2] / "benchmarks" / "reactions"
sys.path.insert(0, str(HERE))

import loss_study  # noqa: E402
import mode_errors  # noqa: E402

from hesse.harmonic.normal_modes import normal_modes  # noqa: E402
from hesse.structures import Structure  # noqa: E402
from hesse.units import BOLTZMANN, HBAR, INVERSE_CM, KCAL_PER_MOL  # noqa: E402

HYDROGEN = 1.008
"""u."""
MODEL = '{"kind": "hipnn", "features": 4, "sensitivities": 3, "blocks": 1, "onsite_layers": 0}'


def hydrogen(identifier: str = "h2", group: str | None = None) -> Structure:
    return Structure(id=identifier, numbers=[1, 1], positions=[[0.0, 0.0, 0.0], [0.0, 0.0, 0.75]], group=group)


def spring(k: float) -> ndarray:
    """Hessian of two atoms on the z axis with a spring of k eV/Å²."""
    hessian = np.zeros((2, 3, 2, 3))
    hessian[:, 2, :, 2] = k * np.array([[1.0, -1.0], [-1.0, 1.0]])
    return hessian


def diatomic_frequency(k: float) -> float:
    """√(k/μ) in cm⁻¹, with a reduced mass of half a hydrogen atom."""
    return float(HBAR * np.sqrt(2.0 * k / HYDROGEN) / INVERSE_CM)


def triangle() -> tuple[Structure, ndarray]:
    """A molecule of three unequal masses and a random Hessian of it without translations and rotations."""
    structure = Structure(id="hoc", numbers=[1, 8, 6], positions=[[0.0, 0.0, 0.0], [1.0, 0.1, 0.0], [0.4, 1.2, 0.0]])
    modes = normal_modes(structure, np.eye(9).reshape(3, 3, 3, 3))
    weights = np.repeat(np.sqrt(modes.masses), 3)
    rows = modes.vectors.reshape(3, 9) * weights  # Hessian with the eigenvalues 1, 4 and 60 eV/(Å² u)
    return structure, (rows.T @ np.diag([1.0, 4.0, 60.0]) @ rows).reshape(3, 3, 3, 3)


def test_free_energy_of_an_oscillator_is_that_of_its_partition_function() -> None:
    frequency, temperature = 250.0, 298.15
    levels = INVERSE_CM * frequency * (np.arange(400) + 0.5)
    expected = -BOLTZMANN * temperature * np.log(np.exp(-levels / (BOLTZMANN * temperature)).sum())
    assert mode_errors.free_energy(np.array([frequency]), temperature) == pytest.approx(expected, rel=1e-12)


def test_soft_and_imaginary_frequencies_are_raised() -> None:
    floor = mode_errors.free_energy(np.array([100.0, 100.0, 100.0]), 298.15)
    assert mode_errors.free_energy(np.array([-800.0, 20.0, 100.0]), 298.15, raised_to=100.0) == floor


def test_errors_of_a_diatomic() -> None:
    """A spring four times as strong doubles the frequency; the zero-point energy rises by half a quantum."""
    errors = mode_errors.compare_hessians(hydrogen(), spring(1.0), spring(4.0))
    frequency = diatomic_frequency(1.0)
    assert errors.reference == pytest.approx([frequency])
    assert errors.ordered == pytest.approx([2 * frequency])
    assert errors.overlaps == pytest.approx([1.0])
    numbers = mode_errors.summarize([errors])
    assert numbers["frequencies all"] == numbers["matched frequencies all"] == pytest.approx(frequency)
    assert numbers["zero-point energy"] == pytest.approx(0.5 * INVERSE_CM * frequency / KCAL_PER_MOL)
    quantum, thermal = INVERSE_CM * frequency, BOLTZMANN * 298.15
    # ln(1 − x²) − ln(1 − x) = ln(1 + x), where x is the Boltzmann factor of the reference
    expected = (0.5 * quantum + thermal * np.log1p(np.exp(-quantum / thermal))) / KCAL_PER_MOL
    assert numbers["free energy, 100"] == pytest.approx(expected)
    assert numbers["thermal part"] == pytest.approx(thermal * np.log1p(np.exp(-quantum / thermal)) / KCAL_PER_MOL)
    assert numbers["false imaginary structures"] == 0
    assert numbers["minima"] == 1


def test_false_imaginary_modes_are_counted_and_raised() -> None:
    numbers = mode_errors.summarize([mode_errors.compare_hessians(hydrogen(), spring(1.0), spring(-1.0))])
    frequency = diatomic_frequency(1.0)
    assert numbers["false imaginary structures"] == numbers["false imaginary modes"] == 1
    assert numbers["bias all"] == pytest.approx(-2 * frequency)
    expected = mode_errors.free_energy(np.array([100.0]), 298.15) - mode_errors.free_energy(
        np.array([frequency]), 298.15
    )
    assert numbers["free energy bias, 100"] == pytest.approx(expected / KCAL_PER_MOL)


def test_saddle_points_count_without_their_reaction_mode() -> None:
    """The only mode of the saddle point is its reaction mode: the error of the barrier is minus that of the minimum."""
    saddle = mode_errors.compare_hessians(hydrogen("ts", "r"), spring(-1.0), spring(-4.0))
    minimum = mode_errors.compare_hessians(hydrogen("a", "r"), spring(1.0), spring(1.5))
    elsewhere = mode_errors.compare_hessians(hydrogen("b", "other"), spring(1.0), spring(9.0))
    numbers = mode_errors.summarize([saddle, minimum, elsewhere])
    assert numbers["imaginary frequency"] == pytest.approx(diatomic_frequency(1.0))
    assert numbers["one imaginary mode"] == numbers["saddles"] == 1
    assert numbers["activations"] == 1
    reference, model = minimum.free_energies(100.0)
    assert saddle.free_energies(100.0) == (0.0, 0.0)
    assert numbers["activation free energy"] == pytest.approx((model - reference) / KCAL_PER_MOL)


def test_modes_that_change_their_order_are_matched_by_overlap() -> None:
    structure, hessian = triangle()
    reference = normal_modes(structure, hessian)
    weights = np.repeat(np.sqrt(reference.masses), 3)
    rows = reference.vectors.reshape(3, 9) * weights
    swapped = (rows.T @ np.diag(reference.eigenvalues[[1, 0, 2]]) @ rows).reshape(3, 3, 3, 3)
    errors = mode_errors.compare_hessians(structure, hessian, swapped)
    assert errors.ordered == pytest.approx(reference.frequencies)
    assert errors.matched == pytest.approx(reference.frequencies[[1, 0, 2]])
    assert errors.overlaps == pytest.approx(np.ones(3))


def test_squared_errors_are_divided_completely_and_by_the_mode_in_error() -> None:
    structure, hessian = triangle()
    reference = normal_modes(structure, hessian)
    weights = np.repeat(np.sqrt(reference.masses), 3)
    stiffest = reference.vectors[-1].reshape(-1) * weights
    difference = 0.7 * np.outer(stiffest, stiffest)  # in the mass-weighted space along the stiffest mode only
    parts = mode_errors.squared_by_range(difference, reference)
    expected = np.zeros(len(mode_errors.RANGE_NAMES) + 1)
    expected[np.searchsorted(mode_errors.RANGES, reference.frequencies[-1]) - 1] = 0.7**2
    assert parts["mass-weighted"] == pytest.approx(expected, abs=1e-12)
    assert parts["cartesian"].sum() == pytest.approx((difference**2).sum())
    # Displacements of softer modes, u_k/√m, are orthogonal to this error's direction √m u.
    assert parts["cartesian"][: np.flatnonzero(expected)[0]] == pytest.approx(0.0, abs=1e-12)


def arguments(folder: Path, *more: str) -> list[str]:
    return [str(folder), "--model", MODEL, "--batch", "4", "--steps", "2", "--repeats", "1", "--displaced", "3", *more]


@pytest.mark.slow
def test_the_study_compares_seeds_in_pairs_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schemes = [part for name in ("E-F", "E-F-HVP", "every 2, equal time", "every 2") for part in ("--scheme", name)]
    (tmp_path / "costs.json").write_text('{"E-F": 0.01, "E-F-HVP": 0.03, "every 2": 0.02}', encoding="utf-8")
    loss_study.main(arguments(tmp_path, *schemes, "--seed", "0", "--seed", "1"))
    text = capsys.readouterr().out
    assert "| every 2, equal time | 3 | 20.0 | 2.00 | 1.00 | 2 |" in text
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    values = summary["values"]
    for seed in ("0", "1"):
        new, old = values["E-F"][seed]["rtp-test/hessian"], values["E-F-HVP"][seed]["rtp-test/hessian"]
        assert summary["changes"]["E-F-HVP"]["E-F"][seed]["rtp-test/hessian"] == pytest.approx(100 * (new / old - 1))
    assert values["E-F"]["0"]["minima"] > 0
    assert "nms/hessian" not in values["E-F"]["0"]

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.json")}
    loss_study.main(arguments(tmp_path, *schemes, "--seed", "0", "--seed", "1"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.json")} == before


@pytest.mark.parametrize(
    "wrong", [["--scheme", "every 3"], ["--scheme", "x={"], ["--scheme", "E-F", "--scheme", "every 2, equal time"]]
)
def test_invalid_schemes_are_refused(tmp_path: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        loss_study.main([str(tmp_path / "out"), *wrong])
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ranges_over_seeds() -> None:
    assert loss_study.mean_and_range([1.0, 2.0, 6.0]) == "3 (1 to 6)"
    assert loss_study.signed_range([-1.0, -2.0, -6.0]) == "**-3** (-6 to -1)"
    assert loss_study.signed_range([1.0, -2.0]) == "-0 (-2 to +1)"
    assert loss_study.signed_range([]) == loss_study.mean_and_range([]) == ""
