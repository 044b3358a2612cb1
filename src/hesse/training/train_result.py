"""The result of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hesse.potential import Potential
from hesse.structures import QUANTITIES, label_names

__all__ = ["TrainResult", "score_units"]


def score_units() -> dict[str, str]:
    """Units of the errors of a run.

    Returns:
        Unit of each label, and of the energy per atom, by name; in the order of tables.
    """
    units = {"energy": "eV", "energy_per_atom": "eV"}
    return {**units, **{name: QUANTITIES[name].unit for name in label_names()}}


@dataclass(frozen=True)
class TrainResult:
    """Result of a training run.

    Attributes:
        potential: the best model by validation loss (the last one without validation data), with averaged parameters.
        model_file: its file.
        steps: number of steps done in all sessions.
        best_step: step of the lowest validation loss (the last step without validation data).
        scores: validation loss and root-mean-square errors of the best model, eV and Å, for example `forces_rmse`;
            curvature errors are estimated from probes and have a standard error, `hvp_rmse_standard_error`.
        seconds: wall time of all sessions.
        n_suspect_skipped: structures of both data sets that were left out because their labels are flagged as suspect.
    """

    potential: Potential
    model_file: Path
    steps: int
    best_step: int
    scores: Mapping[str, float]
    seconds: float
    n_suspect_skipped: int = 0

    @property
    def has_validation(self) -> bool:
        """Whether the model was selected by validation errors."""
        return bool(self.scores)

    @property
    def best_is_early(self) -> bool:
        """Whether the lowest validation loss came before a quarter of the steps, after which training made it worse."""
        return self.has_validation and 4 * self.best_step < self.steps

    def table(self) -> str:
        """The validation errors of the best model as a text table.

        Returns:
            One line per quantity with its root-mean-square error, standard error if known, and unit; one sentence
            without validation data.
        """
        units = score_units()
        rmse = {name: self.scores[f"{name}_rmse"] for name in units if f"{name}_rmse" in self.scores}
        if not rmse:
            return "no validation data"
        lines = []
        for name, value in rmse.items():
            error = self.scores.get(f"{name}_rmse_standard_error")
            lines.append(f"{name:<15} {value:>10.4g}{'' if error is None else f' ± {error:.1g}'} {units[name]}")
        return "\n".join(lines)
