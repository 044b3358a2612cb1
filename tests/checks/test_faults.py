"""Every planted fault fails the checks it should, and no others."""

from __future__ import annotations

import faulty
import pytest

from hesse.checks import CHECKS, CheckResult, check_potential

pytestmark = pytest.mark.slow

FAILS: dict[str, set[str]] = {
    "Healthy": set(),
    "OldStyleDeclared": set(),
    "CubicCutoff": set(),
    "HardCutoff": {"cutoff"},
    "KinkCutoff": {"cutoff"},
    "CosineCutoff": {"cutoff"},
    "HiddenCutoff": {"smooth"},
    "TrustsList": {"cutoff", "neighbor-list"},
    "Relu": {"smooth"},
    "Absolute": {"smooth"},
    "Celu": {"smooth"},
    "BareNorm": {"second-derivatives", "traps"},
    # A term that is cut out of the graph is missing in every derivative.
    "Detached": {"energy-slope", "force-slope", "closed-loop", "parameter-gradient", "stress"},
    "WrongBackward": {"energy-slope", "stress"},
    "DroppedSecond": {"force-slope", "parameter-gradient"},
    "LopsidedSecond": {"force-slope", "hessian-symmetry", "parameter-gradient"},
    # PyTorch raises no error: torch.autograd.grad never reaches its guard on the way to the positions.
    "OnceDifferentiable": {"force-slope", "parameter-gradient"},
    "NoDoubleBackward": {"second-derivatives", "traps"},
    "DroppedParameter": {"parameter-gradient"},
    "OldStyle": {"several-probes"},
    "Anchored": {"translation", "sum-rule", "extensive", "periodic"},
    "Field": {"rotation", "mirror", "rotation-rule"},
    "Handed": {"mirror"},
    "Ordered": {"permutation", "extensive", "periodic"},
    "Averaging": {"extensive", "periodic"},
    "Mixing": {"batch"},
    "NoLattice": {"periodic"},
    "FrozenCell": {"stress"},
    "Dropout": {"training-mode"},
    "Random": {"determinism"},
    "Remembering": {"determinism"},
    "Single": {"double"},
    "SingleEnergies": {"double"},
    "Canceling": {"float32"},
    "Constant": {"energy"},
    "Spoilt": {"energy"},
    "Raising": {"energy"},
}
CLASSES = {"HardCutoff": -1, "KinkCutoff": 0, "CosineCutoff": 1, "HiddenCutoff": 1, "CubicCutoff": 2, "Healthy": 3}
SEARCHES = ("smooth", "cutoff", "closed-loop")
"""Checks that take a second or two each; the others take hundredths."""


def results_of(name: str, **options: object) -> list[CheckResult]:
    return check_potential(getattr(faulty, name)(), **options)  # type: ignore[arg-type]


def failures(results: list[CheckResult]) -> set[str]:
    return {result.name for result in results if result.status == "fail"}


def test_every_check_catches_a_fault() -> None:
    """Except those of the compiler and of forward mode, where only PyTorch itself can be wrong."""
    assert {c.name for c in CHECKS} - set.union(*FAILS.values()) == {"compile", "forward-mode"}


@pytest.mark.parametrize("name", FAILS)
def test_a_fault_fails_its_checks_and_no_others(name: str) -> None:
    left_out = [check for check in SEARCHES if check not in FAILS[name]]
    results = results_of(name, skip=["compile", *left_out])
    assert failures(results) == FAILS[name]
    for result in results:
        if result.status == "fail":
            (check,) = (c for c in CHECKS if c.name == result.name)
            assert result.message.endswith(check.consequence)


@pytest.mark.long
@pytest.mark.parametrize("name", FAILS)
def test_a_fault_fails_its_checks_and_no_others_of_all(name: str) -> None:
    assert failures(results_of(name, skip=["compile"])) == FAILS[name]


@pytest.mark.parametrize(
    ("name", "check", "status", "text"),
    [
        ("Healthy", "cutoff", "pass", "continuous"),
        ("HardCutoff", "cutoff", "fail", "C⁻¹: the energy jumps"),
        ("KinkCutoff", "cutoff", "fail", "C⁰: the forces jump"),
        ("CosineCutoff", "cutoff", "fail", "C¹: the curvature jumps"),
        ("CubicCutoff", "cutoff", "info", "C²: the third derivative jumps"),
        ("HiddenCutoff", "smooth", "fail", "neighbors at 3.100"),
        ("Relu", "smooth", "fail", "C⁰: the forces jump"),
        ("Celu", "smooth", "fail", "C¹: the curvature jumps"),
        ("HardCutoff", "closed-loop", "info", "jump"),
        ("BareNorm", "traps", "fail", "unused slots of the neighbor matrix"),
        ("Dropout", "training-mode", "fail", "results differ each time"),
        ("OldStyle", "forward-mode", "info", "no forward mode"),
        ("OldStyle", "several-probes", "fail", "supports_vmap"),
        ("OldStyleDeclared", "several-probes", "info", "one direction at a time"),
        ("Raising", "energy", "fail", "ValueError: this model is not finished"),
        ("NoDoubleBackward", "second-derivatives", "fail", "NotImplementedError: the derivative of this kernel"),
    ],
)
def test_messages(name: str, check: str, status: str, text: str) -> None:
    """For a cutoff also the smoothness class Cᵏ, in words and as a number."""
    results = {r.name: r for r in results_of(name, only=[check])}
    assert results[check].status == status
    assert text in results[check].message
    if check in ("cutoff", "smooth") and name in CLASSES:
        assert results[check].value == CLASSES[name]


def test_compilation_is_stopped_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesse.checks.autodiff.MAX_COMPILE_SECONDS", 0.05)
    (result,) = results_of("Healthy", only=["compile"])
    assert result.status == "info"
    assert "not compiled within 0.05 s" in result.message


def test_a_graph_break_is_reported_and_not_run_eagerly() -> None:
    (result,) = results_of("Branching", only=["compile"])
    assert result.status == "info"
    assert "cannot be compiled" in result.message


@pytest.mark.long
def test_compiled_derivatives_equal_eager_ones() -> None:
    (result,) = results_of("Healthy", only=["compile"])
    assert result.status == "pass"
    assert result.value is not None
    assert 0 < result.value < 1e-12  # not the same function run twice


def test_checks_whose_requirements_failed_are_skipped() -> None:
    results = {r.name: r for r in results_of("NoDoubleBackward", skip=["compile"])}
    assert results["rotation"].status == "skip"
    assert results["rotation"].message == "not measured: second-derivatives failed"
    assert results["closed-loop"].message == "not measured: second-derivatives failed"
