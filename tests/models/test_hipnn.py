"""HIP-NN-TS against its equations in plain loops, and against what an energy must keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hesse.curvature import evaluate
from hesse.errors import ConfigError, UnknownElementError
from hesse.models import Hipnn, HipnnConfig
from hesse.structures import Request, Structure, collate
from oracles import atom, crystal, image_pairs, linear, molecule, molecules, rotation

Array = NDArray[np.float64]
ELEMENTS = (1, 6, 8)
every_order = pytest.mark.parametrize("l_max", [0, 1, 2])


def hipnn(l_max: int, seed: int = 3, **options: Any) -> Hipnn:
    torch.manual_seed(seed)
    size = {"features": 6, "sensitivities": 5, "blocks": 2, "onsite_layers": 2}
    settings = {**size, "cutoff": 3.4, "longest": 3.2, "shortest": 0.75, "sharpness": 1.0, "epsilon": 1e-2}
    model = Hipnn(HipnnConfig(l_max=l_max, **{**settings, **options}), ELEMENTS).double()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at zero, later read-outs tiny: let every term count
            parameter.add_(0.2 * torch.randn_like(parameter))
        model.references.energies.copy_(torch.tensor([-1.5, 2.0, 0.25]))
    return model


# --- the equations, in loops -----------------------------------------------------------------------------------------


def softplus(x: Array) -> Array:
    return np.log1p(np.exp(x))


def slow_energies(model: Hipnn, structure: Structure) -> tuple[Array, Array]:
    """Atomic energies, and all their terms ε^(0), ε^(1), ...: the published equations with the weights of `model`."""
    w = {name: value.numpy() for name, value in model.state_dict().items()}
    c, n = model.config, len(structure)
    pairs = image_pairs(structure, c.cutoff)
    features = np.array([[float(z == e) for e in ELEMENTS] for z in structure.numbers])
    terms = [features @ w["references.energies"]]
    for block in range(c.blocks):
        p = f"interactions.{block}."
        v, sigma, inverse_mu = (
            w[p + "layer.weight"],
            w[p + "layer.sensitivity.sigma"],
            w[p + "layer.sensitivity.inverse_mu"],
        )
        new = np.zeros((n, c.features))
        for i in range(n):
            scalar = np.zeros((c.sensitivities, features.shape[1]))
            vector = np.zeros((3, *scalar.shape))
            matrix = np.zeros((3, 3, *scalar.shape))
            for first, j, gap in pairs:
                if first != i:
                    continue
                r = np.linalg.norm(gap)
                unit = gap / r
                x = r / c.cutoff
                fade = (
                    1 - 35 * x**4 + 84 * x**5 - 70 * x**6 + 20 * x**7
                    if c.cutoff_function == "smooth"
                    else np.cos(np.pi * r / (2 * c.cutoff)) ** 2
                )
                s = np.exp(-0.5 * sigma**2 * (1 / r - inverse_mu) ** 2) * fade
                message = np.outer(s, features[j])
                scalar += message
                vector += unit[:, None, None] * message
                matrix += (np.outer(unit, unit) - np.eye(3) / 3)[:, :, None, None] * message
            total = np.einsum("vba,vb->a", v, scalar)
            if c.l_max >= 1:
                t1 = np.einsum("vba,xvb->xa", v, vector)
                total = total + w[p + "layer.scales"][0] * np.sqrt((t1**2).sum(0) + c.epsilon)
            if c.l_max >= 2:
                t2 = np.einsum("vba,xyvb->xya", v, matrix)
                total = total + w[p + "layer.scales"][1] * np.sqrt(np.einsum("xya,yxa->a", t2, t2) + c.epsilon)
            new[i] = total + w[p + "layer.self_term.weight"] @ features[i] + w[p + "layer.self_term.bias"]
        adjust = w.get(p + "adjust.weight", np.eye(c.features))
        features = softplus(new) @ w[p + "after.weight"].T + w[p + "after.bias"] + features @ adjust.T
        for layer in range(c.onsite_layers):
            q = f"onsite.{block}.{layer}."
            inner = softplus(features @ w[q + "layer.weight"].T + w[q + "layer.bias"])
            features = inner @ w[q + "after.weight"].T + w[q + "after.bias"] + features
        terms.append(features @ w[f"readouts.{block}.weight"][0] + w[f"readouts.{block}.bias"][0])
    table = np.array(terms)
    return table.sum(0), table


@every_order
@pytest.mark.parametrize(
    "options",
    [{}, {"cutoff_function": "cosine"}, {"blocks": 1, "onsite_layers": 0}, {"epsilon": 1e-4}],
    ids=lambda o: "-".join(o) or "default",
)
def test_energies_are_those_of_the_equations(l_max: int, options: dict[str, Any]) -> None:
    model = hipnn(l_max, **options)
    structures = [*molecules([6, 2]), atom(8), linear(3), crystal(0)]
    batch = collate(structures, model.cutoff)
    labels = evaluate(model, batch, Request(atomic_energies=True))
    assert labels.atomic_energies is not None
    for i, structure in enumerate(structures):
        energies, _ = slow_energies(model, structure)
        actual = labels.atomic_energies[labels.atom_slice(i)]
        np.testing.assert_allclose(actual, energies, rtol=0, atol=1e-10, err_msg=structure.id)
        assert labels.energy is not None
        assert float(labels.energy[i]) == pytest.approx(energies.sum(), abs=1e-10)


def test_the_hierarchicality_is_that_of_the_equations() -> None:
    """`Σ_i Σ_{n≥1} ε_n²/(ε_n² + ε_{n−1}²)`, here per atom, so that it does not depend on size."""
    model, structures = hipnn(1, blocks=3), [*molecules([5, 3]), crystal(0)]
    labels = evaluate(model, collate(structures, model.cutoff), Request())
    assert labels.regularizer is not None
    for value, structure in zip(labels.regularizer, structures, strict=True):
        _, terms = slow_energies(model, structure)
        ratios = terms[1:] ** 2 / (terms[1:] ** 2 + terms[:-1] ** 2)
        assert float(value) == pytest.approx(ratios.sum() / len(structure), abs=1e-8)


def test_initial_sensitivities_are_those_of_the_paper() -> None:
    config = HipnnConfig(sensitivities=4, shortest=0.5, longest=2.0, cutoff=3.0, sharpness=0.5)
    sensitivity = Hipnn(config, (1,)).interactions[0].layer.sensitivity  # type: ignore[union-attr]
    assert sensitivity.inverse_mu.tolist() == pytest.approx([0.5, 1.0, 1.5, 2.0])  # type: ignore[union-attr, operator]
    assert sensitivity.sigma.tolist() == pytest.approx([0.5 * 2 * 4 * 0.5] * 4)  # type: ignore[union-attr, operator]


def test_later_readouts_start_small() -> None:
    torch.manual_seed(0)
    model = Hipnn(HipnnConfig(blocks=3), ELEMENTS)
    sizes = [float(r.weight.detach().norm()) for r in model.readouts]  # type: ignore[union-attr, operator]
    assert sizes[1] / sizes[0] == pytest.approx(1e-2, rel=0.5)
    assert sizes[2] / sizes[0] == pytest.approx(1e-4, rel=0.5)


# --- what an energy must keep ----------------------------------------------------------------------------------------


@every_order
def test_invariance_under_motion_mirror_and_order(l_max: int) -> None:
    model, structure = hipnn(l_max), molecule(8, seed=4)
    rng = np.random.default_rng(0)
    variants = [structure]
    for k in range(3):
        matrix = rotation(k) * (-1) ** k
        variants.append(structure.with_positions(structure.positions @ matrix.T + 10 * rng.normal(size=3)))
    order = rng.permutation(8)
    variants.append(Structure(structure.numbers[order], structure.positions[order]))
    labels = evaluate(model, collate(variants, model.cutoff), Request(atomic_energies=True))
    assert labels.energy is not None
    assert labels.atomic_energies is not None
    torch.testing.assert_close(labels.energy, labels.energy[:1].expand(5), rtol=0, atol=1e-11)
    per_atom = labels.atomic_energies.split(8)
    torch.testing.assert_close(per_atom[1], per_atom[0], rtol=0, atol=1e-11)
    torch.testing.assert_close(per_atom[4], per_atom[0][torch.from_numpy(order)], rtol=0, atol=1e-11)


def test_tensor_orders_distinguish_angles() -> None:
    """The same distances to the central atom, other angles between its neighbors: only l ≥ 1 sees it through one
    layer of messages; and square against tetrahedron-like signs only l = 2 (their vector sums agree)."""

    def center(l_max: int, positions_of_neighbors: list[list[float]]) -> float:
        model = hipnn(l_max, blocks=1, cutoff=1.3, longest=1.3, shortest=0.5)
        structure = Structure([6] + [1] * len(positions_of_neighbors), [[0.0, 0, 0], *positions_of_neighbors])
        labels = evaluate(model, collate([structure], model.cutoff), Request(atomic_energies=True))
        assert labels.atomic_energies is not None
        return float(labels.atomic_energies[0])

    straight, bent = [[1.0, 0, 0], [-1.0, 0, 0]], [[1.0, 0, 0], [0.0, 1.0, 0]]
    cross = [[1.0, 0, 0], [-1.0, 0, 0], [0.0, 1, 0], [0.0, -1, 0]]
    tetrahedron = (np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)).tolist()
    assert center(0, straight) == pytest.approx(center(0, bent), abs=1e-12)
    assert abs(center(1, straight) - center(1, bent)) > 1e-4
    assert center(1, cross) == pytest.approx(center(1, tetrahedron), abs=1e-12)
    assert abs(center(2, cross) - center(2, tetrahedron)) > 1e-4


@every_order
def test_energies_add_up(l_max: int) -> None:
    model = hipnn(l_max)
    one, two = molecule(5, seed=1), molecule(4, seed=2)
    away = two.positions + np.array([30.0, 0.0, 0.0])
    far = Structure(np.concatenate([one.numbers, two.numbers]), np.concatenate([one.positions, away]))
    labels = evaluate(model, collate([one, two, far], model.cutoff), Request(forces=True))
    assert labels.energy is not None
    assert labels.forces is not None
    assert float(labels.energy[2]) == pytest.approx(float(labels.energy[:2].sum()), abs=1e-11)
    torch.testing.assert_close(labels.forces[9:], labels.forces[:9], rtol=0, atol=1e-11)


@every_order
def test_a_crystal_equals_its_supercell(l_max: int) -> None:
    model, unit = hipnn(l_max), crystal(2)
    shifts = np.array([(a, b, 0) for a in range(2) for b in range(2)]) @ unit.cell
    cell = unit.cell * np.array([[2.0], [2.0], [1.0]])
    large = Structure(
        np.tile(unit.numbers, 4), np.concatenate([unit.positions + s for s in shifts]), cell=cell, pbc=(True,) * 3
    )
    request = Request(forces=True, stress=True, atomic_energies=True)
    labels = evaluate(model, collate([unit, large], model.cutoff), request)
    for name in ("atomic_energies", "forces"):
        value = getattr(labels, name)
        repeated = value[:3].repeat(4, *([1] * (value.dim() - 1)))
        torch.testing.assert_close(value[3:], repeated, rtol=0, atol=1e-10)
    assert labels.stress is not None
    torch.testing.assert_close(labels.stress[1], labels.stress[0], rtol=0, atol=1e-11)


@every_order
def test_a_crystal_is_the_limit_of_a_cluster(l_max: int) -> None:
    """An atom deep inside a finite block has the energy of the crystal: images are real neighbors."""
    model, unit = hipnn(l_max, blocks=1), crystal(1, size=3.4, atoms=1)
    grid = np.array([(a, b, c) for a in (-2, -1, 0, 1, 2) for b in (-2, -1, 0, 1, 2) for c in (-2, -1, 0, 1, 2)])
    cluster = Structure(np.tile(unit.numbers, 125), unit.positions + grid @ unit.cell)
    labels = evaluate(model, collate([unit, cluster], model.cutoff), Request(atomic_energies=True))
    assert labels.atomic_energies is not None
    middle = 1 + int(np.flatnonzero((grid == 0).all(axis=1))[0])
    assert float(labels.atomic_energies[middle]) == pytest.approx(float(labels.atomic_energies[0]), abs=1e-11)


@every_order
def test_single_and_double_precision_agree(l_max: int) -> None:
    model, structures = hipnn(l_max), [*molecules([9, 4]), crystal(0)]
    batch = collate(structures, model.cutoff)
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    wide = evaluate(model, batch, Request(forces=True, probes=probes, hessian=True))
    narrow = evaluate(
        model.float(), batch.to(dtype=torch.float32), Request(forces=True, probes=probes.float(), hessian=True)
    )
    assert narrow.energy is not None
    assert wide.energy is not None
    assert narrow.energy.dtype == torch.float64
    for name in ("energy", "forces", "hvp", "hessian"):
        a, b = getattr(narrow, name).double(), getattr(wide, name)
        assert float((a - b).abs().max()) < 3e-5 * float(b.abs().max()), name


def test_reference_energies_keep_their_digits_in_float32() -> None:
    model = hipnn(0).float()
    exact = [-13.587222780835477, -1029.4889999855063, -2041.9816003861418]
    model.references.energies.copy_(torch.tensor(exact, dtype=torch.float64))
    model = model.to(torch.float32).double().half().float()
    assert model.references.energies.dtype == torch.float64
    assert model.references.energies.tolist() == exact
    structure = Structure([8, 6], [[0.0, 0, 0], [20.0, 0, 0]])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    labels = evaluate(model, collate([structure], model.cutoff, dtype=torch.float32), Request())
    assert labels.energy is not None
    assert float(labels.energy) == exact[1] + exact[2]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_the_error_names_an_unknown_element() -> None:
    structure = Structure([1, 9], [[0.0, 0, 0], [0.95, 0, 0]], id="fluoride-7")
    with pytest.raises(UnknownElementError, match=r'structure "fluoride-7" holds F; Hipnn knows H, C, O only'):
        evaluate(hipnn(0), collate([molecule(3, seed=1), structure], 3.4), Request())


@pytest.mark.parametrize("elements", [(), (1, 1)])
def test_elements_must_be_unique(elements: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="one or more different elements"):
        Hipnn(HipnnConfig(), elements)


@pytest.mark.parametrize(
    "wrong",
    [
        {"l_max": 3},
        {"features": 0},
        {"cutoff": -1.0},
        {"shortest": 3.0, "longest": 2.0},
        {"longest": 9.0},
        {"epsilon": 0.0},
        {"cutoff": float("inf")},
        {"cutoff": float("nan")},
        {"cutof": 5.0},
    ],
    ids=str,
)
def test_invalid_configurations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HipnnConfig(**wrong)


# --- padded molecules ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l_max", [1, 2])
def test_padded_molecules_equal_neighbor_lists(l_max: int) -> None:
    """The other order of the sums: energies, forces, products and parameter gradients, with pairs beyond the cutoff."""
    torch.manual_seed(0)
    config = HipnnConfig(l_max=l_max, features=20, sensitivities=5, onsite_layers=1, cutoff=3.0, longest=2.8)
    model = Hipnn(config, (1, 6, 8)).double()
    batch = collate(molecules([4, 7, 2, 5], elements=(1, 6, 8)), 3.0)
    padded = model.precompute(batch)
    assert padded.precomputed
    probes = torch.randn(2, len(batch.numbers), 3, dtype=torch.float64)
    results = []
    for variant in (padded, replace(batch, precomputed=())):
        prediction = evaluate(model, variant, Request(forces=True, probes=probes), create_graph=True)
        loss = prediction.energy.square().sum() + prediction.forces.square().sum() + prediction.hvp.square().sum()
        slopes = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        values = [prediction.energy, prediction.forces, prediction.hvp, *slopes]
        results.append([value.detach() for value in values if value is not None])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10 * float(other.abs().max() + 1))


def test_molecules_are_padded_only_where_that_is_cheaper() -> None:
    def padded(structures: list[Structure], **options: Any) -> bool:
        model = Hipnn(HipnnConfig(**{"l_max": 1, "features": 20, **options}), (1, 6, 8)).double()
        return bool(model.precompute(collate(structures, 6.5)).precomputed)

    small = molecules([5, 6, 4], elements=(1, 6, 8))
    assert padded(small)
    assert not padded(small, l_max=0)
    assert not padded(small, features=8)
    assert not padded(small, blocks=1)
    line = Structure([6] * 70, 1.4 * np.arange(70)[:, None] * np.ones(3))
    assert not padded([line])
    assert not padded([*small, *[small[0]] * 20, Structure([6] * 40, 1.4 * np.arange(40)[:, None] * np.ones(3))])
