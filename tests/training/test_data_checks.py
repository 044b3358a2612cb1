"""What a run refuses before its first step: charges that contradict each other, weights that mean nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import config, training_data

from hesse.datasets import Dataset, open_dataset, write_dataset
from hesse.errors import LabelValueError, MissingLabelError
from hesse.losses import LossTerm
from hesse.models import fit_reference_energies
from hesse.training import train
from hesse.training.run_setup import check_data
from oracles import Morse, labeled, molecules


def data(**states: tuple[int, int]) -> Dataset:
    """Four molecules, some with a charge and a multiplicity."""
    structures = molecules([3, 4, 3, 4], seed=3)
    changed = [replace(s, id=f"m{k}") for k, s in enumerate(structures)]
    for k, structure in enumerate(changed):
        charge, multiplicity = states.get(structure.id, (0, 1))
        changed[k] = replace(structure, charge=charge, multiplicity=multiplicity)
    return labeled(Morse(), changed, probes=1)


def weighted(weights: list[float]) -> Dataset:
    plain = data()
    return replace(plain, labels=plain.labels.replace(weight=torch.tensor(weights, dtype=torch.float64)))


def test_an_anion_among_neutrals_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelValueError) as refused:
        train(data(m2=(-1, 1)), None, config(), output=tmp_path / "run", quiet=True)
    text = str(refused.value)
    assert '3 of charge 0 and multiplicity 1 ("m0", "m1", "m3")' in text
    assert '1 of charge -1 and multiplicity 1 ("m2")' in text
    assert "allow_mixed_charges: true" in text
    check_data(data(m2=(-1, 1)), None, config(allow_mixed_charges=True))
    check_data(data(**{f"m{k}": (-1, 1) for k in range(4)}), None, config())  # all of one charge


def test_radicals_and_the_validation_data_count_too() -> None:
    with pytest.raises(LabelValueError, match="1 of charge 0 and multiplicity 3"):
        check_data(data(m0=(0, 3)), None, config())
    cations = data(**{f"m{k}": (1, 2) for k in range(4)})
    with pytest.raises(LabelValueError, match=r"4 of charge \+1 and multiplicity 2"):
        check_data(data(), cations, config())
    check_data(data(m0=(0, 0)), None, config())  # 0: not stated


def test_charges_in_a_streamed_file_are_seen(tmp_path: Path) -> None:
    structures = [replace(s, id=f"m{k}") for k, s in enumerate(molecules([3] * 80, seed=3))]
    structures[41] = replace(structures[41], charge=1, multiplicity=2)
    weights = torch.linspace(0.0, 1.0, 80, dtype=torch.float64)
    whole = labeled(Morse(), structures, probes=0)
    write_dataset(tmp_path / "a.h5", replace(whole, labels=whole.labels.replace(weight=weights)))
    streamed = open_dataset(tmp_path / "a.h5", memory_mib=0.02)
    assert not isinstance(streamed, Dataset)
    assert streamed.charge_states.tolist() == [[0, 1]] * 41 + [[1, 2]] + [[0, 1]] * 38
    assert torch.equal(streamed.energies().weight, weights)
    with pytest.raises(LabelValueError, match=r'multiplicity 2 \("m41"\)'):
        check_data(streamed, None, config(weights={"hvp": 0}))


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_weights_are_numbers_from_zero(value: float) -> None:
    with pytest.raises(LabelValueError, match=r'"m1": weight = .* expected 0 or more \(1 of 4'):
        check_data(weighted([1, value, 1, 1]), None, config())
    with pytest.raises(LabelValueError, match='"m1"'):
        check_data(data(), weighted([1, value, 1, 1]), config())


def test_a_label_of_structures_without_weight_only_is_refused() -> None:
    check_data(weighted([0, 0, 0, 1]), None, config())
    with pytest.raises(MissingLabelError, match="all 4 structures with the label 'energy' have the weight 0"):
        check_data(weighted([0, 0, 0, 0]), None, config())
    unweighted = config(loss=[LossTerm(quantity="forces", structure_weights=False)])
    check_data(weighted([0, 0, 0, 0]), None, unweighted)


def test_structures_of_weight_zero_do_not_shift_the_energies_per_element() -> None:
    clean = data()
    energy = clean.labels.energy
    assert energy is not None
    wrong = clean.labels.replace(energy=energy + torch.tensor([0.0, 0.0, 0.0, 1e6]))
    ignored = wrong.replace(weight=torch.tensor([1.0, 1.0, 1.0, 0.0]))
    three = clean.select([0, 1, 2])
    expected = fit_reference_energies(three.structures, three.labels, clean.elements)
    torch.testing.assert_close(fit_reference_energies(clean.structures, ignored, clean.elements), expected)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        (
            {"loss": [{"quantity": "energy"}, {"quantity": "hvp", "mass_weighted": True, "name": "light"}]},
            "the loss term light with mass_weighted: true",
        ),
        ({"probe": {"source": "fresh", "weighting": "mass"}}, "probe.weighting: mass"),
        ({"probe": {"source": "fresh", "weighting": "soft-modes"}}, "probe.weighting: soft-modes"),
    ],
    ids=["loss", "mass", "soft-modes"],
)
def test_masses_of_isotopes_are_refused_where_terms_are_weighted_by_masses(
    tmp_path: Path, changes: dict[str, Any], option: str
) -> None:
    data = training_data()
    heavy = {7: replace(data.structures[7], masses=data.structures[7].atomic_masses * 1.1)}
    with_isotopes = replace(data, structures=tuple(heavy.get(k, s) for k, s in enumerate(data.structures)))
    pattern = rf'1 of 10 structures have masses of isotopes \("{data.structures[7].id}"\), and {option} knows'
    with pytest.raises(LabelValueError, match=pattern):
        train(with_isotopes, None, config(steps=1, **changes), output=tmp_path / "refused", quiet=True)
    assert not (tmp_path / "refused" / "checkpoint.safetensors").exists()
    # Without such an option, and without such masses, they train.
    train(with_isotopes, None, config(steps=1), output=tmp_path / "plain", quiet=True)
    train(data, None, config(steps=1, **changes), output=tmp_path / "standard", quiet=True)
