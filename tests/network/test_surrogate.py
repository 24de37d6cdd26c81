"""The surrogate's scaling, files and refusals."""

import math
import os
import stat
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sobolev_lib.network.activations import ACTIVATIONS, Activation
from sobolev_lib.network.surrogate import Surrogate

F64 = torch.float64


def test_scaling_is_inside_so_that_derivatives_come_in_raw_units():
    """An affine network in scaled units is an affine function in raw units whose slope we know."""
    x = torch.randn(100, 2, dtype=F64, generator=torch.Generator().manual_seed(1)) * torch.tensor([3.0, 0.1]) + 5
    y = 7 * x[:, 0] - 2
    net = Surrogate([2, 1])
    with torch.no_grad():
        net.weights[0].copy_(torch.tensor([[1.0, 0.0]]))
    net.set_scaling(x, y)
    torch.testing.assert_close(net(x), y)
    torch.testing.assert_close(net.gradient(x), torch.tensor([7.0, 0.0], dtype=F64).expand(100, 2))


def test_a_constant_input_keeps_its_unit():
    x = torch.stack([torch.linspace(0, 1, 9, dtype=F64), torch.full((9,), 4.0, dtype=F64)], 1)
    net = Surrogate([2, 3, 1]).set_scaling(x, torch.ones(9))
    assert net.input_scale[1] == 1 and net.output_scale == 1
    assert torch.isfinite(net(x)).all()


def test_initial_weights_have_the_spread_that_was_asked_for():
    net = Surrogate([400, 300, 1], gain=2.0)
    # The variance estimated from m normals has a relative standard error of sqrt(2 / m); 5 of them.
    m = 400 * 300
    assert abs(net.weights[0].square().mean().item() * 400 / 4 - 1) < 5 * math.sqrt(2 / m)
    assert all((bias == 0).all() for bias in net.biases)


def test_initial_weights_follow_the_generator():
    nets = [Surrogate([3, 4, 1], generator=torch.Generator().manual_seed(s)) for s in (5, 5, 6)]
    assert torch.equal(nets[0].weights[0], nets[1].weights[0])
    assert not torch.equal(nets[0].weights[0], nets[2].weights[0])


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_save_and_load_return_the_same_network(tmp_path, dtype):
    net = Surrogate([3, 4, 1], "sin", dtype=dtype, generator=torch.Generator().manual_seed(3))
    x = torch.randn(6, 3, dtype=dtype, generator=torch.Generator().manual_seed(4))
    net.set_scaling(x, x[:, 0])
    loaded = Surrogate.load(net.save(tmp_path / "net.safetensors"))
    assert loaded.widths == net.widths and loaded.activation is net.activation and loaded.dtype == dtype
    assert torch.equal(loaded(x), net(x)) and torch.equal(loaded.gradient(x), net.gradient(x))
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_copy_is_independent():
    net = Surrogate([2, 3, 1])
    copy = net.copy()
    with torch.no_grad():
        copy.weights[0].add_(1)
    assert not torch.equal(copy.weights[0], net.weights[0])


def test_files_that_are_not_ours_are_refused(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a network, only some words to read")
    with pytest.raises(ValueError, match=r"path: got .*notes.txt, which cannot be read"):
        Surrogate.load(text)
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, other)
    with pytest.raises(ValueError, match=r"path: got .* with format None, need 'sobolev_lib.Surrogate/1'"):
        Surrogate.load(other)
    with pytest.raises(FileNotFoundError):
        Surrogate.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (dict(widths=[7]), ValueError, r"widths: got \[7\], need at least"),
        (dict(widths=[7, 3, 2]), ValueError, r"widths: got \[7, 3, 2\], need .* output width of 1"),
        (dict(widths=[7, 0, 1]), ValueError, r"widths\[1\]: got 0, need an integer >= 1"),
        (dict(widths=[7, 2.5, 1]), TypeError, r"widths\[1\]: got float 2.5, need an integer"),
        (dict(widths=[7, 1], activation="swish"), ValueError, "activation: got 'swish', need one of"),
        (dict(widths=[7, 1], gain=0.0), ValueError, "gain: got 0.0, need a finite number > 0"),
        (dict(widths=[7, 1], dtype=torch.float16), ValueError, "dtype: got torch.float16, need one of"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Surrogate(**arguments)


def test_inputs_of_the_wrong_kind_are_refused():
    net = Surrogate([3, 4, 1])
    x = torch.zeros(5, 3, dtype=F64)
    with pytest.raises(ValueError, match=r"x: got shape \(5, 2\), need \(n, 3\)"):
        net(x[:, :2])
    with pytest.raises(ValueError, match=r"directions: got shape \(4, 2\), need \(k, 3\) or \(5, k, 3\)"):
        net.hvp(x, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"x: got 1 samples, need at least 2"):
        net.set_scaling(x[:1], torch.zeros(1))
    with pytest.raises(ValueError, match=r"value: got shape \(4,\), need \(5,\)"):
        net.set_scaling(x, torch.zeros(4))


def test_relu_is_refused_at_order_2():
    net = Surrogate([3, 4, 1], "relu")
    x = torch.zeros(5, 3, dtype=F64)
    assert net.gradient(x).shape == (5, 3)
    with pytest.raises(ValueError, match="activation: got 'relu' at order 2, need one with a second derivative"):
        net.hvp(x, torch.eye(3))


@pytest.mark.parametrize("convert", [np.asarray, torch.Tensor.float, torch.Tensor.long, torch.Tensor.tolist])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_inputs_of_any_kind_of_number_are_converted(convert, dtype):
    net, x = Surrogate([2, 3, 1], dtype=dtype), torch.tensor([[1.0, 2.0], [-3.0, 0.0]], dtype=F64)
    assert torch.equal(net(convert(x)), net(x.to(dtype))) and torch.equal(net.hessian(convert(x)), net.hessian(x))


def test_only_a_network_as_it_was_made_is_new():
    net = Surrogate([2, 3, 1])
    assert net.is_new and net.copy().is_new and net.copy().float().is_new
    other = Surrogate.from_layers(net.weights, net.biases, "silu", scaling=dict(net.named_buffers()))
    assert not other.is_new and not net.copy().set_scaling(torch.eye(2), torch.ones(2)).is_new
    net.weights[0].data[0, 0] += 1e-3
    assert not net.is_new and not net.copy().is_new


def test_a_range_of_inputs_is_kept_copied_and_saved(tmp_path):
    net = Surrogate([2, 3, 1])
    net.input_low.copy_(torch.tensor([0.0, -1.0]))
    net.input_high.copy_(torch.tensor([4.0, 1.0]))
    inside, outside = torch.tensor([[-0.9, 1.4], [4.9, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1e6]])
    for found in (net, net.copy(), Surrogate.load(net.save(tmp_path / "net"))):
        found(inside)
        with pytest.raises(ValueError, match=r"x\[:, 1\] reaches from 0 to 1e\+06, trained on -1 to 1"):
            found(outside, outside="raise")
        for ask in (found, found.gradient, found.value_and_gradient, found.hessian):
            with pytest.warns(UserWarning, match="outside of those that the network was trained on"):
                ask(outside)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found(outside, outside="ignore")
            torch.func.vmap(lambda point: net(point[None])[0])(outside.double())
    with pytest.raises(ValueError, match="outside: got 'no', need one of 'warn', 'raise', 'ignore'"):
        net(inside, outside="no")


def test_constant_and_tiny_data_have_scales():
    x = torch.randn(50, 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    tenth = torch.full((50,), 0.1, dtype=F64)  # whose standard deviation is 1e-17
    net = Surrogate([2, 1]).set_scaling(torch.stack([x[:, 0], tenth], 1), tenth)
    assert net.input_scale[1] == 1 and net.output_scale == 0.1
    for unit in (1e-200, 1e-3, 1e150):
        tiny = Surrogate([1, 1]).set_scaling(unit * x, unit * x[:, 0])
        torch.testing.assert_close(tiny.output_scale / unit, x[:, 0].std(), rtol=1e-12, atol=0)
        torch.testing.assert_close(tiny.input_scale / unit, x.std(0), rtol=1e-12, atol=0)


def test_a_scaling_carries_no_graph():
    x = torch.randn(9, 2, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    net = Surrogate([2, 3, 1]).set_scaling(x, x[:, 0])
    assert not any(buffer.requires_grad for buffer in net.buffers()) and net.copy().widths == [2, 3, 1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(biases=[None]), TypeError, r"biases\[0\]: got NoneType"),
        (dict(scaling={"input_shift": torch.zeros(2)}), ValueError, "scaling: got input_shift, need input_scale, out"),
        (dict(weights=[torch.zeros(1, 2).half()]), ValueError, "dtype: got torch.float16, need one of"),
        (dict(weights=[torch.full((1, 2), math.nan)]), ValueError, r"weights\[0\]: got 2 non-finite of 2"),
    ],
)
def test_layers_that_make_no_network_are_refused(change, error, message):
    scaling = dict(Surrogate([2, 1]).named_buffers())
    arguments = dict(weights=[torch.ones(1, 2)], biases=[torch.zeros(1)], activation="silu", scaling=scaling) | change
    with pytest.raises(error, match=message):
        Surrogate.from_layers(**arguments)


def test_a_file_has_the_mode_of_the_umask_keeps_its_own_and_follows_a_link(tmp_path):
    net, path, link = Surrogate([2, 1]), tmp_path / "net", tmp_path / "link"
    before = os.umask(0o022)
    try:
        net.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o640)
    link.symlink_to(path)
    assert net.save(link) == link and link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "net"]


def test_an_own_activation_is_saved_once_it_has_a_name(tmp_path, monkeypatch):
    cube = Activation("cube", lambda z, order: [z**3, 3 * z**2, 6 * z, 6 + 0 * z][: order + 1], critical=((),) * 4)
    for own in (cube, Activation("tanh", cube.jet, critical=((),) * 4)):
        with pytest.raises(
            ValueError, match=r"activation: got one of your own, '(cube|tanh)', need one that ACTIVATIONS"
        ):
            Surrogate([2, 3, 1], own).save(tmp_path / "net")
    monkeypatch.setitem(ACTIVATIONS, "cube", cube)
    net, x = Surrogate([2, 3, 1], cube), torch.ones(1, 2, dtype=F64)
    assert torch.equal(Surrogate.load(net.save(tmp_path / "net")).gradient(x), net.gradient(x))
    with pytest.raises(ValueError, match=r"dtype: got torch.float16, need one of"):
        net.half().save(tmp_path / "net")
