"""The models of a run on disk: the best and the last one, with their provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hesse._version import __version__
from hesse.datasets import DatasetLike
from hesse.potential import Potential
from hesse.structures import LAST_ELEMENT, TrainingEnvironments, electronic_state, environment_sample, segment_ids
from hesse.structures.environments import MAX_CHARGE_STATES
from hesse.training.config import TrainConfig
from hesse.training.distributed import Communicator
from hesse.training.initial_model import load_best, save_potential

__all__ = ["ModelWriter"]


class ModelWriter:
    """Writes the averaged model of a run, and reads it again. Process 0 has the files.

    Args:
        folder: folder of the run.
        model: the network that is trained.
        average: the same with averaged parameters, which is written.
        training: training data.
        config: settings of the run.
        communicator: the processes that train together.
        broad: the data whose surroundings of atoms and charges the model file keeps; None: the training data.
    """

    def __init__(
        self,
        folder: Path,
        model: Potential,
        average: Potential,
        training: DatasetLike,
        config: TrainConfig,
        communicator: Communicator,
        broad: DatasetLike | None = None,
    ) -> None:
        self.folder, self.model, self.average = folder, model, average
        self.training, self.config, self.communicator = training, config, communicator
        self.broad = training if broad is None else broad

    def write(self, stem: str, step: int, scores: Mapping[str, float]) -> None:
        """Write the averaged model with its provenance.

        Args:
            stem: file name without suffix, "model" (best) or "last".
            step: number of steps done.
            scores: its validation errors, empty without validation.

        Raises:
            WriteError: the file cannot be written.
        """
        self.communicator.run_on_rank_zero(lambda: self._save(stem, step, scores))

    def _save(self, stem: str, step: int, scores: Mapping[str, float]) -> None:
        provenance: dict[str, Any] = {
            "data_hash": self.training.content_hash(),
            "level": self.training.metadata.get("level", ""),
            "config": self.config.model_dump(mode="json"),
            "step": step,
            "structures": len(self.training),
            "metrics": dict(scores),
            "torch": torch.__version__,
            "code_version": __version__,
        }
        # Files of other frameworks record which parameters are trainable.
        for mean, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.requires_grad_(value.requires_grad)
        self.average.training_environments = self._training_environments
        save_potential(self.folder, stem, self.average, provenance)
        self.average.requires_grad_(False)

    @cached_property
    def _training_environments(self) -> TrainingEnvironments:
        """The summary of the training data that the model file keeps."""
        chosen = self.broad.select(environment_sample(self.broad.n_atoms.numpy()))
        summary = TrainingEnvironments.from_structures(
            [structure for _, part in chosen.iter_in_memory() for structure in part.structures]
        )
        return replace(summary, charge_states=_charge_states(self.broad))

    def load_best(self) -> tuple[Potential, Path, dict[str, Any]]:
        """Read the best model.

        Returns:
            The potential, its file, and its provenance.
        """
        return load_best(self.folder, "model", self.model, self.communicator)


def _charge_states(data: DatasetLike) -> tuple[tuple[int, int], ...]:
    """Charges and multiplicities of all structures."""
    protons = torch.zeros(len(data), dtype=torch.int64)
    numbers = data.numbers.to(torch.int64)
    protons.index_add_(0, segment_ids(data.n_atoms), torch.where(numbers > LAST_ELEMENT, 0, numbers))
    rows = torch.cat([protons[:, None], data.charge_states], dim=1).unique(dim=0).tolist()
    states = sorted({electronic_state(*row) for row in rows})
    return tuple(states[:MAX_CHARGE_STATES])
