"""Write a small MACE model with random weights for H, C and O to start.model; it takes the place of a trained one."""

import numpy as np
import torch
from mace import modules

# isort: split
from e3nn import o3  # after MACE, which prepares e3nn for recent PyTorch

torch.manual_seed(0)
block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
model = modules.ScaleShiftMACE(
    atomic_numbers=[1, 6, 8],
    num_elements=3,
    atomic_energies=np.array([-13.6, -1029.0, -2041.0]),
    atomic_inter_scale=1.0,
    atomic_inter_shift=0.0,
    r_max=4.5,
    num_bessel=8,
    num_polynomial_cutoff=6,
    avg_num_neighbors=5.0,
    max_ell=2,
    correlation=2,
    num_interactions=2,
    interaction_cls=block,
    interaction_cls_first=block,
    hidden_irreps=o3.Irreps("16x0e + 16x1o"),
    MLP_irreps=o3.Irreps("16x0e"),
    gate=torch.nn.functional.silu,
)
torch.save(model, "start.model")
