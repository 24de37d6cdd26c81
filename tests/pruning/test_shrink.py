"""`shrink` and `grow`: the verdict against direct computation, the tolerance as a promise, known small networks."""

from types import SimpleNamespace

import pytest
import torch

import sobolev_lib as sl
from sobolev_lib.pruning import grow as growing
from sobolev_lib.pruning import judge as _candidates
from sobolev_lib.pruning import shrink as shrinking
from tests.oracles import plain_outputs


def labelled(x, function, noise=0.0, seed=1):
    """Return samples of a function with normal noise on the values."""
    generator = torch.Generator().manual_seed(seed)
    x = x.clone().requires_grad_()
    value = function(x)
    (gradient,) = torch.autograd.grad(value.sum(), x)
    value = value.detach() + noise * torch.randn(len(x), dtype=x.dtype, generator=generator)
    return SimpleNamespace(x=x.detach(), value=value, gradient=gradient, hvp=None, directions=None)


def points(n, d, seed):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def two_bumps(x):
    """What a network of two tanh nodes is exactly."""
    return torch.tanh(2 * x[:, 0] - 1) - 0.5 * torch.tanh(x[:, 0] + x[:, 1] + 1)


def network(widths, seed=0, activation="tanh", gain=1.0):
    return sl.Surrogate(widths, activation, gain=gain, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def trained():
    """A network of 2 x 6 nodes that learned two bumps, and what it learned from."""
    samples = labelled(points(2048, 2, 0), two_bumps, noise=0.1)
    held = labelled(points(1024, 2, 9), two_bumps, noise=0.1, seed=2)
    net = network([2, 6, 6, 1])
    sl.fit(net, samples, order=0, steps=300, finish=20)
    return net, samples, held


def test_the_excess_is_the_difference_of_the_mean_squared_errors_on_the_held_out_labels(trained):
    net, samples, held = trained
    search = _candidates.begin(net, samples, 0, None, held, 0)
    other = network([2, 3, 1], seed=5)
    excess, error, accepted = search.judge(other)
    squares = [(plain_outputs(n, dict(n.named_parameters()), held.x, 0)[0] - held.value) ** 2 for n in (other, net)]
    gaps = (squares[0] - squares[1]).detach()
    assert excess == pytest.approx(gaps.mean().item(), rel=1e-9)
    assert error == pytest.approx(gaps.reshape(32, 32).mean(1).std().item() / 32**0.5, rel=1e-9)
    # 32 block means give the standard error to within 1 / sqrt(62); four of these is a level of 1e-4.
    assert error == pytest.approx((gaps.std() / len(gaps) ** 0.5).item(), rel=4 / 62**0.5)
    assert not accepted


def test_derivatives_count_at_order_one_and_only_there(trained):
    net, samples, held = trained
    bad = SimpleNamespace(**{**vars(held), "gradient": held.gradient + 1.0})
    for order, same in ((0, True), (1, False)):
        right, wrong = (_candidates.begin(net, samples, order, None, h, 0) for h in (held, bad))
        assert torch.equal(right.reference, wrong.reference) is same


@pytest.mark.parametrize("order", [0, 1])
def test_the_result_is_smaller_and_within_the_tolerance(trained, order):
    net, samples, held = trained
    small, path = sl.shrink(net, samples, order=order, validation=held, tolerance=0.02)
    judge = _candidates.begin(net, samples, order, 0.02, held, 0).judge
    assert small.parameter_count < net.parameter_count / 2
    assert judge(small)[0] <= 0.02**2
    assert path.found == tuple(small.widths) and path.start == tuple(net.widths)
    accepted = [t for t in path.trials if t.accepted]
    assert accepted[-1].widths == path.found
    assert all(t.excess <= 0.02**2 for t in accepted) and all(t.excess > 0.02**2 for t in path.trials if not t.accepted)


def test_by_default_what_the_labels_cannot_tell_is_accepted_and_the_network_learns_the_two_bumps(trained):
    net, samples, held = trained
    small, path = sl.shrink(net, samples, validation=held)
    assert all(t.accepted == (t.excess <= 2 * t.error) for t in path.trials)
    truth = two_bumps(held.x)
    rmse = (small(held.x) - truth).square().mean().sqrt().item()
    assert small.parameter_count <= 17 and rmse < 0.03  # noise of 0.1; two nodes in one layer have 9 parameters


def test_where_nothing_smaller_is_within_the_tolerance_it_says_so_and_returns_a_copy():
    net = network([2, 2, 1])
    with torch.no_grad():
        for parameter, value in zip(
            [*net.weights, *net.biases],
            ([[2.0, 0.0], [1.0, 1.0]], [[1.0, -0.5]], [-1.0, 1.0], [0.0]),
            strict=True,
        ):
            parameter.copy_(torch.tensor(value, dtype=torch.float64))
    samples = labelled(points(1024, 2, 3), lambda x: net(x))
    small, path = sl.shrink(net, samples, tolerance=1e-3)
    assert path.trials and not any(t.accepted for t in path.trials)
    assert small is not net and torch.equal(small(samples.x), net(samples.x))
    assert "No other network was within the tolerance" in str(path)


def test_a_share_holds_out_the_end_of_the_samples(trained):
    net, samples, _ = trained
    front, end = (
        SimpleNamespace(x=samples.x[rows], value=samples.value[rows], gradient=None, hvp=None, directions=None)
        for rows in (slice(0, 1536), slice(1536, 2048))
    )
    by_share, _ = sl.shrink(net, samples, validation=0.25)
    by_hand, _ = sl.shrink(net, front, validation=end)
    assert by_share.widths == by_hand.widths
    assert all(torch.equal(a, b) for a, b in zip(by_share.parameters(), by_hand.parameters(), strict=True))


def test_it_stops_when_the_network_is_small_enough(trained):
    net, samples, held = trained
    small, path = sl.shrink(net, samples, validation=held, enough=20)
    further, _ = sl.shrink(net, samples, validation=held)
    assert further.parameter_count < small.parameter_count <= 20
    assert all(t.parameters > 20 for t in path.trials[:-1] if t.accepted)


def test_a_score_of_ones_own_decides_which_nodes_go(trained, monkeypatch):
    net, samples, held = trained
    monkeypatch.setattr(shrinking, "significance", None)  # the default score would fail
    asked = []

    def by_size_of_weights(candidate):
        asked.append(tuple(candidate.widths))
        return [weight.abs().sum(0) for weight in candidate.weights[1:]]

    small, _ = sl.shrink(net, samples, validation=held, score=by_size_of_weights)
    assert small.parameter_count < net.parameter_count and tuple(small.widths) in asked


def test_the_network_itself_is_left_as_it_is(trained):
    net, samples, held = trained
    before = [p.clone() for p in net.parameters()]
    sl.shrink(net, samples, validation=held)
    sl.grow(net, samples, validation=held, hidden=1)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_a_new_node_changes_nothing_until_it_is_trained():
    net = network([3, 2, 4, 1], seed=2)
    x = points(50, 3, 0)
    for layer, widths in ((0, [3, 3, 4, 1]), (1, [3, 2, 5, 1])):
        wider = growing._widen(net, layer, torch.Generator().manual_seed(0))
        assert wider.widths == widths
        torch.testing.assert_close(wider(x), net(x), rtol=1e-14, atol=1e-14)


def test_growing_finds_two_bumps_in_one_layer(trained):
    net, samples, held = trained
    grown, path = sl.grow(net, samples, validation=held, hidden=1)
    assert grown.widths[0::2] == [2, 1] and 2 <= grown.widths[1] <= 3
    assert path.trials[0].widths == (2, 1, 1) and not path.trials[0].accepted and path.trials[-1].accepted
    assert (grown(held.x) - two_bumps(held.x)).square().mean().sqrt() < 0.03


def test_growing_gives_up_above_the_largest_size(trained):
    net, samples, held = trained
    grown, path = sl.grow(net, samples, validation=held, hidden=1, tolerance=1e-9, most=8)
    assert all(t.parameters <= 8 for t in path.trials)
    assert torch.equal(grown(held.x), net(held.x)) and "No other network" in path.reason


def test_the_path_reads_as_a_table():
    trial = _candidates.Trial("4 of 8 nodes in each layer", (7, 4, 1), 37, -5e-7, 3e-7, "network", True)
    path = _candidates.Path((trial,), None, (7, 8, 1), (7, 4, 1))
    assert str(path).split("\n") == [
        "action                      parameters    excess +- error   trained on  verdict",
        "4 of 8 nodes in each layer          37    -5e-07 +- 3e-07      network  accepted",
        "7-4-1 is the smallest network found whose excess is at most twice its standard error.",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": 1.0}, "validation: got 1.0"),
        ({"validation": 0.01}, "validation: got 20 held-out samples, need at least 64"),
        ({"tolerance": 0.0}, "tolerance: got 0"),
        ({"enough": 0}, "enough: got 0"),
        ({"order": 2}, "samples: got no hvp"),
    ],
)
def test_bad_arguments_are_refused(trained, arguments, message):
    net, samples, _ = trained
    with pytest.raises(ValueError, match=message):
        sl.shrink(net, samples, **arguments)


def test_growing_needs_a_hidden_layer(trained):
    net, samples, _ = trained
    with pytest.raises(ValueError, match="hidden: got 0"):
        sl.grow(net, samples, hidden=0)


@pytest.mark.slow
def test_the_basket_needs_few_parameters():
    """A price error no larger than 1.5 times that of the large network with at most 40 parameters, widths untold."""
    case = sl.basket_case(smoothing=sl.Blend(width=0.02))
    samples, held = (
        sl.label(case.model, case.payoff, case.inputs(2**13, noise), horizon=1.0, noise=noise, order=0)
        for noise in (sl.sobol(seed=3), sl.sobol(seed=4))
    )
    full = sl.Surrogate([7, 32, 32, 32, 1], generator=torch.Generator().manual_seed(0))
    sl.fit(full, samples, order=0, steps=1000, batch=256, learning_rate=3e-3)
    small, path = sl.shrink(full, samples, validation=held)
    x = case.test_inputs()
    error = [sl.evaluate(net, x, case.reference(x)).rmse["price"] for net in (full, small)]
    assert small.parameter_count <= 40, path
    assert error[1] < 1.5 * error[0]
