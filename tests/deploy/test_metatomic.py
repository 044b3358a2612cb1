"""Files for metatomic: agreement with the ASE calculator in both dtypes, parts of a system, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase import Atoms

from hesse import Ensemble, SumPotential, Zbl, ZblConfig, evaluate_structures, from_ase
from hesse.deploy import export_metatomic
from hesse.deploy.metatomic_export import interaction_range
from hesse.errors import RequestError
from hesse.structures import Request
from moving_atoms import ELEMENTS, by_ase, ethanol, network, relative_error, silicon
from oracles import Morse

pytest.importorskip("metatomic.torch", reason="metatomic needs metatomic-torch (make engines)")

import metatomic.torch as metatomic
from metatensor.torch import Labels
from metatomic_ase import MetatomicCalculator
from vesin.metatomic import compute_requested_neighbors

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


def calculated(file: Path, atoms: Atoms) -> tuple[float, object, object]:
    copy = atoms.copy()
    copy.calc = MetatomicCalculator(file, device="cpu", check_consistency=True)
    stress = copy.get_stress(voigt=False) if copy.pbc.all() else None
    return copy.get_potential_energy(), copy.get_forces(), stress


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-5)])
@pytest.mark.parametrize("kind", ["hessenet", "hipnn", "ani"])
def test_agreement_with_the_ase_calculator(tmp_path: Path, kind: str, dtype: torch.dtype, tolerance: float) -> None:
    """A molecule, a crystal, and a cell smaller than the cutoff, from one file."""
    potential = network(kind, dtype)
    export_metatomic(tmp_path / "model.pt", potential)
    for atoms in (ethanol(), silicon(), silicon(cubic=False)):
        energy, forces, stress = by_ase(potential, atoms)
        got = calculated(tmp_path / "model.pt", atoms)
        assert got[0] == pytest.approx(energy, rel=tolerance, abs=tolerance)
        assert relative_error(got[1], forces) < tolerance
        if stress is not None:
            assert relative_error(got[2], stress) < tolerance


def test_sums_and_ensembles(tmp_path: Path) -> None:
    potential = Ensemble([SumPotential([Zbl(ZblConfig(), ELEMENTS), network()]), network("hipnn"), network("ani")])
    export_metatomic(tmp_path / "model.pt", potential)
    energy, forces, _ = by_ase(potential, ethanol())
    got = calculated(tmp_path / "model.pt", ethanol())
    assert got[0] == pytest.approx(energy)
    assert relative_error(got[1], forces) < 1e-10
    assert interaction_range(potential) == pytest.approx(10.0)  # two steps of 5 Å: hipnn


def test_energies_of_some_atoms(tmp_path: Path) -> None:
    """Programs that divide space ask for the atoms of one part, in any batch of systems."""
    potential = network()
    export_metatomic(tmp_path / "model.pt", potential)
    model = metatomic.load_atomistic_model(tmp_path / "model.pt")
    systems = metatomic.systems_to_torch([silicon(), ethanol()], dtype=torch.float64)
    for system in systems:
        compute_requested_neighbors(system, "angstrom", model)
    labels = evaluate_structures(potential, [from_ase(silicon()), from_ase(ethanol())], Request(atomic_energies=True))
    assert labels.atomic_energies is not None
    chosen = Labels(["system", "atom"], torch.tensor([[0, 1], [0, 5], [1, 3]], dtype=torch.int32))
    for kind, expected in (
        ("atom", labels.atomic_energies[[1, 5, 8 + 3]]),
        ("system", torch.stack([labels.atomic_energies[[1, 5]].sum(), labels.atomic_energies[11]])),
    ):
        options = metatomic.ModelEvaluationOptions(
            length_unit="angstrom",
            outputs={"energy": metatomic.ModelOutput(unit="eV", sample_kind=kind)},
            selected_atoms=chosen,
        )
        values = model(systems, options, check_consistency=True)["energy"].block().values[:, 0]
        torch.testing.assert_close(values, expected.to(torch.float64), rtol=1e-10, atol=1e-10)


def test_other_units(tmp_path: Path) -> None:
    """An engine in Bohr and Hartree gets the same energy: metatomic converts."""
    export_metatomic(tmp_path / "model.pt", network())
    model = metatomic.load_atomistic_model(tmp_path / "model.pt")
    capabilities = model.capabilities()
    assert capabilities.length_unit == "angstrom"
    assert capabilities.outputs["energy"].unit == "eV"
    assert set(capabilities.atomic_types) == set(ELEMENTS)


def test_refusals(tmp_path: Path) -> None:
    class Looping(Morse):
        """Sums in a loop over the atoms: TorchScript records one number of turns."""

        def forward(self, batch):  # type: ignore[no-untyped-def]
            per_atom = super().forward(batch)
            return torch.stack([per_atom[i] for i in range(len(batch.numbers))])

    target = tmp_path / "model.pt"
    target.write_text("as before")
    with pytest.raises(RequestError, match=r"Looping cannot be exported as TorchScript .*for i in range\(len\(batch"):
        export_metatomic(target, Looping())
    assert target.read_text() == "as before"
    with pytest.raises(RequestError, match="there is no folder"):
        export_metatomic(tmp_path / "none" / "model.pt", network())
    export_metatomic(target, network())
    with pytest.raises(Exception, match="atomic type '16'"):
        calculated(target, Atoms("H2S", [[0, 0, 0], [0, 0, 1.3], [0, 1.3, 0]]))
