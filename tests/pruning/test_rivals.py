"""Rivals of significance: what each score says it measures, measured by brute force."""

import pytest
import torch

from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.rivals import score_at_random, score_by_magnitude, score_by_taylor, score_by_variance
from tests.oracles import random_net

F64 = torch.float64


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
    net, _ = random_net((2, 3, 1))
    first, second = net.weights[0].tolist(), net.weights[1].tolist()[0]
    incoming = [sum(w * w for w in row) ** 0.5 for row in first]
    by_hand = {
        "incoming": incoming,
        "outgoing": [abs(w) for w in second],
        "both": [a * abs(b) for a, b in zip(incoming, second, strict=True)],
    }
    for side, expected in by_hand.items():
        assert score_by_magnitude(net, side=side)[0].tolist() == pytest.approx(expected)


def test_the_product_of_norms_does_not_depend_on_how_a_relu_node_is_scaled():
    net, x = random_net(activation="relu")
    same = net.copy()
    with torch.no_grad():
        for parameter in (same.weights[0][2], same.biases[0][2]):
            parameter.mul_(7)
        same.weights[1][:, 2].div_(7)
    torch.testing.assert_close(same(x), net(x))
    torch.testing.assert_close(score_by_magnitude(same)[0], score_by_magnitude(net)[0])
    assert not torch.allclose(score_by_magnitude(same, side="incoming")[0], score_by_magnitude(net, side="incoming")[0])


@pytest.mark.parametrize("centred", [False, True])
def test_taylor_by_automatic_differentiation(centred):
    net, x = random_net()
    changes = [torch.zeros(len(x), m, dtype=F64, requires_grad=True) for m in net.widths[1:-1]]
    value, nodes = run(net, x, changes)
    adjoints = torch.autograd.grad(value.sum(), changes)
    for score, node, bar in zip(score_by_taylor(net, x, centred=centred), nodes, adjoints, strict=True):
        node = node.detach() - (node.detach().mean(0) if centred else 0)
        torch.testing.assert_close(score, (node * bar).abs().mean(0))


@torch.no_grad()
def test_taylor_is_exact_where_the_value_is_linear_in_the_node():
    """In the last hidden layer: the mean change of the value when the node is set to zero, or to its mean."""
    net, x = random_net()
    value, nodes = run(net, x)
    for centred in (False, True):
        scores = score_by_taylor(net, x, centred=centred)[1]
        for node in range(4):
            changes = [torch.zeros(len(x), m, dtype=F64) for m in (5, 4)]
            column = nodes[1][:, node]
            changes[1][:, node] = (column.mean() if centred else 0) - column
            assert (run(net, x, changes)[0] - value).abs().mean().item() == pytest.approx(scores[node].item())


@torch.no_grad()
def test_variance_is_the_change_of_the_next_layer_when_the_node_is_set_to_its_mean():
    net, x = random_net()
    _, nodes = run(net, x)
    for layer in range(2):
        before = nodes[layer] @ net.weights[layer + 1].T
        for node in range(net.widths[layer + 1]):
            changed = nodes[layer].clone()
            changed[:, node] = changed[:, node].mean()
            squared = (changed @ net.weights[layer + 1].T - before).square().sum(1).mean()
            assert score_by_variance(net, x)[layer][node].item() == pytest.approx(squared.sqrt().item())


def test_dead_nodes_score_zero_and_constant_ones_where_the_fold_is_the_mean():
    net, x = random_net()
    with torch.no_grad():
        net.weights[0][1] = 0  # constant, but not zero
        net.weights[1][:, 2] = 0  # nothing depends on it
    scores = {name: score[0] for name, score in all_scores(net, x).items()}
    assert all(score[2] == 0 for score in scores.values())
    assert scores["centred"][1] < 1e-14 and scores["variance"][1] < 1e-14 and scores["magnitude"][1] == 0
    assert scores["taylor"][1] > 1e-3  # setting it to zero would change the value


def test_permuting_the_nodes_permutes_their_scores():
    net, x = random_net()
    order = torch.tensor([3, 0, 4, 1, 2])
    weights, biases = [w.detach().clone() for w in net.weights], [b.detach().clone() for b in net.biases]
    weights[0], biases[0], weights[1] = weights[0][order], biases[0][order], weights[1][:, order]
    permuted = Surrogate.from_layers(weights, biases, net.activation, scaling=dict(net.named_buffers()))
    theirs = all_scores(permuted, x)
    for name, ours in all_scores(net, x).items():
        torch.testing.assert_close(theirs[name][0], ours[0][order])
        torch.testing.assert_close(theirs[name][1], ours[1])


def test_scores_are_in_units_of_the_value_whatever_the_scaling():
    """A network whose inputs and output are scaled scores like the same function without scaling."""
    net, x = random_net()
    plain = Surrogate.from_layers(
        [net.weights[0] / net.input_scale, net.weights[1], net.output_scale * net.weights[2]],
        [net.biases[0] - net.weights[0] @ (net.input_shift / net.input_scale), net.biases[1], net.biases[2]],
        "silu",
        scaling=dict(Surrogate([2, 1]).named_buffers()),
    )
    for centred in (False, True):
        ours, theirs = (score_by_taylor(n, x, centred=centred) for n in (net, plain))
        torch.testing.assert_close(ours, theirs)


def test_random_scores_come_from_the_generator_alone():
    net, _ = random_net()
    first, same, other = (score_at_random(net, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert [s.shape for s in first] == [(5,), (4,)]
    assert torch.equal(first[1], same[1]) and not torch.equal(first[1], other[1])


def test_wrong_arguments_are_refused():
    net, x = random_net()
    with pytest.raises(ValueError, match="side: got 'left', need one of 'both', 'incoming', 'outgoing'"):
        score_by_magnitude(net, side="left")
    for score in (score_by_taylor, score_by_variance):
        with pytest.raises(ValueError, match=r"x: got shape \(100, 1\), need \(n, 2\)"):
            score(net, x[:, :1])
        with pytest.raises(TypeError, match="net: got str, need Surrogate"):
            score("net", x)
    with pytest.raises(TypeError, match="centred: got int, need bool"):
        score_by_taylor(net, x, centred=1)
    with pytest.raises(TypeError, match="generator: got int, need Generator"):
        score_at_random(net, 3)
    with pytest.raises(TypeError, match="net: got str, need Surrogate"):
        score_by_magnitude("net")
