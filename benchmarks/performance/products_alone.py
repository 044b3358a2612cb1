"""Is there time left in a training step? Its matrix products alone, beside the whole step.

    python benchmarks/performance/products_alone.py --kinds hipnn-l0 hipnn hessenet ani

One E-F-HVP step on 64 random molecules of 8 to 14 atoms (float32, one thread) is recorded; its matrix products are then
repeated on tensors of the same shapes and strides, with nothing between them. No step with the same products can be
faster. `hipnn-l0` has the size of hippynn's network in `hesse bench step --peers hippynn`, where that program's E-F
step is timed. Process time, medians; step and products take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hesse.bench import untrained_network
from hesse.bench.baselines import hippynn_graph
from hesse.bench.cases import HesseCase, StepSpec
from hesse.bench.workloads import random_molecules_in_range, with_random_labels
from hesse.models.adapters.hippynn import hipnn_from_hippynn

PRODUCTS = {"aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm"}
ELEMENTS = (1, 6, 7, 8)
Layout = tuple[tuple[int, ...], tuple[int, ...]]


class Recorder(TorchDispatchMode):
    """Operator, and shape and strides of every tensor, of the matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[tuple[Any, list[Layout]]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function._schema.name in PRODUCTS:
            self.products.append((function, [(tuple(a.shape), a.stride()) for a in args if isinstance(a, Tensor)]))
        return function(*args, **(kwargs or {}))


def repeated(products: Sequence[tuple[Any, list[Layout]]]) -> Callable[[], None]:
    """A function that computes the products alone."""
    tensors: dict[Layout, Tensor] = {}
    for layout in {layout for _, layouts in products for layout in layouts}:
        tensors[layout] = torch.empty_strided(*layout).copy_(torch.randn(layout[0]))
    calls = [(function, [tensors[layout] for layout in layouts]) for function, layouts in products]

    def run() -> None:
        for function, arguments in calls:
            function(*arguments)

    return run


def milliseconds(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Medians, in turns."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            started = time.process_time()
            function()
            times[name].append(1e3 * (time.process_time() - started))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["hipnn-l0", "hipnn", "hessenet", "ani"])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = with_random_labels(random_molecules_in_range(8, 14, 64))
    print("| network | E-F-HVP, plain, ms | compiled | products alone | 10⁹ multiplications |\n|---|---|---|---|---|")
    for kind in options.kinds:
        if kind == "hipnn-l0":
            network = hipnn_from_hippynn(hippynn_graph(ELEMENTS, 0).float(), energy_unit="eV")
        else:
            network = untrained_network(kind, ELEMENTS)
        case = HesseCase(kind.partition("-")[0], network)
        step, compiled = (case.make_step(StepSpec(data, "ef_hvp", mode)) for mode in ("eager", "compiled"))
        step(), compiled()
        with Recorder() as recorder:
            step()
        work = {"plain": step, "compiled": compiled, "products": repeated(recorder.products)}
        found = milliseconds(work, options.repeats)
        size = 0
        for _, layouts in recorder.products:
            *batch, rows, inner = layouts[-2][0]
            size += int(torch.tensor(batch or [1]).prod()) * rows * inner * layouts[-1][0][-1]
        print(f"| {kind} | " + " | ".join(f"{found[name]:.1f}" for name in work) + f" | {size / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    main()
