"""The loss: a list of terms, written once for eager and compiled steps, for one batch and for many.

Per structure of N atoms, with the default terms (arXiv 2603.04523):

    λ_E ΔE²/√N  +  λ_F |ΔF|²/(3N)  +  λ_H (1/K) Σ_k |ΔH v_k|²/(9N²)  +  λ_full ‖ΔH‖²/(9N²)  +  λ_σ |Δσ V/N|²/9

With `E[v vᵀ] = I` the HVP term is an unbiased estimate of the Hessian term for all distributions of probes, so λ_H and
λ_full have the same meaning. Stress counts as the virial per atom, σ V/N in eV: stress itself, in eV/Å³, is about ten
times smaller, its square a hundred times. Each term is the mean over those structures of the batch that have the label;
it is zero if none has it. Losses depend on labels and predictions only, not on models.

All that does not depend on predictions (masks, sizes, weights of structures, number of structures in the step) is
collected in one factor per residual (`Loss.factors`); what remains is `Loss.means`, a few operations on tensors. The
means of several batches, of one step or of several processes, add up if their factors contain the number of structures
of all of them (`Loss.counts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from ase.data import atomic_masses
from jaxtyping import Float, Int
from torch import Tensor

from hesse.errors import ConfigError, MissingLabelError, did_you_mean
from hesse.losses.terms import LossTerm
from hesse.structures import Batch, Properties, Quantity, component_counts, segment_ids

__all__ = ["Loss", "matched_predictions"]


class Loss:
    """A list of terms.

    Args:
        terms: the terms; their names must differ. Those of weight zero are dropped.

    Raises:
        ConfigError: two terms of the same name, or no term with a weight above zero.
    """

    def __init__(self, terms: Iterable[LossTerm]) -> None:
        if isinstance(terms, LossTerm | str | Mapping) or not isinstance(terms, Iterable):
            raise ConfigError(f"expected a list: Loss([hesse.LossTerm(quantity='energy'), ...]), got {terms!r}")
        terms = list(terms)
        for term in terms:
            if not isinstance(term, LossTerm):
                raise ConfigError(f"expected loss terms, hesse.LossTerm(quantity='energy'), got {term!r}")
        self.terms = tuple(term for term in terms if term.weight > 0)
        self._by_name = {term.name: term for term in self.terms}
        self.entries = {term.name: term.entry for term in self.terms}
        # Plain values for the operations that are compiled: quantity, form, delta.
        self._forms = {
            t.name: (t.quantity, "mean" if t.entry.role == "output" else t.form, t.delta) for t in self.terms
        }
        if len(self._by_name) < len(self.terms):
            names = [term.name for term in self.terms]
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"two loss terms are called {twice!r}: give one of them another name (name: {twice}_2)")
        if not self.terms:
            raise ConfigError("all loss weights are zero: there is nothing to train on")

    def __iter__(self) -> Iterator[LossTerm]:
        return iter(self.terms)

    def __repr__(self) -> str:
        return f"Loss({', '.join(f'{term.name} {term.weight:g}' for term in self.terms)})"

    def __getitem__(self, name: str) -> LossTerm:
        if name not in self._by_name:
            raise ConfigError(f"the loss has no term {name!r}. {did_you_mean(name, self._by_name)}")
        return self._by_name[name]

    def weights(self) -> dict[str, float]:
        """Weights of the terms, without ramps.

        Returns:
            Weights by name of the term.
        """
        return {term.name: term.weight for term in self.terms}

    def quantities(self) -> tuple[str, ...]:
        """Labels that the loss uses.

        Returns:
            Their names, each once.
        """
        return tuple(dict.fromkeys(t.quantity for t in self.terms if self.entries[t.name].role == "label"))

    def active(self, references: Properties, weights: Mapping[str, float]) -> list[LossTerm]:
        """Terms of a batch: those with a weight, and with a label in its record.

        Args:
            references: the labels.
            weights: weight of each term by name; terms that are not named have none.

        Returns:
            The terms.
        """
        weighted = [term for term in self.terms if weights.get(term.name, 0.0) > 0]
        return [t for t in weighted if references[t.quantity] is not None or self.entries[t.name].role == "output"]

    def counts(self, references: Properties, weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Divisors of the sums of each term: numbers of structures with the label (or their summed weights, or
        numbers of components). If a step consists of several batches, their counts are added first.

        Args:
            references: the labels.
            weights: weight of each term by name.

        Returns:
            Scalars by name of the term.
        """
        return {
            term.name: _structure_shares(term, self.entries[term.name], references).sum()
            for term in self.active(references, weights)
        }

    def factors(
        self,
        references: Properties,
        weights: Mapping[str, float],
        counts: Mapping[str, Tensor],
        batch: Batch | None = None,
    ) -> dict[str, Tensor]:
        """Factors of the functions of residuals in `means`, which contain all effects of masks, sizes and weights of
        structures.

        Args:
            references: the labels.
            weights: weight of each term by name.
            counts: of the whole step, see `counts`.
            batch: the structures, for stress (volumes of cells) and mass-weighted terms.

        Returns:
            Factors by name of the term, broadcastable to its residuals.
        """
        return {
            term.name: _factors(term, self.entries[term.name], references, counts[term.name], batch)
            for term in self.active(references, weights)
        }

    def means(
        self, predictions: Mapping[str, Tensor], targets: Mapping[str, Tensor], factors: Mapping[str, Tensor]
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted terms before the root of `rmse`: these add up over batches.

        Args:
            predictions: predicted values by quantity, of the same shapes as the targets.
            targets: labels by quantity, with zeros for missing ones (`targets`).
            factors: see `factors`.

        Returns:
            Means by name of the term, float64, differentiable.
        """
        result = {}
        for name, factor in factors.items():
            quantity, form, delta = self._forms[name]
            if form == "mean" and quantity not in predictions:  # a potential without regularizer
                continue
            values = predictions[quantity]
            if form != "mean":
                values = _residual_function(form, delta, values - targets[quantity], targets.get(f"{name}_scale"))
            result[name] = (factor * values).sum(dtype=torch.float64)
        return result

    def values(self, means: Mapping[str, Float[Tensor, ""]]) -> dict[str, Float[Tensor, ""]]:
        """Unweighted terms: the means, and the roots of those of `rmse`.

        Args:
            means: sums of `means` over all batches of a step.

        Returns:
            Terms by name.
        """
        # The smallest value keeps the derivative of the root finite; it is far below any error.
        return {n: m.clamp(min=1e-30).sqrt() if self._forms[n][1] == "rmse" else m for n, m in means.items()}

    def total(
        self, means: Mapping[str, Float[Tensor, ""]], weights: Mapping[str, float], *, linear: bool = False
    ) -> Float[Tensor, ""] | None:
        """The weighted sum.

        Args:
            means: see `means`.
            weights: weight of each term by name.
            linear: leave out the roots of `rmse`; their derivative is then part of the weights
                (`linear_weights`).

        Returns:
            The loss; None without terms.
        """
        values = means if linear else self.values(means)
        weighted = [weights[name] * value for name, value in values.items()]
        return torch.stack(weighted).sum() if weighted else None

    def linear_weights(self, means: Mapping[str, float], weights: Mapping[str, float]) -> dict[str, float]:
        """Weights of the means whose gradient is that of the loss: for `rmse`, `d√S = dS/(2√S)`.

        Args:
            means: values of the means of the whole step.
            weights: weight of each term by name.

        Returns:
            Weights by name.
        """
        roots = {n: 2 * max(m, 1e-30) ** 0.5 for n, m in means.items() if self._by_name[n].form == "rmse"}
        return {name: weight / roots.get(name, 1.0) for name, weight in weights.items()}

    @property
    def has_roots(self) -> bool:
        """Whether a term is a root of a mean, so that batches do not add up."""
        return any(term.form == "rmse" for term in self.terms)

    def targets(
        self, references: Properties, weights: Mapping[str, float], batch: Batch | None = None
    ) -> dict[str, Tensor]:
        """Labels of the terms, with zeros for missing values (whose factors are zero).

        NaN or infinity in an existing label is kept, so that it is noticed. The scales of residual functions other than
        the square are stored under the name of the term with `_scale`.

        Args:
            references: the labels.
            weights: weight of each term by name.
            batch: the structures, for stress (volumes of cells).

        Returns:
            Labels by quantity.
        """
        result: dict[str, Tensor] = {}
        for term in self.active(references, weights):
            value, entry = references[term.quantity], self.entries[term.name]
            if value is None or entry.role != "label":
                continue
            if entry.per != "element":
                value = torch.where(_expand(references, entry, references.mask(term.quantity)), value, 0.0)
            result[term.quantity] = value
            if term.form not in ("mae", "huber"):
                continue
            scale = _residual_scale(term, references.n_atoms, batch, value.dtype)
            if scale is not None:
                result[f"{term.name}_scale"] = _expand(references, entry, scale.rsqrt())
        return result


def _residual_function(form: str, delta: float | None, residual: Tensor, scale: Tensor | None) -> Tensor:
    """ρ of every residual. The scale of squares is part of the factor."""
    if form in ("mse", "rmse"):
        return residual.square()
    size = residual.abs() if scale is None else residual.abs() * scale
    if form == "mae":
        return size
    assert delta is not None
    return torch.where(size <= delta, size.square(), 2 * delta * size - delta**2)


def _residual_scale(
    term: LossTerm, n_atoms: Int[Tensor, "structures"], batch: Batch | None, dtype: torch.dtype
) -> Float[Tensor, "structures"] | None:
    """Squared scale s² of the residuals of each structure.

    For products it is 3N, the expected ratio of |ΔH v|² to 3N squared elements of ΔH: the term of products is an
    unbiased estimate of that of Hessians. For energies it is √N, as in arXiv 2603.04523. For stress it is (N/V)²: the
    residual is the virial per atom.

    Args:
        term: the term.
        n_atoms: numbers of atoms N.
        batch: the structures, for volumes V.
        dtype: floating-point type of the result.

    Returns:
        s², `[structures]`; None if it is one.
    """
    n = n_atoms.to(dtype)
    if term.normalization == "atom":
        return n * n
    if term.normalization == "components":
        return None
    if term.quantity == "stress":
        volumes = torch.linalg.det(_require(batch, "of stress").cell.detach()).abs().to(n)
        return (n / torch.where(volumes > 0, volumes, n)).square()  # molecules have neither a cell nor this label
    return {"energy": n.sqrt(), "hvp": 3 * n}.get(term.quantity)


def _require(batch: Batch | None, which: str) -> Batch:
    """The batch. Raises MissingLabelError if there is none."""
    if batch is None:
        raise MissingLabelError(f"a loss term {which} needs the batch of structures: pass batch=")
    return batch


def _structure_shares(term: LossTerm, entry: Quantity, references: Properties) -> Tensor:
    """Contribution of each structure to the count of a term: 1 if it has the label, times its weight and, for means of
    components, their number."""
    shares = references.has(term.quantity) if entry.role == "label" else torch.ones_like(references.n_atoms)
    if references.weight is not None and term.structure_weights:
        shares = shares * references.weight.to(torch.float64)
    if term.normalization == "components":
        shares = shares * component_counts(entry, references.n_atoms)
    return shares


def _factors(
    term: LossTerm,
    entry: Quantity,
    references: Properties,
    count: Tensor,
    batch: Batch | None,
) -> Tensor:
    """Factor of each residual of a term, see `Loss.factors`."""
    n = references.n_atoms
    value = references[term.quantity]
    dtype = torch.float64 if value is None else value.dtype
    # A count of zero belongs to a term without structures, whose sum is zero.
    share = 1.0 / torch.where(count > 0, count, 1).to(dtype)
    each = torch.ones_like(n, dtype=dtype) if entry.role == "output" else references.mask(term.quantity).to(dtype)
    if each.dim() == 2:
        each = each / each.sum(0).clamp(min=1)
    if references.weight is not None and term.structure_weights:
        each = each * references.weight.to(dtype)
    if term.normalization != "components":
        each = each / component_counts(entry, n).to(dtype)
    if term.form in ("mse", "rmse") and entry.role == "label":
        scale = _residual_scale(term, n, batch, dtype)
        each = each if scale is None else each / scale
    result = share * _expand(references, entry, each)
    if term.mass_weighted:
        result = result * _inverse_masses(references, _require(batch, "weighted by masses").numbers, dtype)[:, None]
    return result


def _expand(references: Properties, entry: Quantity, values: Tensor) -> Tensor:
    """Values per structure (and probe), made broadcastable to the values of a quantity."""
    if entry.per == "element":
        return values[segment_ids(references.hessian_lengths())]
    if "atom" in entry.per:
        array = references[entry.name]
        assert array is not None
        values = values[..., segment_ids(references.n_atoms, array.shape[1 if entry.per == "probe atom" else 0])]
    return values.reshape(*values.shape, *([1] * len(entry.components)))


def _inverse_masses(
    references: Properties, numbers: Int[Tensor, "atoms"], dtype: torch.dtype
) -> Float[Tensor, "atoms"]:
    """1/mass of each atom, divided by its mean over the structure, so that the size of a term does not change.

    These are the standard masses: a batch has no others. Training refuses structures with masses of isotopes.
    """
    inverse = (1.0 / torch.as_tensor(atomic_masses, dtype=dtype, device=numbers.device))[numbers]
    structure_index = segment_ids(references.n_atoms, len(numbers))
    sums = inverse.new_zeros(len(references)).index_add(0, structure_index, inverse)
    return inverse / (sums / references.n_atoms)[structure_index]


def matched_predictions(
    predictions: Properties, references: Properties, quantities: Iterable[Quantity]
) -> dict[str, Tensor]:
    """Predicted values of the terms, with the shapes of the labels.

    Args:
        predictions: predictions of all structures.
        references: their labels. Hessians are stored for labeled structures only.
        quantities: those of the loss.

    Returns:
        Values by quantity.

    Raises:
        MissingLabelError: a prediction is missing.
    """
    result: dict[str, Tensor] = {}
    for entry in quantities:
        value = predictions[entry.name]
        if value is None and entry.role == "output":
            continue
        if value is None:
            raise MissingLabelError(f"the loss of {entry.name} needs it among predictions and references")
        if entry.per == "element" and (predictions.hessian_mask is not None or references.hessian_mask is not None):
            value = predictions.pick(["hessian"]).select(torch.nonzero(references.mask("hessian"))[:, 0]).hessian
            assert value is not None
        elif entry.role == "label" and references[f"{entry.name}_mask"] is not None:
            # Predictions may be NaN where there is no label (stress of molecules, unused probes).
            value = torch.where(_expand(references, entry, references.mask(entry.name)), value, 0.0)
        result[entry.name] = value
    return result
