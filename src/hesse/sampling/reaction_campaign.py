"""Searches for many reactions, over worker processes, and what became of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hesse.datasets import StructuresLike, as_structures
from hesse.engines import Engine, EngineLike, as_engine, engine_for_workers
from hesse.errors import HesseError, RequestError
from hesse.pes import Reaction, ReactionOutcome, ReactionSettings, check_same_atoms, reaction
from hesse.runtime.settings import settings_from
from hesse.runtime.short_repr import ShortRepr
from hesse.sampling.journaled_runs import in_workers, run_journaled
from hesse.sampling.search_journal import FinishedSearch, search_key
from hesse.structures import Structure

__all__ = ["CampaignResult", "Pair", "reaction_pairs", "search_reactions"]


@dataclass(frozen=True, eq=False)
class Pair:
    """Both ends of one reaction.

    Attributes:
        id: name of the reaction, unique in a campaign.
        reactant: the first end.
        product: the second end.
    """

    id: str
    reactant: Structure
    product: Structure


@dataclass(frozen=True, eq=False, repr=False)
class CampaignResult(ShortRepr):
    """Results of the searches for many reactions.

    Attributes:
        rows: one per reaction, in order, see `hesse.pes.Reaction.row`.
        n_reused: number of searches whose results were kept from an earlier run.
    """

    rows: tuple[dict[str, Any], ...]
    n_reused: int = 0

    @property
    def n_found(self) -> int:
        """Number of reactions that were found."""
        return sum(row["found"] for row in self.rows)

    def statistics(self) -> dict[str, int]:
        """How many searches ended in which way.

        Returns:
            Numbers by outcome, "found" first, the others by their number.
        """
        counts = Counter(row["outcome"] for row in self.rows)
        return dict(sorted(counts.items(), key=lambda item: (item[0] != "found", -item[1], item[0])))


def reaction_pairs(reactants: StructuresLike, products: StructuresLike | None = None) -> list[Pair]:
    """The reactions of a file of pairs, or of two files.

    Args:
        reactants: the reactants in order; without `products` reactants and products in turn.
        products: the products in the same order.

    Returns:
        The pairs. Their names are the groups, or the ids of the reactants, with a number where those are not unique.

    Raises:
        RequestError: numbers that do not fit.
    """
    first = as_structures(reactants)
    if products is not None:
        second = as_structures(products)
        if len(first) != len(second):
            raise RequestError(
                f"{len(first)} reactants and {len(second)} products: structure k of one belongs to structure k of the "
                "other"
            )
        ends = list(zip(first, second, strict=True))
    else:
        if len(first) % 2:
            raise RequestError(f"{len(first)} structures: expected reactants and products in turn, an even number")
        ends = [(first[k], first[k + 1]) for k in range(0, len(first), 2)]
    names = [r.group if r.group and r.group == p.group else r.id for r, p in ends]
    counts, seen = Counter(names), Counter[str]()
    pairs = []
    for name, (r, p) in zip(names, ends, strict=True):
        seen[name] += 1
        pairs.append(Pair(name if counts[name] == 1 else f"{name}-{seen[name]}", r, p))
    return pairs


def search_reactions(
    pairs: Sequence[Pair],
    engine: EngineLike,
    output: str | Path | None = None,
    settings: ReactionSettings | None = None,
    *,
    verify: EngineLike | None = None,
    workers: int | None = None,
    quiet: bool = False,
    on_result: Callable[[int, Reaction], None] = lambda index, found: None,
    **options: Any,
) -> CampaignResult:
    """Search for the reaction of each pair.

    Args:
        pairs: the ends, see `reaction_pairs`.
        engine: a name or the path of a model; an object works in this process.
        output: a file or folder that is not written here: each finished search is kept in `OUTPUT.searches.jsonl` at
            once, and the same call does not repeat it. None keeps nothing.
        settings: settings of every search.
        verify: another engine, by its name, which evaluates the answers.
        workers: number of processes of one thread each, 1 by default; 0 works in this process. A reaction that kills
            its process becomes a failure.
        quiet: no progress.
        on_result: called in this process with the index and the result of each search before it counts as finished: the
            place to write pages and paths.
        **options: the fields of `ReactionSettings` in place of `settings`.

    Returns:
        A row for every pair. Pairs with different atoms, and failures of the engine, are rows too.

    Raises:
        InterruptedRunError: SIGINT or SIGTERM; the same call continues.
        HesseError: there is no such engine, a wrong option, or a journal that cannot be read or written.
    """
    chosen = settings_from(ReactionSettings, settings, options)
    spec, workers = engine_for_workers(engine, workers, None)
    judge = None if verify is None else engine_for_workers(verify, workers, None)[0]
    model, other = as_engine(spec), None if judge is None else as_engine(judge)
    described = chosen.model_dump(mode="json") | {
        "verify": None if other is None else [other.name, other.level, dict(other.settings)]
    }
    keys = [search_key([p.reactant, p.product], model, described | {"name": p.id}) for p in pairs]

    def finish(index: int, found: Reaction) -> FinishedSearch:
        on_result(index, found)
        arrays = {
            name: run.structure.positions
            for name in ("reactant", "saddle", "product")
            if (run := getattr(found, name)) is not None
        }
        return FinishedSearch(found.row(), arrays)

    run = run_journaled(
        in_workers(_make_worker, (spec, judge, chosen), workers),
        list(pairs),
        keys,
        finish,
        output=None if output is None else Path(output),
        title="reactions",
        quiet=quiet,
    )
    rows = []
    for i, pair in enumerate(pairs):
        if i in run.found:
            rows.append(dict(run.found[i].row))
        else:
            failed = Reaction(pair.id, model.level, ReactionOutcome.ENGINE_FAILED, run.errors[i])
            rows.append(failed.row())
    return CampaignResult(tuple(rows), run.n_reused)


def _make_worker(
    spec: tuple[str | Engine, str | Engine | None, ReactionSettings],
) -> Callable[[Pair], Reaction]:
    engine, judge = as_engine(spec[0]), None if spec[1] is None else as_engine(spec[1])

    def search(pair: Pair) -> Reaction:
        try:
            check_same_atoms(pair.reactant, pair.product)
        except RequestError as error:
            return Reaction(pair.id, engine.level, ReactionOutcome.DIFFERENT_ATOMS, str(error))
        try:
            return reaction(pair.reactant, pair.product, engine, spec[2], verify=judge, name=pair.id)
        except HesseError as error:  # an element that a model does not have, for example
            return Reaction(pair.id, engine.level, ReactionOutcome.ENGINE_FAILED, str(error))

    return search
