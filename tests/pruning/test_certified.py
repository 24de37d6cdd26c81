"""The certified cut: what is proved holds at samples, and more tolerance removes more."""

import pytest
import torch

from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.certified import cut_certified

F64 = torch.float64
BOX = Interval([-1.0, -1.0], [1.0, 1.0])


def thin(seed: int) -> Surrogate:
    """A network whose first layer sees one direction, nearly."""
    generator = torch.Generator().manual_seed(seed)
    net = Surrogate([2, 6, 4, 1], "softplus", gain=1.0, generator=generator)
    net.weights[0].data.copy_(torch.randn(6, 1, generator=generator).double() * torch.tensor([1.0, 0.5]).double())
    net.weights[0].data.add_(1e-3 * torch.randn(6, 2, dtype=F64, generator=generator))
    return net


def test_what_is_proved_holds_and_tolerance_buys_nodes():
    net, x = thin(0), 2 * torch.rand(20_000, 2, dtype=F64, generator=torch.Generator().manual_seed(1)) - 1
    left = []
    for tolerance in (1e-4, 1e-2, 0.5):
        found = cut_certified(net, BOX, tolerance, gradient=tolerance, cells=500)
        value, gradient = (
            a - b for a, b in zip(found.net.value_and_gradient(x), net.value_and_gradient(x), strict=True)
        )
        assert value.abs().max() <= tolerance and gradient.abs().max() <= tolerance
        if found.proved is not None:
            assert value.abs().max() <= found.proved.value.bound <= tolerance
            assert gradient.abs().max() <= found.proved.gradient.bound <= tolerance
        left.append(sum(found.net.widths[1:-1]))
        assert found.sampled <= left[-1]
    assert left[0] > left[2] and left == sorted(left, reverse=True)


def test_nothing_is_removed_where_nothing_can_be_proved():
    net = thin(0)
    found = cut_certified(net, BOX, 1e-13, cells=10)
    assert found.proved is None and found.net.widths == net.widths and torch.equal(found.net.weights[0], net.weights[0])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tolerance": 0.0}, "tolerance: got 0.0"),
        ({"gradient": -1.0}, "gradient: got -1.0"),
        ({"cells": 0}, "cells: got 0"),
    ],
)
def test_bad_input_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        cut_certified(thin(0), BOX, **({"tolerance": 0.1} | change))
