"""Notes that a reader of the numbers of a comparison needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hesse.evaluation.statistics import MIN_PAIRS
from hesse.studies.comparison_rows import ChangeRow
from hesse.studies.variant_statistics import SIGNIFICANT, Variants, has_common_seed

__all__ = ["comparison_notes"]


def comparison_notes(variants: Variants, baselines: Mapping[str, str], changes: Sequence[ChangeRow]) -> list[str]:
    """Notes of a comparison.

    Args:
        variants: runs by name of the variant.
        baselines: name of the baseline of each variant that has one.
        changes: the changes.

    Returns:
        The notes.
    """
    notes = []
    if not changes and len(variants) > 1:
        notes.append(
            "nothing is compared: no variant differs from a baseline in the compared axis only and has a seed in "
            "common with it; choose the baseline by its name (baseline, --baseline NAME)"
        )
    alone = [name for name in variants if name not in baselines and name not in baselines.values()]
    if changes and alone:
        notes.append(
            f"without a baseline that is otherwise the same, and not compared: {', '.join(alone)}; a baseline chosen "
            "by its name (--baseline NAME) is that of all others"
        )
    if other := [name for name, base in baselines.items() if not has_common_seed(name, base, variants)]:
        of_one = [name for name in other if any(row.variant == name for row in changes)]
        if of_one:
            notes.append(
                f"{', '.join(of_one)}: another seed than the baseline, so that the change contains the luck of the seed"
            )
    if few := [name for name, members in variants.items() if len(members) < MIN_PAIRS]:
        notes.append(
            f"{len(few)} of {len(variants)} variants have fewer than {MIN_PAIRS} seeds: their scatter between seeds is "
            "not known well, and there is no test"
        )
    for dataset, texts in _notes_of_sets(variants).items():
        notes += [f"{dataset}: {text}" for text in texts]
    tested = [row for row in changes if row.p_t is not None]
    smallest = {row.smallest_p_wilcoxon for row in tested if row.smallest_p_wilcoxon is not None}
    if single := list(dict.fromkeys(row.dataset for row in changes if row.groups == 1)):
        notes.append(f"all structures of {', '.join(single)} are of one group: nothing is known about other molecules")
    if tested:
        notes.append(f"{len(tested)} tests; probabilities are corrected for their number (Holm)")
    if smallest and max(smallest) > SIGNIFICANT:
        notes.append(
            f"Wilcoxon's test of {min(row.pairs for row in tested)} pairs cannot give less than p = {max(smallest):g}, "
            "whatever the data are"
        )
    return notes


def _notes_of_sets(variants: Variants) -> dict[str, tuple[str, ...]]:
    """Notes about each test set, which are the same for all runs."""
    result: dict[str, tuple[str, ...]] = {}
    for members in variants.values():
        for run in members:
            for dataset, errors in run.errors.items():
                result[dataset] = result.get(dataset) or errors.notes
    return result
