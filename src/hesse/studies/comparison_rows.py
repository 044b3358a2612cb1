"""The rows of a comparison: plain records, the columns of its CSV files."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AgreementRow", "ChangeRow", "CostRow", "CurveRow", "ErrorRow"]


@dataclass(frozen=True)
class ErrorRow:
    """Error of all runs of a variant on a test set.

    Attributes:
        variant: name of what the runs have in common.
        dataset: name of the test set.
        property: energy, forces, ...
        metric: rmse or mae; with a suite also bias, slope, fraction, ...
        unit: its unit.
        seeds: number of runs.
        mean: mean over the runs.
        sd: standard deviation over the runs; None for one run.
        low, high: 95 % interval of the mean over seeds; None for one run.
        noise_floor: noise floor of the labels, if known.
        structures: number of structures of the set.
        values: the value of each run, in the order of the seeds.
    """

    variant: str
    dataset: str
    property: str
    metric: str
    unit: str
    seeds: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    noise_floor: float | None
    structures: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class ChangeRow:
    """Change of an error from a baseline to a variant, in pairs of runs of the same seed.

    Attributes:
        variant: name of the variant.
        baseline: name of its baseline.
        dataset: name of the test set.
        property: energy, forces, ...; with a suite also frequencies, barrier, ...
        metric: rmse; mae of what a suite adds.
        pairs: number of seeds that both have; 1 for single runs of different seeds.
        percent: change of the mean error of these seeds in percent; negative is better.
        seed_low, seed_high: 95 % interval over seeds (Student's t of the changes of single seeds).
        group_low, group_high: 95 % interval under resampling of the groups of the test set (rmse only).
        groups: number of groups; 0 for other metrics than rmse.
        t, p_t, p_t_holm: Student's t of the paired differences, its probability, and that after Holm's correction.
        p_wilcoxon, p_wilcoxon_holm: the same for Wilcoxon's signed-rank test.
        smallest_p_wilcoxon: the smallest probability that Wilcoxon's test can give with so many pairs.
        untested: why there is no test; empty if there is one.
        verdict: "better" or "worse" if the test over seeds (Student's, after correction) finds a change and the
            interval over groups excludes zero; "better on these structures" or "worse on these structures" if there is
            no test, and the interval over groups excludes zero; else "no clear difference".
    """

    variant: str
    baseline: str
    dataset: str
    property: str
    metric: str
    pairs: int
    percent: float | None
    seed_low: float | None
    seed_high: float | None
    group_low: float | None
    group_high: float | None
    groups: int
    t: float | None
    p_t: float | None
    p_t_holm: float | None
    p_wilcoxon: float | None
    p_wilcoxon_holm: float | None
    smallest_p_wilcoxon: float | None
    untested: str
    verdict: str


@dataclass(frozen=True)
class AgreementRow:
    """Agreement of the errors of a variant with those of its baseline over groups of structures (Bland and Altman).

    Attributes:
        variant: name of the variant.
        baseline: name of its baseline.
        dataset: name of the test set.
        property: energy, forces, ...
        unit: unit of all numbers.
        n: number of groups.
        bias: mean difference of the error of a group, variant minus baseline.
        bias_low, bias_high: its 95 % interval.
        low, high: limits of agreement, between which 95 % of the groups lie.
        limit_error: half width of the 95 % interval of either limit.
        groups: names of the groups.
        means: mean of both errors of each group.
        differences: their difference.
    """

    variant: str
    baseline: str
    dataset: str
    property: str
    unit: str
    n: int
    bias: float
    bias_low: float
    bias_high: float
    low: float
    high: float
    limit_error: float
    groups: tuple[str, ...]
    means: tuple[float, ...]
    differences: tuple[float, ...]


@dataclass(frozen=True)
class CurveRow:
    """A point of a learning curve.

    Attributes:
        series: name of the variant without its fraction of the data.
        fraction: fraction of the training data.
        structures: mean number of training structures.
        dataset: name of the test set.
        property: energy, forces, ...
        unit: unit of the error.
        seeds: number of runs.
        mean: mean root-mean-square error over the runs.
        sd: its standard deviation over the runs; None for one run.
    """

    series: str
    fraction: float
    structures: float
    dataset: str
    property: str
    unit: str
    seeds: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class CostRow:
    """Cost of the runs of a variant: means over the runs.

    Attributes:
        variant: name of the variant.
        seeds: number of runs.
        structures: number of training structures.
        steps: number of steps.
        seconds: wall time of training, s.
        processor_seconds: processor time of training, s; None for runs whose record does not have it.
        step_seconds: median wall time of a step, without validation, s.
        epoch_seconds: wall time of a pass through the training data, s.
    """

    variant: str
    seeds: int
    structures: float
    steps: float
    seconds: float | None
    processor_seconds: float | None
    step_seconds: float | None
    epoch_seconds: float | None
