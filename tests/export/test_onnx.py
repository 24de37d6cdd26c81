"""ONNX: the graph against the library in onnxruntime, files of others, and what is refused."""

import itertools
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import sobolev_lib as sl

SMOOTH = ["silu", "softplus", "tanh", "sigmoid", "sin"]


def network(widths=(4, 6, 5, 1), activation="silu", seed=0, **options):
    """A network with biases and a scaling, as training leaves it."""
    generator = torch.Generator().manual_seed(seed)
    net = sl.Surrogate(list(widths), activation, generator=generator, gain=1.5, **options)
    x = torch.randn(50, widths[0], generator=generator, dtype=torch.float64) * 3 + 1
    net.set_scaling(x.to(net.dtype), (x.sum(1) * 7 - 2).to(net.dtype))
    with torch.no_grad():
        for bias in net.biases:
            bias.copy_(torch.randn(len(bias), generator=generator))
    return net


def inputs(net, count=1000, seed=1):
    normal = torch.randn(count, net.widths[0], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (normal * 4 + 1).to(net.dtype)


def run(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [torch.from_numpy(out) for out in session.run(None, {"x": x.numpy()})]


@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("widths", [(4, 6, 5, 1), (1, 1, 1), (3, 1)])
def test_value_gradient_and_hessian_are_those_of_the_library(tmp_path, activation, widths):
    net = network(widths, activation)
    x = inputs(net)
    outputs = run(sl.export_onnx(net, tmp_path / "a.onnx"), x)
    for ours, theirs in zip((*net.value_and_gradient(x), net.hessian(x)), outputs, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() <= 1e-12 * max(ours.abs().max(), 1e-3)


def test_curvature_along_directions_and_any_number_of_rows(tmp_path):
    net = network()
    directions = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, -1.0, 0.0]])
    path = sl.export_onnx(net, tmp_path / "a.onnx", directions=directions)
    for count in (0, 1, 17):
        x = inputs(net, count)
        torch.testing.assert_close(run(path, x)[2], net.hvp(x, directions.double()), rtol=0, atol=1e-12)


def test_each_order_has_its_outputs_and_relu_has_two(tmp_path):
    net = network(activation="relu")
    x = inputs(net)
    value, gradient = run(sl.export_onnx(net, tmp_path / "a.onnx", order=1), x)
    torch.testing.assert_close(value, net(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient, net.gradient(x), rtol=0, atol=1e-12)
    (value,) = run(sl.export_onnx(net, tmp_path / "a.onnx", order=0), x)
    torch.testing.assert_close(value, net(x), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="order: got 2, need at most 1"):
        sl.export_onnx(net, tmp_path / "b.onnx")


@pytest.mark.parametrize("activation", SMOOTH)
def test_single_precision_is_right_to_its_rounding(tmp_path, activation):
    double = network(activation=activation)
    single = sl.Surrogate.from_layers(
        [w.float() for w in double.weights],
        [b.float() for b in double.biases],
        activation,
        scaling={name: b.float() for name, b in double.named_buffers()},
    )
    x = inputs(single)
    outputs = run(sl.export_onnx(single, tmp_path / "a.onnx"), x)
    ours = (*single.value_and_gradient(x), single.hessian(x))
    exact = [double.double()(x.double()), double.gradient(x.double()), double.hessian(x.double())]
    for single_result, result, truth in zip(ours, outputs, exact, strict=True):
        assert result.dtype == torch.float32
        noise = (single_result - truth).abs().max()  # what rounding does to the library, weights included
        assert (result - truth).abs().max() <= 2 * noise + 1e-6 * truth.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [*SMOOTH, "relu"])
def test_a_network_comes_back_bit_by_bit(tmp_path, activation, dtype):
    net = network(activation=activation, dtype=dtype)
    net.input_low.fill_(0.1)
    net.input_high.fill_(0.7)
    back = sl.load_onnx(sl.export_onnx(net, tmp_path / "a.onnx", order=1))
    assert back.activation is net.activation
    assert next(iter(back.weights)).dtype == dtype
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in net.state_dict().items())


def test_the_metadata_say_what_it_is(tmp_path):
    net = network()
    net.input_low.fill_(0.0)
    net.input_high.fill_(2.0)
    path = sl.export_onnx(net, tmp_path / "a.onnx", directions=[[1, 0, 0, 0]], facts={"certified error": 1e-3})
    model = onnx.load(path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["writer"] == f"sobolev_lib {sl.__version__}"
    assert facts["network"] == "4-6-5-1, silu, 71 parameters"
    assert (facts["low"], facts["high"]) == ("[0.0, 0.0, 0.0, 0.0]", "[2.0, 2.0, 2.0, 2.0]")
    assert facts["directions"] == "[[1.0, 0.0, 0.0, 0.0]]"
    assert facts["certified error"] == "0.001"
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]


def foreign(path, pieces, layers, dtype=np.float32, gemm=True):
    """A file as others write it: layers of (weight, bias) with the nodes that `pieces` makes between them."""
    nodes, constants, tensor = [], [], "input"
    for k, (weight, bias) in enumerate(layers):
        constants += [numpy_helper.from_array(weight.astype(dtype), f"w{k}")]
        constants += [numpy_helper.from_array(bias.astype(dtype), f"b{k}")]
        if gemm:
            nodes.append(helper.make_node("Gemm", [tensor, f"w{k}", f"b{k}"], [f"z{k}"], transB=1))
        else:
            constants[-2] = numpy_helper.from_array(weight.T.astype(dtype).copy(), f"w{k}")
            nodes.append(helper.make_node("MatMul", [tensor, f"w{k}"], [f"m{k}"]))
            nodes.append(helper.make_node("Add", [f"b{k}", f"m{k}"] if k % 2 else [f"m{k}", f"b{k}"], [f"z{k}"]))
        tensor = f"z{k}"
        if k < len(layers) - 1:
            nodes += pieces(tensor, f"a{k}")
            tensor = f"a{k}"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    info = [helper.make_tensor_value_info(name, kind, ["n", None]) for name in ("input", tensor)]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def silu(z, a):
    return [helper.make_node("Sigmoid", [z], [f"s{z}"]), helper.make_node("Mul", [z, f"s{z}"], [a])]


def one(kind):
    return lambda z, a: [helper.make_node(kind, [z], [a])]


def layers(widths, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.normal(size=(n, m)) / m**0.5, rng.normal(size=n)) for m, n in itertools.pairwise(widths)]


@pytest.mark.parametrize("gemm", [True, False])
def test_a_file_of_the_shape_of_the_published_networks_loads(tmp_path, gemm):
    widths = [7, *[128] * 6, 1]
    path = foreign(tmp_path / "a.onnx", silu, layers(widths), gemm=gemm)
    net = sl.load_onnx(path)
    assert (net.widths, net.activation.name, net.parameter_count) == (widths, "silu", 83_713)
    x = inputs(net, 100)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    torch.testing.assert_close(net(x), torch.from_numpy(session.run(None, {"input": x.numpy()})[0][:, 0]))


@pytest.mark.parametrize("kind", ["Softplus", "Tanh", "Relu", "Sigmoid"])
def test_other_activations_load(tmp_path, kind):
    net = sl.load_onnx(foreign(tmp_path / "a.onnx", one(kind), layers([3, 4, 4, 1]), gemm=kind != "Relu"))
    assert net.activation.name == kind.lower()


def test_what_is_no_perceptron_is_refused(tmp_path):
    path = tmp_path / "a.onnx"
    with pytest.raises(ValueError, match=r"operation Erf\(z0\), need a chain of layers"):
        sl.load_onnx(foreign(path, one("Erf"), layers([3, 4, 1])))
    kinds = iter(["Tanh", "Relu"])
    with pytest.raises(ValueError, match="activations relu, tanh, need the same"):
        sl.load_onnx(foreign(path, lambda z, a: one(next(kinds))(z, a), layers([3, 4, 4, 1])))
    with pytest.raises(ValueError, match=re.escape("steps ['W', 'B', 'W', 'B']")):
        sl.load_onnx(foreign(path, one("Identity"), layers([3, 4, 1])))
    with pytest.raises(ValueError, match="output width of 1"):
        sl.load_onnx(foreign(path, one("Tanh"), layers([3, 4, 2])))
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    nodes = [helper.make_node("Add", ["x", "x"], ["y"])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", info[:1], info[1:])), path)
    with pytest.raises(ValueError, match=r"operation Add\(x, x\)"):
        sl.load_onnx(path)
    path.write_bytes(b"no network at all")
    with pytest.raises(ValueError, match="cannot be read"):
        sl.load_onnx(path)
    with pytest.raises(FileNotFoundError):
        sl.load_onnx(tmp_path / "none.onnx")


def test_what_cannot_be_exported_leaves_no_file(tmp_path):
    net, path = network(), tmp_path / "a.onnx"
    with pytest.raises(TypeError, match="net: got Linear, need Surrogate"):
        sl.export_onnx(torch.nn.Linear(2, 1), path)
    own = sl.Activation("own", lambda z, order: [z, z, z][: order + 1], critical=((), (), (), ()))
    with pytest.raises(ValueError, match="activation 'own', need one of silu"):
        sl.export_onnx(network(activation=own), path)
    with pytest.raises(ValueError, match=r"directions: got shape \(1, 3\), need \(k, 4\)"):
        sl.export_onnx(net, path, directions=[[1, 2, 3]])
    with pytest.raises(ValueError, match="directions: got None for 40 inputs"):
        sl.export_onnx(network((40, 2, 1)), path)
    with pytest.raises(ValueError, match="order: got 3"):
        sl.export_onnx(net, path, order=3)
    with torch.no_grad():
        net.biases[1][0] = torch.nan
    with pytest.raises(ValueError, match="net: B2: got 1 non-finite"):
        sl.export_onnx(net, path)
    with pytest.raises(FileNotFoundError):
        sl.export_onnx(network(), tmp_path / "none" / "a.onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        sl.export_onnx(network(), tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_half_precision_is_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match=r"net\.dtype: got torch\.float16"):
        sl.export_onnx(sl.Surrogate([1, 2, 1]).half(), tmp_path / "half.onnx")
