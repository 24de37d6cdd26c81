"""Cutting: identity, clamping, order of cuts, symmetries, exact cases of regression, refusals."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sobolev_lib.enclosure.adjoints import enclose
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.cut import (
    affine_layers,
    cut,
    cut_inputs,
    hidden_activations,
    keep_most,
    means,
    midpoints,
    remove_layers,
)
from sobolev_lib.pruning.scores import score_by_variance
from tests import oracles

F64 = torch.float64


def random_net(*options, **named):
    return oracles.random_net(*options, **named, n=200)


def all_of(net):
    return [torch.arange(width) for width in net.widths[1:-1]]


@torch.no_grad()
def clamped(net, x, kept, values):
    """The network's value with every node that is not kept set to its value: the brute-force meaning of folding."""
    a = (x - net.input_shift) / net.input_scale
    for layer, (weight, bias) in enumerate(zip(net.weights[:-1], net.biases[:-1], strict=True)):
        a = net.activation(a @ weight.T + bias)
        for node in set(range(a.shape[1])) - set(kept[layer].tolist()):
            a[:, node] = values[layer][node]
    return net.output_shift + net.output_scale * (a @ net.weights[-1].T + net.biases[-1])[:, 0]


def equal_parameters(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_keeping_all_nodes_is_the_identity():
    net, x = random_net()
    same = cut(net, all_of(net), values=means(net, x))
    assert equal_parameters(same, net) and same is not net
    assert torch.equal(same(x), net(x)) and torch.equal(same.gradient(x), net.gradient(x))
    by_regression = cut(net, all_of(net), x=x)
    torch.testing.assert_close(by_regression(x), net(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(by_regression.gradient(x), net.gradient(x), rtol=0, atol=1e-10)


def test_the_original_network_is_left_as_it_was():
    net, x = random_net()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    small = cut(net, keep_most(means(net, x), 2), x=x)
    with torch.no_grad():
        small.weights[0].add_(1)
        small.input_shift.add_(1)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["silu", "tanh", "relu", "sin"]))
def test_folding_values_equals_clamping_the_nodes(seed, activation):
    generator = torch.Generator().manual_seed(seed)
    widths = [2, *torch.randint(1, 7, (3,), generator=generator).tolist(), 1]
    net, x = random_net(widths, activation, seed)
    kept = []
    for width in widths[1:-1]:
        number = int(torch.randint(1, width + 1, (), generator=generator))
        kept.append(torch.randperm(width, generator=generator)[:number])
    values = [torch.randn(width, dtype=F64, generator=generator) for width in widths[1:-1]]
    small = cut(net, kept, values=values)
    assert small.widths == [2, *map(len, kept), 1]
    torch.testing.assert_close(small(x), clamped(net, x, kept, values), rtol=1e-10, atol=1e-10)


def test_the_order_of_cuts_does_not_matter_for_fixed_values():
    net, x = random_net()
    values = means(net, x)
    at_once = cut(net, [torch.tensor([0, 3]), torch.tensor([1, 2])], values=values)
    results = [at_once]
    for order in itertools.permutations([(0, 1), (0, 2), (0, 4), (1, 0), (1, 3)]):
        left = [list(range(5)), list(range(4))]
        step = net
        for layer, node in order:
            inside = [torch.arange(len(nodes)) for nodes in left]
            inside[layer] = torch.tensor([i for i, n in enumerate(left[layer]) if n != node])
            step = cut(step, inside, values=[v[nodes] for v, nodes in zip(values, left, strict=True)])
            left[layer].remove(node)
        results.append(step)
    for result in results[1:]:
        for ours, theirs in zip(result.state_dict().values(), at_once.state_dict().values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)


def test_permuting_the_nodes_permutes_the_cut():
    net, x = random_net()
    order = torch.tensor([3, 0, 4, 1, 2])
    weights, biases = [w.detach().clone() for w in net.weights], [b.detach().clone() for b in net.biases]
    weights[0], biases[0], weights[1] = weights[0][order], biases[0][order], weights[1][:, order]
    permuted = Surrogate.from_layers(weights, biases, net.activation, scaling=dict(net.named_buffers()))
    torch.testing.assert_close(means(permuted, x)[0], means(net, x)[0][order])
    kept = [torch.tensor([1, 4]), torch.tensor([0, 2])]
    theirs = [torch.tensor([order.tolist().index(i) for i in kept[0].tolist()]), kept[1]]
    for folding in (dict(x=x), None):
        a = cut(net, kept, **(folding or dict(values=means(net, x))))
        b = cut(permuted, theirs, **(folding or dict(values=means(permuted, x))))
        torch.testing.assert_close(a(x), b(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", ["silu", "tanh", "relu"])
def test_copies_constants_and_dead_nodes_vanish_without_a_change(activation):
    net, x = random_net((2, 6, 5, 1), activation)
    with torch.no_grad():
        net.weights[0][1], net.biases[0][1] = net.weights[0][4], net.biases[0][4]  # a copy of node 4
        net.weights[0][2] = 0  # a constant
        net.weights[1][:, 5] = 0  # nothing depends on it
        net.weights[1][3], net.biases[1][3] = net.weights[1][0], net.biases[1][0]
    small = cut(net, [torch.tensor([0, 3, 4]), torch.tensor([0, 1, 2, 4])], x=x)
    torch.testing.assert_close(small(x), net(x), rtol=0, atol=1e-8)
    torch.testing.assert_close(small.gradient(x), net.gradient(x), rtol=0, atol=1e-7)


def test_copies_may_all_be_kept():
    """Exact copies among the kept nodes make the regression's normal equations singular."""
    net, x = random_net()
    with torch.no_grad():
        net.weights[0][1], net.biases[0][1] = net.weights[0][4], net.biases[0][4]
    small = cut(net, [torch.tensor([1, 4]), torch.arange(4)], x=x)
    assert torch.isfinite(small(x)).all()
    only = cut(net, [torch.tensor([4]), torch.arange(4)], x=x)
    torch.testing.assert_close(small(x), only(x), rtol=0, atol=1e-6)


def test_regression_leaves_residuals_that_the_kept_nodes_do_not_explain():
    """One hidden layer: the change of the value has mean zero and is orthogonal to every kept node."""
    net, x = random_net((3, 8, 1))
    kept = [torch.tensor([0, 2, 5])]
    residual = cut(net, kept, x=x)(x).detach() - net(x).detach()
    nodes = hidden_activations(net, x)[0][:, kept[0]]
    assert residual.std() > 1e-3  # there is something left to explain
    assert abs(residual.mean().item()) < 1e-10
    assert (nodes.T @ residual / len(x)).abs().max() < 1e-8


def test_regression_harms_no_more_than_means_and_those_no_more_than_other_constants():
    """One hidden layer: each fold is the least-squares one among more possibilities than the next."""
    net, x = random_net((3, 8, 1))
    box = Interval(x.amin(0), x.amax(0))
    kept = [torch.tensor([1, 6])]
    folds = (dict(x=x), dict(values=means(net, x)), dict(values=midpoints(enclose(net, box))))
    errors = [(cut(net, kept, **fold)(x) - net(x)).square().mean().item() for fold in folds]
    assert errors[0] < errors[1] < errors[2]


def test_later_layers_correct_earlier_ones():
    """Fitting what the original network's next layer sees repairs more than folding each layer by itself."""
    net, x = random_net((2, 12, 12, 1))
    kept = [torch.arange(6), torch.arange(12)]
    a = hidden_activations(net, x)
    small = cut(net, kept, x=x)
    wanted = (a[1] @ net.weights[2].T + net.biases[2]).detach()
    left = torch.cat([hidden_activations(small, x)[1], torch.ones(len(x), 1, dtype=F64)], 1)
    best = torch.linalg.lstsq(left, wanted).solution
    ours = hidden_activations(small, x)[1] @ small.weights[2].T + small.biases[2]
    torch.testing.assert_close(ours.detach(), left @ best, rtol=0, atol=1e-6)


def test_means_and_midpoints_by_hand():
    net, x = random_net()
    u = (x - net.input_shift) / net.input_scale
    first = net.activation(u @ net.weights[0].T + net.biases[0])
    second = net.activation(first @ net.weights[1].T + net.biases[1])
    for ours, layer in zip(means(net, x), (first, second), strict=True):
        torch.testing.assert_close(ours, layer.mean(0).detach())
    enclosure = enclose(net, Interval(x[:2] - 0.1, x[:2] + 0.1))
    node = enclosure.activations[1]
    torch.testing.assert_close(midpoints(enclosure)[1], (0.5 * (node.lo + node.hi)).mean(0))


def test_keep_most_takes_scores_as_they_are():
    net, x = random_net()
    scores = score_by_variance(net, x)
    ours, theirs = keep_most(scores, 2), keep_most(scores.hidden, [2, 2])
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_keep_most_takes_the_highest_and_of_equals_the_first():
    scores = [torch.tensor([1.0, 5.0, 5.0, 0.0]), torch.tensor([2.0, 2.0, 2.0])]
    assert [k.tolist() for k in keep_most(scores, [2, 1])] == [[1, 2], [0]]
    assert [k.tolist() for k in keep_most(scores, 3)] == [[0, 1, 2], [0, 1, 2]]


def test_folding_values_of_inputs_equals_clamping_them():
    net, x = random_net((4, 5, 3, 1))
    values = torch.tensor([9.0, -2.0, 9.0, 0.5], dtype=F64)
    small = cut_inputs(net, torch.tensor([2, 0]), values=values)
    clamped_x = x.clone()
    clamped_x[:, [1, 3]] = values[[1, 3]]
    torch.testing.assert_close(small(x[:, [2, 0]]), net(clamped_x))
    torch.testing.assert_close(small.gradient(x[:, [2, 0]]), net.gradient(clamped_x)[:, [2, 0]])
    assert torch.equal(small.input_scale, net.input_scale[[2, 0]])
    assert torch.equal(small.input_shift, net.input_shift[[2, 0]])
    assert torch.equal(small.output_scale, net.output_scale) and torch.equal(small.output_shift, net.output_shift)


def test_keeping_all_inputs_is_the_identity():
    net, x = random_net((3, 4, 1))
    assert equal_parameters(cut_inputs(net, torch.arange(3), values=x[0]), net)
    torch.testing.assert_close(cut_inputs(net, torch.arange(3), x=x)(x), net(x), rtol=0, atol=1e-12)


def test_an_input_that_others_determine_goes_without_a_change():
    net, x = random_net((3, 6, 4, 1))
    x[:, 1] = 2 * x[:, 0] - 3 * x[:, 2] + 5
    small = cut_inputs(net, torch.tensor([0, 2]), x=x)
    torch.testing.assert_close(small(x[:, [0, 2]]), net(x), rtol=0, atol=1e-7)


def test_regression_of_inputs_in_a_linear_network_is_least_squares_of_the_value():
    net, x = random_net((3, 1))
    small = cut_inputs(net, torch.tensor([0, 2]), x=x)
    design = torch.cat([x[:, [0, 2]], torch.ones(len(x), 1, dtype=F64)], 1)
    best = design @ torch.linalg.lstsq(design, net(x).detach()[:, None]).solution
    torch.testing.assert_close(small(x[:, [0, 2]]).detach(), best[:, 0], rtol=0, atol=1e-7)


def test_a_single_input_may_be_left_and_the_original_stays():
    net, x = random_net((3, 4, 1))
    before = {name: t.clone() for name, t in net.state_dict().items()}
    small = cut_inputs(net, [1], x=x)
    with torch.no_grad():
        small.input_shift.add_(1)
    assert small.widths == [1, 4, 1]
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize(
    ("kept", "fold", "message"),
    [
        ([0], {}, "x, values: got neither, need one of them, to fold with"),
        ([0], dict(x=torch.zeros(2, 3), values=torch.zeros(3)), "x, values: got both, need one of them"),
        ([], dict(values=torch.zeros(3)), r"kept: got \[\], need one or more different indices"),
        ([3], dict(values=torch.zeros(3)), r"kept: got \[3\], need one or more different indices from 0 to 2"),
        ([1, 1], dict(values=torch.zeros(3)), r"kept: got \[1, 1\], need one or more different indices from 0 to 2"),
        ([0], dict(values=torch.zeros(2)), r"values: got shape \(2,\), need \(3,\)"),
        ([0], dict(x=torch.zeros(2, 2)), r"x: got shape \(2, 2\), need \(n, 3\)"),
    ],
)
def test_inputs_that_cannot_be_cut_are_refused(kept, fold, message):
    net, _ = random_net((3, 4, 1))
    with pytest.raises(ValueError, match=message):
        cut_inputs(net, kept, **fold)


def affine_in_the_middle():
    """Layer 1 of a ReLU network is on the linear side throughout; layer 2 is not."""
    net, x = random_net((2, 6, 5, 7, 1), "relu", seed=3)
    with torch.no_grad():
        net.biases[1].fill_(50.0)
        net.biases[2].sub_(net.weights[2] @ torch.full((5,), 50.0, dtype=F64))
    return net, x


def test_removing_an_affine_layer_is_exact():
    net, x = affine_in_the_middle()
    small = remove_layers(net, [1], x)
    assert small.widths == [2, 6, 7, 1]
    torch.testing.assert_close(small(x), net(x), rtol=0, atol=1e-6)
    elsewhere = torch.randn(100, 2, dtype=F64, generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(small(elsewhere), net(elsewhere), rtol=0, atol=1e-6)


def test_removing_neighbours_and_all_layers():
    net, x = random_net((2, 4, 4, 4, 1))
    assert remove_layers(net, [0, 1], x).widths == [2, 4, 1]
    assert remove_layers(net, [1, 2], x).widths == [2, 4, 1]
    affine = remove_layers(net, [0, 1, 2], x)
    assert affine.widths == [2, 1]
    design = torch.cat([x, torch.ones(len(x), 1, dtype=F64)], 1)
    best = torch.linalg.lstsq(design, net(x).detach()[:, None]).solution
    torch.testing.assert_close(affine(x).detach(), (design @ best)[:, 0], rtol=0, atol=1e-7)
    assert equal_parameters(remove_layers(net, [], x), net)


def test_the_layer_that_is_affine_is_found_first():
    net, x = affine_in_the_middle()
    assert affine_layers(net, x, 1) == [1]
    assert affine_layers(net, x, 3) == [0, 1, 2]
    changes = [(remove_layers(net, [1, other], x)(x) - net(x)).square().mean() for other in (0, 2)]
    assert affine_layers(net, x, 2) == ([0, 1] if changes[0] < changes[1] else [1, 2])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(kept=[[0], [0]]), ValueError, "x, values: got neither, need one of them, to fold with"),
        (dict(kept=[[0], [0]], x=True, values=True), ValueError, "x, values: got both, need one of them"),
        (dict(kept=[[0]], x=True), ValueError, "kept: got 1 sets of indices, need one for each of 2 hidden layers"),
        (dict(kept=[[0], []], x=True), ValueError, r"kept\[1\]: got \[\], need one or more different indices"),
        (dict(kept=[[0], [0.0]], x=True), TypeError, r"kept\[1\]: got shape \(1,\) of float64, need integers"),
        (dict(kept=[[0, 5], [0]], x=True), ValueError, r"kept\[0\]: got \[0, 5\], need one or more"),
        (dict(kept=[[0], [-1]], x=True), ValueError, r"kept\[1\]: got \[-1\], need one or more"),
        (dict(kept=[[1, 1], [0]], x=True), ValueError, r"kept\[0\]: got \[1, 1\], need one or more different indices"),
        (dict(kept=[[True], [0]], x=True), ValueError, r"kept\[0\]: got \[True\], need one or more different indices"),
        (dict(kept=[[0], [0]], values=[[0.0] * 5]), ValueError, "values: got 1 layers, need 2"),
        (
            dict(kept=[[0], [0]], values=[[0.0] * 5, [0.0]]),
            ValueError,
            r"values\[1\]: got shape \(1,\), need \(4,\)",
        ),
        (dict(kept=[[0], [0]], x=torch.zeros(3, 1)), ValueError, r"x: got shape \(3, 1\), need \(n, 2\)"),
    ],
)
def test_cuts_that_cannot_be_made_are_refused(arguments, error, message):
    net, x = random_net()
    for name, given_value in (("x", x), ("values", means(net, x))):
        if arguments.get(name) is True:
            arguments = arguments | {name: given_value}
    with pytest.raises(error, match=message):
        cut(net, **arguments)


def test_samples_may_be_given_as_a_list():
    net, x = random_net((2, 4, 1))
    small = cut(net, [[0, 1]], x=x.tolist())
    assert equal_parameters(small, cut(net, [[0, 1]], x=x))


@pytest.mark.parametrize(
    ("count", "error", "message"),
    [
        (0, ValueError, r"count\[0\]: got 0, need an integer from 1 to 3"),
        (4, ValueError, r"count\[0\]: got 4, need an integer from 1 to 3"),
        ([2], ValueError, "count: got 1 numbers, need one for each of 2 hidden layers"),
        ([2, 1.5], TypeError, r"count\[1\]: got float 1.5, need an integer from 1 to 2"),
    ],
)
def test_counts_that_cannot_be_kept_are_refused(count, error, message):
    with pytest.raises(error, match=message):
        keep_most([torch.ones(3), torch.ones(2)], count)
    with pytest.raises(ValueError, match=r"scores\[0\]: got shape \(1, 3\), need \(m,\)"):
        keep_most([torch.ones(1, 3)], 1)


def test_layers_and_objects_that_are_not_there_are_refused():
    net, x = random_net()
    assert remove_layers(net, 0, x).widths == remove_layers(net, [0], x).widths
    for function in (means, lambda n, none: cut(n, [[0]] * 2, x=none), lambda n, none: remove_layers(n, 0, none)):
        with pytest.raises(ValueError, match="x: got no samples, need at least 1"):
            function(net, x[:0])
    with pytest.raises(ValueError, match=r"layers\[0\]: got 2, need an integer from 0 to 1"):
        remove_layers(net, [2], x)
    with pytest.raises(ValueError, match=r"layers: got \[1, 1\], need each layer at most once"):
        remove_layers(net, [1, 1], x)
    with pytest.raises(ValueError, match=r"x: got shape \(200, 1\), need \(n, 2\)"):
        remove_layers(net, [1], x[:, :1])
    with pytest.raises(ValueError, match="count: got 3, need an integer from 1 to 2"):
        affine_layers(net, x, 3)
    with pytest.raises(TypeError, match="enclosure: got list, need Enclosure"):
        midpoints([])


def test_layers_of_constants_can_be_removed():
    """Where no node moves there is nothing to regress on, and the constant alone must do."""
    net = Surrogate([2, 3, 2, 1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.weights[0].zero_()
    x = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(remove_layers(net, [1], x)(x), net(x))
    torch.testing.assert_close(cut(net, [torch.tensor([0]), torch.tensor([1])], x=x)(x), net(x))
