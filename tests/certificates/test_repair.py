"""Repair by counterexamples: what is proved holds at samples, and the labels pay little."""

from types import SimpleNamespace

import pytest
import torch

from sobolev_lib.certificates.repair import repair
from sobolev_lib.certificates.verdicts import is_convex, is_increasing, is_non_negative
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.fit import fit

F64 = torch.float64
BOX, V = Interval([-1.5, -1.5], [1.5, 1.5]), torch.ones(2, dtype=F64)
MARGINS = {"non-negative": 1e-2, "increasing": 1e-3, "convex": 1e-3}


def noisy_softplus(seed: int) -> tuple[Surrogate, SimpleNamespace]:
    """A network fitted to noisy values and slopes of softplus(3 (x + y)) / 3."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(512, 2, dtype=F64, generator=generator)
    z = 3 * x.sum(1)
    value = torch.logaddexp(z, torch.zeros((), dtype=F64)) / 3 + 0.05 * torch.randn(512, dtype=F64, generator=generator)
    samples = SimpleNamespace(x=x, value=value, gradient=None, hvp=None, directions=None)
    net = Surrogate([2, 4, 1], "silu", gain=1.0, generator=generator)
    fit(net, samples, order=0, steps=300, batch=64, seed=seed)
    return net, samples


def test_the_repaired_network_keeps_what_was_proved():
    net, samples = noisy_softplus(0)
    asked = (is_non_negative(net, BOX), is_increasing(net, BOX, V), is_convex(net, BOX, V))
    assert "no" in [verdict.answer for verdict in asked]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fixed = repair(net, samples, BOX, MARGINS, order=0, direction=V)
    assert fixed.proved and fixed.rounds >= 1
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    x = 3 * torch.rand(20_000, 2, dtype=F64, generator=torch.Generator().manual_seed(1)) - 1.5
    assert fixed.net(x).min() >= 0 and (fixed.net.gradient(x) @ V).min() >= 0
    assert (fixed.net.hvp(x, V[None])[:, 0] @ V).min() >= 0
    assert fixed.loss[1] < 1.2 * fixed.loss[0]


def test_what_cannot_be_had_is_not_claimed():
    """Labels that fall everywhere, one round: the network still falls."""
    x = torch.linspace(-1, 1, 64, dtype=F64).reshape(-1, 1)
    samples = SimpleNamespace(x=x, value=-x[:, 0], gradient=None, hvp=None, directions=None)
    net = Surrogate([1, 2, 1], gain=1.0)
    fit(net, samples, order=0, steps=100, batch=64)
    fixed = repair(net, samples, Interval([-1.0], [1.0]), {"increasing": 0.1}, order=0, direction=[1.0], rounds=1)
    assert not fixed.proved and fixed.rounds == 1 and fixed.verdicts["increasing"].answer == "no"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"margins": {"smooth": 1.0}}, "margins: got 'smooth', need one of 'non-negative', 'increasing', 'convex'"),
        ({"margins": {"convex": 0.0}}, r"margins\['convex'\]: got 0.0, need a finite number > 0"),
        ({"rounds": 0}, "rounds: got 0, need an integer >= 1"),
        ({"order": 1}, "samples: got no gradient labels"),
        ({"direction": [1.0]}, r"direction: got shape \(1,\), need \(2,\)"),
    ],
)
def test_bad_input_is_refused(change, message):
    x = torch.zeros(4, 2, dtype=F64)
    samples = SimpleNamespace(x=x, value=x[:, 0], gradient=None, hvp=None, directions=None)
    arguments = {"box": BOX, "margins": MARGINS, "order": 0, "direction": V} | change
    with pytest.raises(ValueError, match=message):
        repair(Surrogate([2, 2, 1]), samples, **arguments)
