"""Digests of tensors."""

from __future__ import annotations

import numpy as np
import torch

from hesse.runtime.tensor_files import tensor_digest


def test_empty_tensors_have_a_digest() -> None:
    """Replicas without snapshots (`hesse md --stride 0`) have empty arrays, which numpy gives the stride zero."""
    empty = torch.from_numpy(np.array([], dtype=np.float64))
    assert tensor_digest({}, {"a": empty}) == tensor_digest({}, {"a": torch.zeros(0, dtype=torch.float64)})
    assert tensor_digest({}, {"a": empty}) != tensor_digest({}, {"b": empty})
    assert tensor_digest({}, {"a": empty}) != tensor_digest({}, {"a": empty.reshape(0, 3)})
