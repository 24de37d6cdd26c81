"""Formulas against QuantLib, against parities and against derivatives of the prices."""

import math

import numpy as np
import pytest
import QuantLib as ql
import torch

from sobolev_lib.simulation.closed_form import KINDS, bachelier, black_scholes, heston

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


POSITIVE = torch.tensor([0.2, 0.6, 1.0, 1.1, 1.7, 4.0], dtype=torch.float64)
LOGNORMAL = {"strike": 1.1, "volatility": 0.25, "maturity": 2.0, "rate": 0.03}


def test_black_scholes_call_and_put_match_quantlib():
    growth, deviation = math.exp(0.06), 0.25 * math.sqrt(2)
    for kind, option in [("call", ql.Option.Call), ("put", ql.Option.Put)]:
        price = black_scholes(POSITIVE, **LOGNORMAL, kind=kind).price
        oracle = [ql.blackFormula(option, 1.1, growth * spot, deviation) for spot in POSITIVE.tolist()]
        assert price.tolist() == pytest.approx(oracle, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_black_scholes_greeks_are_the_derivatives_of_the_price(kind):
    greeks = black_scholes(POSITIVE, **LOGNORMAL, kind=kind)
    delta, gamma = differences(lambda s: black_scholes(s, **LOGNORMAL, kind=kind).price, POSITIVE)
    assert torch.allclose(greeks.delta, delta, atol=1e-9)
    assert torch.allclose(greeks.gamma, gamma, atol=1e-6)
    up, down = (black_scholes(POSITIVE, **LOGNORMAL | {"volatility": 0.25 + h}, kind=kind).price for h in (1e-5, -1e-5))
    assert torch.allclose(greeks.vega, (up - down) / 2e-5, atol=1e-8)


def test_black_scholes_parities():
    call, put, straddle, digital = (black_scholes(POSITIVE, **LOGNORMAL, kind=kind) for kind in KINDS)
    forward = POSITIVE * math.exp(0.06)
    assert torch.allclose(call.price - put.price, forward - 1.1, atol=1e-15)
    assert torch.allclose(call.price + put.price, straddle.price, atol=1e-15)
    # homogeneous of degree one: C = F dC/dF - K P(S > K)
    assert torch.allclose(call.price, POSITIVE * call.delta - 1.1 * digital.price, atol=1e-15)


def test_black_scholes_far_tail_is_not_zero():
    # d1 = -17: QuantLib's value is the oracle, and one that ndtr would give as 0
    value = black_scholes(0.01, strike=1.0, volatility=0.27, maturity=1.0)
    oracle = ql.blackFormula(ql.Option.Call, 1.0, 0.01, 0.27)
    assert 0 < float(value.price) == pytest.approx(oracle, rel=1e-8)


HESTONS = {
    "equity": (0.04, 1.5, 0.04, 0.3, -0.7, 1.0, 0.0),
    "Feller violated": (0.09, 0.5, 0.04, 1.0, -0.9, 2.0, 0.03),
    "positive correlation": (0.01, 3.0, 0.05, 0.2, 0.5, 5.0, 0.0),
    "one month": (0.04, 1.5, 0.04, 0.6, -0.7, 30 / 365, 0.01),
    "one day": (0.04, 1.5, 0.04, 0.3, -0.7, 1 / 365, 0.0),
    "ten years": (0.04, 0.5, 0.04, 1.0, -0.95, 10.0, 0.02),
    "almost Black-Scholes": (0.04, 1.0, 0.04, 1e-4, 0.3, 1.0, 0.0),
}
NAMES = (
    "variance",
    "mean_reversion",
    "long_variance",
    "vol_of_variance",
    "spot_variance_correlation",
    "maturity",
    "rate",
)


def quantlib_heston(spot, strike, variance, kappa, theta, xi, rho, maturity, rate, kind):
    """Expected payoff, not discounted."""
    today = ql.Date(24, 11, 2026)
    ql.Settings.instance().evaluationDate = today
    counter = ql.Actual365Fixed()
    curve = ql.YieldTermStructureHandle(ql.FlatForward(today, rate, counter))
    dividends = ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, counter))
    quote = ql.QuoteHandle(ql.SimpleQuote(spot))
    process = ql.HestonProcess(curve, dividends, quote, variance, kappa, theta, xi, rho)
    option = ql.VanillaOption(
        ql.PlainVanillaPayoff(kind, strike), ql.EuropeanExercise(today + ql.Period(round(365 * maturity), ql.Days))
    )
    option.setPricingEngine(ql.AnalyticHestonEngine(ql.HestonModel(process), 1e-13, 10_000_000))
    return option.NPV() * math.exp(rate * maturity)


@pytest.mark.parametrize("terms", HESTONS.values(), ids=HESTONS)
def test_heston_call_and_put_match_quantlib(terms):
    for kind, option in [("call", ql.Option.Call), ("put", ql.Option.Put)]:
        price = heston(POSITIVE, strike=1.05, **dict(zip(NAMES, terms, strict=True)), kind=kind).price
        oracle = [quantlib_heston(spot, 1.05, *terms, option) for spot in POSITIVE.tolist()]
        assert price.tolist() == pytest.approx(oracle, abs=4e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("terms", [HESTONS["equity"], HESTONS["Feller violated"], HESTONS["ten years"]])
def test_heston_greeks_are_the_derivatives_of_the_price(kind, terms):
    terms = dict(zip(NAMES, terms, strict=True)) | {"strike": 1.05, "kind": kind}
    spots = POSITIVE[1:5]
    greeks = heston(spots, **terms)
    delta, gamma = differences(lambda s: heston(s, **terms).price, spots, h=1e-3)
    assert torch.allclose(greeks.delta, delta, atol=1e-8)
    assert torch.allclose(greeks.gamma, gamma, atol=1e-6)
    up, down = (heston(spots, **terms | {"variance": terms["variance"] + h}).price for h in (1e-6, -1e-6))
    assert torch.allclose(greeks.vega, (up - down) / 2e-6, atol=1e-6)


def test_heston_without_vol_of_variance_is_black_scholes_at_the_mean_variance():
    variance, kappa, theta, maturity = 0.09, 2.0, 0.03, 1.5
    mean = theta + (variance - theta) * (1 - math.exp(-kappa * maturity)) / (kappa * maturity)
    terms = dict(zip(NAMES, (variance, kappa, theta, 1e-8, -0.5, maturity, 0.02), strict=True))
    for kind in KINDS:
        limit = black_scholes(
            POSITIVE, strike=1.05, volatility=math.sqrt(mean), maturity=maturity, rate=0.02, kind=kind
        )
        greeks = heston(POSITIVE, strike=1.05, **terms, kind=kind)
        for name in ("price", "delta", "gamma"):
            assert torch.allclose(getattr(greeks, name), getattr(limit, name), atol=1e-7), (kind, name)


def test_heston_keeps_the_shape_of_the_spots():
    terms = dict(zip(NAMES, HESTONS["equity"], strict=True)) | {"strike": 1.05}
    assert heston(1.0, **terms).price.shape == ()
    assert heston(torch.ones(2, 3), **terms).gamma.shape == (2, 3)


def test_numbers_per_row_are_those_of_each_row_alone():
    spots = torch.tensor([0.8, 1.0, 1.2], dtype=torch.float64)
    rows = {"strike": [0.9, 1.0, 1.1], "volatility": [0.1, 0.0, 0.3], "maturity": [0.5, 1.0, 2.0]}
    heston_rows = {name: [v, v * 1.1, v] for name, v in zip(NAMES, HESTONS["equity"], strict=True)}
    heston_rows |= {"variance": np.array([0.01, 0.04, 0.09], np.float64), "strike": torch.tensor([0.9, 1.0, 1.1])}
    for kind in KINDS:
        for formula, terms in [
            (bachelier, rows),
            (black_scholes, rows | {"volatility": [0.1, 0.2, 0.3], "rate": [0.0, 0.02, -0.01]}),
            (heston, heston_rows),
        ]:
            together = formula(spots, **terms, kind=kind)
            for i in range(3):
                alone = formula(spots[i], **{name: value[i] for name, value in terms.items()}, kind=kind)
                for name in ("price", "delta", "gamma", "vega"):
                    assert torch.allclose(getattr(together, name)[i], getattr(alone, name), rtol=1e-11, atol=1e-13)
    with pytest.raises(ValueError, match=r"spot: got shapes .* need shapes that broadcast"):
        bachelier(spots, strike=[1.0, 2.0], volatility=0.2, maturity=1.0)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="kind: got 'barrier', need one of 'call'"):
        bachelier(1.0, **BACHELIER, kind="barrier")
    with pytest.raises(ValueError, match="spot: got 1 non-finite"):
        bachelier(math.nan, **BACHELIER)
    with pytest.raises(ValueError, match=r"volatility: got -0\.1"):
        bachelier(1.0, **BACHELIER | {"volatility": -0.1})
    with pytest.raises(ValueError, match="maturity: got 0"):
        bachelier(1.0, **BACHELIER | {"maturity": 0})
    with pytest.raises(ValueError, match="strike: got 1 non-finite"):
        bachelier(1.0, **BACHELIER | {"strike": math.inf})
    with pytest.raises(ValueError, match="spot: got -1, need finite numbers > 0"):
        black_scholes([1.0, -1.0], **LOGNORMAL)
    with pytest.raises(ValueError, match="strike: got 0"):
        black_scholes(1.0, **LOGNORMAL | {"strike": 0})
    with pytest.raises(ValueError, match="volatility: got 0"):
        black_scholes(1.0, **LOGNORMAL | {"volatility": 0})
    terms = dict(zip(NAMES, HESTONS["equity"], strict=True)) | {"strike": 1.05}
    for change, match in [
        ({"variance": -0.1}, r"variance: got -0\.1"),
        ({"variance": 0, "long_variance": 0}, "variance: got 0 and long_variance 0"),
        ({"mean_reversion": 0}, "mean_reversion: got 0"),
        ({"vol_of_variance": 0}, "vol_of_variance: got 0"),
        ({"spot_variance_correlation": -1}, "spot_variance_correlation: got -1.0, need a number between -1 and 1"),
        ({"rate": math.inf}, "rate: got 1 non-finite"),
        ({"kind": "barrier"}, "kind: got 'barrier'"),
    ]:
        with pytest.raises(ValueError, match=match):
            heston(1.0, **terms | change)
    with pytest.raises(ArithmeticError, match="decays too slowly"):
        heston(1.0, **terms | {"maturity": 1e-18})
