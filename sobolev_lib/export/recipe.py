r"""The recipe that both exports follow: a network's value, gradient and curvature as a list of formulas over vectors.

A step is a name, a size and a formula in the common subset of Python, C and JavaScript, or a product ``W1 @ a + B1``.
Activations are written so that they cancel nowhere: :math:`1 - \sigma(z)` is :math:`\sigma(-z)`. Source makes a loop
of each step, ONNX a node of each operation. Chapter 14.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.network.activations import ACTIVATIONS
from sobolev_lib.network.surrogate import DTYPES, Surrogate

MOST_INPUTS = 32  # whose whole Hessian is written
OUTPUTS = ("value", "gradient", "curvature")
FORMULAS: dict[str, dict[str, str]] = {  # from z to f0, f1, f2: the activation and its derivatives
    "silu": {
        **{"s": "sigmoid(z)", "c": "sigmoid(-z)", "p": "s * c"},
        **{"f0": "z * s", "f1": "s + z * p", "f2": "p * (2.0 + z * (c - s))"},
    },
    "softplus": {"f0": "relu(z) + log1p(exp(-fabs(z)))", "f1": "sigmoid(z)", "f2": "f1 * sigmoid(-z)"},
    "tanh": {"f0": "tanh(z)", "f1": "4.0 * sigmoid(2.0 * z) * sigmoid(-2.0 * z)", "f2": "-2.0 * f0 * f1"},
    "sigmoid": {"c": "sigmoid(-z)", "f0": "sigmoid(z)", "f1": "f0 * c", "f2": "f1 * (c - f0)"},
    "sin": {"f0": "sin(z)", "f1": "cos(z)", "f2": "-f0"},
    "relu": {"f0": "relu(z)", "f1": "step(z)"},
}
Step = tuple[str, int, str]


@dataclass(frozen=True)
class Recipe:
    """What is written: constants by name, steps, those of each direction, and where it all comes from."""

    outputs: tuple[str, ...]
    constants: dict[str, Tensor]
    steps: list[Step]
    per_direction: list[Step]
    facts: dict[str, str]


def recipe(net: Surrogate, order: int, directions, more: Mapping[str, object] | None) -> Recipe:
    """Check what both exports take, and return the recipe.

    Args:
        net: The network.
        order: 0, 1 or 2.
        directions: (k, d), or None for the axes, that is the whole Hessian.
        more: Facts that the caller adds; none of them replaces another.

    Raises:
        TypeError: Not a `Surrogate`.
        ValueError: A network that cannot be exported, directions of the wrong shape.
    """
    _check.choice("net.dtype", _check.instance("net", net, Surrogate).dtype, DTYPES)
    order, dim, known = _check.count("order", order, least=0, most=2), net.widths[0], FORMULAS.get(net.activation.name)
    if ACTIVATIONS.get(net.activation.name) != net.activation or known is None:
        raise ValueError(f"net: got activation '{net.activation.name}', need one of {', '.join(FORMULAS)}")
    if f"f{order}" not in known:
        raise ValueError(f"order: got 2, need at most 1: '{net.activation.name}' has no second derivative")
    if directions is None and order == 2 and dim > MOST_INPUTS:
        raise ValueError(f"directions: got None for {dim} inputs, need some (k, {dim}) above {MOST_INPUTS} inputs")
    given = torch.eye(dim) if directions is None else directions
    constants = {"DIRECTIONS": _check.tensor("directions", given, shape=("k", dim), dtype=torch.float64, least=1)}
    for layer, pair in enumerate(zip(net.weights, net.biases, strict=True), start=1):
        constants |= {f"W{layer}": pair[0], f"B{layer}": pair[1]}
    constants |= {"SHIFT": net.input_shift, "SCALE": net.input_scale, "FACTOR": net.output_scale / net.input_scale}
    constants |= {"OUT_SHIFT": net.output_shift.view(1), "OUT_SCALE": net.output_scale.view(1)}
    constants |= {"TOP": net.weights[-1][0]}
    steps, per_direction = _steps(net.widths, known)
    alive = _alive(steps + per_direction, set(OUTPUTS[: order + 1]))
    steps, per_direction = ([step for step in part if step[0] in alive] for part in (steps, per_direction))
    kept = {name: tensor for name, tensor in constants.items() if name in alive}
    constants = {name: _check.tensor(f"net: {name}", t, detach=True).double() for name, t in kept.items()}
    about = f"{'-'.join(map(str, net.widths))}, {net.activation.name}, {net.parameter_count} parameters"
    facts = {"writer": f"sobolev_lib {version('sobolev-lib')}", "activation": net.activation.name, "network": about}
    domain = {"low": net.input_low, "high": net.input_high}
    if (domain["high"] - domain["low"]).isfinite().all():
        facts |= {name: str(end.tolist()) for name, end in domain.items()}
        constants |= {name.upper(): end.double() for name, end in domain.items()}
    if per_direction:
        facts["directions"] = str(constants["DIRECTIONS"].tolist())
    facts |= {str(key): str(value) for key, value in dict(more or {}).items() if key not in facts}
    return Recipe(OUTPUTS[: order + 1], constants, steps, per_direction, facts)


def _steps(widths: list[int], known: dict[str, str]) -> tuple[list[Step], list[Step]]:
    """The twin pass (Chapter 4): forward and adjoint, and the tangents of both along a direction."""
    top = len(widths) - 1
    hidden = range(1, top)
    steps = [("f0_0", widths[0], "(x - SHIFT) / SCALE")]
    for k in hidden:
        steps += [(f"z_{k}", widths[k], f"W{k} @ f0_{k - 1} + B{k}")]
        steps += [(f"{f}_{k}", widths[k], re.sub(r"\b(z|s|c|p|f\d)\b", rf"\1_{k}", t)) for f, t in known.items()]
    steps += [("y", 1, f"W{top} @ f0_{top - 1} + B{top}"), ("value", 1, "OUT_SHIFT + OUT_SCALE * y")]
    steps += [(f"bar_{top - 1}", widths[-2], f"TOP + 0.0 * f0_{top - 1}")]  # the shape, where all else is constant
    for k in reversed(hidden):
        steps += [(f"pull_{k}", widths[k], f"f1_{k} * bar_{k}"), (f"bar_{k - 1}", widths[k - 1], f"pull_{k} @ W{k}")]
    steps += [("gradient", widths[0], "bar_0 * FACTOR")]
    tangents = [("dot_0", widths[0], "DIRECTIONS / SCALE")]
    for k in hidden:
        tangents += [(f"turn_{k}", widths[k], f"W{k} @ dot_{k - 1}"), (f"dot_{k}", widths[k], f"f1_{k} * turn_{k}")]
    tangents += [(f"over_{top - 1}", widths[-2], f"0.0 * dot_{top - 1} * f0_{top - 1}")]
    for k in reversed(hidden):
        bend = f"f2_{k} * bar_{k} * turn_{k}" + (f" + f1_{k} * over_{k}" if k < top - 1 else "")
        tangents += [(f"lift_{k}", widths[k], bend), (f"over_{k - 1}", widths[k - 1], f"lift_{k} @ W{k}")]
    return steps, [*tangents, ("curvature", widths[0], "over_0 * FACTOR")]


def _alive(steps: list[Step], alive: set[str]) -> set[str]:
    """The names that those in `alive` rest on, and themselves."""
    for name, _, text in reversed(steps):
        alive |= set(re.findall(r"[A-Za-z]\w*", text)) if name in alive else set()
    return alive
