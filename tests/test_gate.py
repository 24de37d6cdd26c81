"""Every public function under awkward input: it gives what the clean input gives, or an error that names the argument.

`CALLS` holds a call for each argument of each public function that takes an array; `KINDS` are the awkward forms.
"""

import dataclasses
import inspect
import itertools
import re

import numpy as np
import pytest
import torch

import sobolev_lib as sl
from tests.book.test_frame import public_callables

X = torch.tensor([[1.0, 0.5], [0.75, 1.25], [1.5, 1.0], [0.5, 0.25], [1.25, 1.5], [0.25, 0.75]], dtype=torch.float64)
Y, G = X.square().sum(1), 2 * X
DOTS = {"horizon": 1.0, "noise": sl.gaussian(seed=1)}
MODEL = sl.Bachelier(volatility=[0.25, 0.5])
CALL = sl.Call(strike=1.0, weights=[0.5, 0.5])
CASE = sl.basket_case(2)
NET = sl.Surrogate([2, 4, 3, 1], generator=torch.Generator().manual_seed(0))
NET.set_scaling(X, Y)
SAMPLES = sl.Samples(x=X, value=Y, gradient=G)
TRUTH = CASE.reference(X)
BOX = sl.Interval([0.5, 0.5], [1.0, 1.0])
BOXES = sl.balls(X, 0.25)
LOSS = sl.balance_by_moments(SAMPLES, 1)
SCORES = sl.significance(NET, BOXES).hidden
iv = sl.interval


def fitted(**changes):
    net = NET.copy()
    sl.fit(net, dataclasses.replace(SAMPLES, **changes), order=1, steps=3, batch=3, finish=1)
    return net(X, outside="ignore")


CALLS = {  # function and argument: a call of the argument, and its clean value
    ("Bachelier", "volatility"): (lambda v: sl.Bachelier(volatility=v).volatility, torch.tensor([0.25, 0.5]).double()),
    ("BlackScholes", "volatility"): (
        lambda v: sl.BlackScholes(volatility=v).volatility,
        torch.tensor([0.25, 0.5]).double(),
    ),
    ("BlackScholes", "correlation"): (
        lambda c: sl.BlackScholes(volatility=[0.25, 0.5], correlation=c).correlation,
        torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double(),
    ),
    ("simulate", "x"): (lambda x: sl.simulate(MODEL, x, **DOTS), X),
    ("simulate", "normals"): (lambda z: sl.simulate(MODEL, X, horizon=1.0, normals=z), X[:, None]),
    ("Call", "weights"): (lambda w: sl.Call(strike=1.0, weights=w)(X), X[0]),
    ("Put", "weights"): (lambda w: sl.Put(strike=1.0, weights=w)(X), X[0]),
    ("Digital", "weights"): (lambda w: sl.Digital(strike=1.0, weights=w)(X), X[0]),
    ("Straddle", "weights"): (lambda w: sl.Straddle(strike=1.0, weights=w)(X), X[0]),
    ("bachelier", "spot"): (lambda s: sl.bachelier(s, strike=1.0, volatility=0.25, maturity=1.0), Y),
    ("black_scholes", "spot"): (lambda s: sl.black_scholes(s, strike=1.0, volatility=0.25, maturity=1.0), Y),
    ("label", "x"): (lambda x: sl.label(MODEL, CALL, x, **DOTS), X),
    ("label", "directions"): (
        lambda u: (
            sl.label(
                MODEL,
                sl.Call(strike=1.0, weights=[0.5, 0.5], smoothing=sl.Blend(width=0.5)),
                X,
                **DOTS,
                order=2,
                directions=u,
            ).hvp
        ),
        X[:2],
    ),
    ("basket_case", "weights"): (lambda w: sl.basket_case(2, weights=w).weights, torch.tensor([0.5, 0.5]).double()),
    ("Samples", "x"): (lambda x: sl.Samples(x=x, value=Y, gradient=G).x, X),
    ("Samples", "value"): (lambda y: sl.Samples(x=X, value=y).value, Y),
    ("Samples", "gradient"): (lambda g: sl.Samples(x=X, value=Y, gradient=g).gradient, G),
    ("Surrogate", "x"): (lambda x: NET(x), X),
    ("Surrogate.gradient", "x"): (lambda x: NET.gradient(x), X),
    ("Surrogate.set_scaling", "x"): (lambda x: _scaled(x, Y), X),
    ("Surrogate.set_scaling", "value"): (lambda y: _scaled(X, y), Y),
    ("Interval", "lo"): (lambda lo: sl.Interval(lo, X + 9), X),
    ("balls", "x"): (lambda x: sl.balls(x, 0.25), X),
    ("balls", "radius"): (lambda r: sl.balls(X, r), X[0]),
    ("affine", "weight"): (lambda w: sl.affine(w, BOXES), X),
    ("enclose", "directions"): (lambda u: sl.enclose(NET, BOX, order=2, directions=u).hvp, X[:2]),
    ("is_increasing", "direction"): (lambda u: sl.is_increasing(NET, BOX, u, cells=4), X[0]),
    ("is_convex", "direction"): (lambda u: sl.is_convex(NET, BOX, u, cells=4), X[0]),
    ("bachelier_reference", "weights"): (
        lambda w: sl.bachelier_reference(w, strike=1.0, volatility=0.25, maturity=1.0).value(BOX),
        X[0],
    ),
    ("black_scholes_reference", "weights"): (
        lambda w: sl.black_scholes_reference(w, strike=1.0, volatility=0.25, maturity=1.0).value(
            sl.Interval([0.5], [1.0])
        ),
        X[0, :1],
    ),
    ("score_by_taylor", "x"): (lambda x: sl.score_by_taylor(NET, x), X),
    ("score_by_variance", "x"): (lambda x: sl.score_by_variance(NET, x), X),
    ("keep_predictive", "x"): (lambda x: sl.keep_predictive(NET, x, 2), X),
    ("keep_most", "scores"): (lambda s: sl.keep_most([s], 3), Y),
    ("means", "x"): (lambda x: sl.means(NET, x), X),
    ("cut", "x"): (lambda x: sl.cut(NET, sl.keep_most(SCORES, 2), x=x)(X), X),
    ("cut_inputs", "x"): (lambda x: sl.cut_inputs(NET, torch.tensor([0]), x=x)(X[:, :1]), X),
    ("affine_layers", "x"): (lambda x: sl.affine_layers(NET, x, 1), X),
    ("remove_layers", "x"): (lambda x: sl.remove_layers(NET, [1], x)(X), X),
    ("Asian", "weights"): (lambda w: sl.Asian(strike=1.0, dates=2, weights=w)(X[:, None].repeat(1, 2, 1)), X[0]),
    ("heston", "spot"): (lambda s: heston(spot=s), Y),
    ("heston", "variance"): (lambda v: heston(variance=v), Y),
    ("Reference", "weights"): (lambda w: sl.Reference(w, iv.sqr, iv.sqr, iv.sqr).weights, X[0]),
    ("within", "direction"): (lambda u: sl.within(NET, -9.0, 9.0, BOX, of="gradient", direction=u, cells=4), X[0]),
    ("within", "lower"): (lambda v: sl.within(NET, v, None, BOX, of="gradient", cells=4), X[0]),
    ("error_bound", "direction"): (
        lambda u: sl.error_bound(NET, NET, BOX, of=("curvature",), direction=u, cells=4).curvature.bound,
        X[0],
    ),
    ("repair", "direction"): (
        lambda u: sl.repair(NET, SAMPLES, BOX, {"increasing": 0.1}, order=1, direction=u, rounds=1, cells=4).loss,
        X[0],
    ),
    ("SobolevLoss", "matrix"): (lambda m: sl.SobolevLoss(order=0, matrix=m).matrix, X[:1, :1]),
    ("fit", "x"): (lambda x: fitted(x=x), X),
    ("fit", "value"): (lambda y: fitted(value=y), Y),
    ("fit", "gradient"): (lambda g: fitted(gradient=g), G),
    ("evaluate", "x"): (lambda x: sl.evaluate(NET, x, TRUTH), X),
    ("evaluate", "direction"): (lambda u: sl.evaluate(NET, X, TRUTH, direction=u), X[0]),
    ("noise_floor", "x"): (lambda x: sl.noise_floor(NET, SAMPLES, LOSS, x), X),
}


def heston(spot=Y, variance=Y):
    law = {"mean_reversion": 1.0, "long_variance": 0.25, "vol_of_variance": 0.25, "spot_variance_correlation": -0.5}
    return sl.heston(spot, strike=1.0, variance=variance, maturity=1.0, **law).price


def _scaled(x, y):
    net = NET.copy()
    net.set_scaling(x, y)
    return [*net.buffers()]


def inference(t):
    with torch.inference_mode():
        return t.clone()


def readonly(t):
    array = t.numpy().copy()
    array.flags.writeable = False
    return array


def strided(t):
    return torch.stack([t, t + 7], -1)[..., 0]


SAME = {  # awkward forms of the same numbers
    "list": lambda t: t.tolist(),
    "tuple": lambda t: tuple(t.tolist()),
    "NumPy": lambda t: t.numpy().copy(),
    "NumPy float32": lambda t: t.numpy().astype(np.float32),
    "NumPy read-only": readonly,
    "NumPy reversed": lambda t: t.flip(0).numpy()[::-1],
    "NumPy Fortran": lambda t: np.asfortranarray(t.numpy()),
    "float32": lambda t: t.float(),
    "strided": strided,
    "requires_grad": lambda t: t.clone().requires_grad_(),
    "inference": inference,
    "expanded": lambda t: t[:1].expand_as(t),
    "integers": lambda t: t.ceil().long(),
    "NumPy integers": lambda t: t.ceil().numpy().astype(np.int32),
    "one row": lambda t: t[:1],
}
CLEAN = {
    "integers": torch.ceil,
    "NumPy integers": torch.ceil,
    "one row": lambda t: t[:1].clone(),
    "expanded": lambda t: t[:1].expand_as(t).clone(),
}
WRONG = {
    "empty": lambda t: t[:0],
    "NaN": lambda t: t.masked_fill(t == t.max(), torch.nan),
    "infinite": lambda t: t.masked_fill(t == t.max(), torch.inf),
    "one dimension more": lambda t: t[None, None],
    "one component more": lambda t: torch.cat([t, t[..., :1]], -1),
    "complex": lambda t: t + 0j,
    "Boolean": lambda t: t > 0,
    "sparse": lambda t: t.to_sparse(),
    "words": lambda t: "words",
    "None": lambda t: None,
    "object": lambda t: object(),
    "ragged": lambda t: [[1.0, 2.0], [1.0]],
}

PASSED_ON = {  # a network passes on what it is given, and samples hold what they are given: fit and shrink refuse it
    *itertools.product(("Surrogate", "Surrogate.gradient", "Samples"), ("NaN", "infinite")),
    ("Samples", "None"),  # a label that is not there
    ("fit", "None"),
}
ELSEWHERE = {  # results, which nobody makes by hand; what calls others that are tried
    *(
        "Enclosure",
        "Greeks",
        "Verdict",
        "Payoff",
        "BasketCase",
        "export_onnx",
        "export_source",
    ),
}


def flat(result) -> list[torch.Tensor]:
    """Return all numbers in a result."""
    if isinstance(result, torch.Tensor):
        return [result.detach().double()]
    if dataclasses.is_dataclass(result):
        return flat(list(vars(result).values()))
    if isinstance(result, dict):
        return flat(list(result.values()))
    if isinstance(result, list | tuple):
        return list(itertools.chain.from_iterable(map(flat, result)))
    return [torch.tensor(float(result))] if isinstance(result, int | float) else []


def outcome(call, value):
    try:
        return flat(call(value))
    except (TypeError, ValueError) as error:
        return error


RELATIVE = {"one row", "empty", "one component more", "one dimension more", "float32"}  # wrong beside other arguments


def named(error: Exception, argument: str, kind: str) -> bool:
    """Tell whether an error names the argument, or, where shapes or dtypes do not belong together, one of them."""
    if kind in RELATIVE:
        return re.match(r"[\w.\[\], ]+: got ", str(error)) is not None
    return re.search(rf"\b{argument}\b[^:]*: ", str(error)) is not None


def agree(given: list[torch.Tensor], wanted: list[torch.Tensor], single: bool) -> bool:
    close = {"rtol": 1e-4, "atol": 1e-5} if single else {"rtol": 1e-12, "atol": 1e-14}
    shapes = [a.shape for a in given] == [b.shape for b in wanted]
    return shapes and all(torch.allclose(a, b, **close) for a, b in zip(given, wanted, strict=True))


@pytest.mark.parametrize(("function", "argument"), CALLS)
def test_an_awkward_form_of_an_array_gives_the_clean_result_or_is_refused_by_name(function, argument):
    call, clean = CALLS[function, argument]
    results = {change: outcome(call, change(clean)) for change in {torch.clone, *CLEAN.values()}}
    assert not isinstance(results[torch.clone], Exception), results[torch.clone]
    faults = []
    for kind, form in SAME.items():
        given, wanted = outcome(call, form(clean)), results[CLEAN.get(kind, torch.clone)]
        if isinstance(given, Exception):
            if not named(given, argument, kind):
                faults.append(f"{kind}: refused by {type(given).__name__}({str(given)[:90]!r})")
        elif isinstance(wanted, Exception) or not agree(given, wanted, kind == "float32"):
            faults.append(f"{kind}: another result than that of {wanted!r:.90}")
    assert faults == []


@pytest.mark.parametrize(("function", "argument"), CALLS)
def test_what_is_no_array_of_finite_numbers_is_refused_by_name(function, argument):
    call, clean = CALLS[function, argument]
    faults = []
    for kind, form in WRONG.items():
        given = outcome(call, form(clean))
        if (function, kind) in PASSED_ON:
            continue
        if isinstance(given, Exception):
            if not named(given, argument, kind):
                faults.append(f"{kind}: refused by {type(given).__name__}({str(given)[:90]!r})")
        elif not (given and all(torch.isfinite(t).all() for t in given)):
            faults.append(f"{kind}: {given!r:.90}")
    assert faults == []


def test_every_public_function_that_takes_an_array_is_tried():
    tried = {function.split(".")[0] for function, _ in CALLS}
    missing = []
    for name, value in public_callables().items():
        parameters = inspect.signature(value).parameters if not name.startswith("interval.") else {}
        takes = {"x", "spot", "weights", "volatility", "direction", "directions", "radius", "normals"} & set(parameters)
        if takes and name not in tried | set(ELSEWHERE):
            missing.append(f"{name}: {sorted(takes)}")
    assert missing == []
