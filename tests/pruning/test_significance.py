"""Significance: closed forms of linear networks, the bound by sampling, symmetries, refusals."""

import pytest
import torch

from sobolev_lib.enclosure.adjoints import Split, enclose
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.significance import Significance, balls, significance
from tests import oracles

F64 = torch.float64


def random_net(*options, **named):
    return oracles.random_net(*options, **named, n=50)[0]


def linear_net(seed=1):
    """Softplus far on its linear side: a_1 = W_1 u + b_1, y = w_2 a_1."""
    net = random_net((3, 4, 1), "softplus", seed)
    with torch.no_grad():
        net.biases[0].fill_(50.0)
    return net


def box_around(net, radius=0.3):
    centre = net.input_shift + 0.1 * net.input_scale
    return Interval(centre - radius, centre + radius)


def test_significance_of_a_linear_network_in_closed_form():
    net, radius = linear_net(), torch.tensor([0.1, 0.4, 0.2], dtype=F64)
    box = Interval(net.input_shift - radius, net.input_shift + radius)
    scores = significance(net, box)
    first, second = net.weights[0].detach(), net.weights[1][0].detach()
    spread = 2 * radius / net.input_scale
    torch.testing.assert_close(scores.hidden[0], first.abs() @ spread * second.abs() * net.output_scale)
    torch.testing.assert_close(scores.inputs, spread * (second @ first).abs() * net.output_scale)
    # A product of a node's range with a constant adjoint is as wide as the width times the magnitude.
    torch.testing.assert_close(significance(net, box, measure="product").hidden[0], scores.hidden[0])
    assert significance(net, box, of="gradient").hidden[0].max() < 1e-12  # the gradient is constant


def test_product_is_the_width_of_the_interval_product():
    net = random_net()
    enclosure = enclose(net, box_around(net), rounding="nearest")
    scores = significance(net, enclosure, measure="product")
    for score, node, adjoint in zip(scores.hidden, enclosure.activations, enclosure.activation_adjoints, strict=True):
        corners = torch.stack([a * b for a in (node.lo, node.hi) for b in (adjoint.lo, adjoint.hi)])
        torch.testing.assert_close(score, (corners.amax(0) - corners.amin(0))[0])


def forward_from(net, a, a_dot, layer):
    """Value and directional derivative from the activations and tangents of a hidden layer on, raw units."""
    depth = len(net.weights)
    for index in range(layer + 1, depth):
        z = a @ net.weights[index].T + net.biases[index]
        z_dot = a_dot @ net.weights[index].T
        if index == depth - 1:
            return net.output_shift + net.output_scale * z[:, 0], net.output_scale * z_dot[:, 0]
        value, slope = net.activation.jet(z, 1)
        a, a_dot = value, slope * z_dot


def states(net, x, component):
    """Activations and tangents along raw input `component` of every hidden layer."""
    a = (x - net.input_shift) / net.input_scale
    a_dot = torch.zeros_like(a)
    a_dot[:, component] = 1 / net.input_scale[component]
    layers = []
    for weight, bias in zip(net.weights[:-1], net.biases[:-1], strict=True):
        value, slope = net.activation.jet(a @ weight.T + bias, 1)
        a, a_dot = value, slope * (a_dot @ weight.T)
        layers.append((a, a_dot))
    return layers


@pytest.mark.parametrize("activation", ["silu", "tanh", "sin"])
@pytest.mark.parametrize("radius", [0.05, 0.5])
@torch.no_grad()
def test_no_node_can_change_the_value_or_the_gradient_by_more_than_its_significance(activation, radius):
    """Mean value theorem: give one node another value that it takes in the box, all others staying as they are."""
    net = random_net(activation=activation)
    box = box_around(net, radius)
    of_value, of_gradient = significance(net, box), significance(net, box, of="gradient")
    generator = torch.Generator().manual_seed(4)
    x = box.lo + (box.hi - box.lo) * torch.rand(4000, 2, dtype=F64, generator=generator)
    other = torch.randperm(len(x), generator=generator)
    for layer in range(2):
        for node in range(net.widths[layer + 1]):
            changed = 0
            for component in range(2):
                a, a_dot = states(net, x, component)[layer]
                value, slope = forward_from(net, a, a_dot, layer)
                b, b_dot = a.clone(), a_dot.clone()
                b[:, node], b_dot[:, node] = a[other, node], a_dot[other, node]
                new_value, new_slope = forward_from(net, b, b_dot, layer)
                assert (new_value - value).abs().max() <= of_value.hidden[layer][node] * (1 + 1e-12)
                changed = changed + (new_slope - slope).abs().max() * net.input_scale[component]
            assert changed <= of_gradient.hidden[layer][node] * (1 + 1e-12)


@torch.no_grad()
def test_zonotopes_do_not_bound_what_one_node_can_do():
    """Two nodes that always cancel: behind them all is silent, unless one is turned alone."""
    net = Surrogate([1, 2, 1, 1], "relu")
    for parameter, value in (
        (net.weights[0], [[1.0], [-1.0]]),
        (net.biases[0], [5.0, 5.0]),
        (net.weights[1], [[1.0, 1.0]]),
        (net.biases[1], [-10.5]),
        (net.weights[2], [[1.0]]),
    ):
        parameter.copy_(torch.tensor(value))
    box = Interval([-1.0], [1.0])
    change = torch.relu(torch.tensor(6.0 + 6.0 - 10.5)).item()  # at u = -1, a_1 = 4 is set to 6
    scores = {domain: significance(net, box, domain=domain).hidden[0][0].item() for domain in ("natural", "zonotope")}
    assert scores["zonotope"] < 1e-9 < change <= scores["natural"]


@torch.no_grad()
def test_no_input_can_change_the_value_by_more_than_its_significance():
    net = random_net()
    box = box_around(net)
    scores = significance(net, box, domain="zonotope")
    generator = torch.Generator().manual_seed(5)
    x, y = (box.lo + (box.hi - box.lo) * torch.rand(2000, 2, dtype=F64, generator=generator) for _ in range(2))
    for k in range(2):
        moved = x.clone()
        moved[:, k] = y[:, k]
        assert (net(moved) - net(x)).abs().max() <= scores.inputs[k]


def test_zonotopes_never_score_higher_than_intervals():
    net = random_net()
    box = box_around(net, 0.5)
    for of in ("value", "gradient"):
        natural, tight = (significance(net, box, of=of, domain=domain) for domain in ("natural", "zonotope"))
        for a, b in zip(natural.hidden, tight.hidden, strict=True):
            assert (b <= a * (1 + 1e-9)).all()


@pytest.mark.parametrize("of", ["value", "gradient"])
def test_options_of_the_enclosure_reach_it(of):
    net = random_net()
    box = box_around(net, 0.5)
    for options in (dict(domain="zonotope", degree=1), dict(domain="zonotope", degree=4), dict(domain=Split(4))):
        ours = significance(net, box, of=of, **options)
        theirs = significance(net, enclose(net, box, rounding="nearest", order=2, **options), of=of)
        assert all(torch.equal(a, b) for a, b in zip(ours.hidden, theirs.hidden, strict=True))
    coarse, fine = (significance(net, box, of=of, domain="zonotope", degree=d).hidden[1] for d in (1, 4))
    assert not torch.equal(coarse, fine)


def test_a_point_has_no_significance():
    net = random_net()
    scores = significance(net, box_around(net, 0.0))
    assert all(score.abs().max() < 1e-12 for score in [scores.inputs, *scores.hidden])


@pytest.mark.parametrize("of", ["value", "gradient"])
def test_constant_and_dead_nodes_score_zero(of):
    net = random_net()
    with torch.no_grad():
        net.weights[0][1] = 0  # constant
        net.weights[1][:, 2] = 0  # nothing depends on it
    scores = significance(net, box_around(net), of=of).hidden[0]
    assert scores[1] < 1e-12 and scores[2] == 0 and (scores[[0, 3, 4]] > 1e-6).all()


@pytest.mark.parametrize("of", ["value", "gradient"])
@pytest.mark.parametrize("domain", ["natural", "zonotope"])
def test_permuting_the_nodes_permutes_their_scores(of, domain):
    net, order = random_net(), torch.tensor([3, 0, 4, 1, 2])
    weights, biases = [w.detach().clone() for w in net.weights], [b.detach().clone() for b in net.biases]
    weights[0], biases[0], weights[1] = weights[0][order], biases[0][order], weights[1][:, order]
    permuted = Surrogate.from_layers(weights, biases, net.activation, scaling=dict(net.named_buffers()))
    box = box_around(net)
    ours, theirs = (significance(m, box, of=of, domain=domain) for m in (net, permuted))
    torch.testing.assert_close(theirs.hidden[0], ours.hidden[0][order])
    torch.testing.assert_close(theirs.hidden[1], ours.hidden[1])


def test_boxes_are_aggregated_score_by_score():
    net = random_net()
    x = net.input_shift + torch.randn(6, 2, dtype=F64, generator=torch.Generator().manual_seed(6))
    boxes = balls(x, 0.1)
    each = torch.stack([significance(net, boxes[i]).hidden[1] for i in range(6)])
    for aggregate, expected in (("mean", each.mean(0)), ("sum", each.sum(0)), ("max", each.amax(0))):
        torch.testing.assert_close(significance(net, boxes, aggregate=aggregate).hidden[1], expected)


def test_an_enclosure_is_used_as_it_is():
    net = random_net()
    enclosure = enclose(net, box_around(net), rounding="nearest", order=2)
    for of in ("value", "gradient"):
        ours, theirs = significance(net, enclosure, of=of), significance(net, box_around(net), of=of)
        assert all(torch.equal(a, b) for a, b in zip(ours.hidden, theirs.hidden, strict=True))


def test_balls_take_one_radius_or_one_per_input():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64)
    box = balls(x, torch.tensor([0.5, 0.25], dtype=F64))
    assert box.lo.tolist() == [[0.5, 1.75], [2.5, 3.75]] and box.hi.tolist() == [[1.5, 2.25], [3.5, 4.25]]


def test_shares_add_up_to_one_and_a_layer_without_significance_stays_zero():
    scores = Significance(torch.tensor([1.0, 3.0]), [torch.tensor([2.0, 2.0, 4.0]), torch.zeros(2)])
    shares = scores.normalised()
    assert shares.inputs.tolist() == [0.25, 0.75] and shares.hidden[0].tolist() == [0.25, 0.25, 0.5]
    assert shares.hidden[1].tolist() == [0, 0]


def test_the_summary_names_the_layers_and_how_few_nodes_hold_half():
    text = str(Significance(torch.tensor([1.0, 3.0]), [torch.tensor([3.0, 3.0, 3.0, 1.0])])).splitlines()
    assert text[1].split() == ["inputs", "2", "0.750", "1", "nodes"]
    assert text[2].split() == ["hidden", "1", "4", "0.300", "2", "nodes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(of="price"), "of: got 'price', need one of 'value', 'gradient'"),
        (dict(measure="width"), "measure: got 'width', need one of 'width_times_adjoint', 'product'"),
        (dict(aggregate="median"), "aggregate: got 'median', need one of 'mean', 'sum', 'max'"),
        (dict(domain="box"), "domain: got 'box', need one of 'natural', 'zonotope'"),
        (
            dict(of="gradient", measure="product"),
            "measure: got 'product' of the gradient, need 'width_times_adjoint'",
        ),
    ],
)
def test_unknown_options_are_refused(options, message):
    net = random_net()
    with pytest.raises(ValueError, match=message):
        significance(net, box_around(net), **options)


def test_wrong_objects_are_refused():
    net = random_net()
    with pytest.raises(ValueError, match="box: got an enclosure of order 1, need order 2"):
        significance(net, enclose(net, box_around(net)), of="gradient")
    with pytest.raises(TypeError, match="box: got Tensor, need Interval"):
        significance(net, torch.zeros(2))
    with pytest.raises(TypeError, match="net: got str, need Surrogate"):
        significance("net", box_around(net))
    with pytest.raises(ValueError, match="net: got activation 'relu' at order 2, need one with a second derivative"):
        significance(Surrogate([3, 2, 1], "relu"), balls(torch.zeros(1, 3), 1.0), of="gradient")


@pytest.mark.parametrize("radius", [-0.1, torch.ones(3), torch.ones(2, 2)])
def test_a_radius_that_does_not_fit_is_refused(radius):
    with pytest.raises(ValueError, match=r"radius: got .*, need a number >= 0, or one for each of 2 inputs"):
        balls(torch.zeros(4, 2), radius)
    with pytest.raises(ValueError, match=r"x: got shape \(2,\), need \(n, d\)"):
        balls(torch.zeros(2), 1.0)
