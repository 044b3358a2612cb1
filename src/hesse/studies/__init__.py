"""Studies: matrices of runs, and their statistics."""

from hesse.studies.cells import SCHEMES, Cell, expand_cells
from hesse.studies.data import nested_part, with_fixed_pairs
from hesse.studies.study import StudyResult, plan_study, run_study
from hesse.studies.study_comparison import StudyComparison, compare
from hesse.studies.study_config import StudyConfig, load_study

__all__ = [
    "SCHEMES",
    "Cell",
    "StudyComparison",
    "StudyConfig",
    "StudyResult",
    "compare",
    "expand_cells",
    "load_study",
    "nested_part",
    "plan_study",
    "run_study",
    "with_fixed_pairs",
]
