"""Curvature against forces: correct labels pass, and the message names every common mistake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.data import atomic_masses, atomic_numbers
from torch import Tensor

from hesse.datasets import (
    Dataset,
    check_consistency,
    diagnose_consistency,
    negate_forces,
    principal_rigid_body_modes,
    read_dataset,
    write_dataset,
)
from hesse.errors import InconsistentLabelsError
from hesse.structures import Properties, Structure
from hesse.units import ENERGY_UNITS, LENGTH_UNITS
from oracles import Morse, crystal, labeled, molecules

EH, BOHR, KCAL = ENERGY_UNITS["hartree"], LENGTH_UNITS["bohr"], ENERGY_UNITS["kcal/mol"]


@pytest.fixture(scope="module")
def right() -> Dataset:
    """Labels with the noise of a good DFT calculation."""
    clean = labeled(Morse(), molecules([5, 6, 7, 8] * 6), probes=1, hessian=True)
    values = {}
    for name, sigma in (("forces", 1e-4), ("hvp", 5e-3), ("hessian", 5e-3)):
        value = getattr(clean.labels, name)
        values[name] = value + sigma * torch.randn(value.shape, dtype=value.dtype)
    return replace(clean, labels=clean.labels.replace(**values), source="bad.h5")


def only(data: Dataset, label: str) -> Dataset:
    other = {"hessian": {"hvp": None, "probes": None}, "hvp": {"hessian": None}}[label]
    return replace(data, labels=data.labels.replace(**other))  # type: ignore[arg-type]


def scaled(data: Dataset, **factors: float) -> Dataset:
    values: dict[str, Any] = {k: getattr(data.labels, k) * f for k, f in factors.items()}
    return replace(data, labels=data.labels.replace(**values))


def each_hessian(data: Dataset, change: Callable[[int, Tensor], Tensor]) -> Dataset:
    blocks = [change(i, data.labels.hessian_of(i)).reshape(-1) for i in range(len(data))]
    return replace(data, labels=data.labels.replace(hessian=torch.cat(blocks)))


def broken(data: Dataset) -> str:
    (result,) = diagnose_consistency(data)
    assert result.status == "broken"
    with pytest.raises(InconsistentLabelsError) as caught:
        check_consistency(data)
    message = str(caught.value)
    assert message == result.message
    assert "bad.h5" in message
    assert f'structure "{result.worst}"' in message
    return message


@pytest.mark.parametrize("label", ["hessian", "hvp"])
def test_correct_labels_are_consistent(right: Dataset, label: str) -> None:
    (result,) = diagnose_consistency(only(right, label))
    assert result.status == "consistent"
    assert abs(result.factor - 1.0) < 4 * result.factor_error < 0.1
    assert result.correlation > 0.99
    assert len(check_consistency(right)) == 2


@pytest.mark.parametrize("label", ["hessian", "hvp"])
@pytest.mark.parametrize(
    ("curvature", "forces", "words"),
    [
        (1.0, -1.0, "forces hold gradients"),
        (-1.0, 1.0, "--negate-curvature"),
        (BOHR**2 / EH, 1.0, "curvature is in Hartree/Bohr²"),
        (1.0 / EH, 1.0, "curvature is in Hartree/Å²"),
        (1.0 / KCAL, 1.0, "curvature is in kcal/mol/Å²"),
        (BOHR**2, 1.0, "curvature is in eV/Bohr²"),
        (1 / 6.241509, 1.0, "curvature is in mdyn/Å"),
        (1.0, BOHR / EH, "forces are in Hartree/Bohr"),
        (1.0, 1 / KCAL, "forces are in kcal/mol/Å"),
        (-(BOHR**2) / EH, 1.0, "sign is wrong too"),
        (3.3, 1.0, "no usual units"),
    ],
    ids=lambda x: x.replace(" ", "-") if isinstance(x, str) else "",
)
def test_a_wrong_sign_or_unit_is_named(right: Dataset, label: str, curvature: float, forces: float, words: str) -> None:
    data = scaled(only(right, label), **{label: curvature, "forces": forces})
    assert words in broken(data)
    assert diagnose_consistency(data)[0].factor == pytest.approx(forces / curvature, rel=0.05)


def test_positions_in_bohr(right: Dataset) -> None:
    blown = tuple(replace(s, positions=s.positions / BOHR) for s in right.structures)
    assert "positions are in Bohr" in broken(only(replace(right, structures=blown), "hessian"))


def test_mass_weighted_hessians(right: Dataset) -> None:
    def weigh(i: int, h: Tensor) -> Tensor:
        root = torch.from_numpy(atomic_masses[right.structures[i].numbers]).sqrt()
        return h / root[:, None, None, None] / root[None, None, :, None]

    assert "mass-weighted" in broken(each_hessian(only(right, "hessian"), weigh))


def test_another_order_of_coordinates_or_atoms(right: Dataset) -> None:
    data = only(right, "hessian")
    # x1 x2 … y1 y2 … z1 z2 …
    assert "moved as a whole" in broken(each_hessian(data, lambda _, h: h.permute(1, 0, 3, 2)))
    assert "order of atoms" in broken(each_hessian(data, lambda _, h: h.flip(0).flip(2)))


def test_projected_hessians(right: Dataset) -> None:
    basis = principal_rigid_body_modes(right.structures)

    def project(i: int, h: Tensor) -> Tensor:
        n = h.shape[0]
        motions = basis.motions[:, right.labels.atom_slice(i)].reshape(6, -1)
        keep = torch.eye(3 * n, dtype=torch.float64) - motions.T @ motions
        return keep @ h.reshape(3 * n, 3 * n) @ keep

    assert "projected out" in broken(each_hessian(only(right, "hessian"), project))


@pytest.mark.parametrize(
    "change",
    [lambda h: -h, lambda h: h.flip(0).flip(2), lambda h: h / KCAL, lambda h: h + 3 * torch.randn_like(h)],
    ids=["sign", "order", "kcal", "noise"],
)
def test_one_wrong_structure_among_correct_ones_is_found(right: Dataset, change: Callable[[Tensor], Tensor]) -> None:
    message = broken(each_hessian(only(right, "hessian"), lambda i, h: change(h) if i == 7 else h))
    assert "of 1 of 24 structures" in message
    assert f'"{right.structures[7].id}"' in message


def test_undetermined_without_signal(right: Dataset) -> None:
    # No forces; crystals; stationary points, where only noise responds to rotation.
    bare = replace(right, labels=right.labels.replace(forces=None))
    assert [c.status for c in diagnose_consistency(bare)] == ["undetermined"] * 2
    crystals = labeled(Morse(), [crystal(i) for i in range(3)], hessian=True)
    assert [c.status for c in diagnose_consistency(crystals)] == ["undetermined"] * 2
    assert diagnose_consistency(replace(right, labels=Properties(n_atoms=right.labels.n_atoms))) == []


@pytest.mark.parametrize("seed", range(5))
def test_noise_of_relaxed_structures_is_accepted(seed: int) -> None:
    """Diatomics at the minimum: no gradient, and a Hessian that rotation does not change, but for noise in both."""
    generator = torch.Generator().manual_seed(seed)
    pairs = [Structure([6, 8], [[0, 0, 0], [0, 0, 1.1]], id=str(i)) for i in range(20)]
    data = labeled(Morse(), pairs, probes=1, hessian=True)
    noisy = {
        name: value + sigma * torch.randn(value.shape, dtype=value.dtype, generator=generator)
        for name, sigma in (("forces", 1e-3), ("hvp", 1e-2), ("hessian", 1e-2))
        if (value := getattr(data.labels, name)) is not None
    }
    result = diagnose_consistency(replace(data, labels=data.labels.replace(**noisy)))
    assert [c.status for c in result] == ["undetermined"] * 2


# --- published data --------------------------------------------------------------------------------------------------


def test_published_dft_hessians_pass_together_and_alone(shared_data: Path) -> None:
    file = shared_data / "horm_sample" / "horm_sample_dev.npz"
    if not file.is_file():
        pytest.skip("no HORM sample")
    data = read_dataset(file, energy_unit="eV", length_unit="angstrom")
    (whole,) = diagnose_consistency(data)
    assert whole.status == "consistent"
    assert whole.factor == pytest.approx(1.0, abs=0.01)
    alone = [diagnose_consistency(data.select([i]))[0].status for i in range(len(data))]
    assert "broken" not in alone
    assert alone.count("consistent") > 30


def test_published_gradients_called_forces_are_caught(shared_data: Path) -> None:
    folder = shared_data / "deepmd_hessian" / "H10C5N2O"
    if not folder.is_dir():
        pytest.skip("no deepmd example")
    names = (folder / "type_map.raw").read_text().split()
    numbers = [atomic_numbers[names[int(t)]] for t in (folder / "type.raw").read_text().split()]
    n = len(numbers)
    coord, force, hessian = (np.load(folder / "set.000" / f"{k}.npy") for k in ("coord", "force", "hessian"))
    rows = [
        (
            Structure(numbers, x.reshape(n, 3), id=f"frame-{i}"),
            Properties.single(n, forces=f.reshape(n, 3), hessian=h.reshape(n, 3, n, 3)),
        )
        for i, (x, f, h) in enumerate(zip(coord, force, hessian, strict=True))
    ]
    data = replace(Dataset.from_pairs(rows), source="bad.h5")
    assert "forces hold gradients" in broken(data)
    (mended,) = check_consistency(negate_forces(data))
    assert mended.status == "consistent"


@pytest.mark.parametrize("label", ["hessian", "hvp"])
def test_curvature_of_another_level_is_not_compared_with_the_forces(right: Dataset, label: str, tmp_path: Path) -> None:
    """Its sum rules are: a Hessian that does not sum to zero is found without forces too."""
    other = only(scaled(right, forces=0.5), label)
    assert broken(other)
    stated = replace(other, metadata={"level": "dft", "curvature_level": "model:x.hesse"})
    assert {report.status for report in check_consistency(stated)} <= {"consistent", "undetermined"}
    write_dataset(tmp_path / "kept.h5", stated)
    assert read_dataset(tmp_path / "kept.h5").metadata["curvature_level"] == "model:x.hesse"
