"""Interval adjoints: soundness against long double, exactness at points, inclusion, convergence, tightness."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sobolev_lib.enclosure import sweeps
from sobolev_lib.enclosure.adjoints import Split, enclose, halves
from sobolev_lib.enclosure.interval import Interval, ball, empty, is_empty, point, subset
from sobolev_lib.network.activations import ACTIVATIONS
from sobolev_lib.network.surrogate import Surrogate
from tests import exact

F32, F64 = torch.float32, torch.float64
SMOOTH = [name for name, activation in ACTIVATIONS.items() if activation.smooth]
DOMAINS = ["natural", "zonotope"]


def random_net(widths, name, seed, *, spread=0.0, dtype=F64, scaled=True):
    """Weights of both signs; each entry times 10 to a power up to ``spread`` either way; scaling other than 1."""
    generator = torch.Generator().manual_seed(seed)
    net = Surrogate(widths, name, dtype=dtype, gain=1.6, generator=generator)
    with torch.no_grad():
        for p in net.parameters():
            factor = 10 ** (spread * (2 * torch.rand(p.shape, dtype=F64, generator=generator) - 1))
            noise = torch.randn(p.shape, dtype=F64, generator=generator) * (0.5 if p.ndim == 1 else 0.0)
            p.copy_((p.double() + noise) * factor)
        if scaled:
            scaling = ("input_shift", "input_scale", "output_shift", "output_scale")
            for buffer in map(net.get_buffer, scaling):
                buffer.copy_(torch.rand(buffer.shape, generator=generator) + 0.5)
    return net


def points_in(box, count, seed):
    """Uniform points, corners and the centre of a box (d,)."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.rand(count, len(box.lo), dtype=F64, generator=generator)
    t[: count // 4] = t[: count // 4].round()
    t[0] = 0.5
    lo, hi = box.lo.double(), box.hi.double()
    return torch.minimum(torch.maximum(torch.lerp(lo, hi, t), lo), hi)


def check(net, box, count, seed, domain):
    """Count the checks and those that fail: value, gradient and Hessian-vector product at points in long double."""
    smooth = net.activation.smooth
    direction = torch.randn(net.widths[0], dtype=F64, generator=torch.Generator().manual_seed(seed)) if smooth else None
    rows = None if direction is None else direction.unsqueeze(0)
    result = enclose(net, box, domain=domain, order=2 if smooth else 1, directions=rows)
    truth = exact.network(net, points_in(box, count, seed), direction)
    enclosures = [result.value[0], result.gradient[0], *([result.hvp[0, 0]] if smooth else [])]
    failures = sum(exact.outside(t, e) for t, e in zip(truth, enclosures, strict=True))
    if smooth:
        failures += exact.outside((truth[2] * exact.long(direction)).sum(1), result.curvature[0, 0])
    return count, failures


# -- soundness


@exact.needs_long_double
@settings(max_examples=60, deadline=None)
@given(
    depth=st.integers(1, 6),
    width=st.sampled_from([1, 2, 5, 16, 40, 64]),
    inputs=st.integers(1, 8),
    name=st.sampled_from(list(ACTIVATIONS)),
    spread=st.sampled_from([0.0, 0.3, 3.0]),
    radius=st.sampled_from([0.0, 1e-12, 1e-6, 1e-2, 0.1, 1.0, 30.0, 1e4]),
    dtype=st.sampled_from([F32, F64]),
    domain=st.sampled_from([*DOMAINS, Split(3), Split(5, "natural")]),
    seed=st.integers(0, 10**6),
)
def test_nothing_lies_outside(depth, width, inputs, name, spread, radius, dtype, domain, seed):
    net = random_net([inputs, *[width] * depth, 1], name, seed, spread=spread, dtype=dtype)
    center = torch.randn(inputs, dtype=F64, generator=torch.Generator().manual_seed(seed))
    _, failures = check(net, ball(center, radius), 40, seed, domain)
    assert failures == 0


@exact.needs_long_double
@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nothing_of_a_million_points_lies_outside(name):
    """150,000 points for each of seven activations, each with value, gradient, HVP and curvature, in both domains."""
    generator = torch.Generator().manual_seed(7)
    cases = itertools.product([0.0, 3.0], [1e-9, 1e-3, 0.1, 2.0, 1e3], [F32, F64])
    checks = failures = 0
    for seed, (spread, radius, dtype) in enumerate(cases):
        depth, inputs = 1 + seed % 6, 1 + seed % 4
        width = [3, 5, 8, 4, 6, 2][seed % 6]
        net = random_net([inputs, *[width] * depth, 1], name, seed, spread=spread, dtype=dtype)
        box = ball(torch.randn(inputs, dtype=F64, generator=generator), radius)
        for domain, count in (("natural", 3_750), ("zonotope", 3_750)):
            done, failed = check(net, box, count, seed, domain)
            checks, failures = checks + done, failures + failed
    assert checks >= 150_000 and failures == 0


@exact.needs_long_double
@pytest.mark.slow
@pytest.mark.parametrize("domain", DOMAINS)
def test_nothing_lies_outside_for_deep_and_wide_networks(domain):
    for seed, (name, radius) in enumerate(itertools.product(SMOOTH, [1e-3, 0.05, 0.5])):
        net = random_net([3, 64, 64, 64, 64, 1], name, seed, spread=[0.0, 1.0, 3.0][seed % 3])
        assert check(net, ball(torch.zeros(3, dtype=F64), radius), 300, seed, domain) == (300, 0)


def reference(net, x):
    """All nodes and adjoints at points x (n, d), by torch's automatic differentiation of the plain formulas."""
    x = x.clone().requires_grad_()
    a, nodes = (x - net.input_shift) / net.input_scale, []
    for layer, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        z = a @ weight.T + bias
        if layer == len(net.weights) - 1:
            break
        a = net.activation(z)
        nodes += [z, a]
    value = net.output_shift + net.output_scale * z[:, 0]
    adjoints = torch.autograd.grad(value.sum(), [x, *nodes], create_graph=True)
    return value, nodes, adjoints


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("rounding", ["nearest", "outward"])
def test_every_node_and_adjoint_is_enclosed(domain, rounding):
    net = random_net([3, 6, 5, 1], "silu", 1)
    box = ball(torch.tensor([0.1, -0.2, 0.3], dtype=F64), 0.2)
    value, nodes, adjoints = reference(net, points_in(box, 400, 0))
    result = enclose(net, box, domain=domain, rounding=rounding)
    found = [result.value, result.gradient]
    for layer in range(2):
        found += [result.preactivations[layer], result.activations[layer]]
        found += [result.preactivation_adjoints[layer], result.activation_adjoints[layer]]
    truth = [value, adjoints[0]]
    for layer in range(2):
        truth += [nodes[2 * layer], nodes[2 * layer + 1], adjoints[2 * layer + 1], adjoints[2 * layer + 2]]
    for t, e in zip(truth, found, strict=True):
        assert (t >= e.lo[0] - 1e-12).all() and (t <= e.hi[0] + 1e-12).all()


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_tangent_and_second_adjoint_is_enclosed(domain):
    """The derivative of a component of the gradient with respect to a node, its tangent held fixed, by torch.

    With all nodes and tangents of the layers above as functions of one layer's nodes and tangents.
    """
    net = random_net([3, 6, 5, 1], "tanh", 2)
    box = ball(torch.tensor([0.1, -0.2, 0.3], dtype=F64), 0.2)
    direction = torch.tensor([0.5, -1.0, 2.0], dtype=F64)
    result = enclose(net, box, domain=domain, order=2, directions=direction.unsqueeze(0))
    f, slope = net.activation, net.activation.derivative(1)
    a, dot = (points_in(box, 300, 0) - net.input_shift) / net.input_scale, direction / net.input_scale
    dot = dot.expand_as(a)
    leaves = []
    for layer, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
        z, z_dot = a @ weight.T + bias, dot @ weight.T
        if layer == len(net.weights) - 1:
            break
        z = z.detach().requires_grad_() if layer == 0 else z
        a, dot = f(z), slope(z) * z_dot
        for node in (z, a) if layer else (a,):
            node.retain_grad()
        leaves.append((z, a, z_dot, dot))
    total = (net.output_scale * z_dot[:, 0]).sum()
    total.backward()
    for layer, (z, a, z_dot, dot) in enumerate(leaves):
        pairs = [(z_dot, result.preactivation_tangents[layer]), (dot, result.activation_tangents[layer])]
        pairs += [(z.grad, result.preactivation_second_adjoints[layer])]
        pairs += [(a.grad, result.activation_second_adjoints[layer])]
        for truth, enclosure in pairs:
            truth = torch.zeros(()) if truth is None else truth.detach()  # the value is linear in the last layer
            assert (truth >= enclosure.lo[0, 0] - 1e-12).all() and (truth <= enclosure.hi[0, 0] + 1e-12).all()


# -- exactness, inclusion, convergence


@pytest.mark.parametrize("domain", [*DOMAINS, Split(4)])
@pytest.mark.parametrize("name", SMOOTH)
def test_a_point_box_gives_the_exact_derivatives(name, domain):
    net = random_net([4, 16, 16, 16, 1], name, 3)
    x = torch.randn(5, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    result = enclose(net, ball(x, 0.0), domain=domain, order=2)
    value, gradient = net.value_and_gradient(x)
    for truth, enclosure in ((value, result.value), (gradient, result.gradient), (net.hessian(x), result.hvp)):
        torch.testing.assert_close(enclosure.lo, truth.detach(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(enclosure.hi, truth.detach(), rtol=1e-10, atol=1e-10)
    if domain == "natural":
        nearest = enclose(net, ball(x, 0.0), rounding="nearest")
        torch.testing.assert_close(nearest.gradient.lo, gradient.detach(), rtol=1e-13, atol=1e-14)
        assert torch.equal(nearest.gradient.lo, nearest.gradient.hi)


def fields_of(result):
    for x in vars(result).values():
        yield from x if isinstance(x, list) else [x] if isinstance(x, Interval) else []


def inside_by(inner, outer, slack):
    """Whether all intervals of one enclosure are inside another's, up to ``slack(interval)`` on either side."""
    pairs = zip(fields_of(inner), fields_of(outer), strict=True)
    return all(subset(x, Interval.unchecked(y.lo - slack(y), y.hi + slack(y))).all() for x, y in pairs)


def rounding_of(x):
    return 1e-12 * (1 + torch.maximum(x.lo.abs(), x.hi.abs()))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    radius=st.sampled_from([1e-4, 0.05, 0.5]),
    name=st.sampled_from(SMOOTH),
    part=st.sampled_from([0.01, 0.5, 0.99]),
)
def test_a_sub_boxs_enclosure_is_inside_its_parents(seed, radius, name, part):
    """To rounding: interval arithmetic is inclusion isotonic, and stays so when boxes are split."""
    net = random_net([3, 10, 10, 1], name, seed)
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(3, dtype=F64, generator=generator)
    corner = (2 * torch.rand(3, dtype=F64, generator=generator) - 1) * (1 - part) * radius
    outer = enclose(net, ball(center, radius), order=2)
    inner = enclose(net, ball(center + corner, part * radius), order=2)
    assert inside_by(inner, outer, rounding_of)


@pytest.mark.parametrize("name", SMOOTH)
def test_a_sub_boxs_zonotopes_are_inside_its_parents_but_for_little(name):
    """Polynomial fits are not inclusion isotonic: a half-size box may stick out by a little of its parent's width."""
    for seed, radius in enumerate([1e-3, 0.05, 0.5]):
        net = random_net([3, 10, 10, 1], name, seed)
        center = torch.randn(3, dtype=F64, generator=torch.Generator().manual_seed(seed))
        outer = enclose(net, ball(center, radius), order=2, domain="zonotope")
        inner = enclose(net, ball(center + 0.4 * radius, 0.5 * radius), order=2, domain="zonotope")
        assert inside_by(inner, outer, lambda x: 0.1 * (x.hi - x.lo) + rounding_of(x))


def shrinking(d, radius, part, seed, count):
    """Boxes (4, d), then boxes inside them, and so on; parts of the sides at random places, ends included."""
    generator = torch.Generator().manual_seed(seed)
    box = ball(torch.randn(4, d, dtype=F64, generator=generator), radius)
    yield box
    for _ in range(count - 1):
        start = (1 - part) * torch.rand(4, d, dtype=F64, generator=generator)
        start[0], start[1] = 0.0, 1 - part
        lo, hi = torch.lerp(box.lo, box.hi, start), torch.lerp(box.lo, box.hi, start + part)
        box = Interval(torch.maximum(lo, box.lo), torch.minimum(hi, box.hi))
        yield box


@exact.needs_long_double
@settings(max_examples=30, deadline=None)
@given(
    depth=st.integers(0, 4),
    inputs=st.integers(1, 4),
    name=st.sampled_from(SMOOTH),
    spread=st.sampled_from([0.0, 0.5]),
    radius=st.sampled_from([1e-9, 1e-3, 0.1, 1.0]),
    part=st.sampled_from([0.5, 0.9, 0.99]),
    domain=st.sampled_from([*DOMAINS, Split(3), Split(4, "natural")]),
    rounding=st.sampled_from(["outward", "nearest"]),
    order=st.sampled_from([1, 2]),
    seed=st.integers(0, 10**6),
)
def test_refinements_within_what_is_known_are_monotone_and_sound(
    depth, inputs, name, spread, radius, part, domain, rounding, order, seed
):
    net = random_net([inputs, *[7] * depth, 1], name, seed, spread=spread)
    direction = torch.randn(inputs, dtype=F64, generator=torch.Generator().manual_seed(seed))
    rows = direction.unsqueeze(0) if order == 2 else None
    given, inner = {"domain": domain, "rounding": rounding, "order": order, "directions": rows}, None
    for box in shrinking(inputs, radius, part, seed, 4):
        outer, inner = inner, enclose(net, box, within=inner, **given)
        if outer is not None:
            assert all(subset(x, y).all() for x, y in zip(fields_of(inner), fields_of(outer), strict=True))
    if rounding == "outward":
        truth = exact.network(net, points_in(inner.box[0], 40, seed), direction)
        enclosures = [inner.value[0], inner.gradient[0], *([inner.hvp[0, 0]] if order == 2 else [])]
        assert sum(exact.outside(t, e) for t, e in zip(truth, enclosures, strict=False)) == 0


def test_zonotopes_stick_out_of_their_parents_unless_told():
    """So the test above is not empty: without ``within`` one interval in fifty or so sticks out, not by rounding."""
    net = random_net([2, 6, 6, 1], "tanh", 0)
    outer, inner = (enclose(net, box, domain="zonotope") for box in shrinking(2, 1.0, 0.9, 0, 2))
    assert not inside_by(inner, outer, lambda x: 1e-9)


def test_several_boxes_within_several():
    """Each of two boxes contains two of four: the halves, as splitting makes them."""
    net = random_net([2, 6, 6, 1], "tanh", 3)
    parents = ball(torch.tensor([[0.0, 0.0], [2.0, -1.0]], dtype=F64), 0.5)
    outer = enclose(net, parents, domain="zonotope", order=2)
    cut = halves(parents, torch.ones(2, dtype=F64))
    together = enclose(net, cut, domain="zonotope", order=2, within=outer)
    for i in range(4):
        alone = enclose(net, cut[i], domain="zonotope", order=2, within=outer[i // 2 : i // 2 + 1])
        for x, y, z in zip(fields_of(together), fields_of(alone), fields_of(outer), strict=True):
            torch.testing.assert_close(x.lo[i], y.lo[0], rtol=1e-12, atol=1e-12)
            assert subset(x[i], z[i // 2]).all()
    assert enclose(net, cut[:0], domain=Split(3), within=outer).value.shape == (0,)


@pytest.mark.parametrize("rounding", ["outward", "nearest"])
def test_more_pieces_are_never_wider(rounding):
    net = random_net([2, 8, 8, 1], "softplus", 1)
    box = ball(torch.zeros(2, dtype=F64), 0.7)
    results = [enclose(net, box, domain=Split(k), order=2, rounding=rounding) for k in (1, 2, 4, 8, 16)]
    for outer, inner in itertools.pairwise(results):
        for x, y in zip(fields_of(inner), fields_of(outer), strict=True):
            slack = 4 * torch.finfo(F64).eps * torch.maximum(y.lo.abs(), y.hi.abs())  # another batch, another last bit
            assert subset(x, Interval(y.lo - slack, y.hi + slack)).all()


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"within": Interval([0.0], [1.0])}, TypeError, "within: got Interval, need Enclosure"),
        ({"widths": [2, 4, 3, 1]}, ValueError, r"enclosure of a network with layers \[2, 4, 3\], need \[2, 3\]"),
        ({"rounding": "nearest"}, ValueError, "within: got one with rounding='nearest', which proves nothing"),
        ({"order": 1}, ValueError, "within: got an enclosure of order 1, need order 2 along the same directions"),
        ({"directions": [[1.0, 0.0]]}, ValueError, "within: got an enclosure along other directions, need order 2"),
        ({"radius": 0.09}, ValueError, r"within: got boxes that do not contain 2 of these 2, need ones that contain"),
        ({"boxes": 3}, ValueError, r"within: got 3 boxes for 2, need one, or a divisor of 2"),
        ({"shift": 9.0}, ValueError, "nothing in common with this one, need the same network"),
    ],
)
def test_what_is_known_must_fit(change, error, message):
    net = random_net([2, 3, 1], "silu", 0)
    other = random_net(change.get("widths", net.widths), "silu", 0)
    with torch.no_grad():
        other.biases[-1] += change.get("shift", 0.0)
    box = ball(torch.zeros(change.get("boxes", 1), 2, dtype=F64), change.get("radius", 0.2))
    arguments = {key: change[key] for key in ("rounding", "directions") if key in change}
    known = enclose(other, box, order=change.get("order", 2), **arguments)
    with pytest.raises(error, match=message):
        enclose(net, ball(torch.zeros(2, 2, dtype=F64), 0.1), order=2, within=change.get("within", known))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.sampled_from([1e-3, 0.1, 1.0]))
def test_zonotopes_and_splitting_are_never_wider(seed, radius):
    net = random_net([2, 8, 8, 1], "silu", seed)
    box = ball(torch.zeros(2, dtype=F64), radius)
    natural = enclose(net, box, order=2)
    zonotope = enclose(net, box, order=2, domain="zonotope")
    for x, y, z, w in zip(
        fields_of(zonotope),
        fields_of(natural),
        fields_of(enclose(net, box, order=2, domain=Split(6))),
        fields_of(enclose(net, box, order=2, domain=Split(6, "natural"))),
        strict=True,
    ):
        slack = 1e-13 * (1 + torch.maximum(y.lo.abs(), y.hi.abs()))
        assert subset(x, Interval(y.lo - slack, y.hi + slack)).all()
        assert subset(z, x).all() and subset(w, y).all()


def excess(net, domain, radius):
    """How much wider than the sampled range the gradient's enclosure is, on average."""
    box = ball(torch.zeros(2, dtype=F64), radius)
    grid = torch.linspace(-radius, radius, 41, dtype=F64)
    gradient = net.gradient(torch.cartesian_prod(grid, grid)).detach()
    result = enclose(net, box, domain=domain).gradient[0]
    return ((result.hi - result.lo) - (gradient.amax(0) - gradient.amin(0))).mean().item()


@pytest.mark.parametrize("domain, order", [("natural", 1), ("zonotope", 2)])
def test_orders_of_convergence(domain, order):
    """Halving the box halves the excess of intervals and quarters that of zonotopes."""
    net = random_net([2, 12, 12, 1], "silu", 5, scaled=False)
    rate = math.log2(excess(net, domain, 0.01) / excess(net, domain, 0.005))
    assert order - 0.15 < rate


def test_splitting_converges_to_the_sampled_range():
    net = random_net([2, 8, 8, 1], "silu", 4, scaled=False)
    gaps = {pieces: excess(net, Split(pieces, "natural"), 0.5) for pieces in (1, 16, 256)}
    assert gaps[256] < 0.4 * gaps[16] < 0.2 * gaps[1]
    assert excess(net, Split(16), 0.5) < 0.5 * excess(net, "zonotope", 0.5)


def test_splitting_treats_boxes_of_a_batch_alike():
    net = random_net([2, 6, 1], "silu", 6)
    centers = torch.tensor([[0.0, 0.0], [1.0, -1.0], [0.3, 2.0]], dtype=F64)
    together = enclose(net, ball(centers, 0.4), domain=Split(7, "natural"), order=2)
    for i, center in enumerate(centers):
        alone = enclose(net, ball(center, 0.4), domain=Split(7, "natural"), order=2)
        for x, y in zip(fields_of(together), fields_of(alone), strict=True):
            torch.testing.assert_close(x.lo[i], y.lo[0], rtol=1e-12, atol=1e-12)


def test_large_batches_are_cut_without_a_trace(monkeypatch):
    net = random_net([2, 6, 1], "silu", 6)
    box = ball(torch.randn(9, 2, dtype=F64, generator=torch.Generator().manual_seed(0)), 0.1)
    whole = enclose(net, box, domain="zonotope", order=2)
    monkeypatch.setattr(sweeps, "MEMORY", 1)
    for x, y in zip(fields_of(whole), fields_of(enclose(net, box, domain="zonotope", order=2)), strict=True):
        torch.testing.assert_close(x.lo, y.lo, rtol=1e-12, atol=1e-12)


# -- tightness


def fresh_network():
    """A 7-128x6-1 SiLU network as torch initialises it with seed 0, without touching the global generator's state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [torch.nn.Linear(a, b, dtype=F64) for a, b in itertools.pairwise([7] + [128] * 6 + [1])]
    one = torch.ones((), dtype=F64)
    scaling = {
        "input_shift": torch.zeros(7),
        "input_scale": torch.ones(7),
        "output_shift": 0 * one,
        "output_scale": one,
    }
    return Surrogate.from_layers([x.weight for x in layers], [x.bias for x in layers], "silu", scaling=scaling)


def test_tightness_on_a_fresh_network():
    """Mean width of the gradient's enclosure, radius 0.1: 5.5e-5; sampled 2.9e-5; backward linear relaxation 8.5e-5."""
    net, box = fresh_network(), ball(torch.zeros(7, dtype=F64), 0.1)
    gradient = net.gradient(points_in(box, 4000, 0)).detach()
    sampled = (gradient.amax(0) - gradient.amin(0)).mean().item()
    widths = {}
    for rounding in ("nearest", "outward"):
        result = enclose(net, box, domain="zonotope", rounding=rounding).gradient
        widths[rounding] = (result.hi - result.lo).mean().item()
    assert sampled < widths["nearest"] <= widths["outward"] < 5.7e-5
    assert widths["outward"] < widths["nearest"] * (1 + 1e-5)


# -- shapes, special boxes, refusals


def test_shapes():
    net = random_net([3, 4, 5, 1], "silu", 0)
    for box, n in ((ball(torch.zeros(3, dtype=F64), 0.1), 1), (ball(torch.zeros(2, 3), 0.1), 2)):
        result = enclose(net, box, order=2, directions=torch.ones(4, 3))
        assert [x.shape for x in result.preactivations] == [(n, 4), (n, 5)]
        assert [x.shape for x in result.activation_adjoints] == [(n, 4), (n, 5)]
        assert [x.shape for x in result.activation_tangents] == [(n, 4, 4), (n, 4, 5)]
        assert [x.shape for x in result.preactivation_second_adjoints] == [(n, 4, 4), (n, 4, 5)]
        assert result.value.shape == (n,) and result.gradient.shape == (n, 3) and result.box.shape == (n, 3)
        assert result.hvp.shape == (n, 4, 3) and result.curvature.shape == (n, 4)
        assert all(x.dtype == F64 for x in fields_of(result))
    assert enclose(net, box).hvp is None


def test_a_network_without_hidden_layers():
    net = random_net([3, 1], "silu", 0)
    for domain in DOMAINS:
        result = enclose(net, ball(torch.zeros(3, dtype=F64), 1.0), domain=domain, order=2)
        torch.testing.assert_close(result.gradient.lo[0], net.gradient(torch.zeros(1, 3, dtype=F64))[0].detach())
        assert result.hvp.hi.abs().max() < 1e-300 and result.preactivations == []


def test_an_empty_batch():
    net = random_net([3, 4, 1], "silu", 0)
    for domain in DOMAINS:
        result = enclose(net, Interval(torch.zeros(0, 3), torch.zeros(0, 3)), domain=domain)
        assert result.gradient.shape == (0, 3)


@pytest.mark.parametrize("domain", DOMAINS)
def test_unbounded_boxes_have_bounded_gradients_where_slopes_are_bounded(domain):
    """A half-line makes the affine map entire; slopes of tanh lie in [0, 1] even there."""
    net = random_net([2, 4, 3, 1], "tanh", 0)
    box = Interval([[0.0, 0.0], [0.0, 0.0]], [[math.inf, 1.0], [1.0, 1.0]])
    result = enclose(net, box, domain=domain, order=2)
    assert all(not x.lo.isnan().any() and not x.hi.isnan().any() for x in fields_of(result))
    assert torch.isfinite(result.value.lo).all() and torch.isfinite(result.gradient.hi).all()
    alone = enclose(net, box[1], domain=domain, order=2)
    for x, y in zip(fields_of(result), fields_of(alone), strict=True):
        torch.testing.assert_close(x.lo[1], y.lo[0])


@pytest.mark.parametrize("domain", DOMAINS)
def test_over_an_empty_box_everything_is_empty(domain):
    net = random_net([2, 4, 3, 1], "silu", 0)
    both = Interval.unchecked(
        torch.stack([empty(2).lo, torch.zeros(2, dtype=F64)]), torch.stack([empty(2).hi, torch.ones(2)])
    )
    result = enclose(net, both, domain=domain)
    for x in (result.value, result.gradient, *result.activations, *result.preactivation_adjoints):
        if x is not result.activation_adjoints[-1]:  # the last layer's adjoints are the output's weights
            assert is_empty(x[0]).all() and not is_empty(x[1]).any()


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"net": torch.nn.Linear(2, 1)}, TypeError, "net: got Linear, need Surrogate"),
        ({"box": torch.zeros(2)}, TypeError, "box: got Tensor, need Interval"),
        ({"box": ball(torch.zeros(3), 0.1)}, ValueError, r"box: got shape \(3,\), need \(2,\) or \(n, 2\)"),
        ({"box": ball(torch.zeros(1, 1, 2), 0.1)}, ValueError, r"box: got shape \(1, 1, 2\)"),
        ({"domain": "affine"}, ValueError, "domain: got 'affine', need one of 'natural', 'zonotope'"),
        ({"rounding": "up"}, ValueError, "rounding: got 'up'"),
        ({"order": 3}, ValueError, "order: got 3, need an integer from 1 to 2"),
        ({"order": 2, "directions": torch.ones(2)}, ValueError, r"directions: got shape \(2,\), need \(k, 2\)"),
    ],
)
def test_bad_input_is_refused(change, error, message):
    arguments = {"net": random_net([2, 3, 1], "silu", 0), "box": ball(torch.zeros(2), 0.1), **change}
    with pytest.raises(error, match=message):
        enclose(arguments.pop("net"), arguments.pop("box"), **arguments)


def test_bad_networks_are_refused():
    net = Surrogate([2, 3, 1], "relu")
    with pytest.raises(ValueError, match="net: got activation 'relu' at order 2, need one with a second derivative"):
        enclose(net, ball(torch.zeros(2), 0.1), order=2)
    with torch.no_grad():
        net.weights[0][0, 0] = math.nan
    with pytest.raises(ValueError, match=r"weights.0: got 1 non-finite of 6 values, need finite numbers"):
        enclose(net, ball(torch.zeros(2), 0.1))


def test_splits_are_checked():
    with pytest.raises(ValueError, match="pieces: got 0, need an integer >= 1"):
        Split(0)
    with pytest.raises(ValueError, match="domain: got 'affine', need one of"):
        Split(4, "affine")


def test_a_subnormal_point_can_be_split():
    """Half of the smallest number is none, so that a midpoint by halves would lie outside."""
    net, box = Surrogate([2, 3, 1]), point([5e-324, -5e-324])
    whole, cut = enclose(net, box), enclose(net, box, domain=Split(8, "natural"))
    assert subset(cut.gradient, whole.gradient).all()


def test_pieces_are_cut_where_it_matters():
    """An input that changes nothing is never cut, however wide it is: as if it were not there."""
    flat, line = Surrogate([2, 6, 1], gain=2.0), Surrogate([1, 6, 1])
    with torch.no_grad():
        flat.weights[0][:, 1] = 0.0
        line.weights[0].copy_(flat.weights[0][:, :1])
        line.weights[1].copy_(flat.weights[1])
        line.biases[0].copy_(flat.biases[0])
        line.biases[1].copy_(flat.biases[1])
    found = enclose(flat, Interval([-0.3, -5.0], [0.3, 5.0]), domain=Split(8, "natural"), rounding="nearest").gradient
    alone = enclose(line, Interval([-0.3], [0.3]), domain=Split(8, "natural"), rounding="nearest").gradient
    assert found.lo[0, 0].item() == pytest.approx(alone.lo.item(), rel=1e-9)
    assert found.hi[0, 0].item() == pytest.approx(alone.hi.item(), rel=1e-9)
