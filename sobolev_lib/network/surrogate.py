r"""`Surrogate`: a multilayer perceptron that carries its own scaling, with its derivatives in raw units.

With raw inputs :math:`x`, scaled inputs :math:`u = (x - m) / s` (componentwise) and the MLP :math:`y(u)` of the module
``twin``, the surrogate is

.. math::  N(x) = m_y + s_y\, y(u), \qquad
    \nabla N(x) = s_y\, \nabla y(u) / s, \qquad
    \nabla^2 N(x)\, v = s_y\, \bigl(\nabla^2 y(u)\, (v / s)\bigr) / s .

So a saved network is complete: nobody has to remember how its data were normalised. Chapter 4.
"""

import copy
import itertools
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from sobolev_lib import _check, _files
from sobolev_lib.network.activations import ACTIVATIONS, Activation, activation_named
from sobolev_lib.network.layers import checked_layers, layers_of
from sobolev_lib.network.scaling import look_outside, scaling_of, taylor

__all__ = ["Surrogate"]

FORMAT = "sobolev_lib.Surrogate/1"
DTYPES = (torch.float32, torch.float64)
DOMAIN = ("input_low", "input_high")  # buffers: the range of the training inputs


class Surrogate(nn.Module):
    r"""A scalar-valued MLP with its scaling inside; value, gradient and Hessian-vector products in raw units.

    Args:
        widths: Number of inputs, of nodes in each hidden layer, and 1 for the output: ``[7, 3, 3, 1]``.
        activation: One of ``silu, softplus, tanh, sigmoid, sin, relu``, or an ``Activation``.
        dtype: ``torch.float64`` (default) or ``torch.float32``.
        generator: Source of the initial weights; default: a generator seeded with 0, so that nothing is left to chance.
        gain: Size of the initial weights, see below.

    Initial weights are normal with standard deviation :math:`\mathrm{gain} / \sqrt{n_{in}}`, biases zero. With the
    default gain the signal fades from layer to layer, so that the network begins as nearly an affine function and adds
    curvature where the data ask for it: what it learns is of low rank, and therefore easy to prune (Chapter 7). A gain
    of 1 or more, which keeps the signal's power, makes every node of a layer say something different from the start.

    Shapes:
        ``net(x)``: (n, d) to (n,). ``net.gradient(x)``: (n, d). ``net.hvp(x, v)``: (n, k, d). ``net.hessian(x)``: (n,
        d, d). Inputs of any kind of number are converted to the network's type.

    All five methods know the range of the inputs that ``fit`` has trained on, which is kept and saved with the network
    (``input_low`` and ``input_high``, (d,); infinite before). Beyond it, by more than a quarter of its width, an answer
    is extrapolation: ``outside="warn"`` (default) says so, ``"raise"`` refuses it, ``"ignore"`` does not look.

    Everything is differentiable by weights and by inputs, to any order, also under the transforms of ``torch.func``.

    Raises:
        ValueError: Fewer than two widths, a width below 1, a last width other than 1, an unknown activation or dtype.

    Chapter 4, "Value, gradient and curvature in one pass".

    Example:
        >>> import torch
        >>> net = sl.Surrogate([7, 3, 3, 1])
        >>> net.parameter_count, net(torch.zeros(5, 7, dtype=torch.float64)).shape
        (40, torch.Size([5]))
    """

    @torch.inference_mode(False)
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
        _check.choice("dtype", dtype, DTYPES)
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
        numbers = [("input_shift", 0.0), ("input_scale", 1.0), ("input_low", -math.inf), ("input_high", math.inf)]
        for name, number in [*numbers, ("output_shift", 0.0), ("output_scale", 1.0)]:
            shape = (widths[0],) if name.startswith("input") else ()
            self.register_buffer(name, torch.full(shape, number, dtype=dtype))
        self._first = self._state()

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
    def is_new(self) -> bool:
        """Whether it is as ``Surrogate(...)`` made it: such a network takes its scaling from the samples of ``fit``."""
        return self._first == self._state()

    def _state(self) -> str:
        """A digest that changes with any weight or scale; that of a copy in another precision is the same."""
        return _files.digest(*(t.float() for name, t in self.state_dict().items() if name not in DOMAIN))

    def extra_repr(self) -> str:
        """Widths, activation and number of parameters, for ``print``."""
        return f"{'-'.join(map(str, self.widths))}, {self.activation.name}, {self.parameter_count} parameters"

    @torch.no_grad()
    def set_scaling(self, x: Tensor, value: Tensor) -> "Surrogate":
        """Take the scaling from data, means and standard deviations of inputs and value, and return the network.

        An input that is constant up to rounding keeps its unit; a value that is has its size as the scale.

        Raises:
            ValueError: Fewer than two samples, wrong shapes.
        """
        x = _check.tensor("x", x, shape=("n", self.widths[0]), dtype=self.dtype)
        value = _check.tensor("value", value, shape=(len(x),), dtype=self.dtype)
        if len(x) < 2:
            raise ValueError(f"x: got {len(x)} samples, need at least 2 to take a scaling from")
        for name, scale in scaling_of(x, value).items():
            getattr(self, name).copy_(scale)
        return self

    def scale_inputs(self, x: Tensor) -> Tensor:
        """Return :math:`u = (x - m) / s`."""
        return (x - self.input_shift) / self.input_scale

    def forward(self, x: Tensor, *, outside: str = "warn") -> Tensor:
        """Return the values :math:`N(x)`, (n, d) to (n,)."""
        return self.taylor(self._checked(x, outside), order=0)[0]

    def gradient(self, x: Tensor, *, outside: str = "warn") -> Tensor:
        """Return the gradients (n, d)."""
        return self.value_and_gradient(x, outside=outside)[1]

    def value_and_gradient(self, x: Tensor, *, outside: str = "warn") -> tuple[Tensor, Tensor]:
        """Return values (n,) and gradients (n, d) from one forward-and-adjoint pass."""
        return self.taylor(self._checked(x, outside), order=1)

    def hvp(self, x: Tensor, directions: Tensor, *, outside: str = "warn") -> Tensor:
        """Return Hessian-vector products (n, k, d) in `directions`, (k, d) for all samples alike or (n, k, d)."""
        x = self._checked(x, outside)
        return self.taylor(x, order=2, directions=_check.directions(directions, *x.shape, dtype=self.dtype))[2]

    def hessian(self, x: Tensor, *, outside: str = "warn") -> Tensor:
        """Return the Hessians (n, d, d); the work grows with d, so prefer `hvp` in high dimension."""
        x = self._checked(x, outside)
        return self.taylor(x, order=2, directions=torch.eye(x.shape[1], dtype=self.dtype))[2]

    def taylor(self, x: Tensor, *, order: int, directions: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return (value,), (value, gradient) or (value, gradient, hvp), for the methods above and for the loss.

        Arguments are those of `hvp` and are not checked again here.
        """
        return taylor(self, x, order=order, directions=directions)

    def copy(self) -> "Surrogate":
        """Return an independent copy."""
        return torch.inference_mode(False)(copy.deepcopy)(self, {id(self.activation): self.activation})

    @classmethod
    def from_layers(
        cls,
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        activation: str | Activation,
        *,
        scaling: dict[str, Tensor],
    ) -> "Surrogate":
        """Return a network with the given weights (out, in), biases (out,) and scaling; tensors are copied.

        Args:
            weights: One matrix per layer.
            biases: One vector per layer; zeros for a layer without.
            activation: That of the hidden layers.
            scaling: ``input_shift`` and ``input_scale`` (d,), ``output_shift`` and ``output_scale`` (), as
                ``dict(net.named_buffers())`` has them; with or without ``input_low`` and ``input_high``.

        Raises:
            ValueError: Numbers of layers that differ, shapes that do not fit, numbers that are not finite.
        """
        weights, biases, widths = checked_layers(weights, biases)
        net = cls(widths, activation, dtype=weights[0].dtype)
        missing = [name for name, _ in net.named_buffers() if name not in {*scaling, *DOMAIN}]
        if missing:
            raise ValueError(f"scaling: got {', '.join(scaling) or 'nothing'}, need {', '.join(missing)} too")
        with torch.no_grad():
            for parameter, given in zip([*net.weights, *net.biases], [*weights, *biases], strict=True):
                parameter.copy_(given)
            for name, buffer in net.named_buffers():
                given, finite = scaling.get(name, buffer), name not in DOMAIN
                buffer.copy_(_check.tensor(name, given, shape=tuple(buffer.shape), finite=finite, detach=True))
        net._first = ""
        return net

    @classmethod
    def from_torch(cls, layers: nn.Sequential) -> "Surrogate":
        """Return the network that computes what a ``torch.nn.Sequential`` of ``Linear`` and one activation does.

        Args:
            layers: ``Linear``, activation, ``Linear``, ..., ``Linear`` with one output. It takes raw inputs, so the
                scaling is the identity; ``fit`` leaves it so.

        Raises:
            TypeError: Not such a sequence: says which layer is not, and what is supported.
            ValueError: More than one output, or layers that do not fit.

        Example:
            >>> import torch
            >>> from torch import nn
            >>> layers = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
            >>> net, x = sl.Surrogate.from_torch(layers), torch.ones(3, 2)
            >>> net.widths, torch.equal(net(x), layers(x)[:, 0])
            ([2, 8, 1], True)
        """
        weights, biases, activation = layers_of(layers)
        scaling = dict(cls([weights[0].shape[1], 1]).named_buffers())
        return cls.from_layers(weights, biases, activation, scaling=scaling)

    def save(self, path: str | os.PathLike) -> Path:
        """Write weights, scaling and metadata to a safetensors file, whole or not at all; returns its path.

        Raises:
            ValueError: An own activation that is not in ``ACTIVATIONS``, where ``load`` looks it up; half precision.
        """
        _check.choice("dtype", self.dtype, DTYPES)
        if ACTIVATIONS.get(self.activation.name) != self.activation:
            raise ValueError(
                f"activation: got one of your own, {self.activation.name!r}, need one that ACTIVATIONS has under its "
                "name: enter it there, here and where the network is loaded"
            )
        metadata = {"format": FORMAT, "widths": json.dumps(self.widths), "activation": self.activation.name}
        return _files.write(path, self.state_dict(), metadata)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Surrogate":
        """Read a network that `save` wrote; a file that is anything else is refused with a ``ValueError``."""
        tensors, metadata = _files.read("path", path, FORMAT, "a saved Surrogate")
        layers = range(len(json.loads(metadata["widths"])) - 1)
        weights, biases = ([tensors[f"{kind}.{layer}"] for layer in layers] for kind in ("weights", "biases"))
        return cls.from_layers(weights, biases, metadata["activation"], scaling=tensors)

    def _checked(self, x: Tensor, outside: str) -> Tensor:
        x = _check.tensor("x", x, shape=("n", self.widths[0]), dtype=self.dtype, finite=False)
        look_outside(x, self.input_low, self.input_high, outside)
        return x
