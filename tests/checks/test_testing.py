"""`hesse.testing`: the same checks as assertions, and what `check_potential` promises of its arguments."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import faulty
import numpy as np
import pytest
import torch
from ase.build import molecule

import hesse
import hesse.testing
from hesse.checks import check_potential, sample_structures
from hesse.checks.builtin_structures import choose_elements, grow_molecule
from hesse.errors import ConfigError, RequestError, UnknownElementError, UnknownOptionError
from hesse.models import Hipnn, HipnnConfig, ReferenceEnergies, Zbl, save_model
from hesse.models.adapters import CallablePotential
from hesse.structures import Batch, Structure, bonded_pairs, closest_collision
from oracles import LennardJones, Morse, crystal, molecules

QUICK = ["rotation", "sum-rule", "force-slope"]


def test_a_healthy_potential_passes() -> None:
    results = hesse.testing.assert_potential(faulty.Healthy(), skip=("compile", "smooth", "cutoff"))
    assert {r.status for r in results} == {"pass"}
    assert len(results) == len(hesse.testing.CHECKS) - 3


def test_the_error_lists_all_failures() -> None:
    with pytest.raises(AssertionError) as failed:
        hesse.testing.assert_potential(faulty.Field(), skip=("compile", "smooth", "cutoff"))
    text = str(failed.value)
    assert text.startswith("Field fails 3 of ")
    for name in ("rotation", "mirror", "rotation-rule"):
        assert f"  {name}: " in text
    assert "  translation: " not in text


@pytest.mark.parametrize("check", [c for c in hesse.testing.FAST_CHECKS if c.name in QUICK], ids=lambda c: c.name)
def test_checks_are_parameters(check: hesse.testing.Check) -> None:
    assert hesse.testing.assert_check(check, faulty.Healthy()).status == "pass"
    if check.name == "rotation":
        with pytest.raises(AssertionError, match="rotation: forces of rotated molecules"):
            hesse.testing.assert_check("rotation", faulty.Field())


def test_a_failed_requirement_fails_the_assertion() -> None:
    with pytest.raises(AssertionError, match="determinism"):
        hesse.testing.assert_check("rotation", faulty.Random())


@pytest.mark.slow
def test_pytest_is_not_imported() -> None:
    code = "import sys, hesse.testing; assert 'pytest' not in sys.modules; hesse.testing.FAST_CHECKS"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_potential_and_the_random_state_of_the_caller_are_unchanged() -> None:
    potential = faulty.Dropout().float().train()
    before = {name: value.clone() for name, value in potential.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_potential(potential, only=["parameter-gradient", "training-mode", "float32"])
    assert torch.equal(torch.rand(3), expected)
    assert potential.training
    assert all(p.grad is None for p in potential.parameters())
    for name, value in potential.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_the_same_numbers_every_time() -> None:
    first, again = (check_potential(faulty.Healthy(), only=[*QUICK, "float32"]) for _ in range(2))
    assert first == again


class Seeing(faulty.Healthy):
    """Records the sizes of the structures it computes."""

    sizes: ClassVar[set[int]] = set()

    def forward(self, batch: Batch) -> torch.Tensor:
        self.sizes.update(batch.n_atoms.tolist())
        return super().forward(batch)


def test_own_structures_are_taken() -> None:
    with pytest.raises(UnknownElementError, match="holds F; Healthy knows"):
        check_potential(faulty.Healthy(), [Structure([9], [[0.0, 0, 0]])])
    slab = Structure([6], [[0.0, 0, 0]], cell=3 * np.eye(3), pbc=(True, True, False))
    with pytest.raises(RequestError, match="one or two directions"):
        check_potential(faulty.Healthy(), [slab])
    check_potential(Seeing(), molecules([4, 6]), only=["rotation"])
    assert Seeing.sizes == {4, 6}
    Seeing.sizes.clear()
    # Built-in molecules are added to a crystal.
    check_potential(Seeing(), [crystal(0, atoms=4)], only=["stress"])
    assert {3, 4, 5, 8} <= Seeing.sizes


@pytest.mark.parametrize("potential", [Morse(), LennardJones(cutoff=4.0), Zbl()], ids=lambda p: type(p).__name__)
def test_closed_forms(potential: torch.nn.Module) -> None:
    """Potentials without parameters, for any element; Lennard-Jones and Morse here are cut sharply."""
    results = {r.name: r for r in check_potential(potential, skip=["compile"])}  # type: ignore[arg-type]
    assert results["parameter-gradient"].message == "no parameter that can be trained"
    bad = {name for name, r in results.items() if r.status == "fail"}
    assert bad == (set() if isinstance(potential, Zbl) else {"cutoff"})


@pytest.mark.slow
def test_a_potential_without_atomic_energies_and_periodicity() -> None:
    def energy(positions: torch.Tensor, numbers: torch.Tensor, cell: torch.Tensor, pbc: torch.Tensor) -> torch.Tensor:
        if bool(pbc.any()):
            raise RequestError("open structures only")
        first, second = torch.triu_indices(len(positions), len(positions), 1)
        gaps = (positions[first] - positions[second]).square().sum(-1) + 0.1
        return (1.0 / gaps).sum()

    results = {r.name: r for r in check_potential(CallablePotential(energy), skip=["compile"])}
    assert {name for name, r in results.items() if r.status == "skip"} == {
        "parameter-gradient", "cutoff", "periodic", "stress",
    }  # fmt: skip
    # Interactions that never end: two copies 30 Å apart still feel each other.
    assert {name for name, r in results.items() if r.status == "fail"} == {"extensive"}


def test_float32() -> None:
    """Wide limits, and no finite differences."""
    results = check_potential(faulty.Healthy(), skip=["compile"], dtype=torch.float32)
    assert {r.status for r in results} == {"pass", "skip"}
    assert {r.name for r in results if r.status == "pass"} >= {"rotation", "sum-rule", "several-probes", "batch"}
    assert all("float" in r.message for r in results if r.status == "skip")


def test_reference_energies_alone_fail() -> None:
    results = {r.name: r for r in check_potential(ReferenceEnergies((1, 8)), only=["energy", "rotation"])}
    assert results["energy"].status == "fail"
    assert results["rotation"].message == "not measured: energy failed"


def test_files_names_and_atoms_are_taken(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Hipnn(HipnnConfig(features=4, sensitivities=4, blocks=1, onsite_layers=1), (1, 8)).double()
    save_model(tmp_path / "model.hesse", network)
    results = hesse.check(tmp_path / "model.hesse", molecule("H2O"), only="rotation")
    assert [r.status for r in results] == ["pass"]
    assert not results.failed
    assert results == hesse.check(network, [molecule("H2O")], only=["rotation"])
    assert results.table().startswith(f"{tmp_path / 'model.hesse'}\ncheck ")
    text = check_potential(faulty.Field(), only="rotation").table()
    assert "FAILED rotation: forces of rotated molecules" in text
    assert "  fail  " in text
    for wrong in (torch.nn.Linear(2, 2), None, 3):
        with pytest.raises(RequestError, match="expected a potential"):
            hesse.check(wrong)
    assert hesse.check(network, molecule("H2O"), only="rotation", dtype="float64") == results
    with pytest.raises(RequestError, match="dtype"):
        hesse.check(network, dtype="float16")
    with pytest.raises(ConfigError, match="device"):
        hesse.check(network, device="gpu")


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UnknownOptionError, match="rotation"):
        check_potential(faulty.Healthy(), only=["rotatoin"])
    with pytest.raises(UnknownOptionError, match="smooth"):
        check_potential(faulty.Healthy(), skip=["smoth"])


def test_a_potential_that_cannot_be_copied() -> None:
    potential = faulty.Healthy()
    potential.kept = (x for x in ())  # type: ignore[assignment]
    with pytest.raises(RequestError, match="cannot be copied"):
        check_potential(potential, only=["energy"])


@pytest.mark.parametrize("elements", [(1,), (6, 8), (1, 6, 7, 8), (1, 79), (3, 9, 14, 29, 47, 55, 82, 92)])
def test_built_in_structures_are_sensible(elements: tuple[int, ...]) -> None:
    structures = sample_structures(elements)
    assert {int(z) for s in structures for z in s.numbers} == set(elements)
    for structure in (*structures, grow_molecule(elements, 12, seed=51)):
        assert closest_collision(structure, 0.85) is None
        if not structure.periodic:
            assert len(bonded_pairs(structure)) >= len(structure) - 1
    assert [len(s) for s in structures if not s.periodic] == [3, 5, 8]
    again = sample_structures(elements)
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(structures, again, strict=True))


def test_elements_are_chosen_from_many() -> None:
    assert choose_elements(()) == (1, 6, 7, 8)
    assert choose_elements((8, 1)) == (1, 8)
    many = choose_elements(range(1, 90))
    assert len(many) == 8
    assert {1, 6, 7, 8, 2, 89} <= set(many)
