"""Small CHGNet and SevenNet models with random weights, and the frameworks' own calculators."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import warnings
from typing import Any

import torch


def chgnet_model(**options: Any) -> Any:
    """A small CHGNet with random parameters, in float64."""
    from hesse.models.adapters.chgnet import _import_chgnet

    settings: dict[str, Any] = {
        **dict.fromkeys(("atom_fea_dim", "bond_fea_dim", "angle_fea_dim"), 8),
        **dict.fromkeys(("atom_conv_hidden_dim", "bond_conv_hidden_dim"), 8),
        "num_radial": 5, "num_angular": 5, "n_conv": 3, "mlp_hidden_dims": (8, 8), "atom_graph_cutoff": 5,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]), contextlib.redirect_stdout(io.StringIO()):
        torch.manual_seed(1)
        return _import_chgnet("chgnet.model.model").CHGNet(**{**settings, **options}).double().eval()


def chgnet_calculator(model: Any) -> Any:
    """CHGNet's own ASE calculator in float64, for a model or the name of published weights."""
    from hesse.models.adapters.chgnet import _import_chgnet

    models, converter = _import_chgnet("chgnet.model.model"), _import_chgnet("chgnet.graph.converter")
    converter.TORCH_DTYPE = models.TORCH_DTYPE = torch.float64
    with contextlib.redirect_stdout(io.StringIO()):
        if isinstance(model, str):
            model = models.CHGNet.load(model_name=model, use_device="cpu")
        double = copy.deepcopy(model).double()
        double.composition_model.float()  # its compositions are float32
        calculators = _import_chgnet("chgnet.model.dynamics")
        return calculators.CHGNetCalculator(double, use_device="cpu", on_isolated_atoms="ignore")


def sevenn_model(**options: Any) -> tuple[Any, dict[str, Any]]:
    """A small SevenNet with random parameters in float64, and its settings: those of 7net-0 with fewer channels."""
    model, config = _sevenn_model(tuple(sorted(options.items())))
    return copy.deepcopy(model), copy.deepcopy(config)


@functools.cache
def _sevenn_model(options: tuple[tuple[str, Any], ...]) -> tuple[Any, dict[str, Any]]:
    from hesse.models.adapters.checkpoints import checkpoint_file
    from hesse.models.adapters.sevenn import _import_sevenn

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        torch.manual_seed(1)
        config = _import_sevenn("sevenn.checkpoint").SevenNetCheckpoint(checkpoint_file("sevenn", "7net-0")).config
        config |= {"channel": 4, "lmax": 1, "num_convolution_layer": 2, "weight_nn_hidden_neurons": [8]}
        config |= {"irreps_manual": False, **dict(options)}
        config["conv_denominator"] = [5.0, 5.0]
        model = _import_sevenn("sevenn.model_build").build_E3_equivariant_model(copy.deepcopy(config))
        return model.double().eval(), config


def sevenn_calculator(model: Any, **options: Any) -> Any:
    """SevenNet's own ASE calculator, for a model, a file or the name of published weights."""
    from hesse.models.adapters.sevenn import _import_sevenn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calculators = _import_sevenn("sevenn.calculator")
        if isinstance(model, torch.nn.Module):
            model = copy.deepcopy(model).float()
            return calculators.SevenNetCalculator(model, file_type="model_instance", device="cpu", **options)
        return calculators.SevenNetCalculator(model, device="cpu", **options)
