"""Error bars against least squares in closed form, against refits to fresh noise, and the test for a lack of fit."""

import math

import numpy as np
import pytest
import torch

import sobolev_lib as sl

UNIT = sl.SobolevLoss(0, torch.eye(1, dtype=torch.float64))


def generator(seed):
    return torch.Generator().manual_seed(seed)


def noisy(x, size, seed):
    return x @ torch.tensor([1.0, -2.0]).double() + size * torch.randn(len(x), generator=generator(seed)).double()


def test_an_affine_network_has_the_robust_errors_of_ordinary_least_squares():
    x = torch.rand(300, 2, generator=generator(0)).double() * torch.tensor([1.0, 40.0])
    samples = sl.Samples(x, noisy(x, 0.1 + x[:, 0], 1))
    net = sl.Surrogate([2, 1])
    sl.fit(net, samples, order=0, steps=0, balance=UNIT, prior=1e8)
    at = torch.tensor([[0.3, 10.0], [2.0, -5.0]]).double()
    bars = sl.uncertainty(net, samples, UNIT, prior=1e8).bars(at)
    design = np.column_stack([x.numpy(), np.ones(300)])
    inverse = np.linalg.inv(design.T @ design)
    beta, *_ = np.linalg.lstsq(design, samples.value.numpy(), rcond=None)
    residual = samples.value.numpy() - design @ beta
    covariance = inverse @ (design.T * residual**2) @ design @ inverse * 300 / 297
    points = np.column_stack([at.numpy(), np.ones(2)])
    expected = np.sqrt(np.einsum("np,pq,nq->n", points, covariance, points))
    np.testing.assert_allclose(bars.price.numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(bars.delta[0].numpy(), np.sqrt(np.diag(covariance)[:2]), rtol=1e-6)
    assert bars.gamma.tolist() == [0, 0]


def test_the_joint_covariance_has_the_bars_on_its_diagonal():
    x = torch.rand(200, 2, generator=generator(0)).double()
    net, samples = sl.Surrogate([2, 3, 1]), sl.Samples(x, noisy(x, 0.1, 1))
    sl.fit(net, samples, order=0, steps=200, balance=UNIT, finish=10)
    found = sl.uncertainty(net, samples, UNIT)
    bars, joint = found.bars(x[:4]), found.covariance(x[:4])
    diagonal = joint.diagonal(dim1=1, dim2=2).sqrt()
    torch.testing.assert_close(diagonal, torch.cat([bars.price[:, None], bars.delta, bars.gamma[:, None]], 1))


def test_replicated_sets_give_the_standard_error_of_their_means():
    values = torch.randn(12, 50, generator=generator(3)).double() + torch.randn(12, 1, generator=generator(4)).double()
    sets = [sl.Samples(torch.zeros(50, 1).double(), value) for value in values]
    net, whole = sl.Surrogate([1, 1]), sl.Samples(torch.zeros(600, 1).double(), values.flatten())
    sl.fit(net, whole, order=0, steps=0, balance=UNIT, prior=1e8)
    found = sl.uncertainty(net, sets, UNIT, prior=1e8)
    expected = values.mean(1).std().item() / math.sqrt(12)
    assert found.bars(torch.zeros(1, 1)).price.item() == pytest.approx(expected, rel=1e-6)
    assert found.freedom == 11


def test_refits_to_fresh_noise_scatter_as_the_bars_say():
    # 60 refits, three outputs each at three points: the root mean square of z has a standard error of about 0.07.
    x = torch.linspace(-1, 1, 200, dtype=torch.float64).reshape(-1, 1)
    truth = sl.Surrogate([1, 2, 1], gain=1.0, generator=generator(5)).set_scaling(x, x[:, 0])
    exact = [part.detach() for part in truth.value_and_gradient(x)]
    loss, at, z = sl.SobolevLoss(1, torch.diag(torch.tensor([10.0, 5.0]).double())), x[[20, 100, 170]], []
    wanted = [part.detach() for part in truth.value_and_gradient(at)]
    for seed in range(60):
        noise = torch.randn(200, 2, generator=generator(100 + seed)).double()
        labels = sl.Samples(x, exact[0] + 0.1 * noise[:, 0], exact[1] + 0.2 * noise[:, 1:])
        net = truth.copy()
        sl.fit(net, labels, order=1, steps=0, balance=loss, prior=1e8, finish=20)
        bars, got = sl.uncertainty(net, labels, loss, prior=1e8).bars(at), net.value_and_gradient(at)
        z.append(torch.stack([(got[0] - wanted[0]) / bars.price, (got[1] - wanted[1])[:, 0] / bars.delta[:, 0]]))
    scatter = torch.stack(z).detach().square().mean((0, 2)).sqrt()
    assert ((scatter > 0.75) & (scatter < 1.25)).all(), scatter


def test_four_times_the_labels_for_half_the_error():
    x = torch.rand(400, 2, generator=generator(0)).double()
    net, samples = sl.Surrogate([2, 1]), sl.Samples(x, noisy(x, 0.1, 1))
    sl.fit(net, samples, order=0, steps=0, balance=UNIT)
    found = sl.uncertainty(net, samples, UNIT)
    size = found.bars(x).price.square().mean().sqrt().item()
    assert found.labels_for(x, price=size / 2, delta=1e9) in (1600, 1601)


@pytest.mark.parametrize(("freedom", "table"), [(math.inf, 1.9600), (7, 2.3646), (15, 2.1314), (31, 2.0395)])
def test_the_factor_is_that_of_the_tables(freedom, table):
    found = sl.Uncertainty(sl.Surrogate([1, 1]), torch.zeros(2, 1), 1, freedom)
    assert found.factor() == pytest.approx(table, abs=2e-4)


def held_out(net, seed, bend=0.0, n=1024):
    x = torch.randn(n, 2, generator=generator(seed)).double()
    value, gradient = (part.detach() for part in net.value_and_gradient(x))
    noise = torch.randn(n, 3, generator=generator(seed + 1000)).double()
    return sl.Samples(x, value + bend * x[:, 0].square() + 0.1 * noise[:, 0], gradient + 0.2 * noise[:, 1:])


def test_a_network_that_fits_is_seldom_said_not_to():
    # 200 runs at level 0.05: 10 expected; more than 20 has probability 1e-3.
    net = sl.Surrogate([2, 3, 1], gain=1.0, generator=generator(1))
    net.set_scaling(torch.randn(9, 2).double(), torch.randn(9).double())
    chances = [sl.lack_of_fit(net, held_out(net, seed), 1).chance for seed in range(200)]
    assert 1 <= sum(chance < 0.05 for chance in chances) <= 20


def test_a_missing_bend_is_seen():
    net = sl.Surrogate([2, 3, 1], gain=1.0, generator=generator(1))
    net.set_scaling(torch.randn(9, 2).double(), torch.randn(9).double())
    assert sl.lack_of_fit(net, held_out(net, 0, bend=0.05), 1).chance < 1e-3


def test_refusals():
    x = torch.zeros(100, 1).double()
    samples, net = sl.Samples(x, torch.arange(100).double()), sl.Surrogate([1, 1])
    with pytest.raises(ValueError, match="samples: got no gradient labels"):
        sl.uncertainty(net, samples, sl.SobolevLoss(1, torch.eye(2).double()))
    with pytest.raises(ValueError, match="net: got 2050 parameters, need at most 2000: shrink it first"):
        sl.uncertainty(sl.Surrogate([1, 683, 1]).set_scaling(x + torch.rand(100, 1), samples.value), samples, UNIT)
    with pytest.raises(ValueError, match=r"samples: got 2 sets of \[100\] rows, need 8 or more of equal size"):
        sl.uncertainty(net, [samples, samples], UNIT)
    with pytest.raises(ValueError, match="samples: got 100 rows, need at least 128"):
        sl.lack_of_fit(net, sl.Samples(x, x[:, 0], x), 1)
    found = sl.Uncertainty(net, torch.zeros(2, 1), 1, math.inf)
    with pytest.raises(ValueError, match="price, delta, gamma: got none"):
        found.labels_for(x)
    with pytest.raises(ValueError, match="level: got 1"):
        found.factor(1)


@pytest.mark.parametrize(
    "change, message",
    [
        (
            {"loss": sl.SobolevLoss(order=0, matrix=torch.eye(2))},
            r"^loss: got order 0 and a matrix \(2, 2\), need order 0 and \(1, 1\)",
        ),
        ({"prior": -1.0}, r"^prior: got -1.0, need a number > 0"),
        ({"prior": float("nan")}, r"^prior: got nan, need a number > 0"),
    ],
)
def test_a_loss_of_other_labels_and_a_prior_that_is_none_are_refused(change, message):
    x = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(-1, 1)
    samples = sl.Samples(x=x, value=x[:, 0])
    given = {"loss": sl.SobolevLoss(order=0, matrix=torch.eye(1)), "prior": 2.0} | change
    with pytest.raises(ValueError, match=message):
        sl.uncertainty(sl.Surrogate([1, 1]), samples, given["loss"], prior=given["prior"])
