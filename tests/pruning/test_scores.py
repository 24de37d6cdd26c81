"""Scores: significance in closed form and by sampling; what each rival says it measures, measured by brute force."""

import pytest
import torch

from sobolev_lib.enclosure.adjoints import Split, enclose
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.cut import cut, midpoints
from sobolev_lib.pruning.scores import (
    Scores,
    balls,
    score_at_random,
    score_by_magnitude,
    score_by_taylor,
    score_by_variance,
    significance,
)
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
    # The gradient is constant, but a node that becomes a constant takes its part of it along.
    of_gradient = first.abs().sum(1) * second.abs() * net.output_scale
    torch.testing.assert_close(significance(net, box, of="gradient").hidden[0], of_gradient)


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
    for options in (dict(domain="zonotope"), dict(domain=Split(4))):
        ours = significance(net, box, of=of, **options)
        theirs = significance(net, enclose(net, box, rounding="nearest", order=2, **options), of=of)
        assert all(torch.equal(a, b) for a, b in zip(ours.hidden, theirs.hidden, strict=True))
    coarse, fine = (significance(net, box, of=of, domain=domain).hidden[1] for domain in ("natural", "zonotope"))
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


def test_scores_of_boxes_are_averaged():
    net = random_net()
    boxes = balls(net.input_shift + torch.tensor([[0.0, 0.1], [0.3, -0.2]], dtype=F64), 0.2)
    single = [significance(net, boxes[i]).hidden[1] for i in range(2)]
    torch.testing.assert_close(significance(net, boxes).hidden[1], torch.stack(single).mean(0))


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
    scores = Scores(torch.tensor([1.0, 3.0]), [torch.tensor([2.0, 2.0, 4.0]), torch.zeros(2)])
    shares = scores.normalised()
    assert shares.inputs.tolist() == [0.25, 0.75] and shares.hidden[0].tolist() == [0.25, 0.25, 0.5]
    assert shares.hidden[1].tolist() == [0, 0]


def test_the_summary_names_the_layers_and_how_few_nodes_hold_half():
    text = str(Scores(torch.tensor([1.0, 3.0]), [torch.tensor([3.0, 3.0, 3.0, 1.0])])).splitlines()
    assert text[1].split() == ["inputs", "2", "0.750", "1", "nodes"]
    assert text[2].split() == ["hidden", "1", "4", "0.300", "2", "nodes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(of="price"), "of: got 'price', need one of 'value', 'gradient'"),
        (dict(measure="width"), "measure: got 'width', need one of 'width_times_adjoint', 'product'"),
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


@torch.no_grad()
def test_no_fold_by_a_constant_changes_the_gradient_by_more_than_the_significance():
    """A node that is folded has tangent 0, which need not lie in its interval: here the first one's is about 1."""
    net = Surrogate([1, 2, 1], "silu")
    net.weights[0].copy_(torch.tensor([[1.0], [0.5]]))
    net.biases[0].copy_(torch.tensor([60.0, 0.0]))
    net.weights[1].copy_(torch.tensor([[1.0, 0.05]]))
    box = Interval([-1.0], [1.0])
    scores = significance(net, box, of="gradient").hidden[0]
    x = torch.linspace(-1, 1, 201, dtype=F64)[:, None]
    values = midpoints(enclose(net, box, rounding="nearest"))
    for node, seen in ((0, 1.0), (1, 0.018)):
        small = cut(net, [torch.tensor([1 - node])], values=values)
        change = (small.gradient(x) - net.gradient(x)).abs().max().item()
        assert change == pytest.approx(seen, abs=0.05) and change <= scores[node]


def run(net, x, changes=None):
    """The value, with changes added to the hidden activations; and these activations."""
    a, seen = (x - net.input_shift) / net.input_scale, []
    for layer, (weight, bias) in enumerate(zip(net.weights[:-1], net.biases[:-1], strict=True)):
        a = net.activation(a @ weight.T + bias)
        if changes is not None:
            a = a + changes[layer]
        seen.append(a)
    return net.output_shift + net.output_scale * (a @ net.weights[-1].T + net.biases[-1])[:, 0], seen


def all_scores(net, x):
    return {
        "magnitude": score_by_magnitude(net),
        "taylor": score_by_taylor(net, x),
        "centred": score_by_taylor(net, x, centred=True),
        "variance": score_by_variance(net, x),
    }


def test_magnitude_by_hand():
    net, _ = oracles.random_net((2, 3, 1))
    first, second = net.weights[0].tolist(), net.weights[1].tolist()[0]
    incoming = [sum(w * w for w in row) ** 0.5 for row in first]
    scores = score_by_magnitude(net)
    assert scores.hidden[0].tolist() == pytest.approx([a * abs(b) for a, b in zip(incoming, second, strict=True)])
    assert scores.inputs.tolist() == pytest.approx([sum(row[i] ** 2 for row in first) ** 0.5 for i in range(2)])


def test_the_product_of_norms_does_not_depend_on_how_a_relu_node_is_scaled():
    net, x = oracles.random_net(activation="relu")
    same = net.copy()
    with torch.no_grad():
        for parameter in (same.weights[0][2], same.biases[0][2]):
            parameter.mul_(7)
        same.weights[1][:, 2].div_(7)
    torch.testing.assert_close(same(x), net(x))
    torch.testing.assert_close(score_by_magnitude(same).hidden[0], score_by_magnitude(net).hidden[0])


@pytest.mark.parametrize("centred", [False, True])
def test_taylor_by_automatic_differentiation(centred):
    net, x = oracles.random_net()
    changes = [torch.zeros(len(x), m, dtype=F64, requires_grad=True) for m in net.widths[1:-1]]
    value, nodes = run(net, x, changes)
    adjoints = torch.autograd.grad(value.sum(), changes)
    for score, node, bar in zip(score_by_taylor(net, x, centred=centred).hidden, nodes, adjoints, strict=True):
        node = node.detach() - (node.detach().mean(0) if centred else 0)
        torch.testing.assert_close(score, (node * bar).abs().mean(0))


@torch.no_grad()
def test_taylor_is_exact_where_the_value_is_linear_in_the_node():
    """In the last hidden layer: the mean change of the value when the node is set to zero, or to its mean."""
    net, x = oracles.random_net()
    value, nodes = run(net, x)
    for centred in (False, True):
        scores = score_by_taylor(net, x, centred=centred).hidden[1]
        for node in range(4):
            changes = [torch.zeros(len(x), m, dtype=F64) for m in (5, 4)]
            column = nodes[1][:, node]
            changes[1][:, node] = (column.mean() if centred else 0) - column
            assert (run(net, x, changes)[0] - value).abs().mean().item() == pytest.approx(scores[node].item())


@torch.no_grad()
def test_variance_is_the_change_of_the_next_layer_when_the_node_is_set_to_its_mean():
    net, x = oracles.random_net()
    _, nodes = run(net, x)
    for layer in range(2):
        before = nodes[layer] @ net.weights[layer + 1].T
        for node in range(net.widths[layer + 1]):
            changed = nodes[layer].clone()
            changed[:, node] = changed[:, node].mean()
            squared = (changed @ net.weights[layer + 1].T - before).square().sum(1).mean()
            assert score_by_variance(net, x).hidden[layer][node].item() == pytest.approx(squared.sqrt().item())


def test_dead_nodes_score_zero_and_constant_ones_where_the_fold_is_the_mean():
    net, x = oracles.random_net()
    with torch.no_grad():
        net.weights[0][1] = 0  # constant, but not zero
        net.weights[1][:, 2] = 0  # nothing depends on it
    scores = {name: score.hidden[0] for name, score in all_scores(net, x).items()}
    assert all(score[2] == 0 for score in scores.values())
    assert scores["centred"][1] < 1e-14 and scores["variance"][1] < 1e-14 and scores["magnitude"][1] == 0
    assert scores["taylor"][1] > 1e-3  # setting it to zero would change the value


def test_permuting_the_nodes_permutes_the_rivals_scores():
    net, x = oracles.random_net()
    order = torch.tensor([3, 0, 4, 1, 2])
    weights, biases = [w.detach().clone() for w in net.weights], [b.detach().clone() for b in net.biases]
    weights[0], biases[0], weights[1] = weights[0][order], biases[0][order], weights[1][:, order]
    permuted = Surrogate.from_layers(weights, biases, net.activation, scaling=dict(net.named_buffers()))
    theirs = all_scores(permuted, x)
    for name, ours in all_scores(net, x).items():
        torch.testing.assert_close(theirs[name].hidden[0], ours.hidden[0][order])
        torch.testing.assert_close(theirs[name].hidden[1], ours.hidden[1])


def test_scores_are_in_units_of_the_value_whatever_the_scaling():
    """A network whose inputs and output are scaled scores like the same function without scaling."""
    net, x = oracles.random_net()
    plain = Surrogate.from_layers(
        [net.weights[0] / net.input_scale, net.weights[1], net.output_scale * net.weights[2]],
        [net.biases[0] - net.weights[0] @ (net.input_shift / net.input_scale), net.biases[1], net.biases[2]],
        "silu",
        scaling=dict(Surrogate([2, 1]).named_buffers()),
    )
    for centred in (False, True):
        ours, theirs = (score_by_taylor(n, x, centred=centred).hidden for n in (net, plain))
        torch.testing.assert_close(ours, theirs)


def test_random_scores_come_from_the_generator_alone():
    net, _ = oracles.random_net()
    first, same, other = (score_at_random(net, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert [s.shape for s in first.hidden] == [(5,), (4,)]
    assert torch.equal(first.hidden[1], same.hidden[1]) and not torch.equal(first.hidden[1], other.hidden[1])


def test_wrong_arguments_of_rivals_are_refused():
    net, x = oracles.random_net()
    for score in (score_by_taylor, score_by_variance):
        with pytest.raises(ValueError, match=r"x: got shape \(100, 1\), need \(n, 2\)"):
            score(net, x[:, :1])
        with pytest.raises(ValueError, match="x: got no samples"):
            score(net, x[:0])
        with pytest.raises(TypeError, match="net: got str, need Surrogate"):
            score("net", x)
    with pytest.raises(TypeError, match="centred: got int, need bool"):
        score_by_taylor(net, x, centred=1)
    with pytest.raises(TypeError, match="generator: got int, need Generator"):
        score_at_random(net, 3)
    with pytest.raises(TypeError, match="net: got str, need Surrogate"):
        score_by_magnitude("net")
