"""From both ends to a reaction: two tetrahedra of Morse atoms, whose only transition state is a planar rhombus."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ase.units import _c, _hplanck, _k

import closed_form_engines
import hesse
import oracles
from hesse.engines import PotentialEngine
from hesse.errors import ConfigError, EngineError, RequestError, UnknownElementError
from hesse.pes import EndMatch, ReactionOutcome, compare_end, eyring_rate, wigner_factor
from hesse.pes.end_identity import match_ends
from hesse.structures import Structure, TrainingEnvironments

TETRAHEDRON = np.array([[0.55, 0, -0.39], [-0.55, 0, -0.39], [0, 0.55, 0.39], [0, -0.55, 0.39]])


def ends() -> tuple[Structure, Structure]:
    return (
        Structure([6] * 4, TETRAHEDRON, id="left"),
        Structure([6] * 4, TETRAHEDRON * [1, 1, -1] @ oracles.rotation(3) + [3, 1, 2], id="right"),
    )


@pytest.fixture(scope="module")
def found() -> hesse.pes.Reaction:
    return hesse.reaction(*ends(), closed_form_engines.own_engine(), verify=oracles.Morse(depth=5.0), name="inversion")


def test_the_known_reaction_is_found(found):
    assert found.outcome is ReactionOutcome.FOUND, found.reason
    top = hesse.saddle(oracles.rhombus(0), closed_form_engines.own_engine(), fmax=1e-4)
    assert found.barrier == pytest.approx(top.energy, abs=1e-4)  # the minima are at zero
    assert found.reverse_barrier == pytest.approx(top.energy, abs=1e-4)
    assert found.reaction_energy == pytest.approx(0.0, abs=1e-5)
    assert found.imaginary_frequency == pytest.approx(top.modes.frequencies[0], rel=1e-2)
    assert [c.match for c in found.matches] == [EndMatch.SAME, EndMatch.SAME]
    assert found.thermo.gibbs_reaction_energy == pytest.approx([0.0], abs=1e-3)
    assert found.thermo.gibbs_barrier == pytest.approx(found.thermo.reverse_gibbs_barrier, abs=1e-3)
    expected = eyring_rate(found.thermo.gibbs_barrier, 298.15) * wigner_factor(found.imaginary_frequency, 298.15)
    assert found.thermo.rate == pytest.approx(expected)


def test_the_path_leads_from_the_reactant_to_the_product(found):
    left, right = (run.structure for run in (found.reactant, found.product))
    points = found.path_points
    for point, expected in ((points[0], left), (points[-1], right)):
        assert compare_end(expected, point.structure).rmsd < 0.15
    assert np.argmax([p.energy for p in points]) == points.index(found.irc.saddle)


@pytest.mark.slow
def test_every_call_of_the_engine_is_recorded():
    engine = closed_form_engines.own_engine()
    result = hesse.reaction(*ends(), engine)
    assert result.engine_calls == engine.calls
    assert list(result.calls) == [
        "relaxation",
        "path",
        "saddle",
        "reaction path",
        "ends of the path",
        "vibrations",
    ]
    saddle = result.calls["saddle"]
    # A Hessian of four atoms takes the point itself and two gradients for each of twelve coordinates.
    assert saddle.evaluations == saddle.gradients + 25 * saddle.hessians
    model = hesse.reaction(*ends(), PotentialEngine(oracles.Morse(), "morse"))
    assert model.found
    assert model.calls["saddle"].evaluations == saddle.gradients + saddle.hessians


def test_another_engine_evaluates_the_answer(found):
    check = found.verification
    assert check.saddle_found
    assert check.barrier == pytest.approx(5.0 / 4.0 * found.barrier, rel=1e-6)  # all energies scale with the depth
    assert check.distance < 1e-3
    assert check.imaginary_frequency == pytest.approx(np.sqrt(5.0 / 4.0) * found.imaginary_frequency, rel=1e-2)
    broken = hesse.pes.verify_reaction(found, closed_form_engines.ClosedForm(oracles.Morse(), noise=float("nan")))
    assert not broken.saddle_found
    assert broken.barrier is None
    assert "not finite" in broken.reason
    model = hesse.HesseNet(hesse.HesseNetConfig(features=4, channels=2, radial=3, cutoff=3.0), (1, 8)).double()
    lacking = hesse.pes.verify_reaction(found, model)
    assert not lacking.saddle_found
    assert "C" in lacking.reason
    with pytest.raises(RequestError, match="no saddle point"):
        hesse.pes.verify_reaction(hesse.pes.Reaction("r", "level", ReactionOutcome.SAME_ENDS), model)


def test_the_row_is_json(found):
    row = json.loads(json.dumps(found.row(), allow_nan=False))
    assert row["found"]
    assert row["outcome"] == "found"
    assert row["ends_match"] is True
    assert [end["match"] for end in row["ends"]] == ["same", "same"]
    assert row["engine_calls"] == sum(stage["evaluations"] for stage in row["calls"].values())
    assert row["gibbs_barrier"] == pytest.approx(found.thermo.gibbs_barrier[0])
    assert row["rates"][0]["rate"] == row["rate"] > 0
    assert row["verification"]["saddle_found"]
    assert "outside_training" not in row


def test_the_row_says_that_a_model_is_outside_its_training_data():
    model = oracles.Morse()
    rng = np.random.default_rng(0)
    known = [Structure([6] * 4, TETRAHEDRON + rng.normal(0, 0.03, (4, 3)), id=str(i)) for i in range(40)]
    model.training_environments = TrainingEnvironments.from_structures(known)
    row = hesse.reaction(*ends(), model, attempts=1).row()
    assert row["outside_training"]
    assert row["extrapolation_grade"] > 1


def test_searches_that_end_early_say_why():
    left, right = ends()
    engine = closed_form_engines.own_engine()
    same = hesse.reaction(left, left, engine)
    assert (same.outcome, same.found, same.barrier) == (ReactionOutcome.SAME_ENDS, False, None)
    far = Structure([6] * 4, TETRAHEDRON * [1, 1, 2.5], id="far")
    changed = hesse.reaction(left, far, engine)
    assert changed.outcome is ReactionOutcome.END_CHANGED
    assert "the product as given is no minimum of closed form: C0-C2 formed" in changed.reason
    short = hesse.reaction(left, right, engine, path_steps=1, saddle_steps=1, attempts=1)
    assert short.outcome is ReactionOutcome.NO_SADDLE
    assert json.dumps(short.row(), allow_nan=False)
    cut = hesse.reaction(left, right, engine, irc_steps=1, attempts=1)
    assert cut.outcome is ReactionOutcome.PATH_INCOMPLETE


def test_a_failing_engine_is_an_outcome():
    class Fails(oracles.Morse):
        def exact(self, structure):
            if np.linalg.svd(structure.positions - structure.positions.mean(0))[1][2] < 0.05:
                raise EngineError("no convergence")
            return super().exact(structure)

    result = hesse.reaction(*ends(), closed_form_engines.ClosedForm(Fails()), images=5)
    assert result.outcome is ReactionOutcome.ENGINE_FAILED
    assert "no convergence" in result.reason
    assert result.reactant is not None


@pytest.mark.slow
def test_a_later_failure_does_not_hide_an_earlier_result():
    class FailsLater(closed_form_engines.ClosedForm):
        limit = 10**9

        def energy_function(self, structure):
            compute = super().energy_function(structure)

            def point(positions):
                if self.calls >= self.limit:
                    raise EngineError("no license any more")
                return compute(positions)

            return point

    engine = FailsLater(oracles.Morse())
    whole = hesse.reaction(*ends(), engine)
    engine.calls, engine.limit = 0, engine.calls - 5  # in the last stage
    without = hesse.reaction(*ends(), engine)
    assert without.found
    assert without.thermo is None
    assert without.reason == "no free energies: no license any more"
    assert without.barrier == pytest.approx(whole.barrier)
    assert json.dumps(without.row(), allow_nan=False)
    # The second band fails, the first one led to a saddle point whose path was cut.
    engine.calls, engine.limit = 0, 10**9
    first = hesse.reaction(*ends(), engine, irc_steps=1, attempts=1)
    engine.calls, engine.limit = 0, engine.calls + 20
    second = hesse.reaction(*ends(), engine, irc_steps=1, attempts=2)
    assert first.outcome is second.outcome is ReactionOutcome.PATH_INCOMPLETE
    assert second.saddle.energy == pytest.approx(first.saddle.energy)


def test_wrong_requests_get_a_reply():
    left, right = ends()
    engine = closed_form_engines.own_engine()
    with pytest.raises(RequestError, match="they are C4 and C3N"):
        hesse.reaction(left, Structure([7, 6, 6, 6], right.positions), engine)
    with pytest.raises(ConfigError, match="images"):
        hesse.reaction(left, right, engine, images=0)
    with pytest.raises(ConfigError, match="temperature"):
        hesse.reaction(left, right, engine, temperature=-5.0)
    with pytest.raises(ConfigError, match="expected a list of 1 or more"):
        hesse.reaction(left, right, engine, temperature=())
    model = hesse.HesseNet(hesse.HesseNetConfig(features=4, channels=2, radial=3, cutoff=3.0), (1, 8)).double()
    with pytest.raises(UnknownElementError):
        hesse.reaction(left, right, model)


def test_rates_of_closed_forms():
    assert eyring_rate(0.0, 298.15) == pytest.approx([_k * 298.15 / _hplanck], rel=1e-6)
    # Ten times slower for every kT ln 10.
    assert eyring_rate([0.0, 8.617333e-5 * 298.15 * np.log(10)], 298.15) == pytest.approx(
        [6.2124e12, 6.2124e11], rel=1e-4
    )
    x = _hplanck * _c * 1e5 / (_k * 300.0)  # 1000 cm⁻¹
    assert wigner_factor(-1000.0, 300.0) == pytest.approx([1.0 + x**2 / 24.0], rel=1e-6)
    with pytest.raises(ConfigError, match="positive temperatures"):
        eyring_rate(0.5, 0.0)


BUTANE = np.array([[0, 0, 0], [1.5, 0, 0], [2.0, 1.4, 0], [3.5, 1.4, 0.0]])


def test_ends_are_compared_by_bonds_then_by_geometry():
    chain = Structure([7, 6, 6, 8], BUTANE, id="chain")
    turned = Structure([7, 6, 6, 8], BUTANE @ oracles.rotation(1) + 3.0)
    assert compare_end(chain, turned).match is EndMatch.SAME
    folded = Structure([7, 6, 6, 8], [*BUTANE[:3], [2.5, 1.9, 1.3]])
    assert compare_end(chain, folded).match is EndMatch.CONFORMER
    exchanged = Structure([7, 6, 6, 8], [BUTANE[k] for k in (0, 2, 1, 3)])
    assert compare_end(chain, exchanged).match is EndMatch.RELABELED
    other = Structure([7, 6, 6, 8], [[0, 1.5, 0], *BUTANE[1:]])
    found = compare_end(chain, Structure([7, 6, 6, 8], [[9.0, 0, 0], *BUTANE[1:]]))
    assert found.match is EndMatch.DIFFERENT
    assert found.broken == ((0, 1),)
    assert compare_end(chain, other).match is EndMatch.DIFFERENT
    assert [match.rank for match in EndMatch] == [0, 1, 2, 3]


def test_what_counts_as_found_depends_on_how_alike_the_ends_are():
    chain = (Structure([7, 6, 6, 8], BUTANE, id="chain"), 0.0)
    folded = (Structure([7, 6, 6, 8], [*BUTANE[:3], [2.5, 1.9, 1.3]]), 0.1)
    apart = (Structure([7, 6, 6, 8], [[9.0, 0, 0], *BUTANE[1:]]), 1.0)
    order, matches, found = match_ends(chain, apart, (apart, folded))
    assert (order, found) == ((1, 0), True)
    assert [m.match for m in matches] == [EndMatch.CONFORMER, EndMatch.SAME]
    # Between conformers another conformer is not the end that was meant.
    assert not match_ends(chain, folded, (chain, chain))[2]
    assert match_ends(chain, folded, (folded, chain))[2]
    # A molecule that exchanges two atoms: the path back to itself is not that reaction.
    exchanged = (Structure([7, 6, 6, 8], [BUTANE[k] for k in (0, 2, 1, 3)]), 0.0)
    assert match_ends(chain, exchanged, (chain, exchanged))[2]
    assert not match_ends(chain, exchanged, (chain, chain))[2]
