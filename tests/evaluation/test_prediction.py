"""Predictions in batches equal predictions one by one; unknown elements and invalid values are reported by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hesse
from hesse.datasets import Dataset, write_dataset
from hesse.errors import ConfigError, EngineError, MissingLabelError, RequestError, UnknownElementError
from hesse.evaluation import evaluate_model, predict
from hesse.models import HesseNet, HesseNetConfig, save_model
from hesse.potential import Potential
from hesse.structures import Batch, Properties
from oracles import LennardJones, Morse, atom, crystal, labeled, linear, molecules


class Scaled(Potential):
    """A Morse potential with one parameter, for two elements only."""

    cutoff = 6.0
    elements = (1, 6, 8)

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float32))
        self.inner = Morse()
        self.seen: list[torch.dtype] = []

    def forward(self, batch: Batch) -> Tensor:
        self.seen.append(batch.positions.dtype)
        assert not self.training
        return self.scale * self.inner(batch)


def mixed() -> Dataset:
    """Every third structure lacks its Hessian, every second one its second probe; one is periodic, one an atom."""
    structures = [*molecules([5, 2, 7, 3, 4]), linear(), atom(), crystal()]
    pairs = []
    for k, s in enumerate(structures):
        data = labeled(LennardJones(), [s], probes=1 + k % 2 if k != 3 else 0, hessian=k % 3 != 0)
        pairs.append((s, data.labels))
    return Dataset.from_pairs(pairs)


@pytest.mark.parametrize("memory_mib", [1e-6, 0.1, 1000.0])
def test_batch_size_does_not_change_predictions(memory_mib: float) -> None:
    data = mixed()
    result = predict(LennardJones(), data, memory_mib=memory_mib)
    for name in ("energy", "forces", "hvp", "hessian"):
        assert result.mask(name).tolist() == (data.labels if name in ("hvp", "hessian") else result).mask(name).tolist()
        # The labels are closed forms of the same potential.
        torch.testing.assert_close(
            getattr(result, name), getattr(data.labels, name), rtol=1e-9, atol=1e-9, equal_nan=True
        )


def test_hessians_can_be_left_out() -> None:
    assert predict(LennardJones(), mixed(), hessian=False).hessian is None


def test_the_default_precision_is_that_of_the_model() -> None:
    data = labeled(Morse(), molecules([3, 4]), hessian=True)
    model = Scaled().train()
    single = predict(model, data)
    assert set(model.seen) == {torch.float32}
    double = predict(model, data, dtype=torch.float64)
    assert set(model.seen) == {torch.float32}  # the copy saw float64; the model itself nothing
    assert model.scale.dtype == torch.float32
    assert model.training
    assert single.forces is not None
    assert single.forces.dtype == torch.float64
    torch.testing.assert_close(double.hessian, data.labels.hessian, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(single.hessian, data.labels.hessian, rtol=1e-3, atol=1e-3)
    assert not torch.equal(single.forces, double.forces)  # type: ignore[arg-type]


def test_an_unknown_element_is_reported_with_its_structure() -> None:
    data = labeled(Morse(), [*molecules([3]), *molecules([2], 1, elements=(9,), name="fluorine")])
    with pytest.raises(
        UnknownElementError, match=r'1 of 2 structures .* structure "fluorine" holds F; Scaled knows H, C, O only'
    ):
        predict(Scaled(), data)


def test_a_prediction_that_is_not_finite_is_reported_by_name() -> None:
    data = labeled(Morse(), molecules([3, 4]))

    class Broken(Morse):
        def forward(self, batch: Batch) -> Tensor:
            bad = torch.tensor([name == data.structures[1].id for name in batch.ids])
            return torch.where(bad[batch.structure_index], torch.nan, 1.0) * super().forward(batch)

    with pytest.raises(EngineError, match=data.structures[1].id):
        predict(Broken(), data)


def test_names_paths_and_results_are_accepted(tmp_path: Path) -> None:
    data = labeled(Morse(), molecules([3, 4]), hessian=True)
    write_dataset(tmp_path / "data.h5", data)
    network = HesseNet(HesseNetConfig(features=4, channels=2, radial=3), (1, 6, 7, 8)).double()
    save_model(tmp_path / "model.hesse", network, {})
    expected = hesse.evaluate(network, data)
    stored = hesse.evaluate(str(tmp_path / "model.hesse"), tmp_path / "data.h5", dtype=torch.float64)
    assert [r.value for r in stored.rows] == pytest.approx([r.value for r in expected.rows])
    lines = expected.table().splitlines()
    assert lines[0].split() == ["property", "RMSE", "MAE", "noise", "floor", "unit", "values"]
    assert [line.split()[0] for line in lines[1:]] == ["energy", "energy_per_atom", "forces", "hvp", "hessian"]
    row = expected.row("forces")
    assert row is not None
    assert f"{row.value:.3g}" in lines[3]


def test_wrong_arguments_get_a_reply() -> None:
    data = labeled(Morse(), molecules([3]))
    for model, content, words in (
        (nn.Linear(1, 1), data, "adapters"),
        (None, data, "expected a potential"),
        (Morse(), 3, "Dataset"),
    ):
        with pytest.raises(RequestError, match=words):
            hesse.evaluate(model, content)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="metrics are"):
        hesse.evaluate(Morse(), data).row("forces", "rms")


def test_data_without_labels_are_refused() -> None:
    data = labeled(Morse(), molecules([3]))
    bare = Dataset(data.structures, Properties(n_atoms=data.labels.n_atoms))
    with pytest.raises(MissingLabelError, match="hesse label"):
        evaluate_model(Morse(), bare)
    with pytest.raises(ConfigError, match="memory_mib"):
        predict(Morse(), data, memory_mib=0)


def test_a_perfect_potential_has_no_error() -> None:
    data = labeled(Morse(), molecules([3, 5, 8]), hessian=True, probes=2)
    result = evaluate_model(Morse(), data, name="here")
    assert result.name == "here"
    assert {r.property for r in result.rows} == {"energy", "energy_per_atom", "forces", "hvp", "hessian"}
    assert all(r.value < 1e-9 for r in result.rows)
    worse = evaluate_model(Morse(depth=4.4), data)  # all derivatives are proportional to the depth
    hessian = data.labels.hessian
    assert hessian is not None
    row = worse.row("hessian")
    assert row is not None
    assert row.value == pytest.approx(0.1 * float(hessian.square().mean().sqrt()), rel=1e-9)
    per_structure = worse.per_structure("hessian")
    lengths = data.labels.hessian_lengths().numpy()
    assert (per_structure**2 @ lengths / lengths.sum()) ** 0.5 == pytest.approx(row.value)
    reference, predicted = worse.parity("forces")
    assert predicted == pytest.approx(1.1 * reference)
    assert worse.row("forces", tag="nowhere") is None


def test_masked_predictions_are_nan() -> None:
    data = mixed()
    result = predict(LennardJones(), data)
    assert result.hvp is not None
    used = result.mask("hvp").repeat_interleave(data.labels.n_atoms, dim=1)
    assert torch.isfinite(result.hvp).all(-1).eq(used).all()
    assert result.replace().regularizer is None
