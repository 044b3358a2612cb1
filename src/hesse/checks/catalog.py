"""All checks: the question of each, the checks it requires, and the meaning of its failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hesse.checks import autodiff, derivatives, numerics, periodic, singular_geometries, smoothness, symmetries
from hesse.checks.check_result import CheckResult, Outcome
from hesse.checks.context import CheckContext

__all__ = ["CHECKS", "Check"]


@dataclass(frozen=True)
class Check:
    """A check of a potential.

    Attributes:
        name: on the command line and in results.
        question: what is checked, in one line.
        function: measures the potential in a `CheckContext` and returns an `Outcome`.
        requires: names of checks that must not have failed, otherwise the result would be meaningless.
        consequence: what a failure means for training on curvature, and what to do.
    """

    name: str
    question: str
    function: Callable[[CheckContext], Outcome]
    requires: tuple[str, ...]
    consequence: str

    def run(self, context: CheckContext) -> CheckResult:
        """Run the check. An exception raised by the potential is a failure of the check.

        Args:
            context: the potential and structures.

        Returns:
            The result, in words.
        """
        try:
            outcome = self.function(context)
        except Exception as error:  # the potential is third-party code
            lines = [line for line in str(error).splitlines() if line.strip()]
            outcome = Outcome("fail", detail=f"{type(error).__name__}: {lines[0] if lines else ''}".strip())
        message = f"{outcome.detail.rstrip('.')}. {self.consequence}" if outcome.status == "fail" else outcome.detail
        return CheckResult(self.name, outcome.status, outcome.value, outcome.limit, outcome.bound, message)

    def skip(self, failed: str) -> CheckResult:
        """Result of a check that is not run because one that it requires has failed.

        Args:
            failed: name of the failed check.

        Returns:
            A result with status skip.
        """
        return CheckResult(self.name, "skip", None, None, "<=", f"not measured: {failed} failed")


NEEDS_SINGLE = ("energy", "determinism", "second-derivatives", "double")
"""Required by every check of the curvature of single structures."""
NEEDS_BATCH = (*NEEDS_SINGLE, "traps")
"""Required by checks of batches, in which unused neighbor slots are filled."""

CHECKS: tuple[Check, ...] = (
    Check(
        "energy",
        "one finite energy per atom, and forces",
        numerics.check_energy,
        (),
        "Nothing can be trained. forward(batch) must return one energy (eV) per atom, made of torch operations on "
        "batch.positions or batch.neighbor_vectors(), without detach(), no_grad() or numpy.",
    ),
    Check(
        "determinism",
        "the same result twice, and after other structures",
        numerics.check_determinism,
        ("energy",),
        "Noise in the energy is amplified by each derivative, and H v is the second one: training would fit noise. "
        "Remove random numbers and state that forward() changes (caches, running statistics).",
    ),
    Check(
        "second-derivatives",
        "H v exists and is finite for ordinary molecules (2x)",
        derivatives.check_second_derivatives,
        ("energy", "determinism"),
        "There is no curvature to train or use. Every operation between positions and energy needs a backward that "
        "can itself be differentiated (no once_differentiable, no fused kernels, no ReLU on distances alone), and "
        "inner gradients need create_graph=True.",
    ),
    Check(
        "double",
        "everything is computed in float64",
        numerics.check_float64,
        ("energy", "determinism", "second-derivatives"),
        "Something inside uses float32 (.float(), a float32 constant, a kernel): derivatives carry its noise, and "
        "finite differences cannot judge them. Take the dtype from batch.positions. With --dtype float32 the other "
        "checks run with wider limits.",
    ),
    Check(
        "training-mode",
        "the same results in train() and in eval() mode",
        numerics.check_training_mode,
        NEEDS_SINGLE,
        "Training would fit another function than the one that is used afterwards, or fit noise. Remove dropout and "
        "batch normalization.",
    ),
    Check(
        "traps",
        "finite for isolated atoms, lines, unused neighbor slots, own images",
        singular_geometries.check_singular_geometries,
        ("energy", "determinism"),
        "One such structure in a batch makes the loss and all gradients NaN. Mask before the root and not after it "
        "(hesse.smooth.masked_norm, norm), and avoid acos and atan2 where they have kinks.",
    ),
    Check(
        "batch",
        "a batch gives the results of single structures",
        symmetries.check_batch,
        NEEDS_BATCH,
        "Structures of a batch influence each other: training fits noise that depends on the order of the data. Use "
        "batch.structure_index, n_atoms and neighbors; no normalization over the batch.",
    ),
    Check(
        "energy-slope",
        "forces are −∂E (finite differences)",
        derivatives.check_forces_finite_difference,
        NEEDS_SINGLE,
        "The forces are not the gradient of the energy: dynamics does not conserve it, and energy and force labels "
        "contradict each other. Look for detach(), no_grad(), a custom backward, or forces from a separate head.",
    ),
    Check(
        "force-slope",
        "H v is −∂F (finite differences)",
        derivatives.check_hvp_finite_difference,
        NEEDS_SINGLE,
        "H v from autograd is not the curvature of this potential: training on it would fit a wrong quantity, "
        "silently. Look for a detach() or a custom backward, and for kernels whose double backward drops terms.",
    ),
    Check(
        "hessian-symmetry",
        "u·Hv = v·Hu",
        derivatives.check_hessian_symmetry,
        NEEDS_SINGLE,
        "The forces are not a gradient, or a double backward is wrong: H v and its transpose differ, and a symmetric "
        "label cannot be fitted. Look for custom autograd functions and kernels.",
    ),
    Check(
        "closed-loop",
        "no work along a closed loop",
        derivatives.check_closed_loop,
        (*NEEDS_BATCH, "batch"),
        "The forces are not the gradient of any energy: a molecule gains energy by moving in a circle. Look "
        "for detach() in forward(), or for forces predicted directly.",
    ),
    Check(
        "parameter-gradient",
        "∂|Hv − y|²/∂θ is right (3x, finite differences in θ)",
        derivatives.check_parameter_gradient,
        NEEDS_SINGLE,
        "A training step on H v would go in a wrong direction, or is impossible. Every operation needs three backward "
        "passes: look for custom functions, fused attention, TorchScript, and inner gradients without create_graph.",
    ),
    Check(
        "smooth",
        "no jump of E, F, H, T along a path",
        smoothness.check_smooth,
        (*NEEDS_BATCH, "batch"),
        "Where forces jump (ReLU, abs), autograd's curvature misses the jump; where curvature jumps, H v labels on the "
        "two sides contradict each other. Use smooth activations (softplus, SiLU, GELU, tanh; the curvature of "
        "ELU and CELU jumps) and cutoffs (hesse.smooth), no clamp, max, sort or nearest-neighbor choice.",
    ),
    Check(
        "cutoff",
        "no jump of E, F, H, T where an atom crosses the cutoff",
        smoothness.check_cutoff,
        (*NEEDS_BATCH, "batch"),
        "Labels of structures on the two sides contradict each other, and optimizations and dynamics become unreliable "
        "there. Use a cutoff function whose first three derivatives vanish (hesse.smooth.smooth_cutoff).",
    ),
    Check(
        "translation",
        "E, F, H v of shifted structures",
        symmetries.check_translation,
        NEEDS_SINGLE,
        "The potential uses absolute positions: build it on differences of positions (batch.neighbor_vectors()).",
    ),
    Check(
        "rotation",
        "E, F, H v of rotated structures",
        symmetries.check_rotation,
        NEEDS_SINGLE,
        "Energies depend on the orientation of a molecule, so part of the curvature is an artifact. Build features "
        "from distances, angles or contracted tensors.",
    ),
    Check(
        "mirror",
        "E, F, H v of mirror images",
        symmetries.check_mirror,
        NEEDS_SINGLE,
        "A molecule and its mirror image have different energies. Leave out pseudoscalars (triple products, "
        "contractions of odd parity).",
    ),
    Check(
        "permutation",
        "E, F, H v with atoms in another order",
        symmetries.check_permutation,
        NEEDS_SINGLE,
        "Energies depend on the order of atoms in the file. Sum over neighbors; do not use indices or order.",
    ),
    Check(
        "sum-rule",
        "H t = 0 for translations",
        symmetries.check_translational_sum_rule,
        NEEDS_SINGLE,
        "Shifting a molecule meets a restoring force: acoustic modes and thermochemistry are wrong. The potential "
        "uses absolute positions, or a double backward drops terms.",
    ),
    Check(
        "rotation-rule",
        "H(e×r) = e×∇E for rotations",
        symmetries.check_rotational_sum_rule,
        NEEDS_SINGLE,
        "Curvature and forces contradict each other: the potential is not rotation invariant, or a double backward "
        "drops terms.",
    ),
    Check(
        "neighbor-list",
        "neighbors listed beyond the cutoff change nothing",
        symmetries.check_neighbor_list,
        NEEDS_BATCH,
        "The potential uses all listed neighbors, also those beyond its cutoff, and would change inside a sum with a "
        "longer-ranged one. Let the cutoff function be zero beyond the cutoff.",
    ),
    Check(
        "extensive",
        "two far copies have twice the energy",
        symmetries.check_extensive,
        NEEDS_BATCH,
        "Energies do not add up: a model of small molecules does not transfer to large ones. (Expected where charges "
        "interact over any distance.) Sum over atoms; do not average.",
    ),
    Check(
        "periodic",
        "supercell, lattice translations, molecule in a large cell",
        periodic.check_periodic,
        NEEDS_BATCH,
        "Periodic structures are not treated as periodic. Use batch.neighbor_vectors(), which adds batch.cell_shifts @ "
        "batch.cell, or refuse periodic structures with a RequestError.",
    ),
    Check(
        "stress",
        "stress is the slope under strain (finite differences)",
        periodic.check_stress,
        (*NEEDS_BATCH, "periodic"),
        "Cells relax to wrong volumes. The energy must be differentiable in batch.cell: no detach(), and cell_shifts "
        "times the cell computed inside forward().",
    ),
    Check(
        "several-probes",
        "H v of several directions in one pass (vmap)",
        autodiff.check_vmap,
        NEEDS_BATCH,
        "Hessians and several probes per structure cannot be computed in one vectorized pass. Set supports_vmap = "
        "False on the potential (slower), or give its custom autograd functions a vmap rule (setup_context and "
        "generate_vmap_rule = True).",
    ),
    Check(
        "forward-mode",
        "H v by forward over reverse mode",
        autodiff.check_forward_mode,
        NEEDS_BATCH,
        "Forward mode silently gives wrong numbers: never use it on this potential (Hesse does not).",
    ),
    Check(
        "float32",
        "H v in float32 equals that in float64",
        numerics.check_float32,
        NEEDS_SINGLE,
        "Rounding in float32 is larger than the noise of good curvature labels. Train with dtype: float64, or look for "
        "differences of large numbers inside the potential.",
    ),
    Check(
        "compile",
        "compiled E, F, H v equal eager ones",
        autodiff.check_compile,
        NEEDS_BATCH,
        "The compiler silently gives wrong derivatives: use this potential uncompiled.",
    ),
)
