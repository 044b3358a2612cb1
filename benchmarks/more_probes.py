"""Cost of a further probe per structure, and the variance that it removes.

    python benchmarks/more_probes.py                                          # tiny committed data
    python benchmarks/more_probes.py --train FOLDER/rtp-train.h5 --structures 16 64 --probes 1 2 4 8
    python benchmarks/more_probes.py --train FILE --only variance --model runs/a/model.hesse

Costs: processor time of one training step (prediction, loss, gradient with respect to parameters; float32, one thread)
in three ways, interleaved on the same structures: all directions in one vectorized pass, one direction after the other,
and every structure repeated K times with one direction each. Medians; the script stops if the gradients do not agree.

Variance: the gradient of the curvature term, for probes and structures drawn at random. Over n structures with K probes
each its variance is B/n + W/(nK), with B from the structures (of the mean over all probes) and W from the probes. Both
are estimated from two independent probes per structure: of two gradients a and b of one structure, half the mean of
|a − b|² is W, and the variance of the means (a + b)/2 over structures is B + W/2.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from hesse.curvature import hvp as derivatives
from hesse.datasets import Dataset, read_dataset
from hesse.models import load_model
from hesse.potential import Potential
from hesse.probes import ProbeSeed, make_probe
from hesse.runtime.devices import disable_malloc_trim
from hesse.structures import Batch, Properties
from hesse.training import TrainConfig
from hesse.training.initial_model import build_initial_potential
from hesse.training.step import LossAndGradient

TINY = Path(__file__).parent / "reactions" / "tiny" / "rtp-train.h5"
IN_TURN, AT_ONCE = {"cpu": 0}, {"cpu": 10**9}
EF, EF_HVP, HVP = (
    {"energy": 4.0, "forces": 0.3, "hvp": 0.0},
    {"energy": 4.0, "forces": 0.3, "hvp": 0.15},
    {"energy": 0.0, "forces": 0.0, "hvp": 1.0},
)
ABSENT = {"hessian": 0.0, "atomic_energies": 0.0, "stress": 0.0, "regularizer": 0.0}


def probed(
    data: Dataset, indices: Sequence[int], model: Potential, probes: int, epoch: int = 0
) -> tuple[Batch, Properties]:
    """Structures with `probes` Rademacher products each, computed from their Hessians."""
    batch, labels = data.batch(indices, model.cutoff, dtype=torch.float32)
    directions = make_probe("rademacher", probes).draw(batch, ProbeSeed(0, epoch))
    products = labels.hessian_matvec(directions)
    return batch, labels.replace(
        probes=directions, hvp=products, hvp_mask=None, hvp_error=None, hessian=None, hessian_mask=None
    )


def repeated(data: Dataset, indices: Sequence[int], model: Potential, labels: Properties) -> tuple[Batch, Properties]:
    """The same structures once for each probe."""
    assert labels.probes is not None
    assert labels.hvp is not None
    batch, more = data.batch(list(indices) * len(labels.probes), model.cutoff, dtype=torch.float32)
    flat = {"probes": labels.probes.reshape(1, -1, 3), "hvp": labels.hvp.reshape(1, -1, 3)}
    return batch, more.replace(**flat, hvp_mask=None, hvp_error=None, hessian=None, hessian_mask=None)


def timed(
    step: LossAndGradient, microbatch: tuple[Batch, Properties], weights: dict[str, float]
) -> tuple[float, Tensor]:
    """Seconds of one step, and its gradient as one vector."""
    step.potential.zero_grad(set_to_none=True)
    start = time.process_time()
    step([microbatch], {**weights, **ABSENT})
    spent = time.process_time() - start
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in step.trainable_parameters()]
    return spent, torch.cat([gradient.reshape(-1) for gradient in gradients])


def costs(data: Dataset, kind: str, structures: int, probes: Sequence[int], repeats: int) -> list[str]:
    """Lines of a table for one network and batch size."""
    config = TrainConfig.model_validate({"model": {"kind": kind}})
    step = LossAndGradient(build_initial_potential(config, data, None))
    indices = torch.linspace(0, len(data) - 1, structures).long().tolist()
    cases: dict[tuple[str, int], tuple[tuple[Batch, Properties], dict[str, float]]] = {}
    for k in sorted({1, *probes}):
        microbatch = probed(data, indices, step.potential, k)
        cases["at once", k] = microbatch, EF_HVP
        if k > 1:
            cases["in turn", k] = microbatch, EF_HVP
            cases["repeated", k] = repeated(data, indices, step.potential, microbatch[1]), EF_HVP
    cases["E-F", 0] = cases["at once", 1][0], EF
    times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for repeat in range(repeats + 1):
        gradients: dict[int, Tensor] = {}
        for (method, k), (microbatch, weights) in cases.items():
            derivatives.SEQUENTIAL_ABOVE_ATOMS = IN_TURN if method == "in turn" else AT_ONCE
            spent, gradient = timed(step, microbatch, weights)
            if repeat:
                times[method, k].append(spent)
            torch.testing.assert_close(
                gradient, gradients.setdefault(k, gradient), rtol=1e-3, atol=1e-4 * float(gradient.norm())
            )
    median = {case: statistics.median(values) for case, values in times.items()}
    ef, one = median["E-F", 0], median["at once", 1]
    lines = []
    for k in sorted(set(probes) - {1}):
        further = [(median[method, k] - one) / (k - 1) / ef for method in ("at once", "in turn", "repeated")]
        cells = " | ".join(f"{value:.2f}" for value in further)
        lines.append(f"| {kind} | {structures} | {1e3 * ef:.0f} | {one / ef:.2f} | {k} | {cells} |")
    return lines


def gradients_of_pairs(data: Dataset, model: Potential, structures: int) -> Tensor:
    """Gradients of the curvature term, `[structures, 2, parameters]`: two independent probes for each structure."""
    step = LossAndGradient(model)
    indices = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:structures].tolist()
    return torch.stack(
        [
            torch.stack([timed(step, probed(data, [k], model, 1, epoch), HVP)[1] for epoch in (0, 1)]).double()
            for k in indices
        ]
    )


def variances(pairs: Tensor) -> tuple[float, float]:
    """Variances B of the structures and W of the probes (see above), over the squared norm of the mean gradient."""
    within = float((pairs[:, 0] - pairs[:, 1]).square().sum(-1).mean()) / 2
    mean = pairs.mean((0, 1))
    of_means = float((pairs.mean(1) - mean).square().sum()) / (len(pairs) - 1)
    length = max(float(mean.square().sum()) - of_means / len(pairs), 1e-300)
    return (of_means - within / 2) / length, within / length


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, default=TINY, help="data set with Hessians (default: the tiny one)")
    parser.add_argument("--kind", nargs="+", default=["hipnn", "ani", "hessenet"])
    parser.add_argument("--structures", nargs="+", type=int, default=[16])
    parser.add_argument("--probes", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--model", help="for the variance: a trained .hesse model (default: untrained networks)")
    parser.add_argument("--sample", type=int, default=100, help="for the variance: number of structures")
    parser.add_argument("--only", choices=("costs", "variance"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    disable_malloc_trim()  # as training does
    data = read_dataset(options.train)
    if options.only in (None, "costs"):
        print("| network | structures | E-F, ms | E-F-HVP / E-F | probes | further one: at once | in turn | repeated |")
        print("|---|---|---|---|---|---|---|---|")
        for kind in options.kind:
            for structures in options.structures:
                print("\n".join(costs(data, kind, structures, options.probes, options.repeats)), flush=True)
    if options.only in (None, "variance"):
        models = {options.model: load_model(options.model)} if options.model else {
            kind: build_initial_potential(TrainConfig.model_validate({"model": {"kind": kind}}), data, None)
            for kind in options.kind
        }  # fmt: skip
        print("| network | of structures, B | of probes, W |\n|---|---|---|")
        for name, model in models.items():
            between, within = variances(gradients_of_pairs(data, model.float(), options.sample))
            print(f"| {name} | {between:.3g} | {within:.3g} |", flush=True)


if __name__ == "__main__":
    main()
