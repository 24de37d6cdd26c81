"""Formulas with enclosures, against the library's plain formulas and against high precision."""

import pytest
import torch
from flint import arb

from sobolev_lib.certificates.references import Reference, bachelier_reference, black_scholes_reference
from sobolev_lib.enclosure.interval import Interval, point
from sobolev_lib.simulation.closed_form import bachelier, black_scholes

F64 = torch.float64
TERMS = {"strike": 1.1, "volatility": 0.2, "maturity": 1.7}
MADE = [(bachelier_reference, bachelier, {}), (black_scholes_reference, black_scholes, {"rate": 0.03})]


@pytest.mark.parametrize("kind", ["call", "put"])
@pytest.mark.parametrize("make, formula, more", MADE)
def test_points_and_intervals_hold_the_formula(make, formula, more, kind):
    spots = torch.linspace(0.3, 2.5, 200, dtype=F64)
    greeks = formula(spots, kind=kind, **TERMS, **more)
    reference = make([1.0], kind=kind, **TERMS, **more)
    functions = (reference.value, reference.slope, reference.curvature)
    for function, truth in zip(functions, (greeks.price, greeks.delta, greeks.gamma), strict=True):
        thin = function(point(spots))
        slack = 1e-14  # the plain formula's own rounding
        assert ((thin.lo <= truth + slack) & (truth <= thin.hi + slack)).all()
        assert (thin.hi - thin.lo).max() < 2e-13
        wide = function(Interval(spots - 0.01, spots + 0.01))
        assert (wide.lo[1:-1] <= truth[1:-1]).all() and (truth[1:-1] <= wide.hi[1:-1]).all()


def test_a_price_holds_the_truth_to_forty_digits():
    reference = bachelier_reference([1.0], **TERMS)
    for spot in (0.2, 1.1, 1.9):
        s = arb("0.2") * 0 + arb(0.2) * arb(1.7).sqrt()
        margin = arb(spot) - arb(1.1)
        cdf = (-margin / s / arb(2).sqrt()).erfc() / 2
        density = (-((margin / s) ** 2) / 2).exp() / (2 * arb.pi()).sqrt()
        truth, found = margin * cdf + s * density, reference.value(point([spot]))
        assert arb(found.lo.item()) < truth < arb(found.hi.item())


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: Reference([[1.0]], abs, abs, abs), ValueError, r"weights: got shape \(1, 1\), need \(d,\)"),
        (lambda: Reference([1.0], abs, None, abs), TypeError, "slope: got NoneType, need a function"),
        (lambda: bachelier_reference([1.0], strike=1.0, volatility=0.0, maturity=1.0), ValueError, "volatility: got"),
        (lambda: bachelier_reference([1.0], strike=1, volatility=1, maturity=1, kind="x"), ValueError, "kind: got 'x'"),
        (lambda: black_scholes_reference([1.0], strike=0.0, volatility=1, maturity=1), ValueError, "strike: got 0.0"),
    ],
)
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_reference_keeps_its_own_weights():
    weights = torch.tensor([0.5, 0.5], dtype=torch.float64)
    price = bachelier_reference(weights, strike=1.0, volatility=0.2, maturity=1.0)
    weights.fill_(9.0)
    assert price.weights.tolist() == [0.5, 0.5]
