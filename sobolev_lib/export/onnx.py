r"""ONNX: value, gradient and curvature of a network as one graph, and networks read back from such files.

The graph is the twin pass (Chapter 4), operation by operation: forward, adjoint, and for each direction the tangent of
both. So a runtime that cannot differentiate gives derivatives too. Raw units; the batch axis is free. Chapter 14.
"""

import ast
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from sobolev_lib import _files
from sobolev_lib.export.recipe import Recipe, recipe
from sobolev_lib.network.surrogate import Surrogate

__all__ = ["export_onnx", "load_onnx"]

OPSET, IR = 17, 8  # of 2022: what every runtime of today reads
OPERATORS = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Div: "Div", ast.USub: "Neg", ast.MatMult: "MatMul"}
FUNCTIONS = {
    **{"sigmoid": ["Sigmoid"], "tanh": ["Tanh"], "sin": ["Sin"], "cos": ["Cos"], "exp": ["Exp"], "log": ["Log"]},
    **{"fabs": ["Abs"], "relu": ["Relu"], "step": ["Relu", "Sign"]},
}
NATIVE = {kind: kind.lower() for kind in ("Sigmoid", "Tanh", "Sin", "Relu", "Softplus")}


class _Graph:
    """Nodes and constants in the making."""

    def __init__(self, onnx, plan: Recipe, dtype: torch.dtype):
        self.onnx, self.dtype, self.nodes, self.constants = onnx, dtype, [], []
        self.names = {"x": "x"}
        for name, tensor in plan.constants.items():
            if name not in ("LOW", "HIGH"):  # they are in the metadata
                self.names[name] = self.constant(tensor.unsqueeze(1) if name == "DIRECTIONS" else tensor, name)
        for name, _, text in plan.steps + plan.per_direction:  # without log1p: as near in absolute terms
            self.names[name] = self.visit(ast.parse(text.replace("log1p(", "log(1.0 + "), mode="eval").body)
        self.add("Squeeze", self.names["value"], self.constant(torch.tensor([1]), "axes"), name="value")
        if "gradient" in plan.outputs:
            self.add("Identity", self.names["gradient"], name="gradient")
        if "curvature" in plan.outputs:
            self.add("Transpose", self.names["curvature"], name="curvature", perm=[1, 0, 2])

    def constant(self, tensor: Tensor, name: str) -> str:
        array = tensor.to(self.dtype if tensor.is_floating_point() else tensor.dtype).contiguous().numpy()
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, kind: str, *inputs: str, name: str = "", **attributes) -> str:
        name = name or f"t{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def visit(self, tree: ast.expr) -> str:
        """Add the nodes of a formula and return the name of its result."""
        if isinstance(tree, ast.Name):
            return self.names[tree.id]
        if isinstance(tree, ast.Constant):
            return self.constant(torch.tensor(tree.value), f"c{len(self.constants)}")
        if isinstance(tree, ast.Call):
            result = self.visit(tree.args[0])
            for kind in FUNCTIONS[tree.func.id]:
                result = self.add(kind, result)
            return result
        parts = [tree.operand] if isinstance(tree, ast.UnaryOp) else [tree.left, tree.right]
        names = [self.visit(part) for part in parts]
        if isinstance(tree.op, ast.MatMult) and re.fullmatch(r"W\d+", names[0]):  # rows are samples: W a is a W^T
            names = [names[1], self.add("Transpose", names[0])]
        return self.add(OPERATORS[type(tree.op)], *names)


def export_onnx(
    net: Surrogate,
    path: str | os.PathLike,
    *,
    order: int = 2,
    directions=None,
    facts: Mapping[str, object] | None = None,
) -> Path:
    r"""Write value, gradient and curvature of a network as one ONNX graph (opset 17), and return the path.

    The graph has the input ``x`` (n, d) and, up to its order, the outputs ``value`` (n,), ``gradient`` (n, d) and
    ``curvature`` (n, k, d), the Hessian-vector products, in raw units and the network's type; n is free. Its metadata
    say what it is: writer, network, directions, the range of the training inputs, and the facts that are given.

    Args:
        net: The network, with any activation of the library.
        path: Where the file goes; written whole or not at all.
        order: 0 for the value, 1 for the gradient too, 2 for curvature too.
        directions: Of the Hessian-vector products, (k, d). Default: the axes, that is the whole Hessian; up to 32
            inputs.
        facts: More for the metadata, such as ``{"certified error": 1e-3}``; names and values become text.

    Raises:
        TypeError: `net` is not a `Surrogate`.
        ValueError: A network that cannot be exported, or directions of the wrong shape.
        OSError: A path that cannot be written.
        ImportError: The package onnx is missing: extra ``export``.

    Chapter 14, "Export".

    Example:
        >>> import tempfile
        >>> net = sl.Surrogate([2, 3, 1])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = sl.export_onnx(net, f"{folder}/price.onnx", facts={"certified error": 1e-3})
        ...     file.name, sl.load_onnx(file).widths
        ('price.onnx', [2, 3, 1])
    """
    plan = recipe(net, order, directions, facts)
    onnx = _onnx("export_onnx")
    graph = _Graph(onnx, plan, net.dtype)
    kind = onnx.TensorProto.DOUBLE if net.dtype == torch.float64 else onnx.TensorProto.FLOAT
    info = lambda name, *shape: onnx.helper.make_tensor_value_info(name, kind, ["n", *shape])  # noqa: E731
    dim = net.widths[0]
    outputs = [info("value"), info("gradient", dim), info("curvature", None, dim)][: len(plan.outputs)]
    made = onnx.helper.make_graph(graph.nodes, "surrogate", [info("x", dim)], outputs, graph.constants)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.helper.set_model_props(model, plan.facts)
    onnx.checker.check_model(model, full_check=True)
    return _files.place(path, model.SerializeToString())


def load_onnx(path: str | os.PathLike) -> Surrogate:
    """Read a multilayer perceptron with one output from an ONNX file; weights and scaling are its, bit by bit.

    A file that `export_onnx` wrote comes back as it was. Of others, the graph must be layers (``Gemm``, or ``MatMul``
    and ``Add``) with one of the library's activations between them, native or, as SiLU is, ``Mul(z, Sigmoid(z))``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file that is not ONNX, or whose graph is anything else; says which node.
        ImportError: The package onnx is missing: extra ``export``.

    Chapter 14, "Export".

    Example:
        >>> sl.load_onnx("/no/such.onnx")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: '/no/such.onnx'
    """
    onnx = _onnx("load_onnx")
    content = Path(path).read_bytes()
    try:
        model = onnx.load_model_from_string(content)
        constants = [*model.graph.initializer, *(n.attribute[0].t for n in model.graph.node if n.op_type == "Constant")]
        names = [c.name for c in model.graph.initializer]
        names += [n.output[0] for n in model.graph.node if n.op_type == "Constant"]
        arrays = map(onnx.numpy_helper.to_array, constants)
        tensors = {name: torch.from_numpy(array.copy()) for name, array in zip(names, arrays, strict=True)}
    except Exception as error:  # each build of protobuf has errors of its own
        raise ValueError(f"path: got {path}, which cannot be read ({error}), need an ONNX file") from error
    facts = {entry.key: entry.value for entry in model.metadata_props}
    if facts.get("writer", "").startswith("sobolev_lib "):
        depth = sum(bool(re.fullmatch(r"W\d+", name)) for name in tensors)
        weights, biases = ([tensors[f"{letter}{k}"] for k in range(1, depth + 1)] for letter in "WB")
        activation = facts["activation"]
    else:
        weights, biases, activation = _layers(model.graph, tensors, f"path: got {path}")
    tensors |= {
        name: torch.tensor(json.loads(facts[name]), dtype=torch.float64) for name in ("low", "high") if name in facts
    }
    scaling = dict(Surrogate([weights[0].shape[1], 1], dtype=weights[0].dtype).named_buffers())
    kept = {"input_shift": "SHIFT", "input_scale": "SCALE", "input_low": "low", "input_high": "high"}
    kept |= {"output_shift": "OUT_SHIFT", "output_scale": "OUT_SCALE"}
    scaling |= {name: tensors[key].view_as(scaling[name]) for name, key in kept.items() if key in tensors}
    return Surrogate.from_layers(weights, biases, activation, scaling=scaling)


def _layers(graph, tensors: Mapping[str, Tensor], got: str) -> tuple[list[Tensor], list[Tensor], str]:
    """Weights, biases and activation of a graph that is a chain of layers; `got` begins the message if it is not."""
    steps: list[tuple[str, Tensor | None]] = []
    before, tensor = "", next((value.name for value in graph.input if value.name not in tensors), "")
    for node in graph.node:
        given = {a.name: a.i or a.f for a in node.attribute}
        plain = given.get("alpha", 1) == given.get("beta", 1) == 1 and not given.get("transA")
        values = [tensors[name] for name in node.input if name in tensors]
        chained = node.input and (tensor in node.input if node.op_type == "Add" else tensor == node.input[0])
        if node.op_type == "Constant":
            continue
        if node.op_type == "Mul" and set(node.input) == {before, tensor} and steps[-1:] == [("sigmoid", None)]:
            steps[-1] = ("silu", None)
        elif chained and node.op_type == "Gemm" and plain and len(values) == 2:
            steps += [("W", values[0] if given.get("transB") else values[0].T), ("B", values[1].flatten())]
        elif chained and node.op_type in ("MatMul", "Add") and len(values) == 1:
            steps += [("W", values[0].T) if node.op_type == "MatMul" else ("B", values[0].flatten())]
        elif chained and node.op_type in NATIVE:
            steps += [(NATIVE[node.op_type], None)]
        elif not (chained and node.op_type in ("Identity", "Squeeze", "Flatten")):
            raise ValueError(f"{got} with an operation {node.op_type}({', '.join(node.input)}), need a chain of layers")
        before, tensor = tensor, node.output[0]
    activations = sorted({kind for kind, value in steps if value is None}) or ["silu"]
    if not re.fullmatch(r"(WBA)*WB", "".join(kind if value is not None else "A" for kind, value in steps)):
        raise ValueError(f"{got} with the steps {[kind for kind, _ in steps]}, need W, B, activation, ..., W, B")
    if len(activations) > 1:
        raise ValueError(f"{got} with activations {', '.join(activations)}, need the same in all layers")
    return [v for kind, v in steps if kind == "W"], [v for kind, v in steps if kind == "B"], activations[0]


def _onnx(caller: str):
    """The package onnx, which the library does without until it is asked for."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(f"{caller}: needs the package onnx: pip install 'sobolev-lib[export]'") from error
    return onnx
