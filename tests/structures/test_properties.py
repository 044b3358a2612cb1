"""Properties: selection, concatenation, masks of missing values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hesse.errors import LabelShapeError
from hesse.structures import Properties

KINDS = ("energy", "forces", "hvp", "hessian", "atomic_energies", "stress")


def single(n: int, seed: int, held: set[str], probes: int = 1) -> Properties:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "energy": rng.normal(),
        "forces": rng.normal(size=(n, 3)),
        "hessian": rng.normal(size=(n, 3, n, 3)),
        "atomic_energies": rng.normal(size=n),
        "stress": rng.normal(size=(3, 3)),
    }
    given_labels = {k: v for k, v in values.items() if k in held}
    if "hvp" in held:
        given_labels |= {"probes": rng.normal(size=(probes, n, 3)), "hvp": rng.normal(size=(probes, n, 3))}
        given_labels["hvp_error"] = rng.uniform(size=probes)
    return Properties.single(n, **given_labels)


singles = st.lists(
    st.builds(single, st.integers(1, 4), st.integers(0, 99), st.sets(st.sampled_from(KINDS)), st.integers(1, 3)),
    min_size=1,
    max_size=6,
)


def same(mine: Properties, theirs: Properties) -> None:
    """Equal where present; the padding of probes may differ in length."""
    assert mine.n_atoms.tolist() == theirs.n_atoms.tolist()
    for name in KINDS:
        if name == "hvp":
            a, b = mine.mask("hvp"), theirs.mask("hvp")
            assert [int(x) for x in a.sum(0)] == [int(x) for x in b.sum(0)]
            for i in range(len(mine)):
                atoms = mine.atom_slice(i)
                for field in ("probes", "hvp"):
                    x, y = getattr(mine, field), getattr(theirs, field)
                    if a[:, i].any():
                        torch.testing.assert_close(x[a[:, i]][:, atoms], y[b[:, i]][:, atoms])
            continue
        torch.testing.assert_close(mine.mask(name), theirs.mask(name))
        for i in mine.mask(name).nonzero()[:, 0].tolist():
            if name == "hessian":
                torch.testing.assert_close(mine.hessian_of(i), theirs.hessian_of(i))
            elif name in ("forces", "atomic_energies"):
                x, y = getattr(mine, name)[mine.atom_slice(i)], getattr(theirs, name)[theirs.atom_slice(i)]
                torch.testing.assert_close(x, y)
            else:
                torch.testing.assert_close(getattr(mine, name)[i], getattr(theirs, name)[i])


@given(singles)
def test_selecting_undoes_concatenating(parts: list[Properties]) -> None:
    full = Properties.concatenate(parts)
    for i, part in enumerate(parts):
        same(full.select(torch.tensor([i])), part)


@given(singles, st.data())
def test_selection_equals_concatenation_of_the_selected(parts: list[Properties], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(parts) - 1), min_size=1, max_size=8))
    same(Properties.concatenate(parts).select(torch.tensor(chosen)), Properties.concatenate([parts[i] for i in chosen]))


@given(singles, singles)
def test_concatenation_is_associative(left: list[Properties], right: list[Properties]) -> None:
    nested = Properties.concatenate([Properties.concatenate(left), Properties.concatenate(right)])
    same(nested, Properties.concatenate([*left, *right]))


@given(singles)
def test_missing_values_are_nan(parts: list[Properties]) -> None:
    full = Properties.concatenate(parts)
    for name in ("energy", "stress"):
        if (value := getattr(full, name)) is not None:
            assert bool(value[~full.mask(name)].isnan().all())
    if full.forces is not None:
        for i in (~full.mask("forces")).nonzero()[:, 0].tolist():
            assert bool(full.forces[full.atom_slice(i)].isnan().all())


@given(singles)
def test_products_with_stored_hessians(parts: list[Properties]) -> None:
    full = Properties.concatenate(parts)
    vectors = torch.randn(2, int(full.n_atoms.sum()), 3, dtype=torch.float64)
    if full.hessian is None:
        with pytest.raises(LabelShapeError, match="no Hessians"):
            full.hessian_matvec(vectors)
        return
    got = full.hessian_matvec(vectors)
    for i in range(len(full)):
        atoms = full.atom_slice(i)
        if full.mask("hessian")[i]:
            want = torch.einsum("aibj,kbj->kai", full.hessian_of(i), vectors[:, atoms])
            torch.testing.assert_close(got[:, atoms], want)
        else:
            assert bool(got[:, atoms].isnan().all())
            with pytest.raises(LabelShapeError, match="no Hessian"):
                full.hessian_of(i)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"forces": np.zeros((2, 3))}, r"forces of shape \(2, 3\), expected \(3, 3\)"),
        ({"hessian": np.zeros((9, 9))}, r"\.reshape\(3, 3, 3, 3\)"),
        ({"probes": np.zeros((1, 3, 3)), "hvp": np.zeros((2, 3, 3))}, "hvp has shape"),
        ({"hvp": np.zeros((1, 3, 3))}, "need the probes"),
        ({"stress": np.zeros(6)}, "stress"),
        ({"atomic_energies": np.zeros((3, 1))}, "atomic_energies"),
        ({"probes": np.zeros((1, 3, 3)), "hvp": np.zeros((1, 3, 3)), "hvp_error": [0.1, 0.2]}, "hvp_error"),
    ],
    ids=lambda x: "" if isinstance(x, dict) else x[:12],
)
def test_wrong_shapes_raise(values: dict[str, Any], words: str) -> None:
    with pytest.raises(LabelShapeError, match=words):
        Properties.single(3, structure_id="water-17", **values)


def test_energies_stay_in_float64() -> None:
    moved = single(3, 0, {"energy", "forces", "atomic_energies"}).to(dtype=torch.float32)
    assert moved.forces is not None
    assert moved.energy is not None
    assert moved.atomic_energies is not None
    assert moved.forces.dtype == torch.float32
    assert moved.energy.dtype == moved.atomic_energies.dtype == torch.float64
