"""Directions against what they are defined by, and their way through labels and loss."""

import math

import pytest
import torch

from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.simulation import directions
from sobolev_lib.simulation.case_study import basket_case
from sobolev_lib.simulation.labels import label
from sobolev_lib.simulation.noise import gaussian
from sobolev_lib.simulation.payoffs import Blend
from sobolev_lib.training.loss import balance_by_moments

F64 = torch.float64


def test_axes_are_columns_of_the_unit_matrix():
    assert torch.equal(directions.axes(4), torch.eye(4, dtype=F64))
    assert directions.axes(4, [1]).tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_a_direction_has_unit_length_whatever_the_vector_has(size):
    assert directions.along([size, -size]).tolist()[0] == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])


@pytest.mark.parametrize(("dim", "each"), [(1, 1), (5, 1), (5, 3), (5, 5)])
def test_random_directions_are_orthonormal(dim, each):
    u = directions.uniform(200, dim, noise=gaussian(seed=1), each=each)
    assert u.shape == (200, each, dim)
    torch.testing.assert_close(
        u @ u.transpose(1, 2), torch.eye(each, dtype=F64).expand(200, -1, -1), atol=1e-14, rtol=0
    )


@pytest.mark.parametrize("each", [1, 2])
def test_random_directions_see_the_whole_hessian(each):
    """d |H u|^2 has the mean |H|^2 (Frobenius); error level 1e-5, standard error from the sample."""
    h = torch.randn(4, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    h = h + h.T
    u = directions.uniform(20000, 4, noise=gaussian(seed=2), each=each)
    sizes = 4 * (u @ h).square().sum(2).mean(1)
    assert abs(sizes.mean() - h.square().sum()) < 4.42 * sizes.std() / 20000**0.5
    mean = u[:, -1].mean(0)  # and they point nowhere in particular: a component has the variance 1/4
    assert (mean.abs() < 4.75 * 0.5 / 20000**0.5).all()  # error level 1e-5 for eight of them


def test_random_directions_do_not_depend_on_how_they_are_asked_for():
    whole = directions.uniform(50, 3, noise=gaussian(seed=1), each=2)
    parts = [directions.uniform(n, 3, noise=gaussian(seed=1), each=2, start=s) for s, n in ((0, 17), (17, 33))]
    assert torch.equal(torch.cat(parts), whole)


def test_principal_components_are_singular_vectors():
    g = torch.randn(30, 5, dtype=F64, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5, 2, 9, 3])
    _, sizes, vectors = torch.linalg.svd(g, full_matrices=False)
    ours = directions.principal(g, 5)
    torch.testing.assert_close((ours @ vectors.T).abs(), torch.eye(5, dtype=F64), atol=1e-12, rtol=0)
    assert (ours.gather(1, ours.abs().argmax(1, keepdim=True)) > 0).all()
    held = sizes.square().cumsum(0) / sizes.square().sum()
    for count in range(1, 5):
        between = 0.5 * (held[count - 1] + (held[count - 2] if count > 1 else 0))
        assert len(directions.principal(g, share=between.item())) == count
    assert len(directions.principal(g, share=1.0)) == 5


def test_gradients_of_a_basket_have_the_direction_of_its_weights():
    case = basket_case()
    x = case.inputs(500, gaussian(seed=1))
    samples = label(case.model, case.payoff, x, horizon=1.0, noise=gaussian(seed=0))
    torch.testing.assert_close(directions.principal(samples.gradient), directions.along(case.weights))


def test_labels_and_loss_take_directions_of_both_shapes():
    case = basket_case(smoothing=Blend(0.1))
    x = case.inputs(40, gaussian(seed=1))
    arguments = dict(horizon=1.0, noise=gaussian(seed=0), order=2)
    whole = label(case.model, case.payoff, x, **arguments).hvp
    net = Surrogate([7, 3, 1]).set_scaling(x, x[:, 0])
    for u in (directions.uniform(40, 7, noise=gaussian(seed=5), each=2), directions.along(case.weights)):
        samples = label(case.model, case.payoff, x, directions=u, **arguments)
        torch.testing.assert_close(samples.hvp, u.expand(40, -1, -1) @ whole, atol=1e-12, rtol=1e-10)
        assert torch.isfinite(balance_by_moments(samples, 2)(net, samples))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: directions.axes(0), "dim: got 0, need an integer >= 1"),
        (lambda: directions.axes(2, [2]), "which: got 2, need an integer from 0 to 1"),
        (lambda: directions.axes(2, []), "which: got no numbers, need at least one"),
        (lambda: directions.along([0.0, 0.0]), "vector: got 2 zeros, need a direction"),
        (lambda: directions.along([[1.0]]), r"vector: got shape \(1, 1\), need \(d,\)"),
        (lambda: directions.uniform(3, 2, noise=gaussian(), each=3), "each: got 3, need an integer from 1 to 2"),
        (lambda: directions.uniform(0, 2, noise=gaussian()), "count: got 0, need an integer >= 1"),
        (lambda: directions.uniform(1, 2, noise=gaussian(), start=-1), "start: got -1, need an integer >= 0"),
        (lambda: directions.principal(torch.zeros(3, 2)), "gradients: got 3 that are all zero"),
        (lambda: directions.principal(torch.ones(3, 2), 3), "count: got 3, need an integer from 1 to 2"),
        (lambda: directions.principal(torch.ones(3, 2), share=1.5), r"share: got 1\.5, need a number from 0 to 1"),
    ],
)
def test_bad_arguments_are_refused(function, message):
    with pytest.raises(ValueError, match=message):
        function()
