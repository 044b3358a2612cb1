"""Time of a training step by kind of operation: matrix products, moving data and sums, elementwise functions, the rest.

    python benchmarks/performance/profile_step.py --kinds ani hipnn hessenet
    python benchmarks/performance/profile_step.py --kinds ani --mode compiled

E-F-HVP on 64 random molecules of 8 to 14 atoms, float32, one thread; shares of self time by PyTorch's profiler, which
adds some time to each operation. In compiled steps everything but matrix products is in generated code.
"""

from __future__ import annotations

import argparse
from collections import Counter

import torch
from torch.profiler import ProfilerActivity, profile

from hesse.bench import untrained_network
from hesse.bench.cases import HesseCase, StepSpec
from hesse.bench.workloads import random_molecules_in_range, with_random_labels

GROUPS = {
    "matrix products": ("mm", "bmm", "addmm", "baddbmm", "addbmm", "linear"),
    "gather, scatter, copies": (
        "index", "index_select", "index_add_", "index_put_", "scatter_add_", "gather", "copy_", "cat", "fill_", "clone",
        "zero_", "index_copy_", "_index_put_impl_", "contiguous",
    ),
    "sums": ("sum",),
    "elementwise": (
        "mul", "add", "add_", "sub", "div", "exp", "log", "sqrt", "neg", "pow", "where", "square", "reciprocal", "sin",
        "cos", "clamp", "ge", "le", "lt", "eq", "softplus", "softplus_backward", "gelu", "gelu_backward", "sigmoid",
        "silu", "silu_backward", "sigmoid_backward", "clamp_min", "clamp_max", "rsub", "mul_", "div_", "tanh", "erf",
    ),
}  # fmt: skip
GROUP_OF = {f"aten::{name}": group for group, names in GROUPS.items() for name in names}


def shares(kind: str, mode: str, steps: int) -> dict[str, float]:
    """Fraction of the self time of some steps for each group of operations."""
    data = with_random_labels(random_molecules_in_range(8, 14, 64))
    work = HesseCase(kind, untrained_network(kind, (1, 6, 7, 8))).make_step(StepSpec(data, "ef_hvp", mode))
    for _ in range(3):
        work()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(steps):
            work()
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        generated = "CompiledFxGraph" in event.key or event.key.startswith("graph_")
        group = "generated code" if generated else GROUP_OF.get(event.key, "dispatch, autograd and the rest")
        spent[group] += event.self_cpu_time_total
    total = sum(spent.values())
    return {group: time / total for group, time in spent.most_common()}


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["hipnn", "ani", "hessenet"])
    parser.add_argument("--mode", choices=["eager", "compiled"], default="eager")
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for kind in options.kinds:
        fractions = shares(kind, options.mode, options.steps)
        print(
            f"{kind}, {options.mode}: "
            + ", ".join(f"{group} {100 * fraction:.0f} %" for group, fraction in fractions.items())
        )


if __name__ == "__main__":
    main()
