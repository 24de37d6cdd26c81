r"""`Surrogate`: a multilayer perceptron that carries its own scaling, with its derivatives in raw units.

With raw inputs :math:`x`, scaled inputs :math:`u = (x - m) / s` (componentwise) and the MLP :math:`y(u)` of the module
``twin``, the surrogate is

.. math::  N(x) = m_y + s_y\, y(u), \qquad
    \nabla N(x) = s_y\, \nabla y(u) / s, \qquad
    \nabla^2 N(x)\, v = s_y\, \bigl(\nabla^2 y(u)\, (v / s)\bigr) / s .

So a saved network is complete: nobody has to remember how its data were normalised. Chapter 4.
"""

import itertools
import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sobolev_lib import _check
from sobolev_lib.network.activations import Activation, activation_named
from sobolev_lib.network.twin import Pass, value_gradient_hvp

FORMAT = "sobolev_lib.Surrogate/1"


class Surrogate(nn.Module):
    r"""A scalar-valued MLP with its scaling inside; value, gradient and Hessian-vector products in raw units.

    Args:
        widths: Number of inputs, of nodes in each hidden layer, and 1 for the output: ``[7, 3, 3, 1]``.
        activation: One of ``silu, softplus, tanh, sigmoid, gelu, sin, relu``, or an ``Activation``.
        dtype: ``torch.float64`` (default) or ``torch.float32``.
        generator: Source of the initial weights; default: a generator seeded with 0, so that nothing is left to chance.
        gain: Size of the initial weights, see below.

    Initial weights are normal with standard deviation :math:`\mathrm{gain} / \sqrt{n_{in}}`, biases zero. With the
    default gain the signal fades from layer to layer, so that the network begins as nearly an affine function and adds
    curvature where the data ask for it: what it learns is of low rank, and therefore easy to prune (Chapter 7). A gain
    of 1 or more, which keeps the signal's power, makes every node of a layer say something different from the start.

    Shapes:
        ``net(x)``: (n, d) to (n,). ``net.gradient(x)``: (n, d). ``net.hvp(x, v)``: (n, k, d). ``net.hessian(x)``: (n,
        d, d).

    Raises:
        ValueError: Fewer than two widths, a width below 1, a last width other than 1, an unknown activation or dtype.

    Chapter 4, "Value, gradient and curvature in one pass".

    Example:
        >>> net = Surrogate([7, 3, 3, 1])
        >>> net.parameter_count, net(torch.zeros(5, 7, dtype=torch.float64)).shape
        (40, torch.Size([5]))
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: str | Activation = "silu",
        *,
        dtype: torch.dtype = torch.float64,
        generator: torch.Generator | None = None,
        gain: float = 0.3,
    ):
        widths = [_check.count(f"widths[{i}]", width) for i, width in enumerate(widths)]
        if len(widths) < 2 or widths[-1] != 1:
            raise ValueError(f"widths: got {widths}, need at least an input width and an output width of 1")
        activation = activation_named(activation)
        _check.choice("dtype", dtype, (torch.float32, torch.float64))
        gain = _check.positive("gain", gain)
        super().__init__()
        self.activation = activation
        generator = generator or torch.Generator().manual_seed(0)
        weights = []
        for fan_in, fan_out in itertools.pairwise(widths):
            normal = torch.randn(fan_out, fan_in, dtype=torch.float64, generator=generator)
            weights.append((normal * gain / math.sqrt(fan_in)).to(dtype))
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList([torch.zeros(width, dtype=dtype) for width in widths[1:]])
        self.register_buffer("input_shift", torch.zeros(widths[0], dtype=dtype))
        self.register_buffer("input_scale", torch.ones(widths[0], dtype=dtype))
        self.register_buffer("output_shift", torch.zeros((), dtype=dtype))
        self.register_buffer("output_scale", torch.ones((), dtype=dtype))

    @property
    def widths(self) -> list[int]:
        """Widths of all layers, from the inputs to the output."""
        return [self.weights[0].shape[1], *(weight.shape[0] for weight in self.weights)]

    @property
    def parameter_count(self) -> int:
        """Number of weights and biases (the scaling is data, not counted)."""
        return sum(p.numel() for p in self.parameters())

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the weights."""
        return self.weights[0].dtype

    @property
    def is_scaled(self) -> bool:
        """Whether the scaling differs from the identity it starts with."""
        return not (
            torch.equal(self.input_shift, torch.zeros_like(self.input_shift))
            and torch.equal(self.input_scale, torch.ones_like(self.input_scale))
            and self.output_shift == 0
            and self.output_scale == 1
        )

    def extra_repr(self) -> str:
        """Widths, activation and number of parameters, for ``print``."""
        return f"{'-'.join(map(str, self.widths))}, {self.activation.name}, {self.parameter_count} parameters"

    def set_scaling(self, x: Tensor, value: Tensor) -> "Surrogate":
        """Take the scaling from data, means and standard deviations of inputs and value, and return the network.

        Raises:
            ValueError: Fewer than two samples, wrong shapes.
        """
        x = _check.tensor("x", x, shape=("n", self.widths[0]), dtype=self.dtype)
        value = _check.tensor("value", value, shape=(len(x),), dtype=self.dtype)
        if len(x) < 2:
            raise ValueError(f"x: got {len(x)} samples, need at least 2 to take a scaling from")
        for buffer, given in ((self.input_shift, x.mean(0)), (self.output_shift, value.mean())):
            buffer.copy_(given)
        for buffer, given in ((self.input_scale, x.std(0)), (self.output_scale, value.std())):
            buffer.copy_(torch.where(given > 0, given, torch.ones_like(given)))  # a constant column keeps its unit
        return self

    def scale_inputs(self, x: Tensor) -> Tensor:
        """Return :math:`u = (x - m) / s`."""
        return (x - self.input_shift) / self.input_scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the values :math:`N(x)`, (n, d) to (n,)."""
        x = self._checked(x)
        if torch.is_grad_enabled() and x.requires_grad:
            return self.output_shift + self.output_scale * self._plain(self.scale_inputs(x))
        return self.taylor(x, order=0)[0]

    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradients (n, d)."""
        return self.value_and_gradient(x)[1]

    def value_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (n,) and gradients (n, d) from one forward-and-adjoint pass."""
        return self.taylor(self._checked(x), order=1)

    def hvp(self, x: Tensor, directions: Tensor) -> Tensor:
        """Return Hessian-vector products (n, k, d) in `directions`, (k, d) for all samples alike or (n, k, d)."""
        x = self._checked(x)
        return self.taylor(x, order=2, directions=self._checked_directions(directions, len(x)))[2]

    def hessian(self, x: Tensor) -> Tensor:
        """Return the Hessians (n, d, d); the work grows with d, so prefer `hvp` in high dimension."""
        return self.hvp(x, torch.eye(self.widths[0], dtype=self.dtype))

    def taylor(self, x: Tensor, *, order: int, directions: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return (value,), (value, gradient) or (value, gradient, hvp), for the methods above and for the loss.

        Differentiable with respect to the parameters. Arguments are those of `hvp` and are not checked again here.
        """
        u, v = self._scaled(x, order, directions)
        out = value_gradient_hvp(self.activation, list(self.weights), list(self.biases), u, order=order, directions=v)
        return self._raw(out)

    def sweep(self, x: Tensor, *, order: int, directions: Tensor | None = None) -> tuple[tuple[Tensor, ...], Pass, int]:
        """Return what `taylor` returns, the pass behind it (for per-sample Jacobians), and the number of directions."""
        u, v = self._scaled(x, order, directions)
        sweep = Pass(self.activation, list(self.weights), list(self.biases), u, order=order, directions=v)
        return self._raw(sweep.outputs), sweep, 0 if v is None else len(v)

    def add_gradients(self, sweep: Pass, k: int, cotangents: Tensor, totals: Sequence[Tensor]) -> None:
        r"""Add to `totals` the gradient by each parameter of :math:`\sum_i c_i^T o_i`, for the outputs of a `sweep`.

        Args:
            sweep: The pass that `sweep` returned.
            k: The number of directions that it returned.
            cotangents: The c of the outputs (value, gradient, HVPs) side by side, (n, q).
            totals: One tensor per parameter, weight matrix and bias vector, layer by layer; changed in place.
        """
        d = self.widths[0]
        gradient_scale = self.output_scale / self.input_scale
        parts = [cotangents[:, 0] * self.output_scale]
        if sweep.order >= 1:
            parts.append(cotangents[:, 1 : 1 + d] * gradient_scale)
        if sweep.order == 2:
            parts.append((cotangents[:, 1 + d :].unflatten(1, (k, d)) * gradient_scale).transpose(0, 1).contiguous())
        sweep.add_gradients(totals, *parts)

    def _scaled(self, x: Tensor, order: int, directions: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if order == 2 and not self.activation.smooth:
            raise ValueError(f"activation: got '{self.activation.name}' at order 2, need one with a second derivative")
        v = None if directions is None else _directions_first(directions / self.input_scale, len(x))
        return self.scale_inputs(x), v

    def _raw(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        gradient_scale = self.output_scale / self.input_scale
        raw = (self.output_shift + self.output_scale * outputs[0], *(t * gradient_scale for t in outputs[1:]))
        return raw if len(raw) < 3 else (*raw[:2], raw[2].transpose(0, 1))

    def copy(self) -> "Surrogate":
        """Return an independent copy."""
        return Surrogate.from_layers(
            self.weights, self.biases, self.activation, scaling={name: b.clone() for name, b in self.named_buffers()}
        )

    @classmethod
    def from_layers(
        cls,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activation: str | Activation,
        *,
        scaling: dict[str, Tensor],
    ) -> "Surrogate":
        """Return a network with the given weights (out, in), biases (out,) and scaling buffers; tensors are copied.

        Raises:
            ValueError: Numbers of layers that differ, shapes that do not fit, numbers that are not finite.
        """
        if len(weights) != len(biases) or not len(weights):
            raise ValueError(
                f"weights, biases: got {len(weights)} and {len(biases)} layers, need the same number, at least 1"
            )
        widths = [weights[0].shape[1], *(weight.shape[0] for weight in weights)]
        net = cls(widths, activation, dtype=weights[0].dtype)
        with torch.no_grad():
            for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                shape = (widths[layer + 1], widths[layer])
                net.weights[layer].copy_(_check.tensor(f"weights[{layer}]", weight.detach(), shape=shape))
                net.biases[layer].copy_(_check.tensor(f"biases[{layer}]", bias.detach(), shape=shape[:1]))
            for name, buffer in net.named_buffers():
                buffer.copy_(_check.tensor(name, scaling[name], shape=tuple(buffer.shape)))
        return net

    def save(self, path: str | os.PathLike) -> Path:
        """Write weights, scaling and metadata to a safetensors file, whole or not at all; returns its path."""
        path = Path(path)
        metadata = {"format": FORMAT, "widths": json.dumps(self.widths), "activation": self.activation.name}
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        os.close(handle)
        try:
            save_file({name: t.contiguous() for name, t in self.state_dict().items()}, partial, metadata=metadata)
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Surrogate":
        """Read a network that `save` wrote; a file that is anything else is refused with a ``ValueError``."""
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(
                f"path: got {path}, which is not a safetensors file ({error}), need a saved Surrogate"
            ) from error
        if metadata.get("format") != FORMAT:
            raise ValueError(f"path: got {path} with format {metadata.get('format')!r}, need {FORMAT!r}")
        net = cls(json.loads(metadata["widths"]), metadata["activation"], dtype=tensors["input_shift"].dtype)
        net.load_state_dict(tensors)
        return net

    def _plain(self, u: Tensor) -> Tensor:
        """The MLP in elementary operations, for callers that differentiate with respect to the inputs themselves."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            u = self.activation(u @ weight.T + bias)
        return (u @ self.weights[-1].T + self.biases[-1]).squeeze(-1)

    def _checked(self, x: Tensor) -> Tensor:
        if isinstance(x, Tensor) and x.is_floating_point() and x.dtype != self.dtype:
            raise TypeError(f"x: got dtype {x.dtype}, need the network's {self.dtype}")
        return _check.tensor("x", x, shape=("n", self.widths[0]), finite=False)

    def _checked_directions(self, directions: Tensor, n: int) -> Tensor:
        d = self.widths[0]
        directions = _check.tensor("directions", directions, dtype=self.dtype)
        if (
            directions.ndim not in (2, 3)
            or directions.shape[-1] != d
            or (directions.ndim == 3 and len(directions) != n)
        ):
            raise ValueError(f"directions: got shape {tuple(directions.shape)}, need (k, {d}) or ({n}, k, {d})")
        return directions


def _directions_first(directions: Tensor, n: int) -> Tensor:
    """Turn (k, d) or (n, k, d) into (k, n, d)."""
    if directions.ndim == 2:
        return directions.unsqueeze(1).expand(-1, n, -1).contiguous()
    return directions.transpose(0, 1).contiguous()
