"""Choosing predictive nodes: exact cases, brute force over all subsets, what weights do, refusals."""

import itertools

import numpy as np
import pytest
import torch

from sobolev_lib.enclosure.adjoints import enclose
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.cut import cut, hidden_activations, keep_most
from sobolev_lib.pruning.scores import balls
from sobolev_lib.pruning.selection import keep_predictive
from tests import oracles

F64 = torch.float64


def random_net(widths=(2, 6, 5, 1), **named):
    return oracles.random_net(widths, **named, n=300)


def enclosure_of(net, x):
    return enclose(net, balls(x[:16], 0.1), rounding="nearest")


def unexplained(net, x, layer, kept, weights=None):
    """Mean square of the next layer's pre-activations that a layer's kept nodes leave unexplained, by lstsq."""
    a = hidden_activations(net, x)[layer]
    target = (a @ net.weights[layer + 1].T).detach()
    target = target if weights is None else target * weights
    design = torch.cat([a[:, list(kept)], torch.ones(len(x), 1, dtype=F64)], 1)
    return (target - design @ torch.linalg.lstsq(design, target).solution).square().sum().item()


def test_the_first_node_is_the_best_single_one():
    for seed in range(10):
        net, x = random_net(seed=seed)
        best = min(range(6), key=lambda node: unexplained(net, x, 0, [node]))
        assert keep_predictive(net, x, [1, 5])[0].tolist() == [best]


def test_greedy_steps_by_brute_force():
    """Each further node is the one that leaves least unexplained beside those before it."""
    for seed in range(5):
        net, x = random_net((2, 6, 1), seed=seed)
        chosen: list[int] = []
        for count in range(1, 4):
            rest = set(range(6)) - set(chosen)
            chosen.append(min(rest, key=lambda node: unexplained(net, x, 0, [*chosen, node])))
            assert keep_predictive(net, x, count)[0].tolist() == sorted(chosen)


def test_three_of_six_are_close_to_the_best_of_all_twenty_sets():
    losses = []
    for seed in range(20):
        net, x = random_net((2, 6, 1), seed=seed)
        every = [unexplained(net, x, 0, kept) for kept in itertools.combinations(range(6), 3)]
        ours = unexplained(net, x, 0, keep_predictive(net, x, 3)[0].tolist())
        losses.append(sorted(every).index(min(every, key=lambda e: abs(e - ours))))
    assert sum(losses) / len(losses) < 2  # of ranks 0 to 19; chance would give 9.5


def test_copies_and_constants_are_chosen_last():
    net, x = random_net((2, 6, 1))
    with torch.no_grad():
        net.weights[0][1], net.biases[0][1] = net.weights[0][4], net.biases[0][4]
        net.weights[0][2] = 0
    kept = keep_predictive(net, x, 4)[0].tolist()
    assert 2 not in kept and not {1, 4} <= set(kept)
    torch.testing.assert_close(cut(net, [kept], x=x)(x), net(x), rtol=0, atol=1e-8)
    assert keep_predictive(net, x, 6)[0].tolist() == [0, 1, 2, 3, 4, 5]


def best_pair(nodes, wanted):
    """The best single column and its best companion, by lstsq; and what every pair leaves unexplained."""

    def left(index):
        design = torch.cat([nodes[:, list(index)], torch.ones(len(nodes), 1, dtype=F64)], 1)
        return (wanted - design @ torch.linalg.lstsq(design, wanted).solution).square().sum().item()

    first = min(range(nodes.shape[1]), key=lambda node: left([node]))
    second = min(set(range(nodes.shape[1])) - {first}, key=lambda node: left([first, node]))
    return sorted([first, second])


def test_later_layers_are_chosen_from_what_the_cut_network_computes():
    differ = 0
    for seed in range(8):
        net, x = random_net((2, 6, 4, 5, 1), seed=seed)
        kept = keep_predictive(net, x, [1, 2, 2])
        half_cut, wanted = cut(net, [kept[0], kept[1], torch.arange(5)], x=x), net(x).detach()[:, None]
        ours = best_pair(hidden_activations(half_cut, x)[2], wanted)
        assert kept[2].tolist() == ours
        differ += ours != best_pair(hidden_activations(net, x)[2], wanted)
    assert differ  # it matters


def test_targets_that_the_value_ignores_do_not_count_with_an_enclosure():
    net, x = random_net((2, 6, 5, 1))
    with torch.no_grad():
        net.weights[2][:, 1:] = 0  # only node 0 of the second layer matters ..
        net.weights[1][1:] *= 100  # .. but the others are loud
    weighted = keep_predictive(net, x, [1, 5], enclosure=enclosure_of(net, x))[0]
    only = torch.tensor([1.0, 0, 0, 0, 0], dtype=F64)
    best = min(range(6), key=lambda node: unexplained(net, x, 0, [node], only))
    assert weighted.tolist() == [best] != keep_predictive(net, x, [1, 5])[0].tolist()


def test_predictive_nodes_beat_high_scores_when_the_fold_is_a_regression():
    """Random sets as the baseline, over 20 networks: fewer errors in at least 16 (sign test: p < 0.006 by chance)."""
    wins = 0
    for seed in range(20):
        net, x = random_net((3, 16, 16, 1), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        random = keep_most([torch.rand(16, generator=generator) for _ in range(2)], 6)
        errors = [(cut(net, k, x=x)(x) - net(x)).square().mean().item() for k in (keep_predictive(net, x, 6), random)]
        wins += errors[0] < errors[1]
    assert wins >= 16


def test_permuting_the_nodes_permutes_the_choice():
    net, x = random_net()
    order = torch.tensor([3, 0, 4, 1, 2, 5])
    weights, biases = [w.detach().clone() for w in net.weights], [b.detach().clone() for b in net.biases]
    weights[0], biases[0], weights[1] = weights[0][order], biases[0][order], weights[1][:, order]
    permuted = Surrogate.from_layers(weights, biases, net.activation, scaling=dict(net.named_buffers()))
    ours, theirs = keep_predictive(net, x, [3, 2]), keep_predictive(permuted, x, [3, 2])
    assert sorted(order[theirs[0]].tolist()) == ours[0].tolist() and theirs[1].tolist() == ours[1].tolist()


def test_wrong_arguments_are_refused():
    net, x = random_net()
    with pytest.raises(ValueError, match=r"count\[0\]: got 7, need an integer from 1 to 6"):
        keep_predictive(net, x, [7, 1])
    with pytest.raises(ValueError, match="count: got 1 numbers, need one for each of 2 hidden layers"):
        keep_predictive(net, x, [2])
    with pytest.raises(ValueError, match=r"x: got shape \(300, 1\), need \(n, 2\)"):
        keep_predictive(net, x[:, :1], 2)
    with pytest.raises(TypeError, match="net: got str, need Surrogate"):
        keep_predictive("net", x, 2)
    with pytest.raises(TypeError, match="enclosure: got list, need Enclosure"):
        keep_predictive(net, x, 2, enclosure=[])
    other, _ = random_net((2, 4, 1))
    with pytest.raises(ValueError, match=r"enclosure: got layers of \[4\] nodes, need \[6, 5\]"):
        keep_predictive(net, x, 2, enclosure=enclosure_of(other, x))


def test_counts_and_indices_may_be_numpys_and_read_only():
    net, x = oracles.random_net((2, 4, 3, 1))
    index = np.array([0, 2])
    index.flags.writeable = False
    assert cut(net, [index, index], x=x).widths == [2, 2, 2, 1]  # a warning is an error here
    for two in (np.int64(2), torch.tensor(2), np.array([2, 2])):
        assert [len(kept) for kept in keep_predictive(net, x, two)] == [2, 2]
        assert [len(kept) for kept in keep_most([torch.rand(4), torch.rand(3)], two)] == [2, 2]
