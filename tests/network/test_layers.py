"""Networks from torch.nn: the same outputs, derivatives by automatic differentiation, refusals."""

import itertools

import pytest
import torch
from torch import nn
from torch.func import hessian, vmap

from sobolev_lib.network.surrogate import Surrogate


def sequence(*activations, dtype=torch.float64, bias=True, seed=0):
    torch.manual_seed(seed)
    widths = [3, *[8] * len(activations), 1]
    layers = [nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[m for pair in zip(layers, activations, strict=False) for m in pair], layers[-1]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [nn.Tanh, nn.Sigmoid, nn.ReLU, nn.SiLU, nn.Softplus])
def test_a_sequence_keeps_its_outputs(kind, bias, dtype):
    layers = sequence(kind(), kind(), dtype=dtype, bias=bias)
    net, x = Surrogate.from_torch(layers), torch.randn(100, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    assert net.dtype == dtype and net.widths == [3, 8, 8, 1] and not net.is_new
    if kind in (nn.Tanh, nn.Sigmoid, nn.ReLU):
        assert torch.equal(net(x), layers(x)[:, 0])
    else:  # torch computes these in another way, which differs in the last digits
        torch.testing.assert_close(net(x), layers(x)[:, 0], rtol=0, atol=8 * torch.finfo(dtype).eps)
    if kind is not nn.ReLU and dtype == torch.float64:
        torch.testing.assert_close(net.hessian(x), vmap(hessian(lambda point: layers(point)[0]))(x))


def test_one_linear_layer_is_a_network():
    layers = sequence()
    assert Surrogate.from_torch(layers).widths == [3, 1]


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (nn.Linear(3, 1), TypeError, "layers: got Linear, need Sequential"),
        (
            sequence(nn.Tanh(), nn.SiLU()),
            TypeError,
            r"layers\[3\]: got SiLU\(\), need Linear and one of SiLU, Softplus",
        ),
        (sequence(nn.Dropout()), TypeError, r"layers\[1\]: got Dropout"),
        (sequence(nn.Softplus(beta=2)), TypeError, r"layers\[1\]: got Softplus.* with torch's default arguments"),
        (sequence(nn.GELU()), TypeError, r"layers\[1\]: got GELU.*, need Linear and one of SiLU, Softplus"),
        (sequence(nn.Tanh())[:2], TypeError, "layers: got 2 layers, need Linear and one of"),
        (nn.Sequential(), TypeError, "layers: got 0 layers"),
        (nn.Sequential(nn.Linear(3, 2)), ValueError, r"layers\[0\]: got 2 outputs, need 1"),
    ],
)
def test_other_modules_are_refused_by_what_is_not_supported(layers, error, message):
    with pytest.raises(error, match=message):
        Surrogate.from_torch(layers)
