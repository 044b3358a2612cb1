"""Creation and selection of geometries for labeling: around minima, along trajectories and along reaction paths."""

from hesse.sampling.bands import search_bands
from hesse.sampling.fingerprint import distance_fingerprint, fingerprint_distance
from hesse.sampling.label_scores import LabelScores, ScoreSettings, choose_structures, score_structures
from hesse.sampling.md_sampling import MDSampling, sample_md
from hesse.sampling.minima import search_minima
from hesse.sampling.normal_mode_sampling import NormalModeSampling, sample_normal_modes
from hesse.sampling.rattle import RattleSampling, sample_rattled
from hesse.sampling.reaction_campaign import CampaignResult, Pair, reaction_pairs, search_reactions
from hesse.sampling.reaction_files import write_reaction_files
from hesse.sampling.reaction_paths import PathSampling, sample_paths
from hesse.sampling.reactions import ReactionResult, follow_paths
from hesse.sampling.replica_runs import ReplicaResult, run_replicas
from hesse.sampling.saddle_searches import highest_images, search_saddles
from hesse.sampling.samples import has_collision
from hesse.sampling.sampling_result import DynamicsRun, SamplingFailure, SamplingResult
from hesse.sampling.selection import (
    Rejected,
    SelectionCriteria,
    SelectionResult,
    farthest_point_sampling,
    select_structures,
    unique_structures,
)

__all__ = [
    "CampaignResult",
    "DynamicsRun",
    "LabelScores",
    "MDSampling",
    "NormalModeSampling",
    "Pair",
    "PathSampling",
    "RattleSampling",
    "ReactionResult",
    "Rejected",
    "ReplicaResult",
    "SamplingFailure",
    "SamplingResult",
    "ScoreSettings",
    "SelectionCriteria",
    "SelectionResult",
    "choose_structures",
    "distance_fingerprint",
    "farthest_point_sampling",
    "fingerprint_distance",
    "follow_paths",
    "has_collision",
    "highest_images",
    "reaction_pairs",
    "run_replicas",
    "sample_md",
    "sample_normal_modes",
    "sample_paths",
    "sample_rattled",
    "score_structures",
    "search_bands",
    "search_minima",
    "search_reactions",
    "search_saddles",
    "select_structures",
    "unique_structures",
    "write_reaction_files",
]
