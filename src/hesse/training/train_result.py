"""The result of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
        training_terms: unweighted terms of the loss by name, mean over the last hundred training steps with the term.
    """

    potential: Potential
    model_file: Path
    steps: int
    best_step: int
    scores: Mapping[str, float]
    seconds: float
    n_suspect_skipped: int = 0
    training_terms: Mapping[str, float] = field(default_factory=dict)

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
            One line per quantity with its root-mean-square error, standard error if known, and unit. Then the terms of
            the loss that validation does not see, as means over the last training steps.
        """
        units = score_units()
        rmse = {name: self.scores[f"{name}_rmse"] for name in units if f"{name}_rmse" in self.scores}
        lines = [] if rmse else ["no validation data"]
        for name, value in rmse.items():
            error = self.scores.get(f"{name}_rmse_standard_error")
            lines.append(f"{name:<15} {value:>10.4g}{'' if error is None else f' ± {error:.1g}'} {units[name]}")
        return "\n".join([*lines, *(f"{text} (term of the training steps)" for text in self.terms_without_error())])

    def terms_without_error(self) -> list[str]:
        """Terms of the loss whose errors validation does not give.

        Returns:
            Name and value of each, mean over the last training steps.
        """
        return [
            f"{name:<15} {value:>10.4g}"
            for name, value in self.training_terms.items()
            if f"{name}_rmse" not in self.scores
        ]
