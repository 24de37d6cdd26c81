r"""Raw units and the network's own: scalings from data, the domain, passes through a scaled network.

Inputs are scaled to :math:`u = (x - m) / s`, the value back to :math:`m_y + s_y y`; each derivative by an input carries
a factor :math:`1 / s_j`, each output :math:`s_y`. Chapter 4.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sobolev_lib import _check
from sobolev_lib.network.twin import Pass, value_gradient_hvp

MARGIN = 0.25  # of the range of the training inputs, on either side, in which a network may be asked without a word


def scaling_of(x: Tensor, value: Tensor) -> dict[str, Tensor]:
    """Return means and spreads of inputs and value; a constant input keeps its unit, a constant value its size."""
    inputs, output = spread(x), spread(value)
    size = value.abs().max()
    return {
        "input_shift": x.mean(0),
        "input_scale": torch.where(inputs > 0, inputs, torch.ones_like(inputs)),
        "output_shift": value.mean(),
        "output_scale": output if output > 0 else torch.where(size > 0, size, torch.ones_like(size)),
    }


def unit_of(data: Tensor) -> Tensor:
    """Return a power of two as large as each column: dividing by it does not round, and what is left has squares."""
    largest = data.abs().amax(0)
    return torch.where(largest > 0, largest / torch.frexp(largest).mantissa, torch.ones_like(largest))


def spread(data: Tensor) -> Tensor:
    """Return the standard deviations of columns, of numbers of any size; 0 for those that are constant to rounding."""
    unit, rounding = unit_of(data), 64 * torch.finfo(data.dtype).eps * data.abs().amax(0)
    deviation = (data / unit).std(0) * unit
    return torch.where(deviation > rounding, deviation, torch.zeros_like(deviation))


def look_outside(x: Tensor, low: Tensor, high: Tensor, outside: str) -> None:
    """Warn of inputs far outside of a range, or raise; not under a transform or an exporter, where none are seen."""
    _check.choice("outside", outside, ("warn", "raise", "ignore"))
    if outside == "ignore" or torch.compiler.is_compiling() or torch.jit.is_tracing() or _transformed():
        return
    margin = MARGIN * (high - low)
    far = ((x < low - margin) | (x > high + margin)).any(0)
    if not far.any():
        return
    column = int(far.nonzero()[0])
    message = (
        f"x: got inputs outside of those that the network was trained on: x[:, {column}] reaches from "
        f"{x[:, column].min():.3g} to {x[:, column].max():.3g}, trained on {low[column]:.3g} to {high[column]:.3g}; "
        'need inputs inside, or outside="ignore"'
    )
    if outside == "raise":
        raise ValueError(message)
    warnings.warn(message, stacklevel=4)


def _transformed() -> bool:
    """Whether a transform of torch.func runs, under which a number cannot be looked at."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def taylor(net: nn.Module, x: Tensor, *, order: int, directions: Tensor | None = None) -> tuple[Tensor, ...]:
    """Return (value,), (value, gradient) or (value, gradient, hvp), see ``Surrogate.taylor``."""
    u, v = _scaled(net, x, order, directions)
    weights, biases = list(net.weights), list(net.biases)
    return _raw(net, value_gradient_hvp(net.activation, weights, biases, u, order=order, directions=v))


def sweep(net: nn.Module, x: Tensor, *, order: int, directions: Tensor | None = None):
    """Return what `taylor` returns, the pass behind it (for per-sample Jacobians), and the number of directions."""
    u, v = _scaled(net, x, order, directions)
    found = Pass(net.activation, list(net.weights), list(net.biases), u, order=order, directions=v)
    return _raw(net, found.outputs), found, 0 if v is None else len(v)


def add_gradients(net: nn.Module, found: Pass, k: int, cotangents: Tensor, totals: Sequence[Tensor]) -> None:
    r"""Add to `totals` the gradient by each parameter of :math:`\sum_i c_i^T o_i`, for the outputs of a `sweep`.

    Args:
        net: The network.
        found: The pass that `sweep` returned.
        k: The number of directions that it returned.
        cotangents: The c of the outputs (value, gradient, HVPs) side by side, (n, q).
        totals: One tensor per parameter, weight matrix and bias vector, layer by layer; changed in place.
    """
    d = len(net.input_scale)
    gradient_scale = net.output_scale / net.input_scale
    parts = [cotangents[:, 0] * net.output_scale]
    if found.order >= 1:
        parts.append(cotangents[:, 1 : 1 + d] * gradient_scale)
    if found.order == 2:
        parts.append((cotangents[:, 1 + d :].unflatten(1, (k, d)) * gradient_scale).transpose(0, 1).contiguous())
    found.add_gradients(totals, *parts)


def _scaled(net: nn.Module, x: Tensor, order: int, directions: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if order == 2 and not net.activation.smooth:
        raise ValueError(f"activation: got '{net.activation.name}' at order 2, need one with a second derivative")
    _check.tensor("x", x, shape=("n", len(net.input_scale)), finite=False)
    v = None if directions is None else _directions_first(directions / net.input_scale, len(x))
    return (x - net.input_shift) / net.input_scale, v


def _raw(net: nn.Module, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    gradient_scale = net.output_scale / net.input_scale
    raw = (net.output_shift + net.output_scale * outputs[0], *(t * gradient_scale for t in outputs[1:]))
    return raw if len(raw) < 3 else (*raw[:2], raw[2].transpose(0, 1))


def _directions_first(directions: Tensor, n: int) -> Tensor:
    """Turn (k, d) or (n, k, d) into (k, n, d)."""
    if directions.ndim == 2:
        return directions.unsqueeze(1).expand(-1, n, -1).contiguous()
    return directions.transpose(0, 1).contiguous()
