"""`hesse check` on one model of every kind: a table of the checks that it passes and of the measured values.

    python benchmarks/check_models.py run hipnn-l0 hipnn-l1 ani hessenet --out own.json
    python benchmarks/check_models.py run torchani hippynn --out peers.json --no-compile
    python benchmarks/check_models.py run chgnet:0.3.0 sevenn:7net-0 --out universal.json --no-compile
    python benchmarks/check_models.py table own.json peers.json

Weights are random, except those of published models: the checks are about formulas and derivatives, not about the
quality of predictions. Models of frameworks that cannot be installed together are run in an environment of their own;
the last command joins the rows.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from hesse.checks import CHECKS, check_potential
from hesse.models import build_model
from hesse.models.registry import NETWORKS
from hesse.potential import Potential

ELEMENTS = (1, 6, 7, 8)
TESTS = Path(__file__).parents[1] / "tests"


def own(kind: str, **options: object) -> Callable[[], Potential]:
    return lambda: build_model(NETWORKS[kind][0](**options), ELEMENTS)


def torchani(**options: object) -> Potential:
    from torchani_models import torchani_model

    from hesse.models.adapters.torchani import TorchAniPotential

    return TorchAniPotential(torchani_model(**options))


def hippynn() -> Potential:
    from hesse.models.adapters.hippynn import HippynnPotential
    from hippynn_graphs import hippynn_graph

    return HippynnPotential(hippynn_graph(1, spread=0.0).graph, energy_unit="ev")


def mace() -> Potential:
    from mace_models import mace_model

    from hesse.models.adapters.mace import MacePotential

    return MacePotential(mace_model())


def nequip() -> Potential:
    from nequip_models import nequip_model

    from hesse.models.adapters.nequip import NequipPotential

    return NequipPotential(nequip_model(), energy_unit="eV", length_unit="angstrom")


MODELS: dict[str, Callable[[], Potential]] = {
    "hipnn-l0": own("hipnn", l_max=0),
    "hipnn-l1": own("hipnn", l_max=1),
    "hipnn-l2": own("hipnn", l_max=2),
    "hipnn-published": own("hipnn", l_max=1, cutoff_function="cosine"),
    "ani": own("ani"),
    "ani-published": own("ani", cutoff_function="cosine", activation="celu"),
    "hessenet": own("hessenet"),
    "torchani": torchani,
    "hippynn": hippynn,
    "mace": mace,
    "nequip": nequip,
}
MARKS = {"pass": "✓", "fail": "✗", "info": "note", "skip": "–"}


def run(names: list[str], out: Path, *, compile: bool) -> None:
    rows = json.loads(out.read_text()) if out.exists() else {}
    for name in names:
        torch.manual_seed(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # frameworks issue warnings of their own
            model = MODELS[name]() if name in MODELS else name
            results = check_potential(model, skip=() if compile else ("compile",))
        rows[name] = [asdict(result) for result in results]
        out.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        for result in results:
            if result.status in ("fail", "info"):
                print(f"{name}: {result.status} {result.name}: {result.message}", flush=True)
        print(f"{name}: {sum(r.status == 'pass' for r in results)} of {len(results)} passed", flush=True)


def table(files: list[Path]) -> None:
    models: dict[str, dict[str, dict[str, object]]] = {}
    for file in files:
        for name, rows in json.loads(file.read_text()).items():
            models.setdefault(name, {}).update({str(row["name"]): row for row in rows})
    print(f"| check | {' | '.join(models)} |")
    print(f"|---|{'---|' * len(models)}")
    for check in CHECKS:
        cells = [_cell(rows.get(check.name)) for rows in models.values()]
        print(f"| {check.name} | {' | '.join(cells)} |")


def _cell(row: dict[str, object] | None) -> str:
    if row is None:
        return ""
    mark, value = MARKS[str(row["status"])], row["value"]
    if row["name"] in ("smooth", "cutoff") and isinstance(value, float):
        return f"{mark} C{('⁻¹', '⁰', '¹', '²', '³')[int(value) + 1]}"
    return f"{mark} {value:.0e}" if isinstance(value, float) and value else mark


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    runs = verbs.add_parser("run")
    runs.add_argument("models", nargs="+", help=f"{', '.join(MODELS)}, or the name of any potential")
    runs.add_argument("--out", type=Path, required=True)
    runs.add_argument("--no-compile", action="store_true")
    tables = verbs.add_parser("table")
    tables.add_argument("files", nargs="+", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.verb == "run":
        sys.path += [str(TESTS), str(TESTS / "models"), str(TESTS / "models" / "adapters")]
        run(arguments.models, arguments.out, compile=not arguments.no_compile)
    else:
        table(arguments.files)


if __name__ == "__main__":
    main()
