"""Monomials, fitted polynomials and zonotopes, each against the function that it encloses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sobolev_lib.enclosure import zonotope as zn
from sobolev_lib.enclosure.approximation import Fit, fits
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.enclosure.monomials import Monomials, monomials
from sobolev_lib.network.activations import ACTIVATIONS
from tests import exact

F64 = torch.float64


def value(form, eps, extra):
    """The member of a zonotope (n, m) at inputs eps (p, d) and further symbols extra (p, rows), the rest left out."""
    rows = form.monomials.rows
    flat = [index for group in form.monomials.indices for index in group]
    powers = torch.stack([eps[:, list(index)].prod(1) for index in flat], 1)
    return form.center[0] + powers @ form.generators[0, :rows] + extra @ form.generators[0, rows:]


def random_form(algebra, m, extra, generator, size=0.3):
    rows = algebra.rows + extra
    scale = torch.cat([torch.full((s.stop - s.start,), size ** (a + 1)) for a, s in enumerate(algebra.slices)])
    scale = torch.cat([scale, torch.full((extra,), size**3)]).unsqueeze(1).double()
    generators = scale * torch.randn(1, rows, m, dtype=F64, generator=generator)
    center = torch.randn(1, m, dtype=F64, generator=generator)
    return zn.Zonotope(center, generators, torch.zeros(1, m, dtype=F64), algebra)


def with_rest(form, generator, count=4000):
    """The same zonotope with a rest, and what the rest's symbols add to ``count`` of its members."""
    rest = 0.1 * torch.rand(form.center.shape, dtype=F64, generator=generator)
    signs = 2 * torch.rand(count, form.center.shape[1], dtype=F64, generator=generator) - 1
    signs[::2] = signs[::2].sign()
    return replace(form, rest=rest), signs * rest


def symbols(algebra, extra, generator, count=4000):
    eps = 2 * torch.rand(count, algebra.inputs, dtype=F64, generator=generator) - 1
    others = 2 * torch.rand(count, extra, dtype=F64, generator=generator) - 1
    eps[: count // 2], others[: count // 2] = eps[: count // 2].sign(), others[: count // 2].sign()
    return eps, others


@pytest.mark.parametrize("inputs, degree", [(1, 5), (2, 3), (3, 4), (4, 2), (5, 1)])
def test_products_of_polynomials(inputs, degree):
    """Multiplied and evaluated is evaluated and multiplied, but for terms above the degree, whose size is bounded."""
    generator = torch.Generator().manual_seed(degree)
    algebra = Monomials(inputs, degree)
    x, y = (random_form(algebra, 3, 0, generator) for _ in range(2))
    result, lost = algebra.multiply(x.generators, y.generators)
    eps, none = symbols(algebra, 0, generator)
    truth = (value(x, eps, none) - x.center) * (value(y, eps, none) - y.center)
    form = zn.Zonotope(torch.zeros(1, 3, dtype=F64), result, lost, algebra)
    error = (value(form, eps, none) - truth).abs()
    assert (error <= lost + 1e-14).all()
    square, lost = algebra.multiply(x.generators, x.generators)
    plain, plain_lost = algebra.multiply(x.generators, x.generators.clone())
    torch.testing.assert_close(square, plain)
    torch.testing.assert_close(lost, plain_lost)
    x.generators[:, :inputs] = 0
    skipped, plain = algebra.multiply(x.generators, y.generators, 2), algebra.multiply(x.generators, y.generators)
    torch.testing.assert_close(skipped, plain)
    x, y = (random_form(algebra, 3, 0, generator) for _ in range(2))
    if degree > 2:  # nothing is lost between polynomials of low degree
        x.generators[:, algebra.inputs :] = 0
        y.generators[:, algebra.inputs :] = 0
        assert algebra.multiply(x.generators, y.generators)[1].max() == 0


def test_degrees_are_as_high_as_is_cheap():
    assert [monomials(d).degree for d in (1, 7, 8, 14, 15, 38, 39, 1000)] == [5, 5, 4, 3, 2, 2, 1, 1]
    assert all(monomials(d).rows <= 800 for d in range(1, 40))


@pytest.mark.parametrize("degree", [1, 2, 5])
def test_enclosures_of_zonotopes(degree):
    """They contain every member; for one input of degree 2 they are the range."""
    generator = torch.Generator().manual_seed(degree)
    for inputs in (1, 3):
        form = random_form(Monomials(inputs, degree), 6, 4, generator, size=0.8)
        members = value(form, *symbols(form.monomials, 4, generator))
        enclosure = zn.enclosure(form, True)
        assert (members >= enclosure.lo).all() and (members <= enclosure.hi).all()
    parabola = random_form(Monomials(1, 2), 50, 0, generator, size=0.8)
    members = value(parabola, torch.linspace(-1, 1, 20001, dtype=F64).unsqueeze(1), torch.zeros(20001, 0, dtype=F64))
    enclosure = zn.enclosure(parabola, True)
    torch.testing.assert_close(enclosure.lo[0], members.amin(0), atol=1e-7, rtol=0)
    torch.testing.assert_close(enclosure.hi[0], members.amax(0), atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_fits_contain_the_function(name, degree):
    """For f, f' and f'', over points, short, long and far intervals, off centre too; the function in long double."""
    activation, order = ACTIVATIONS[name], 2 if ACTIVATIONS[name].smooth else 1
    generator = torch.Generator().manual_seed(degree)
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
    for k, candidates in enumerate(fits(activation, z, center, order, degree, True)):
        for fit in candidates:
            polynomial = sum(exact.long(c) * s**i for i, c in enumerate(fit.powers))
            assert (np.abs(truth[k] - polynomial) <= exact.long(fit.margin)).all(), k
            assert (np.abs(s) <= exact.long(fit.reach)).all()


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("degree", [1, 2, 3, 5])
def test_margins_shrink_with_the_order_of_the_fit(degree, k):
    """A polynomial of degree p leaves an error of order p + 1 in the size of the interval."""
    center = torch.tensor([[-1.0, 0.3, 1.7]], dtype=F64)
    margins = []
    for radius in (0.4, 0.2):
        z = Interval(center - radius, center + radius)
        margins.append(fits(ACTIVATIONS["silu"], z, center, 1, degree, False)[k][-1].margin)
    rate = torch.log2(margins[0] / margins[1]).mean().item()
    assert rate > min(degree + 1, 3) - 0.4  # the grid's own bound is of order 3


def test_a_line_is_nearly_the_best_one():
    """Over a short interval the best line's margin is f'' r^2 / 4."""
    center, radius = torch.tensor([[0.0, 1.0]], dtype=F64), 0.1
    line = fits(ACTIVATIONS["silu"], Interval(center - radius, center + radius), center, 1, 1, False)[0][0]
    bend = ACTIVATIONS["silu"].derivative(2)(center).abs()
    torch.testing.assert_close(line.margin, bend * radius**2 / 4, rtol=0.06, atol=1e-6)


@pytest.mark.parametrize("degree", [1, 2, 4])
@pytest.mark.parametrize("outward", [False, True])
def test_images_contain_the_function_of_each_member(degree, outward):
    generator = torch.Generator().manual_seed(degree)
    form, own = with_rest(random_form(Monomials(2, degree), 8, 3, generator), generator)
    eps, others = symbols(form.monomials, 3, generator)
    members = value(form, eps, others) + own
    for name in ("silu", "tanh", "sin"):
        activation = ACTIVATIONS[name]
        polynomials = fits(activation, zn.enclosure(form, outward), form.center, 2, degree, outward)
        for k, image in enumerate(zn.images(polynomials, form, outward)):
            error = (activation.derivative(k)(members) - value(image, eps, others)).abs()
            assert (error <= image.rest + (0 if outward else 1e-13)).all()


@pytest.mark.parametrize("power", [2, 3, 4])
@pytest.mark.parametrize("size", [0.5, 1.5])
def test_powers_lose_no_more_than_they_say(power, size):
    """A fit that is a power exactly: what the image leaves out is what exceeds the degree, and what has no monomial."""
    generator = torch.Generator().manual_seed(power)
    form, own = with_rest(random_form(Monomials(2, 4), 8, 2, generator, size), generator)
    eps, others = symbols(form.monomials, 2, generator)
    zero, one, far = torch.zeros_like(form.rest), torch.ones_like(form.rest), torch.full_like(form.rest, 1e9)
    line = Fit([zero, zero], far, far)  # never better
    image = zn.images([[line, Fit([zero] * power + [one], zero, far)]], form, True)[0]
    truth = (value(form, eps, others) + own - form.center) ** power
    error = (truth - value(image, eps, others)).abs()
    assert (error <= image.rest).all() and (error > 0.05 * image.rest).any()


@pytest.mark.parametrize("degree", [1, 2, 4])
@pytest.mark.parametrize("outward", [False, True])
@pytest.mark.parametrize("size", [0.3, 3.0])
def test_products_contain_the_product_of_each_two_members(degree, outward, size):
    generator = torch.Generator().manual_seed(degree)
    algebra = Monomials(2, degree)
    (x, x_own), (y, y_own) = (with_rest(random_form(algebra, 8, k, generator, size), generator) for k in (3, 5))
    eps, others = symbols(algebra, 5, generator)
    for a, b, few, many in ((x, y, others[:, :3], others), (y, x, others, others[:, :3])):
        result = zn.product(a, b, zn.enclosure(a, outward), zn.enclosure(b, outward), outward)
        own = (x_own, y_own) if a is x else (y_own, x_own)
        truth = (value(a, eps, few) + own[0]) * (value(b, eps, many) + own[1])
        error = (truth - value(result, eps, others)).abs()
        assert (error <= result.rest + 1e-15 * sum(a.radii()) * sum(b.radii()) + 1e-14).all()
    total = zn.total(x, y, outward)
    truth = value(x, eps, others[:, :3]) + x_own + value(y, eps, others) + y_own
    error = (truth - value(total, eps, others)).abs()
    assert (error <= total.rest + 1e-15 * (sum(x.radii()) + sum(y.radii()) + 1)).all()


def test_affine_images_turn_the_rest_into_generators():
    generator = torch.Generator().manual_seed(0)
    form = random_form(Monomials(2, 2), 4, 1, generator)
    form = zn.Zonotope(form.center, form.generators, torch.rand(1, 4, dtype=F64, generator=generator), form.monomials)
    weight, bias = torch.randn(3, 4, dtype=F64, generator=generator), torch.ones(3, dtype=F64)
    image = zn.affine_image(weight, weight.abs(), bias, form, False)
    assert image.rows == form.rows + 4 and image.rest.max() == 0
    eps, others = symbols(form.monomials, 5, generator)
    members = value(form, eps, others[:, :1]) + others[:, 1:] * form.rest
    torch.testing.assert_close(value(image, eps, others), members @ weight.T + bias)
