"""Replacing a layer by an affine map: the bound holds, is of second order, and needs the larger box."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sobolev_lib.enclosure.adjoints import enclose
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.pruning.linearise import linearise

F64 = torch.float64


def random_net(widths=(2, 5, 4, 6, 1), activation="silu", seed=0, dtype=F64):
    generator = torch.Generator().manual_seed(seed)
    net = Surrogate(list(widths), activation, gain=1.2, generator=generator, dtype=dtype)
    with torch.no_grad():
        for bias in net.biases:
            bias.normal_(std=0.5, generator=generator)
    x = 2 * torch.randn(100, widths[0], dtype=F64, generator=generator) + 1
    return net.set_scaling(x.to(dtype), 3 * x[:, 0].to(dtype))


def box_around(net, radius):
    centre = net.input_shift + 0.3 * net.input_scale
    return Interval(centre - radius, centre + radius)


def inside(box, count, seed=0):
    t = torch.rand(count, len(box), dtype=F64, generator=torch.Generator().manual_seed(seed))
    t[: count // 2] = t[: count // 2].round()
    return torch.lerp(box.lo, box.hi, t)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["silu", "tanh", "relu", "sin", "gelu"]),
    st.sampled_from([0.01, 0.3, 3.0]),
    st.sampled_from(["natural", "zonotope"]),
    st.integers(0, 2),
)
@torch.no_grad()
def test_the_value_changes_by_no_more_than_the_bound(seed, activation, radius, domain, layer):
    net = random_net(activation=activation, seed=seed)
    box = box_around(net, radius)
    result = linearise(net, layer, box, domain=domain)
    x = inside(box, 400, seed)
    change = (result.net(x) - net(x)).abs().max().item()
    rounding = 1e-12 * net(x).abs().max().item()  # of the merged weights
    assert change <= result.bound.item() + rounding


@pytest.mark.parametrize("activation", ["silu", "tanh", "relu", "softplus", "sigmoid", "sin"])
@torch.no_grad()
def test_the_deviation_covers_the_activation_over_the_nodes_intervals(activation):
    net = random_net(activation=activation)
    box = box_around(net, 0.8)
    nodes = enclose(net, box, domain="natural").preactivations[1]
    result = linearise(net, 1, box, domain="natural")
    z = torch.lerp(nodes.lo, nodes.hi, torch.linspace(0, 1, 4001, dtype=F64)[:, None])
    error = (net.activation(z) - (result.slope * z + result.offset)).abs().amax(0)
    assert (error <= result.deviation).all()
    assert (result.deviation <= 1.5 * error + 1e-3).all()  # and is not far above


def test_the_deviation_of_a_parabola_in_closed_form():
    """Near 0, SiLU is z / 2 + z^2 / 4, whose best line over [-r, r] is off by r^2 / 8."""
    net = Surrogate([1, 1, 1])
    with torch.no_grad():
        net.weights[0].fill_(1.0)
        net.weights[1].fill_(3.0)
    for radius in (0.01, 0.1):
        result = linearise(net, 0, Interval([-radius], [radius]))
        assert result.slope.item() == pytest.approx(0.5, rel=1e-2)
        assert 1 <= result.deviation.item() / (radius**2 / 8) < 1.25
        assert result.bound.item() == pytest.approx(3 * result.deviation.item(), rel=1e-9)


@torch.no_grad()
def test_the_bound_is_of_second_order_in_the_box():
    net = random_net()
    bounds = torch.stack([linearise(net, 1, box_around(net, radius)).bound[0] for radius in (0.04, 0.02, 0.01)])
    ratios = bounds[:-1] / bounds[1:]
    assert (ratios > 3.5).all() and (ratios < 4.5).all()


@torch.no_grad()
def test_adjoints_of_the_unchanged_network_would_not_do():
    """g(a) = relu(-a) is flat where a = relu(z) lives, but not where the line through relu(z) leads."""
    net = Surrogate([1, 1, 1, 1], "relu")
    for weight, value in zip(net.weights, (1.0, -1.0, 1.0), strict=True):
        weight.fill_(value)
    box = Interval([-1.0], [1.0])
    net.biases[1].fill_(-1e-3)  # beside the kink
    adjoint = enclose(net, box, domain="natural").activation_adjoints[0]
    assert max(-adjoint.lo.item(), adjoint.hi.item()) < 1e-13
    for domain in ("natural", "zonotope"):
        result = linearise(net, 0, box, domain=domain)
        x = torch.linspace(-1, 1, 101, dtype=F64)[:, None]
        change = (result.net(x) - net(x)).abs().max().item()
        assert 0.1 < change <= result.bound.item()


@torch.no_grad()
def test_the_merged_network_is_the_one_with_affine_activations():
    net = random_net()
    box = box_around(net, 0.5)
    for layer in range(3):
        result = linearise(net, layer, box)
        assert result.net.widths == [w for i, w in enumerate(net.widths) if i != layer + 1]
        x = inside(box, 20)
        a = (x - net.input_shift) / net.input_scale
        for index, (weight, bias) in enumerate(zip(net.weights[:-1], net.biases[:-1], strict=True)):
            z = a @ weight.T + bias
            a = result.slope * z + result.offset if index == layer else net.activation(z)
        value = net.output_shift + net.output_scale * (a @ net.weights[-1].T + net.biases[-1])[:, 0]
        torch.testing.assert_close(result.net(x), value, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_one_line_serves_several_boxes_and_each_has_its_own_bound():
    net = random_net()
    here, there = box_around(net, 0.02), box_around(net, 0.3)
    both = Interval(torch.stack([here.lo, there.lo]), torch.stack([here.hi, there.hi]))
    result = linearise(net, 1, both)
    assert result.bound.shape == (2,) and result.bound[0] < result.bound[1]
    for box, bound in zip((here, there), result.bound, strict=True):
        x = inside(box, 1000)
        assert (result.net(x) - net(x)).abs().max() <= bound


def test_a_linear_layer_goes_without_a_change():
    net = random_net((2, 4, 3, 1), "relu")
    with torch.no_grad():
        net.biases[0].fill_(100.0)
    box = box_around(net, 0.5)
    result = linearise(net, 0, box)
    assert result.bound.item() < 1e-9
    x = inside(box, 50)
    torch.testing.assert_close(result.net(x), net(x), rtol=0, atol=1e-9)


def test_a_network_of_one_layer_becomes_affine_and_dtypes_stay():
    net = random_net((2, 4, 1), dtype=torch.float32)
    result = linearise(net, 0, Interval(torch.zeros(2, dtype=F64), torch.ones(2, dtype=F64)))
    assert result.net.widths == [2, 1] and result.net.dtype == torch.float32
    assert result.bound.dtype == F64
    gradients = result.net.gradient(torch.randn(5, 2))
    torch.testing.assert_close(gradients, gradients[:1].expand(5, -1))


def test_the_original_is_left_as_it_was():
    net = random_net()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    small = linearise(net, 1, box_around(net, 0.1)).net
    with torch.no_grad():
        small.weights[0].add_(1)
        small.input_shift.add_(1)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_wrong_arguments_are_refused():
    net = random_net()
    box = box_around(net, 0.1)
    with pytest.raises(ValueError, match="layer: got 3, need an integer from 0 to 2"):
        linearise(net, 3, box)
    with pytest.raises(TypeError, match="net: got str, need Surrogate"):
        linearise("net", 0, box)
    with pytest.raises(TypeError, match="box: got Tensor, need Interval"):
        linearise(net, 0, torch.zeros(2))
    with pytest.raises(ValueError, match="rounding: got 'up'"):
        linearise(net, 0, box, rounding="up")
    with pytest.raises(ValueError, match="layer: got 0, need an integer from 0 to -1"):
        linearise(Surrogate([2, 1]), 0, box)
