"""The explicit pass and its gradient against torch.func, which knows neither."""

import weakref

import pytest
import torch
from torch.func import functional_call, grad, hessian, vmap

from sobolev_lib.network.activations import ACTIVATIONS
from sobolev_lib.network.surrogate import Surrogate
from tests.oracles import plain_network, plain_outputs

SMOOTH = [name for name, activation in ACTIVATIONS.items() if activation.smooth]


def network_and_points(name, widths=(4, 6, 5, 3, 1), n=7):
    generator = torch.Generator().manual_seed(len(name))
    net = Surrogate(list(widths), name, generator=generator)
    with torch.no_grad():
        for bias in net.biases:
            bias.normal_(generator=generator)
    x = torch.randn(n, widths[0], dtype=torch.float64, generator=generator)
    y = torch.randn(n, dtype=torch.float64, generator=generator)
    return net.set_scaling(3 * x + 1, 2 * y), 3 * x + 1, generator


@pytest.mark.parametrize("widths", [(4, 6, 5, 3, 1), (2, 3, 1), (3, 1)])
@pytest.mark.parametrize("name", SMOOTH)
def test_value_gradient_hvp_and_hessian_agree_with_torch_func(name, widths):
    net, x, generator = network_and_points(name, widths)
    directions = torch.randn(2, widths[0], dtype=torch.float64, generator=generator)
    parameters = dict(net.named_parameters())
    f = lambda point: plain_network(net, parameters, point)  # noqa: E731
    hessians = vmap(hessian(f))(x)
    torch.testing.assert_close(net(x), vmap(f)(x))
    torch.testing.assert_close(net.gradient(x), vmap(grad(f))(x))
    torch.testing.assert_close(net.hvp(x, directions), torch.einsum("nij,kj->nki", hessians, directions))
    torch.testing.assert_close(net.hessian(x), hessians)


@pytest.mark.parametrize("widths", [(4, 6, 5, 3, 1), (2, 3, 1), (3, 1)])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("name", SMOOTH)
def test_parameter_gradients_of_a_sobolev_loss_agree_with_torch_func(name, order, widths):
    net, x, generator = network_and_points(name, widths)
    d = widths[0]
    targets = [torch.randn(len(x), *shape, dtype=torch.float64, generator=generator) for shape in ((), (d,), (2, d))]
    directions = torch.randn(len(x), 2, d, dtype=torch.float64, generator=generator)

    def distance(outputs):
        return sum(((out - target) ** 2).sum() for out, target in zip(outputs, targets, strict=False))

    def oracle(parameters):
        return distance(plain_outputs(net, parameters, x, order, directions))

    expected = grad(oracle)(dict(net.named_parameters()))
    loss = distance(net.taylor(x, order=order, directions=directions if order == 2 else None))
    loss.backward()
    for key, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], msg=lambda text, key=key: f"{key}: {text}")


def test_differentiating_with_respect_to_the_inputs_works_as_well():
    net, x, _ = network_and_points("silu")
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(net(x).sum(), x)
    torch.testing.assert_close(gradient, net.gradient(x.detach()))


def test_functional_call_sees_other_parameters():
    net, x, _ = network_and_points("tanh")
    doubled = {key: 2 * parameter for key, parameter in net.named_parameters() if key.endswith("3")}
    expected = 2 * (net(x) - net.output_shift) + net.output_shift
    torch.testing.assert_close(functional_call(net, doubled, (x,)), expected)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_pass_is_freed_with_its_outputs(order):
    net, x, _ = network_and_points("silu")
    outputs = net.taylor(x, order=order, directions=torch.eye(4, dtype=torch.float64) if order == 2 else None)
    node = outputs[0].grad_fn
    while not hasattr(node, "sweep"):  # behind the scaling
        node = next(f for f, _ in node.next_functions if f is not None and "Accumulate" not in f.name())
    sweep = weakref.ref(node.sweep)
    outputs[0].sum().backward()
    del outputs, node
    assert sweep() is None
