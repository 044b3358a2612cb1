"""What the floor of potentials says about any of them: known elements, floating-point type and device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hesse.errors import UnknownElementError
from hesse.potential import check_elements, dtype_and_device, structure_at
from oracles import Morse


class KnowsWater(Morse):
    elements = (8, 1)


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor, lambda z: torch.tensor(z, dtype=torch.uint8)])
def test_an_unknown_element_is_named_with_what_is_known_and_what_to_do(convert) -> None:
    check_elements(KnowsWater(), convert([1, 8, 1]), where="here")
    check_elements(Morse(), convert([1, 92]), where="here")  # all elements
    message = r"^here holds F; KnowsWater knows H, O only\. Leave it out, or use a potential that was trained on"
    with pytest.raises(UnknownElementError, match=message):
        check_elements(KnowsWater(), convert([1, 9, 7]), where="here")
    with pytest.raises(UnknownElementError, match=r'^it holds N; "mine" knows H, O only\. Use another\.$'):
        check_elements(KnowsWater(), convert([7]), where="it", name='"mine"', advice="Use another.")


def test_the_structure_of_the_unknown_element_is_named() -> None:
    ids, sizes = ["water", "nothing", "fluoride"], [3, 0, 2]
    for n_atoms in (sizes, torch.tensor(sizes)):
        with pytest.raises(UnknownElementError, match=r'^a\.h5: structure "fluoride" holds F;'):
            check_elements(KnowsWater(), [8, 1, 1, 9, 1], where=structure_at(ids, n_atoms, "a.h5"))
    assert [structure_at(ids, sizes)(atom) for atom in (0, 2, 3)] == [
        'structure "water"',
        'structure "water"',
        'structure "fluoride"',
    ]


def test_type_and_device_are_those_of_the_first_parameter_or_buffer() -> None:
    potential = Morse()
    assert dtype_and_device(potential) == (torch.float64, torch.device("cpu"))
    potential.register_buffer("integers", torch.zeros(1, dtype=torch.int64))
    potential.register_buffer("table", torch.zeros(1, dtype=torch.float32))
    assert dtype_and_device(potential)[0] == torch.float32
    potential.register_parameter("weight", torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)))
    assert dtype_and_device(potential)[0] == torch.float64
