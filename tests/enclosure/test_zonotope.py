"""Fitted lines and zonotopes, each against the function that it encloses."""

import numpy as np
import pytest
import torch

from sobolev_lib.enclosure import zonotope as zn
from sobolev_lib.enclosure.approximation import lines
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.network.activations import ACTIVATIONS
from tests import exact

F64 = torch.float64


def value(form, eta):
    """The member of a zonotope (n, m) at symbols eta (p, rows), the rest left out."""
    return form.center[0] + eta @ form.generators[0]


def random_form(rows, m, generator, size=0.3):
    generators = size * torch.randn(1, rows, m, dtype=F64, generator=generator) / rows**0.5
    return zn.Zonotope(torch.randn(1, m, dtype=F64, generator=generator), generators, torch.zeros(1, m, dtype=F64))


def with_rest(form, generator, count=4000):
    """The same zonotope with a rest, and what the rest's symbols add to ``count`` of its members."""
    rest = 0.1 * torch.rand(form.center.shape, dtype=F64, generator=generator)
    return form._replace(rest=rest), symbols(form.center.shape[1], generator, count) * rest


def symbols(rows, generator, count=4000):
    eta = 2 * torch.rand(count, rows, dtype=F64, generator=generator) - 1
    eta[: count // 2] = eta[: count // 2].sign()
    return eta


def test_enclosures_of_zonotopes():
    """They contain every member, and are attained at the corners."""
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 3, 9):
        form = random_form(rows, 6, generator, size=0.8)
        members, enclosure = value(form, symbols(rows, generator)), zn.enclosure(form, True)
        assert (members >= enclosure.lo).all() and (members <= enclosure.hi).all()
        torch.testing.assert_close(value(form, form.generators[0].sign().T).diagonal(), enclosure.hi[0])


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_lines_contain_the_function(name, seed):
    """For f, f' and f'', over points, short, long and far intervals, off centre too; the function in long double."""
    activation, order = ACTIVATIONS[name], 2 if ACTIVATIONS[name].smooth else 1
    generator = torch.Generator().manual_seed(seed)
    middle = torch.cat([8 * torch.rand(300, dtype=F64, generator=generator) - 4, torch.tensor([0.0, 30.0, -30.0])])
    radius = 10 ** (6 * torch.rand(303, dtype=F64, generator=generator) - 4)
    radius[::10] = 0.0
    z = Interval((middle - radius).unsqueeze(0), (middle + radius).unsqueeze(0))
    center = (middle + 0.3 * radius * torch.randn(303, dtype=F64, generator=generator)).unsqueeze(0)
    inside = torch.cat([torch.linspace(0, 1, 65, dtype=F64), torch.rand(60, dtype=F64, generator=generator)])
    points = torch.minimum(torch.maximum(torch.lerp(z.lo, z.hi, inside.unsqueeze(1)), z.lo), z.hi)
    with np.errstate(all="ignore"):
        truth = exact.JETS[name](exact.long(points))
    s = exact.long(points) - exact.long(center)
    for k, line in enumerate(lines(activation, z, center, order, True)):
        at = exact.long(line.offset) + exact.long(line.slope) * s
        assert (np.abs(truth[k] - at) <= exact.long(line.margin)).all(), k


@pytest.mark.parametrize("k", [0, 1])
def test_margins_are_of_second_order(k):
    """In the size of the interval."""
    center = torch.tensor([[-1.0, 0.3, 1.7]], dtype=F64)
    margins = []
    for radius in (0.4, 0.2):
        z = Interval(center - radius, center + radius)
        margins.append(lines(ACTIVATIONS["silu"], z, center, 1, False)[k].margin)
    assert torch.log2(margins[0] / margins[1]).mean().item() > 1.6


def test_a_line_is_nearly_the_best_one():
    """Over a short interval the best line's margin is f'' r^2 / 4."""
    center, radius = torch.tensor([[0.0, 1.0]], dtype=F64), 0.1
    line = lines(ACTIVATIONS["silu"], Interval(center - radius, center + radius), center, 1, False)[0]
    bend = ACTIVATIONS["silu"].derivative(2)(center).abs()
    torch.testing.assert_close(line.margin, bend * radius**2 / 4, rtol=0.06, atol=1e-6)


@pytest.mark.parametrize("outward", [False, True])
def test_images_contain_the_function_of_each_member(outward):
    generator = torch.Generator().manual_seed(0)
    form, own = with_rest(random_form(5, 8, generator), generator)
    eta = symbols(5, generator)
    members = value(form, eta) + own
    for name in ("silu", "tanh", "sin"):
        activation = ACTIVATIONS[name]
        for k, line in enumerate(lines(activation, zn.enclosure(form, outward), form.center, 2, outward)):
            image = zn.image(line, form, outward)
            error = (activation.derivative(k)(members) - value(image, eta)).abs()
            assert (error <= image.rest + (0 if outward else 1e-13)).all()


@pytest.mark.parametrize("outward", [False, True])
@pytest.mark.parametrize("size", [0.3, 3.0])
def test_products_contain_the_product_of_each_two_members(outward, size):
    generator = torch.Generator().manual_seed(1)
    (x, x_own), (y, y_own) = (with_rest(random_form(rows, 8, generator, size), generator) for rows in (5, 7))
    eta = symbols(7, generator)
    at_x, at_y = value(x, eta[:, :5]) + x_own, value(y, eta) + y_own
    for a, b in ((x, y), (y, x)):
        result = zn.product(a, b, zn.enclosure(a, outward), zn.enclosure(b, outward), outward)
        error = (at_x * at_y - value(result, eta)).abs()
        assert (error <= result.rest + 1e-15 * a.radius() * b.radius() + 1e-14).all()
    total = zn.total(x, y, outward)
    error = (at_x + at_y - value(total, eta)).abs()
    assert (error <= total.rest + 1e-15 * (x.radius() + y.radius() + 1)).all()


def test_a_square_knows_that_it_is_not_negative():
    """Both factors share their symbol, so its square lies in [0, 1], not in [-1, 1]."""
    form = zn.Zonotope(*(torch.tensor(t, dtype=F64) for t in ([[0.0]], [[[1.0]]], [[0.0]])))
    wide = Interval([[-9.0]], [[9.0]])
    square = zn.enclosure(zn.product(form, form, wide, wide, False), False)
    assert (square.lo.item(), square.hi.item()) == (0.0, 1.0)


def test_affine_images_turn_the_rest_into_generators():
    generator = torch.Generator().manual_seed(0)
    form, own = with_rest(random_form(3, 4, generator), generator)
    weight, bias = torch.randn(3, 4, dtype=F64, generator=generator), torch.ones(3, dtype=F64)
    image = zn.affine_image(weight, weight.abs(), bias, form, False)
    assert image.rows == form.rows + 4 and image.rest.max() == 0
    eta = symbols(3, generator)
    members = value(form, eta) + own
    torch.testing.assert_close(value(image, torch.cat([eta, own / form.rest], 1)), members @ weight.T + bias)
