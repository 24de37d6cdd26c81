"""Formulas against QuantLib, against parities and against derivatives of the prices."""

import math

import pytest
import QuantLib as ql
import torch

from sobolev_lib.closed_form import KINDS, bachelier

SPOTS = torch.tensor([-1.0, 0.2, 0.9, 1.0, 1.1, 1.4, 3.0], dtype=torch.float64)
BACHELIER = {"strike": 1.1, "volatility": 0.25, "maturity": 2.0}


def differences(formula, spots, h=1e-4):
    """Fourth-order central differences of the price: delta and gamma."""
    f = {k: formula(spots + k * h) for k in (-2, -1, 0, 1, 2)}
    delta = (f[-2] - 8 * f[-1] + 8 * f[1] - f[2]) / (12 * h)
    gamma = (-f[-2] + 16 * f[-1] - 30 * f[0] + 16 * f[1] - f[2]) / (12 * h * h)
    return delta, gamma


def test_bachelier_call_and_put_match_quantlib():
    deviation = 0.25 * math.sqrt(2)
    for spot, call, put in zip(
        SPOTS, bachelier(SPOTS, **BACHELIER).price, bachelier(SPOTS, **BACHELIER, kind="put").price, strict=True
    ):
        assert float(call) == pytest.approx(
            ql.bachelierBlackFormula(ql.Option.Call, 1.1, float(spot), deviation), abs=1e-14
        )
        assert float(put) == pytest.approx(
            ql.bachelierBlackFormula(ql.Option.Put, 1.1, float(spot), deviation), abs=1e-14
        )


@pytest.mark.parametrize("kind", KINDS)
def test_bachelier_greeks_are_the_derivatives_of_the_price(kind):
    greeks = bachelier(SPOTS, **BACHELIER, kind=kind)
    delta, gamma = differences(lambda s: bachelier(s, **BACHELIER, kind=kind).price, SPOTS)
    assert torch.allclose(greeks.delta, delta, atol=1e-10)
    assert torch.allclose(greeks.gamma, gamma, atol=1e-6)
    up, down = (bachelier(SPOTS, **BACHELIER | {"volatility": 0.25 + h}, kind=kind).price for h in (1e-5, -1e-5))
    assert torch.allclose(greeks.vega, (up - down) / 2e-5, atol=1e-8)


def test_bachelier_parities():
    call, put, straddle, digital = (bachelier(SPOTS, **BACHELIER, kind=kind) for kind in KINDS)
    assert torch.allclose(call.price - put.price, SPOTS - 1.1, atol=1e-15)
    assert torch.allclose(call.price + put.price, straddle.price, atol=1e-15)
    assert torch.allclose(
        call.delta, digital.price, atol=1e-15
    )  # the delta of a Bachelier call is the probability to pay


def test_bachelier_far_tails_keep_relative_accuracy():
    # C(z) ~ s phi(z) / z^2 (1 - 3 / z^2 + 15 / z^4 - 105 / z^6 + ...) for z -> -infinity: 30 deviations out
    call = bachelier(-30.0, strike=0.0, volatility=1.0, maturity=1.0)
    series = math.exp(-450) / math.sqrt(2 * math.pi) / 900 * (1 - 3 / 900 + 15 / 900**2 - 105 / 900**3)
    assert float(call.price) == pytest.approx(series, rel=1e-8)
    assert float(bachelier(-30.0, strike=0.0, volatility=1.0, maturity=1.0, kind="digital").price) == pytest.approx(
        math.exp(-450) / math.sqrt(2 * math.pi) / 30 * (1 - 1 / 900 + 3 / 900**2 - 15 / 900**3), rel=1e-8
    )


@pytest.mark.parametrize("kind", KINDS)
def test_bachelier_without_volatility_is_the_payoff(kind):
    greeks = bachelier([0.5, 1.0, 1.5], strike=1.0, volatility=0.0, maturity=1.0, kind=kind)
    payoff = {"call": [0, 0, 0.5], "put": [0.5, 0, 0], "straddle": [0.5, 0, 0.5], "digital": [0, 0.5, 1]}[kind]
    slope = {"call": [0, 0.5, 1], "put": [-1, -0.5, 0], "straddle": [-1, 0, 1], "digital": [0, 0, 0]}[kind]
    assert greeks.price.tolist() == payoff and greeks.delta.tolist() == slope and greeks.gamma.tolist() == [0, 0, 0]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="kind: got 'barrier', need one of 'call'"):
        bachelier(1.0, **BACHELIER, kind="barrier")
    with pytest.raises(ValueError, match="spot: got 1 non-finite"):
        bachelier(math.nan, **BACHELIER)
    with pytest.raises(ValueError, match=r"volatility: got -0\.1"):
        bachelier(1.0, **BACHELIER | {"volatility": -0.1})
    with pytest.raises(ValueError, match="maturity: got 0"):
        bachelier(1.0, **BACHELIER | {"maturity": 0})
    with pytest.raises(ValueError, match="strike: got inf"):
        bachelier(1.0, **BACHELIER | {"strike": math.inf})
