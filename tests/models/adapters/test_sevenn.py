"""SevenNet models as potentials: agreement with its own calculator, before and after training; files; wrong input.

These tests run in an environment of their own (`make peers`).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("sevenn", reason="the adapter of SevenNet needs sevenn (make peers)")

from universal_models import sevenn_calculator, sevenn_model

import hesse
from hesse.curvature import evaluate
from hesse.engines import make_engine, make_potential
from hesse.errors import (
    ChargeStateWarning,
    FileFormatError,
    RequestError,
    UnknownElementError,
    UnknownOptionError,
    WriteError,
)
from hesse.models.adapters.checkpoints import PUBLISHED
from hesse.models.adapters.sevenn import SevennPotential
from hesse.structures import Request, Structure, collate, to_ase
from oracles import Morse, atom, crystal, labeled, molecules

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:No tensor product accelerator"),
]
ALL = Request(forces=True, stress=True)
CRYSTALS = [crystal(0), crystal(3, size=3.2, atoms=1), crystal(1, size=5.0, atoms=4, elements=(11, 17))]
CHOICES = [
    (name, modal) for name in PUBLISHED["sevenn"] for modal in ((None,) if "mf" not in name else ("PBE", "R2SCAN"))
]


def close(got: Any, expected: Any, tolerance: float = 1e-8) -> None:
    one, other = (torch.as_tensor(value, dtype=torch.float64) for value in (got, expected))
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def small(**options: Any) -> SevennPotential:
    model, config = sevenn_model(**options)
    return SevennPotential(model, config=config)


def agrees(potential: SevennPotential, calculator: Any, structures: list[Structure], tolerance: float = 2e-5) -> None:
    """Energies, forces and stress of one batch, with SevenNet's neighbor lists, derivatives and float32."""
    result = evaluate(potential, collate(structures, potential.cutoff, dtype=torch.float64), ALL)
    start = 0
    for k, structure in enumerate(structures):
        atoms = to_ase(structure)
        atoms.calc = calculator
        close(result.energy[k], atoms.get_potential_energy(), tolerance)  # type: ignore[index]
        close(result.forces[start : start + len(structure)], atoms.get_forces(), tolerance)  # type: ignore[index]
        if structure.periodic:
            close(result.stress[k], atoms.get_stress(voigt=False), tolerance)  # type: ignore[index]
        start += len(structure)


# --- the same numbers ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "modal"), CHOICES)
def test_published_weights_equal_sevennet(weights: str, modal: str | None) -> None:
    potential = SevennPotential.from_file(weights, modal=modal).to(torch.float64)
    agrees(potential, sevenn_calculator(weights, modal=modal), [*CRYSTALS, *molecules([4], seed=2)])


@pytest.mark.parametrize("options", [{}, {"is_parity": True}, {"_normalize_sph": False}])
def test_small_models_equal_sevennet(options: dict[str, Any]) -> None:
    potential = small(**options)
    agrees(potential, sevenn_calculator(potential.original), [*CRYSTALS, *molecules([6, 3], seed=2)])


def test_isolated_atoms_and_batches() -> None:
    potential = small()
    structures = [*molecules([5], seed=2), atom(8), *CRYSTALS]
    structures.append(Structure([8, 1], [[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]], id="far"))
    batch = collate(structures, potential.cutoff)
    result = evaluate(potential, batch, Request(forces=True, hessian=True, atomic_energies=True))
    close(result.atomic_energies[5], result.atomic_energies[-2], 1e-12)  # type: ignore[index]
    assert bool(result.hessian.isfinite().all())  # type: ignore[union-attr]
    for k, structure in enumerate(structures):
        alone = evaluate(potential, collate([structure], potential.cutoff), Request())
        close(result.energy[k], alone.energy[0], 1e-12)  # type: ignore[index]
    potential.original.set_is_batch_data(False)  # as SevenNet's calculator does
    close(evaluate(potential, batch, Request()).energy, result.energy, 1e-12)
    assert not potential.original.is_batch_data


def test_products_are_slopes_and_third_derivatives_reach_the_parameters() -> None:
    potential = small()
    structure = CRYSTALS[2]
    batch = collate([structure], potential.cutoff)
    probes = torch.randn(2, len(structure), 3, dtype=torch.float64)

    def loss() -> torch.Tensor:
        labels = evaluate(potential, batch, Request(probes=probes), create_graph=True)
        return labels.hvp.square().sum()  # type: ignore[union-attr]

    for _ in range(3):  # TorchScript compiles again after the first calls
        product = evaluate(potential, batch, Request(probes=probes)).hvp[0]  # type: ignore[index]
    ends = [
        evaluate(potential, collate([structure.with_positions(structure.positions + s * probes[0].numpy())], 5.0), ALL)
        for s in (1e-4, -1e-4)
    ]
    close(product, -(ends[0].forces - ends[1].forces) / 2e-4, 1e-4)  # type: ignore[operator]
    loss().backward()
    for name, parameter in potential.named_parameters():
        if not parameter.requires_grad:
            continue
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        direction, values = torch.randn_like(parameter), []
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(sign * 1e-5 * direction)
                values.append(loss().item())
                parameter.sub_(sign * 1e-5 * direction)
        measured, said = (values[0] - values[1]) / 2e-5, (gradient * direction).sum().item()
        assert said == pytest.approx(measured, rel=1e-4, abs=1e-5 * (1 + abs(values[0]))), name


# --- training and files ----------------------------------------------------------------------------------------------


def test_a_trained_model_goes_back_to_sevennet(tmp_path: Path) -> None:
    data = labeled(Morse(), molecules([4, 5], seed=1), hessian=True)
    config = hesse.TrainConfig(
        steps=4, dtype="float64", optimizer={"learning_rate": 3e-3}, weights={"energy": 1, "forces": 1, "hvp": 1},
        probe={"source": "fresh"}, reference_energies="fit", allow_shared_structures=True,
    )  # fmt: skip
    given = small()
    before = evaluate(given, collate(CRYSTALS[:1], given.cutoff), ALL).forces
    result = hesse.train(data, data, config, output=tmp_path / "run", potential=given, quiet=True)
    assert result.model_file == tmp_path / "run" / "model.pth"
    after = evaluate(result.potential, collate(CRYSTALS[:1], given.cutoff), ALL).forces
    assert float((after - before).abs().max()) > 1e-4  # type: ignore[operator]
    calculator = sevenn_calculator(str(result.model_file))
    agrees(result.potential, calculator, CRYSTALS, 1e-4)  # type: ignore[arg-type]
    again = make_potential(f"sevenn:{result.model_file}", dtype=torch.float64)
    close(evaluate(again, collate(CRYSTALS[:1], again.cutoff), ALL).forces, after, 1e-5)


def test_saved_checkpoints_are_the_same_model(tmp_path: Path) -> None:
    potential = small()
    potential.shift_reference_energies({11: 0.5})
    potential.save(tmp_path / "a.pth")
    again = make_potential(f"sevenn:{tmp_path / 'a.pth'}", dtype=torch.float64)
    batch = collate(CRYSTALS, potential.cutoff)
    close(again(batch), potential(batch), 1e-6)  # SevenNet builds its modules in float32
    again.save(tmp_path / "b.pth")  # type: ignore[operator]
    close(make_potential(f"sevenn:{tmp_path / 'b.pth'}", dtype=torch.float64)(batch), again(batch), 1e-12)
    with pytest.raises(WriteError, match="there is no folder"):
        potential.save(tmp_path / "nowhere" / "a.pth")
    with pytest.raises(RequestError, match=r"pass the settings, SevennPotential\(model, config="):
        SevennPotential(potential.original).save(tmp_path / "c.pth")


def test_reference_energies_are_float64_and_shifted_in_the_model() -> None:
    potential = small()
    batch = collate([CRYSTALS[2]], potential.cutoff)
    before = evaluate(potential, batch, Request()).energy.item()  # type: ignore[union-attr]
    potential.shift_reference_energies({11: 0.5, 17: -2.0})
    after = evaluate(potential, batch, Request()).energy.item()  # type: ignore[union-attr]
    assert after - before == pytest.approx(2 * 0.5 - 2 * 2.0, abs=1e-9)
    agrees(potential, sevenn_calculator(potential.original), CRYSTALS)
    single = copy.deepcopy(potential).float()
    assert single.references.energies.dtype == torch.float64
    close(single.double().references.energies, potential.references.energies, 1e-14)
    with pytest.raises(UnknownElementError, match="holds Po"):
        potential.shift_reference_energies({84: 1.0})


# --- names and wrong input -------------------------------------------------------------------------------------------


def test_names_levels_elements_and_charges() -> None:
    engine = make_engine("sevenn:7net-0")
    assert engine.level.startswith("sevenn:7net-0@")
    polonium = Structure([84], [[0.0, 0.0, 0.0]], cell=3.3 * np.eye(3), pbc=(True, True, True), id="Po")
    with pytest.raises(UnknownElementError, match='"Po" holds Po'):
        hesse.compute(polonium, engine)
    with pytest.warns(ChargeStateWarning, match='"ion" has charge 1'):
        hesse.compute(Structure([11], [[0.0, 0.0, 0.0]], charge=1, id="ion"), engine)
    with pytest.raises(RequestError, match=r"a single level of theory: leave out"):
        make_potential("sevenn:7net-0?modal=PBE")


def test_levels_of_theory_must_be_named() -> None:
    with pytest.raises(RequestError, match=r"R2SCAN, PBE: name the one to use, modal=\"R2SCAN\".*\?modal=R2SCAN"):
        make_potential("sevenn:7net-mf-0")
    with pytest.raises(UnknownOptionError, match='Did you mean "PBE"'):
        make_potential("sevenn:7net-mf-0?modal=PBEsol")
    assert make_potential("sevenn:7net-mf-0?modal=r2scan").modal == "R2SCAN"  # type: ignore[comparison-overlap]


def test_models_and_files_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"SevennPotential\.from_file"):
        SevennPotential("some.file")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="got a Linear"):
        SevennPotential(torch.nn.Linear(2, 2))
    torch.save({"weights": torch.ones(3)}, tmp_path / "x.pth")
    with pytest.raises(FileFormatError, match="not a checkpoint of SevenNet"):
        SevennPotential.from_file(tmp_path / "x.pth")
