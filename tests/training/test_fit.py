"""The training loop: its schedule, its first step by hand, repeatability, early stopping, refusals."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch

from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.simulation.case_study import basket_case
from sobolev_lib.simulation.labels import label
from sobolev_lib.simulation.noise import sobol
from sobolev_lib.training.errors import evaluate
from sobolev_lib.training.fit import batch_rows, fit, learning_rate_at
from sobolev_lib.training.gauss_newton import levenberg_marquardt, subset_sizes
from sobolev_lib.training.loss import SobolevLoss, balance_by_covariance, balance_by_moments, clip_tails

F64 = torch.float64


def wave(n=256, d=2, noise=0.0, seed=0):
    """Labels of a plane wave, exact or noisy."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, d, dtype=F64, generator=generator) * 2 - 1
    k = torch.arange(1, d + 1, dtype=F64)
    phase = x @ k
    value = torch.sin(phase) + noise * torch.randn(n, dtype=F64, generator=generator)
    directions = torch.ones(1, d, dtype=F64)
    hvp = (-torch.sin(phase)[:, None] * k * k.sum())[:, None]
    return SimpleNamespace(x=x, value=value, gradient=torch.cos(phase)[:, None] * k, hvp=hvp, directions=directions)


def fresh_net(seed=0, widths=(2, 5, 1), activation="tanh"):
    return Surrogate(list(widths), activation, gain=1.0, generator=torch.Generator().manual_seed(seed))


def weights_of(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(("n", "batch"), [(12, 4), (13, 4), (3, 8)])
def test_every_epoch_visits_no_sample_twice_and_has_an_order_of_its_own(n, batch):
    per_epoch = max(1, n // batch)
    epochs = [[batch_rows(n, batch, 5, e * per_epoch + i) for i in range(per_epoch)] for e in range(3)]
    for epoch in epochs:
        rows = torch.cat(epoch)
        assert len(rows) == per_epoch * min(batch, n) and len(rows.unique()) == len(rows)
        assert rows.min() >= 0 and rows.max() < n
    assert n == 3 or not torch.equal(torch.cat(epochs[0]), torch.cat(epochs[1]))


def test_a_batch_depends_on_seed_and_step_alone():
    expected = batch_rows(100, 10, 1, 37)
    batch_rows(100, 10, 2, 3)  # something else in between
    assert torch.equal(batch_rows(100, 10, 1, 37), expected)
    assert not torch.equal(batch_rows(100, 10, 2, 37), expected)


def test_the_learning_rate_rises_to_one_and_falls_to_zero():
    rates = [learning_rate_at(step, 1000) for step in range(1000)]
    assert rates[0] == 1 / 50 and rates[49] == 1 and rates[50] == 1
    assert all(b > a for a, b in itertools.pairwise(rates[:50]))
    assert all(b < a for a, b in itertools.pairwise(rates[50:]))
    assert rates[525] == pytest.approx(0.5) and 0 < rates[-1] < 1e-5  # halfway down at the middle of the cosine
    assert learning_rate_at(0, 1) == 1


def test_the_first_adam_step_moves_each_parameter_by_the_rate_against_the_sign_of_its_slope():
    samples, net = wave(), fresh_net()
    net.set_scaling(samples.x, samples.value)
    before = weights_of(net)
    loss = balance_by_moments(samples, 1)
    slopes = torch.autograd.grad(loss(net, samples), list(net.parameters()))
    slopes = torch.cat([s.flatten() for s in slopes])
    fit(net, samples, order=1, steps=1, batch=256, learning_rate=0.01, finish=0)
    torch.testing.assert_close(weights_of(net) - before, -0.01 * slopes / (slopes.abs() + 1e-8), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_training_recovers_the_function_and_its_derivatives(order):
    samples, new = wave(), wave(seed=9)
    net = fresh_net(widths=(2, 8, 1))
    fit(net, samples, order=order, steps=300, finish=60)
    value, gradient, hvp = (t.detach() for t in net.taylor(new.x, order=2, directions=new.directions))
    assert (value - new.value).square().mean().sqrt() < 2e-2
    assert (gradient - new.gradient).square().mean().sqrt() < 2e-1
    if order:
        assert (gradient - new.gradient).square().mean().sqrt() < 2e-2
    if order == 2:
        assert (hvp - new.hvp).square().mean().sqrt() < 2e-1


def test_same_seed_same_result_bit_for_bit_and_another_seed_another_one():
    results = []
    for seed in (3, 3, 4):
        net = fresh_net()
        history = fit(net, wave(noise=0.1), order=1, steps=30, batch=32, seed=seed, finish=3)
        results.append((weights_of(net), history.loss, history.finish))
    assert torch.equal(results[0][0], results[1][0]) and results[0][1:] == results[1][1:]
    assert not torch.equal(results[0][0], results[2][0])


def test_the_finish_alone_is_levenberg_marquardt():
    samples = wave()
    ours, other = fresh_net(), fresh_net()
    history = fit(ours, samples, order=1, steps=0, finish=5)
    other.set_scaling(samples.x, samples.value)
    losses = list(levenberg_marquardt(other, samples, balance_by_moments(samples, 1), steps=5))
    assert torch.equal(weights_of(ours), weights_of(other)) and history.finish == [losses] and history.loss == []


def test_balance_by_covariance_is_measured_twice_in_the_finish():
    samples = wave(noise=0.1)
    net, other = fresh_net(), fresh_net()
    history = fit(net, samples, order=1, steps=0, finish=4, balance="covariance")
    assert len(history.finish) == 3
    other.set_scaling(samples.x, samples.value)
    loss = balance_by_moments(samples, 1)
    for repeat in range(3):
        list(levenberg_marquardt(other, samples, loss, steps=4))
        loss = balance_by_covariance(other, samples, 1) if repeat < 2 else loss
    assert torch.equal(weights_of(net), weights_of(other))


def test_without_a_finish_the_second_half_uses_the_covariance():
    """The loss of n whitened components is n at the moment of the switch."""
    samples = wave(noise=0.1)
    net = fresh_net()
    history = fit(net, samples, order=1, steps=40, batch=256, balance="covariance", finish=0)
    assert history.loss[20] == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (100, [100]),
        (2**14, [2**14]),
        (2**15, [2**13, 2**15]),
        (2**16, [2**14, 2**16]),
        (2**17, [2**13, 2**15, 2**17]),
    ],
)
def test_the_finish_uses_all_rows_at_the_end_and_never_too_few(n, sizes):
    assert subset_sizes(wave(n)) == sizes


def test_rows_that_are_sorted_are_not_cut_into_subsets():
    samples = wave(2**17)
    by_input = samples.x[:, 1].argsort()
    assert subset_sizes(SimpleNamespace(x=samples.x[by_input], value=samples.value[by_input])) == [2**17]
    by_size = samples.value.abs().argsort()  # the same mean, another spread
    assert subset_sizes(SimpleNamespace(x=samples.x[by_size], value=samples.value[by_size])) == [2**17]


def taught(n, noise, seed=0):
    """Labels from a network, with noise on value and gradient that is partly common to both."""
    generator = torch.Generator().manual_seed(seed)
    teacher = fresh_net(seed=5)
    x = torch.randn(n, 2, dtype=F64, generator=generator)
    errors = noise * torch.randn(n, 3, dtype=F64, generator=generator) @ (torch.eye(3, dtype=F64) + 1)
    value, gradient = (t.detach() for t in teacher.value_and_gradient(x))
    return SimpleNamespace(
        x=x, value=value + errors[:, 0], gradient=gradient + errors[:, 1:], hvp=None, directions=None
    )


@pytest.mark.parametrize("balance", ["moments", "covariance"])
def test_from_coarse_to_fine_ends_at_the_minimum_of_all_samples(balance):
    """What is left to gain is a small part of p/n, by which the minimum of the noise lies below the truth."""
    samples, net = taught(2**15, noise=0.3), fresh_net()
    fit(net, samples, order=1, steps=100, finish=0)
    other = net.copy()
    history = fit(net, samples, order=1, steps=0, balance=balance)
    loss = balance_by_moments(samples, 1)
    at_once = list(levenberg_marquardt(other, samples, loss, steps=60))
    if balance == "covariance":
        loss = balance_by_covariance(other, samples, 1)
        at_once += list(levenberg_marquardt(other, samples, loss, steps=60))
    assert len(history.finish[-1]) < 0.75 * len(at_once)
    excess = (loss(net, samples) / loss(other, samples)).item() - 1
    assert abs(excess) < 0.05 * net.parameter_count / len(samples.x)


@pytest.mark.slow
def test_from_coarse_to_fine_ends_at_the_same_errors_in_the_case_study():
    case, noise = basket_case(), sobol(seed=0)
    x = case.inputs(2**16, noise)
    samples = label(case.model, case.payoff, x, horizon=case.horizon, noise=noise)
    start = Surrogate([7, 3, 3, 1])
    fit(start, samples, order=1, steps=500, finish=0)
    net, other = start.copy(), start.copy()
    history = fit(net, samples, order=1, steps=0, balance="covariance")
    loss, at_once = balance_by_moments(samples, 1), []
    for _ in range(2):  # the same balance twice on all samples, without subsets
        at_once += levenberg_marquardt(other, samples, loss, steps=40)
        loss = balance_by_covariance(other, samples, 1)
    at_once += levenberg_marquardt(other, samples, loss, steps=40)
    assert len(history.finish[-1]) < len(at_once) / 2
    excess = (loss(net, samples) - loss(other, samples)).item()  # whitened: n times this is a chi-square of 40
    assert abs(excess) * len(x) < 0.1 * net.parameter_count
    points = case.test_inputs()
    ours, theirs = (evaluate(each, points, case.reference(points)).rmse for each in (net, other))
    assert all(ours[name] < 1.5 * theirs[name] for name in ours)


def test_small_networks_have_a_finish_by_default_and_large_ones_do_not():
    small, large = fresh_net(), fresh_net(widths=(2, 30, 20, 1))
    assert large.parameter_count > 500
    assert fit(small, wave(), order=0, steps=1).finish
    assert not fit(large, wave(), order=0, steps=1).finish


def test_a_loss_object_is_used_as_it_is():
    samples, net = wave(), fresh_net()
    loss = SobolevLoss(1, torch.diag(torch.tensor([1.0, 0.0, 0.0], dtype=F64)))
    history = fit(net, samples, order=1, steps=1, batch=256, balance=loss, finish=0)
    value = torch.tensor(history.loss[0])
    net = fresh_net()
    net.set_scaling(samples.x, samples.value)
    assert value.item() == pytest.approx((net(samples.x) - samples.value).square().mean().item(), rel=1e-6)


def test_the_callback_hears_of_every_step():
    heard = []
    history = fit(
        fresh_net(),
        wave(),
        order=0,
        steps=7,
        batch=64,
        finish=0,
        callback=lambda step, loss: heard.append((step, loss)),
    )
    assert heard == list(enumerate(history.loss))


def test_fresh_samples_are_drawn_once_for_every_step():
    asked = []

    def draw(step):
        asked.append(step)
        return wave(32, seed=step)

    history = fit(fresh_net(), draw, order=1, steps=5)
    assert [step for step in asked if step] == [1, 2, 3, 4] and asked.count(0) <= 2
    assert len(history.loss) == 5 and history.finish == []


def test_the_network_with_the_lowest_validation_loss_is_kept():
    """Nine noisy values invite a network of 41 parameters to over-fit: the validation loss turns up again."""
    samples, validation = wave(9, noise=0.5), wave(500, seed=8)
    net = fresh_net(widths=(2, 10, 1))
    history = fit(net, samples, order=0, steps=1000, learning_rate=0.05, validation=validation, finish=0)
    measured = [loss for _, loss in history.validation]
    assert len(measured) == 50 and min(measured) < 0.9 * measured[-1]
    loss = balance_by_moments(samples, 0)
    assert loss(net, validation).item() == pytest.approx(min(measured), rel=1e-12)


def test_the_bar_is_shown_only_if_asked_for_and_not_where_it_is_disabled(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    fit(fresh_net(), wave(), order=0, steps=3, finish=0)
    assert capsys.readouterr() == ("", "")


def test_a_scaling_that_is_set_is_kept():
    net = fresh_net()
    net.set_scaling(wave().x * 3, wave().value * 5)
    shift, scale = net.input_shift.clone(), net.output_scale.clone()
    fit(net, wave(), order=0, steps=1, finish=0)
    assert torch.equal(net.input_shift, shift) and torch.equal(net.output_scale, scale)


def test_divergence_says_where_and_what_to_try():
    with pytest.raises(FloatingPointError, match=r"step \d+ of 50.*try a learning_rate below 1e\+200"):
        fit(fresh_net(activation="sin"), wave(), order=1, steps=50, batch=64, learning_rate=1e200)


def test_a_finite_loss_that_has_grown_beyond_return_is_named_as_well():
    samples = wave()
    with pytest.raises(FloatingPointError, match=r"loss has grown from .* at step \d+ of 50, .*try a learning_rate"):
        fit(fresh_net(widths=(2, 8, 8, 8, 1), activation="softplus"), samples, order=1, steps=50, learning_rate=1e4)


def test_weights_that_are_not_finite_after_the_last_step_are_named():
    """The gradient of the loss overflows, its value does not: the inputs are a million times their scale."""
    samples, net = wave(), fresh_net(widths=(2, 1))
    with torch.no_grad():
        net.weights[0].mul_(1e-6)
    net.set_scaling(samples.x * 1e-6, samples.value)
    loss = SobolevLoss(0, torch.full((1, 1), 1e152, dtype=F64))
    with pytest.raises(FloatingPointError, match="weights are not finite after step 1 of 1: try a learning_rate below"):
        fit(net, samples, order=0, steps=1, balance=loss, finish=0)


def test_a_loss_that_begins_near_zero_may_grow():
    samples, net = wave(), fresh_net()
    value, gradient = (t.detach() for t in net.value_and_gradient(samples.x))
    samples = SimpleNamespace(x=samples.x, value=value + 1e-12, gradient=gradient, hvp=None)
    net = Surrogate.from_layers(net.weights, net.biases, net.activation, scaling=dict(net.named_buffers()))
    history = fit(net, samples, order=1, steps=5, finish=0, learning_rate=0.1)
    assert history.loss[0] < 1e-20 and max(history.loss) > 1e6 * history.loss[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(steps=-1), ValueError, "steps: got -1, need an integer >= 0"),
        (dict(steps=2.0), TypeError, "steps: got float 2.0, need an integer >= 0"),
        (dict(batch=0), ValueError, "batch: got 0, need an integer >= 1"),
        (dict(learning_rate=0.0), ValueError, "learning_rate: got 0.0, need a finite number > 0"),
        (dict(learning_rate=float("nan")), ValueError, "learning_rate: got nan, need a finite number > 0"),
        (dict(seed=-1), ValueError, "seed: got -1, need an integer from 0 to"),
        (dict(finish=-1), ValueError, "finish: got -1, need an integer >= 0"),
        (dict(balance="none"), ValueError, "balance: got 'none', need one of 'moments', 'covariance'"),
        (dict(order=3), ValueError, "order: got 3, need an integer from 0 to 2"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(arguments, error, message):
    net = fresh_net()
    with pytest.raises(error, match=message):
        fit(net, wave(), **{"order": 1, **arguments})
    assert net.is_new


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match="net: got activation 'relu' at order 2, need one with a second derivative"):
        fit(fresh_net(activation="relu"), wave(), order=2)
    samples = wave()
    samples.gradient = None
    with pytest.raises(ValueError, match="samples: got no gradient labels, need them at order 1"):
        fit(fresh_net(), samples, order=1)
    with pytest.raises(ValueError, match="validation: got no gradient labels, need them at order 1"):
        fit(fresh_net(), wave(), order=1, validation=samples)
    with pytest.raises(ValueError, match="finish: got 3, need an integer from 0 to 0"):
        fit(fresh_net(), lambda step: wave(), order=1, finish=3)


def trained_net(samples=None, **options):
    net = fresh_net()
    fit(net, samples or wave(), order=1, **({"steps": 60, "finish": 5} | options))
    return net


def test_a_network_with_weights_of_its_own_keeps_its_function_but_for_training():
    """Made from layers with an identity scaling, it once took another, and was another function."""
    samples = wave()
    other = trained_net()
    net = Surrogate.from_layers(other.weights, other.biases, "tanh", scaling=dict(fresh_net().named_buffers()))
    before = net(samples.x).detach()
    fit(net, samples, order=1, steps=1, learning_rate=1e-12, finish=0)
    torch.testing.assert_close(net(samples.x), before, rtol=1e-9, atol=1e-9)


def test_fit_lets_the_network_know_the_range_of_its_inputs():
    samples = wave()
    net = trained_net(samples)
    assert torch.equal(net.input_low, samples.x.amin(0)) and torch.equal(net.input_high, samples.x.amax(0))
    batches = [wave(16, seed=step) for step in range(4)]
    net = fresh_net()
    fit(net, lambda step: batches[step], order=1, steps=4, finish=0)
    assert torch.equal(net.input_high, torch.cat([batch.x for batch in batches]).amax(0))


@pytest.mark.parametrize("options", [dict(steps=20, finish=0), dict(steps=0, finish=5)])
def test_frozen_parameters_stay_and_gradients_are_as_they_were(options):
    net, samples = trained_net(), wave(seed=4)
    net.weights[0].requires_grad_(False)
    net.weights[1].grad = torch.ones_like(net.weights[1])
    before = [p.detach().clone() for p in net.parameters()]
    fit(net, samples, order=1, **options)
    same = [torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True)]
    assert same == [True, False, False, False] and not net.copy().weights[0].requires_grad
    assert net.weights[0].grad is None and (net.weights[1].grad == 1).all() and net.biases[0].grad is None
    with pytest.raises(ValueError, match="net: got parameters that all have requires_grad=False"):
        fit(net.requires_grad_(False), samples, order=1)


def test_labels_of_any_kind_and_mode_train_alike():
    """Graphs, NumPy, float32, inference mode, no_grad and autocast change nothing."""
    samples, expected = wave(), weights_of(trained_net())
    graph = SimpleNamespace(**{k: v.clone().requires_grad_() * 1 for k, v in vars(samples).items()})
    arrays = SimpleNamespace(**{k: v.numpy() for k, v in vars(samples).items()})
    for given in (graph, arrays):
        net = trained_net(given)
        assert torch.equal(weights_of(net), expected) and not any(b.requires_grad for b in net.copy().buffers())
    for mode in (torch.inference_mode(), torch.no_grad(), torch.autocast("cpu")):
        net = fresh_net()
        with mode:
            inside = SimpleNamespace(**{k: v.clone() for k, v in vars(samples).items()})
            fit(net, inside, order=1, steps=60, finish=5)
        assert torch.equal(weights_of(net), expected)
    with torch.inference_mode():
        assert torch.equal(weights_of(trained_net()), expected)  # networks are made as outside of it
        with pytest.raises(ValueError, match="net: got one that was made in inference mode"):
            fit(copy.deepcopy(fresh_net()), samples, order=1)
    single = SimpleNamespace(**{k: v.float() for k, v in vars(samples).items()})
    fit(fresh_net(), single, order=1, steps=3, finish=2)
    fit(fresh_net().float(), samples, order=1, steps=3, finish=0)
    assert torch.equal(weights_of(trained_net(batch=torch.tensor(256), seed=torch.tensor(0))), expected)


@pytest.mark.parametrize("name", ["x", "value", "gradient"])
def test_labels_that_are_not_finite_are_refused_before_any_work(name):
    bad = wave()
    getattr(bad, name)[3] = torch.nan
    for samples, validation, which in ((bad, None, "samples"), (wave(), bad, "validation")):
        net = fresh_net()
        with pytest.raises(ValueError, match=rf"{which}\.{name}: got \d non-finite"):
            fit(net, samples, order=1, validation=validation)
        assert net.is_new


def test_a_loss_of_another_order_is_refused():
    loss = balance_by_moments(wave(), 0)
    for steps in (0, 5):
        with pytest.raises(
            ValueError, match=r"balance: got order 0 and a matrix \(1, 1\), need order 1"
        ):
            fit(fresh_net(), wave(), order=1, steps=steps, balance=loss)


@pytest.mark.parametrize("moment", [3, 11, 25])
def test_an_interrupt_leaves_the_last_accepted_step(monkeypatch, moment):
    """Levenberg-Marquardt had its trial in the network when it was interrupted."""
    samples, loss, calls = wave(noise=0.3), balance_by_moments(wave(noise=0.3), 1), []
    taylor = Surrogate.taylor

    def interrupted(self, *arguments, **options):
        calls.append(weights_of(self))
        if len(calls) == moment:
            raise KeyboardInterrupt
        return taylor(self, *arguments, **options)

    net = fresh_net().set_scaling(samples.x, samples.value)
    accepted = [weights_of(net)]
    monkeypatch.setattr(Surrogate, "taylor", interrupted)
    with pytest.raises(KeyboardInterrupt):
        for _ in levenberg_marquardt(net, samples, loss, steps=100, damping=1e-9, tolerance=0.0):
            accepted.append(weights_of(net))
    assert torch.equal(weights_of(net), accepted[-1]) and not torch.equal(calls[-1], accepted[-1])


@pytest.mark.parametrize("size", [1.0, 5.0, 1e-200, 1e150])
def test_constant_and_tiny_targets_are_learned(size):
    samples, generator = wave(), torch.Generator().manual_seed(0)
    constant = SimpleNamespace(x=samples.x, value=torch.full((256,), size, dtype=F64), hvp=None)
    constant.gradient = 3e-15 * abs(size) * torch.randn(256, 2, dtype=F64, generator=generator)  # rounding
    net = fresh_net()
    fit(net, constant, order=1, steps=0)
    torch.testing.assert_close(net(samples.x) / size, torch.ones(256, dtype=F64), rtol=0, atol=1e-3)
    waves = SimpleNamespace(x=samples.x, value=samples.value * size, gradient=samples.gradient * size, hvp=None)
    net, plain = fresh_net(), trained_net()
    fit(net, waves, order=1, steps=60, finish=5)
    torch.testing.assert_close(net(samples.x) / size, plain(samples.x), rtol=1e-5, atol=1e-5)


def test_fine_tuning_that_gets_worse_on_held_out_labels_returns_the_better():
    exact, few = wave(512), wave(24, noise=1.0, seed=5)
    net = trained_net(exact, steps=300, finish=30)
    before = weights_of(net)
    history = fit(net, few, order=0, steps=50, finish=20, prior=1e6, validation=exact)
    assert torch.equal(weights_of(net), before) and "the last step has a validation loss of" in history.kept
    assert fit(trained_net(few), exact, order=1, steps=50, finish=20, validation=wave(99, seed=3)).kept == ""


def test_an_end_that_an_affine_function_beats_is_said():
    samples = wave()
    net = fresh_net()
    with torch.no_grad():
        net.weights[0].mul_(1e-9)  # at the saddle where all nodes are nought
        net.weights[1].zero_()
    net = Surrogate.from_layers(net.weights, net.biases, "tanh", scaling=dict(fresh_net().named_buffers()))
    history = fit(net, samples, order=1, steps=0, finish=1)
    assert "the best affine function has" in history.far
    with pytest.warns(UserWarning, match="this is no good minimum; try other first weights"):
        fit(Surrogate([2, 5, 1], "tanh", gain=1e-9), samples, order=1, steps=0, finish=1)
    assert fit(fresh_net(), samples, order=1, steps=60).far == ""
    large = Surrogate([2, 32, 32, 1], gain=1e-6)
    with pytest.warns(UserWarning, match="this is no good minimum"):
        fit(large, samples, order=0, steps=500, learning_rate=1e-9)


def test_a_row_that_decides_the_fit_is_named_and_its_tail_can_be_clipped():
    samples = wave(400)
    samples.gradient[123, 1] = 1e6
    net = fresh_net()
    with pytest.warns(UserWarning, match=r"more than half of the sum of squares .*row 123 of gradient\[:, 1\]"):
        fit(net, samples, order=1, steps=1, finish=0)
    clipped, bias = clip_tails(samples, 1, share=0.01)
    net, plain = fresh_net(), fresh_net()
    fit(net, clipped, order=1, steps=200)
    fit(plain, wave(400), order=1, steps=200)
    new = wave(seed=8)
    errors = [(n(new.x) - new.value).square().mean().sqrt().item() for n in (net, plain)]
    assert (
        errors[0] < 3 * errors[1] + 1e-3 and bias[2] == pytest.approx(-2500, rel=0.01) and bias[:2].abs().max() < 0.01
    )
    with pytest.raises(ValueError, match=r"share: got 1.5, need a number between 0 and 1"):
        clip_tails(samples, 1, share=1.5)


def test_labels_that_are_all_zero_are_learned_without_a_warning():
    x = wave().x
    samples = SimpleNamespace(x=x, value=torch.zeros(256).double(), gradient=torch.zeros(256, 2).double(), hvp=None)
    net = fresh_net()
    assert fit(net, samples, order=1, steps=200).far == ""
    assert net(x).abs().max() < 1e-4


def test_a_prior_below_zero_is_refused_before_any_work():
    net = fresh_net()
    before = weights_of(net)
    with pytest.raises(ValueError, match="prior: got -1, need a number > 0"):
        fit(net, wave(), order=1, steps=3, finish=0, prior=-1)
    assert torch.equal(weights_of(net), before)
