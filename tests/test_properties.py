"""What must hold for every small problem: drawn by hypothesis, the same draws in every run."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sobolev_lib as sl
from tests.oracles import random_net

F64 = torch.float64
SMOOTH = ["silu", "softplus", "tanh", "sigmoid", "sin"]
iv = sl.interval


def quick(count: int):
    slow = [HealthCheck.too_slow]  # on a busy machine
    return settings(max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=slow)


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


# -- labels


PROBLEMS = {
    "seed": st.integers(0, 10**6),
    "assets": st.integers(1, 3),
    "kind": st.sampled_from([sl.Call, sl.Put, sl.Straddle, sl.Digital]),
    "smoothing": st.sampled_from([sl.Blend, sl.Softplus, sl.Sigmoid]),
    "model": st.sampled_from(["Bachelier", "BlackScholes"]),
    "scheme": st.sampled_from([None, sl.EulerMaruyama(), sl.Milstein()]),
}


def problem(seed, assets, kind, smoothing, model, scheme):
    mix = 0.5 * torch.eye(assets, dtype=F64) + 0.5
    made = getattr(sl, model)(volatility=0.1 + 0.3 * drawn(seed, assets), correlation=mix)
    payoff = kind(
        strike=0.6 + 0.8 * float(drawn(seed + 1, 1)),
        weights=drawn(seed + 2, assets) + 0.1,
        smoothing=smoothing(width=0.1),
    )
    fixed = {"horizon": 0.7, "noise": sl.gaussian(seed=seed), "scheme": scheme, "steps": None if scheme is None else 3}
    return made, payoff, fixed, 0.7 + 0.6 * drawn(seed + 3, 5, assets)


@quick(15)
@given(**PROBLEMS)
def test_derivatives_are_differences_of_values_with_common_numbers(**drawn_problem):
    model, payoff, fixed, x = problem(**drawn_problem)
    labels = sl.label(model, payoff, x, order=2, paths=3, **fixed)
    step = 1e-5
    for j in range(x.shape[1]):
        bump = torch.zeros_like(x)
        bump[:, j] = step
        up, down = (sl.label(model, payoff, x + sign * bump, order=1, paths=3, **fixed) for sign in (1, -1))
        torch.testing.assert_close((up.value - down.value) / (2 * step), labels.gradient[:, j], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close((up.gradient - down.gradient) / (2 * step), labels.hvp[:, j], rtol=1e-4, atol=1e-4)


@quick(15)
@given(**PROBLEMS, count=st.integers(1, 4), chunk=st.sampled_from([1, 3, 64, None]))
def test_labels_of_parts_are_parts_of_the_labels(count, chunk, **drawn_problem):
    model, payoff, fixed, x = problem(**drawn_problem)
    whole = sl.label(model, payoff, x, paths=2, **fixed)
    first = sl.label(model, payoff, x[:count], paths=2, chunk=chunk, **fixed)
    rest = sl.label(model, payoff, x[count:], paths=2, start=count, **fixed)
    for name in ("value", "gradient", "value_error"):
        assert torch.equal(getattr(sl.concatenate([first, rest]), name), getattr(whole, name))


@quick(15)
@given(**PROBLEMS)
def test_put_call_parity_holds_path_by_path(**drawn_problem):
    model, payoff, fixed, x = problem(**drawn_problem)
    terms = {"strike": payoff.strike, "weights": payoff.weights, "smoothing": payoff.smoothing}
    call, put = (sl.label(model, kind(**terms), x, **fixed) for kind in (sl.Call, sl.Put))
    forward = sl.label(model, lambda s: s @ payoff.weights - payoff.strike, x, **fixed)
    torch.testing.assert_close(call.value - put.value, forward.value, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(call.gradient - put.gradient, forward.gradient, rtol=1e-9, atol=1e-11)


# -- networks


NETWORKS = {
    "widths": st.lists(st.integers(1, 5), min_size=1, max_size=3),
    "inputs": st.integers(1, 3),
    "name": st.sampled_from(SMOOTH),
    "seed": st.integers(0, 10**6),
}


def network(widths, inputs, name, seed):
    return random_net((inputs, *widths, 1), name, seed, n=40)


@quick(25)
@given(**NETWORKS)
def test_saving_and_cutting_nothing_are_the_identity(tmp_path_factory, **drawn_network):
    net, x = network(**drawn_network)
    path = tmp_path_factory.mktemp("nets") / "net"
    net.save(path)
    outputs = net.taylor(x, order=2, directions=torch.eye(x.shape[1], dtype=F64))
    everything = [torch.arange(width) for width in net.widths[1:-1]]
    same = [sl.Surrogate.load(path), net.copy(), sl.cut_inputs(net, torch.arange(x.shape[1]), values=x[0])]
    for other in (*same, sl.cut(net, everything, values=sl.means(net, x))):
        for given_output, output in zip(
            other.taylor(x, order=2, directions=torch.eye(x.shape[1]).double()), outputs, strict=True
        ):
            assert torch.equal(given_output, output)


@quick(15)
@given(**NETWORKS, seed2=st.integers(0, 100))
def test_rows_of_a_network_are_independent(seed2, **drawn_network):
    net, x = network(**drawn_network)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed2))
    for part, whole in zip(net.value_and_gradient(x[order]), net.value_and_gradient(x), strict=True):
        torch.testing.assert_close(part, whole[order], rtol=1e-13, atol=1e-14)


@quick(12)
@given(
    **NETWORKS,
    scale=st.sampled_from([1e-3, 7.0, 1e5]),
    unit=st.sampled_from([1e-4, 3.0, 1e6]),
    shift=st.sampled_from([0.0, -40.0]),
)
def test_units_and_constants_pass_through_least_squares(scale, unit, shift, **drawn_network):
    """The same network in other units of inputs and value, fitted to the same labels in those units, is the same."""
    net, x = network(**drawn_network)
    teacher, _ = random_net((x.shape[1], 3, 1), "tanh", 7)
    value, gradient = (t.detach() for t in teacher.value_and_gradient(x))
    plain = sl.Samples(x=x, value=value, gradient=gradient)
    other = sl.Samples(x=unit * x, value=scale * value + shift * scale, gradient=gradient * (scale / unit))
    found = []
    for samples in (plain, other):
        fitted = sl.Surrogate.from_layers(net.weights, net.biases, net.activation, scaling=dict(net.named_buffers()))
        fitted.set_scaling(samples.x, samples.value)
        sl.fit(fitted, samples, order=1, steps=0, finish=3)
        found.append(fitted)
    values = [fitted(samples.x).detach() for fitted, samples in zip(found, (plain, other), strict=True)]
    size = float(value.abs().max())
    torch.testing.assert_close(values[1] / scale - shift, values[0], rtol=1e-5, atol=1e-6 * (size + abs(shift)))


@quick(12)
@given(**NETWORKS, seed2=st.integers(0, 100))
def test_the_order_of_rows_does_not_matter_to_least_squares_and_errors(seed2, **drawn_network):
    net, x = network(**drawn_network)
    teacher, _ = random_net((x.shape[1], 3, 1), "tanh", 7)
    value, gradient = (t.detach() for t in teacher.value_and_gradient(x))
    samples = sl.Samples(x=x, value=value, gradient=gradient)
    mixed = samples[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed2))]
    for one, two in zip(
        sl.evaluate(net, x, samples).rmse.values(), sl.evaluate(net, mixed.x, mixed).rmse.values(), strict=True
    ):
        assert math.isclose(one, two, rel_tol=1e-12) or math.isnan(one)
    nets = [net.copy(), net.copy()]
    for fitted, labels in zip(nets, (samples, mixed), strict=True):
        sl.fit(fitted, labels, order=1, steps=0, finish=2)
    torch.testing.assert_close(nets[0](x), nets[1](x), rtol=1e-5, atol=1e-5 * float(value.abs().max()))


# -- enclosures


@quick(25)
@given(**NETWORKS, radius=st.sampled_from([0.0, 1e-6, 0.1, 1.0]), domain=st.sampled_from(["natural", "zonotope"]))
def test_enclosures_and_scores_hold_for_samples(radius, domain, **drawn_network):
    net, x = network(**drawn_network)
    box = sl.balls(x[:1], radius)
    points = torch.cat([box.lo, box.hi, torch.lerp(box.lo, box.hi, drawn(1, 50, x.shape[1]))])
    found = sl.enclose(net, box, domain=domain, order=2)
    hessian = net.hessian(points, outside="ignore")
    truths = [(net(points, outside="ignore"), found.value), (net.gradient(points, outside="ignore"), found.gradient)]
    for truth, enclosure in [*truths, (hessian, found.hvp)]:
        room = 1e-11 * (1 + truth.abs().amax(0))  # of the samples' own rounding
        assert ((truth >= enclosure.lo - room) & (truth <= enclosure.hi + room)).all()
    change = net(points, outside="ignore").detach()
    total = sl.significance(net, box).inputs.sum()
    assert float(change.max() - change.min()) <= float(total) * (1 + 1e-9) + 1e-12


@quick(12)
@given(**NETWORKS, radius=st.sampled_from([0.01, 0.3]))
def test_bounds_of_value_gradient_and_error_hold_for_samples(radius, **drawn_network):
    net, x = network(**drawn_network)
    other, _ = random_net(net.widths, drawn_network["name"], drawn_network["seed"] + 1)
    box = sl.Interval(x[0] - radius, x[0] + radius)
    points = torch.lerp(box.lo, box.hi, drawn(2, 60, x.shape[1]))
    with torch.no_grad():
        ours, theirs = (n.value_and_gradient(points, outside="ignore") for n in (net, other))
    error = sl.error_bound(net, other, box, cells=16)
    for extreme, one, two in zip((error.value, error.gradient), ours, theirs, strict=True):
        assert extreme.seen <= extreme.bound
        assert float((one - two).abs().max()) <= extreme.bound + 1e-11 * (1 + extreme.bound)
    known = sl.bounds(net, box, cells=16)
    for enclosure, truth in zip((known.value, known.gradient), ours, strict=True):
        room = 1e-11 * (1 + truth.abs().max())
        assert ((truth >= enclosure.lo - room) & (truth <= enclosure.hi + room)).all()


ONE = [
    "exp",
    "sigmoid",
    "tanh",
    "softplus",
    "sin",
    "cos",
    "atan",
    "erf",
    "sqr",
    "normal_cdf",
    "normal_pdf",
    "neg",
    "abs",
]
PLAIN = {
    "softplus": lambda t: torch.nn.functional.softplus(t, threshold=1e9),
    "sqr": torch.square,
    "normal_cdf": torch.special.ndtr,
    "normal_pdf": lambda t: torch.exp(-0.5 * t * t) / math.sqrt(2 * math.pi),
}
TWO = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "min": torch.minimum, "max": torch.maximum}


@quick(60)
@given(
    first=st.lists(st.sampled_from(ONE), min_size=1, max_size=3),
    second=st.lists(st.sampled_from(ONE), min_size=1, max_size=2),
    joined=st.sampled_from(list(TWO)),
    center=st.floats(-3, 3),
    radius=st.sampled_from([0.0, 1e-9, 0.1, 2.0]),
)
def test_expressions_of_intervals_contain_those_of_their_members(first, second, joined, center, radius):
    box = iv.ball(torch.tensor(center, dtype=F64), radius)
    points = torch.cat([box.lo[None], box.hi[None], torch.lerp(box.lo, box.hi, drawn(3, 50))])

    def through(names, x, enclosed):
        for name in names:
            x = getattr(iv, name)(x) if enclosed else PLAIN.get(name, getattr(torch, name, None))(x)
        return x

    found = getattr(iv, joined)(through(first, box, True), through(second, box, True))
    truth = TWO[joined](through(first, points, False), through(second, points, False))
    room = 1e-12 * (1 + truth.abs())  # of the samples' own rounding
    assert (truth >= found.lo - room).all() and (truth <= found.hi + room).all()


# -- compilers and exporters


class Derivatives(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return *self.net.value_and_gradient(x), self.net.hessian(x)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::torch.jit.TracerWarning",
    "ignore::FutureWarning",
    "ignore:The .grad attribute:UserWarning",
)
@pytest.mark.parametrize("way", ["compile", "export", "trace"])
def test_a_network_is_compiled_exported_and_traced(way):
    """No compiler of C++ is asked for: where its path has a space, torch's own backend cannot build."""
    net, x = random_net((2, 4, 3, 1), n=7)
    net.input_low.copy_(x.amin(0)), net.input_high.copy_(x.amax(0))
    module = Derivatives(net)
    if way == "compile":
        made = torch.compile(module, backend="aot_eager", fullgraph=False)
    elif way == "export":
        made = torch.export.export(module, (x,), strict=False).module()
    else:
        made = torch.jit.trace(module, (x,), check_trace=False)
    for given_output, output in zip(made(x), module(x), strict=True):
        torch.testing.assert_close(given_output, output, rtol=1e-12, atol=1e-13)
