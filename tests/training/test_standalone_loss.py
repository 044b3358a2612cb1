"""The loss for other training loops: compared with formulas, in every layout; its gradient by finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hesse.datasets import Dataset
from hesse.errors import LabelShapeError, MissingLabelError, RequestError
from hesse.losses import Loss, LossTerm, LossWeights
from hesse.structures import Structure, collate
from hesse.training import ProjectedHessianLoss
from oracles import Harmonic, Morse, labeled, molecules

WEIGHTS = LossWeights(energy=1.0, forces=0.3, hvp=0.09)
SIZES = [3, 5, 2]


def data(probes: int = 2) -> Dataset:
    return labeled(Morse(depth=1.0, width=1.2), molecules(SIZES, seed=1), probes=probes)


def flat_energy(structures: tuple[Structure, ...], model: nn.Module) -> Callable[[Tensor], Tensor]:
    batch = collate(structures, 6.0)
    return lambda positions: batch.sum_over_atoms(model(batch.with_positions(positions=positions)))


def flat_labels(dataset: Dataset) -> dict[str, Any]:
    labels = dataset.labels
    return {
        "n_atoms": labels.n_atoms, "energies": labels.energy, "forces": labels.forces, "probes": labels.probes,
        "hvp": labels.hvp,
    }  # fmt: skip


def positions_of(dataset: Dataset) -> Tensor:
    return torch.cat([torch.tensor(s.positions.tolist(), dtype=torch.float64) for s in dataset.structures])


def pad(values: Tensor, fill: float = 0.0) -> Tensor:
    """`[..., atoms, 3]` to `[..., structures, longest, 3]`."""
    parts = values.split(SIZES, dim=-2)
    return torch.stack([nn.functional.pad(p, (0, 0, 0, max(SIZES) - p.shape[-2]), value=fill) for p in parts], dim=-3)


def test_the_value_is_that_of_the_formula() -> None:
    """Predictions of one formula, labels of another, both in numpy; the loss is computed term by term."""
    dataset = data()
    model = Harmonic(dataset.structures, seed=3)
    loss, terms = ProjectedHessianLoss(WEIGHTS)(
        flat_energy(dataset.structures, model), positions_of(dataset), **flat_labels(dataset)
    )
    energy, forces, hvp = [], [], []
    labels, start = dataset.labels, 0
    assert labels.energy is not None
    assert labels.forces is not None
    assert labels.probes is not None
    assert labels.hvp is not None
    for k, structure in enumerate(dataset.structures):
        exact, n = model.exact(structure), len(structure)
        atoms = slice(start, start + n)
        start += n
        energy.append((exact.energy - float(labels.energy[k])) ** 2 / np.sqrt(n))
        forces.append(((-exact.gradient - labels.forces[atoms].numpy()) ** 2).sum() / (3 * n))
        products = np.einsum("iajb,kjb->kia", exact.hessian, labels.probes[:, atoms].numpy())
        hvp.append(((products - labels.hvp[:, atoms].numpy()) ** 2).sum() / (9 * n * n) / len(products))
    expected = np.mean(energy) + 0.3 * np.mean(forces) + 0.09 * np.mean(hvp)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert {k: float(v) for k, v in terms.items()} == pytest.approx(
        {"energy": np.mean(energy), "forces": np.mean(forces), "hvp": np.mean(hvp)}, rel=1e-12
    )


def test_all_layouts_give_the_same_loss() -> None:
    dataset = data()
    model = Morse(depth=2.0, width=1.0)
    labels, positions = flat_labels(dataset), positions_of(dataset)
    criterion = ProjectedHessianLoss(WEIGHTS)
    energy = flat_energy(dataset.structures, model)
    flat, _ = criterion(energy, positions, **labels)

    mask = torch.arange(max(SIZES))[None] < torch.tensor(SIZES)[:, None]
    rows = {name: pad(labels[name], 7.0) for name in ("forces", "probes", "hvp")}  # rubbish in unused places
    padded, _ = criterion(lambda x: energy(x[mask]), pad(positions), mask=mask, energies=labels["energies"], **rows)
    assert padded.item() == pytest.approx(flat.item(), rel=1e-13)

    singly = []
    for k, structure in enumerate(dataset.structures):
        atoms = slice(sum(SIZES[:k]), sum(SIZES[: k + 1]))
        one, _ = criterion(
            flat_energy((structure,), model), positions[atoms],
            energies=labels["energies"][k], forces=labels["forces"][atoms],
            probes=labels["probes"][:, atoms], hvp=labels["hvp"][:, atoms],
        )  # fmt: skip
        singly.append(one.item())
    assert np.mean(singly) == pytest.approx(flat.item(), rel=1e-13)

    sequential, _ = ProjectedHessianLoss(WEIGHTS, supports_vmap=False)(energy, positions, **labels)
    assert sequential.item() == pytest.approx(flat.item(), rel=1e-13)


class PairEnergy(nn.Module):
    """A learnable pair energy of positions end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.4, 0.7, 5, dtype=torch.float64))
        self.owner = torch.repeat_interleave(torch.arange(3), torch.tensor(SIZES))

    def forward(self, positions: Tensor) -> Tensor:
        i, j = (self.owner[:, None] == self.owner).triu(1).nonzero(as_tuple=True)
        squared = (positions[i] - positions[j]).square().sum(-1)
        bells = torch.exp(-(squared[:, None] - torch.arange(1, 6)).square() / 4)
        pairs = torch.tanh(bells @ self.weight)
        return pairs.new_zeros(3).index_add(0, self.owner[i], pairs)


def test_the_gradient_in_parameters_agrees_with_finite_differences() -> None:
    dataset, model = data(), PairEnergy()
    criterion = ProjectedHessianLoss(WEIGHTS)
    positions, labels = positions_of(dataset), flat_labels(dataset)
    criterion(model, positions, **labels)[0].backward()
    assert model.weight.grad is not None
    direction = torch.tensor([0.3, -1.0, 0.5, 0.2, -0.7], dtype=torch.float64)
    start = model.weight.detach().clone()

    def value(step: float) -> float:
        with torch.no_grad():
            model.weight.copy_(start + step * direction)
        return criterion(model, positions, **labels)[0].item()

    errors = []
    for h in (0.04, 0.02):
        slope = (value(h) - value(-h)) / (2 * h)
        errors.append(abs(slope - float(model.weight.grad @ direction)))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.2)
    assert not positions.requires_grad


def test_nan_labels_are_masked() -> None:
    """Values and gradients are those without the label."""
    dataset, model = data(), PairEnergy()
    labels, positions = flat_labels(dataset), positions_of(dataset)
    holes = {name: value.clone() for name, value in labels.items()}
    holes["energies"][1] = torch.nan
    holes["forces"][3:8] = torch.nan  # those of the second structure
    holes["hvp"][1, :3] = torch.nan  # one pair of the first
    holes["probes"][1, :3] = torch.nan
    criterion = ProjectedHessianLoss(WEIGHTS)
    loss, terms = criterion(model, positions, **holes)
    loss.backward()
    assert bool(torch.isfinite(model.weight.grad).all())  # type: ignore[arg-type]
    _, complete = criterion(model, positions, **labels)
    none, _ = criterion(model, positions, n_atoms=labels["n_atoms"], energies=labels["energies"] * torch.nan)
    assert none.item() == 0.0
    assert float(terms["energy"]) != float(complete["energy"])
    labeled_mask = torch.tensor([True, False, True])
    predicted = model(positions)
    n = labels["n_atoms"].double()
    expected = ((predicted - labels["energies"]).square() / n.sqrt())[labeled_mask].mean()
    assert float(terms["energy"]) == pytest.approx(expected.item(), rel=1e-12)
    assert set(criterion(model, positions, n_atoms=n.long(), energies=labels["energies"])[1]) == {"energy"}


def test_terms_without_weight_are_not_computed() -> None:
    """Derivatives of terms without weight are not computed."""
    dataset = data()

    def rough(positions: Tensor) -> Tensor:
        return PairEnergy()(positions.detach())  # would be refused by autograd if differentiated

    loss, terms = ProjectedHessianLoss(LossWeights(energy=1.0, forces=0.0, hvp=0.0))(
        rough, positions_of(dataset), **flat_labels(dataset)
    )
    assert set(terms) == {"energy"}
    assert bool(torch.isfinite(loss))


def test_wrong_requests_are_refused() -> None:
    dataset, model = data(), PairEnergy()
    labels, positions = flat_labels(dataset), positions_of(dataset)
    criterion = ProjectedHessianLoss()
    with pytest.raises(MissingLabelError, match="both probes and hvp"):
        criterion(model, positions, n_atoms=labels["n_atoms"], probes=labels["probes"])
    with pytest.raises(MissingLabelError, match="no label was given"):
        criterion(model, positions, n_atoms=labels["n_atoms"])
    with pytest.raises(LabelShapeError, match="add up to atoms"):
        criterion(model, positions, n_atoms=labels["n_atoms"][:2], energies=labels["energies"])
    with pytest.raises(LabelShapeError, match="mask of shape"):
        criterion(model, positions, mask=torch.ones(3, 5, dtype=torch.bool), energies=labels["energies"])
    with pytest.raises(LabelShapeError, match="expected one for each of 3"):
        criterion(lambda x: model(x)[:2], positions, **labels)
    with pytest.raises(LabelShapeError, match="returned a float, expected a tensor"):
        criterion(lambda x: 3.0, positions, **labels)  # type: ignore[arg-type, return-value]
    for blind in (lambda x: model(positions), lambda x: model(x.detach())):  # a closure over the wrong name
        with pytest.raises(RequestError, match="do not depend on the positions"):
            criterion(blind, positions, **labels)
    with pytest.raises(LabelShapeError, match=r"mask of torch\.float64"):
        criterion(model, torch.ones(3, 5, 3), mask=torch.ones(3, 5).double(), energies=labels["energies"])
    with pytest.raises(LabelShapeError, match="forces has shape"):
        criterion(model, positions, **{**labels, "forces": labels["forces"][:-1]})
    with pytest.raises(RequestError, match="not hessian"):
        ProjectedHessianLoss(LossWeights(hessian=1.0))
    with pytest.raises(RequestError, match="not regularizer"):
        ProjectedHessianLoss(LossWeights(regularizer=1.0))
    with pytest.raises(RequestError, match="balance is measured"):
        ProjectedHessianLoss(LossWeights(balance=True))
    with pytest.raises(RequestError, match="mass-weighted terms need the elements"):
        ProjectedHessianLoss(Loss([LossTerm(quantity="hvp", mass_weighted=True)]))


def test_other_forms() -> None:
    positions = torch.randn(4, 3, dtype=torch.float64)
    loss = Loss([LossTerm(quantity="forces", form="mae", weight=2.0)])
    total, terms = ProjectedHessianLoss(loss)(lambda x: x.square().sum(), positions, forces=torch.zeros(4, 3).double())
    assert float(terms["forces"]) == pytest.approx(float(2 * positions.abs().mean()))
    assert float(total.detach()) == pytest.approx(float(4 * positions.abs().mean()))


@pytest.mark.parametrize(
    "labels",
    [
        {"forces": torch.zeros(5, 3)},
        {"probes": torch.zeros(5, 3), "hvp": torch.zeros(5, 3)},
        {"probes": torch.zeros(2, 4, 3), "hvp": torch.zeros(3, 4, 3)},
        {"probes": torch.zeros(4, 3), "hvp": torch.zeros(2, 4, 3)},
    ],
    ids=str,
)
def test_labels_of_another_layout_are_refused_with_their_shapes(labels: dict[str, torch.Tensor]) -> None:
    with pytest.raises(LabelShapeError, match=r"\([235], "):
        ProjectedHessianLoss()(lambda p: p.square().sum(), torch.ones(4, 3), **labels)
