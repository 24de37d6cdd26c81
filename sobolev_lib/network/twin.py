r"""The twin network: value, gradient and HVPs of an MLP in one explicit pass, and the gradient of those.

For inputs :math:`a_0 = u`, pre-activations :math:`z_l = W_l a_{l-1} + b_l`, activations :math:`a_l = f(z_l)` for
:math:`l < L` and the value :math:`y = z_L`, the pass computes (a bar is an adjoint, :math:`\bar s = \partial y /
\partial s`; a dot is a tangent in the direction :math:`v = \dot a_0`)

.. math::

    \bar z_L = 1, \quad \bar a_{l-1} = W_l^T \bar z_l, \quad \bar z_l = f'(z_l)\, \bar a_l, \quad \nabla y = \bar a_0,

    \dot z_l = W_l \dot a_{l-1}, \quad \dot a_l = f'(z_l)\, \dot z_l, \qquad
    \dot{\bar z}_l = f'(z_l)\, \dot{\bar a}_l + f''(z_l)\, \dot z_l\, \bar a_l, \quad
    \nabla^2 y\, v = \dot{\bar a}_0 .

Training needs the derivative with respect to the weights of a loss on :math:`y, \nabla y, \nabla^2 y\, v`. With the
loss's cotangents :math:`\hat y, \hat g, \hat h` held fixed this is the gradient of the scalar

.. math::

    s = \hat y\, y + \hat g^T \nabla y + \hat h^T \nabla^2 y\, v = \hat y\, y + D_{\hat g}\, y + D_{\hat h} D_v\, y ,

a sum of *forward* derivatives. So one more tangent pass (two at order 2) and one more adjoint pass give all weight
gradients: 6 matrix products per layer at order 1 and 12 at order 2 with one direction, against 3 at order 0. Automatic
differentiation applied twice gives the same, but stores and traces every operation in between.

Source: Griewank & Walther, Evaluating Derivatives (2008), chapters 3 and 5; the name is that of Huge & Savine,
Differential Machine Learning (2020). Derived in Chapters 4 and 8.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sobolev_lib.network.activations import Activation

Parameters = Sequence[Tensor]


def forward(activation: Activation, weights: Parameters, biases: Parameters, u: Tensor, order: int):
    """Return the value (n,), the activations ``a_0 .. a_{L-1}``, and the jets ``[f, f', ..]`` of the hidden layers."""
    activations, jets = [u], []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        jets.append(activation.jet(torch.addmm(bias, activations[-1], weight.T), order))
        activations.append(jets[-1][0])
    return torch.addmm(biases[-1], activations[-1], weights[-1].T).squeeze(-1), activations, jets


def adjoint(weights: Parameters, jets: Sequence[Sequence[Tensor]], n: int):
    r"""Return the gradient (n, d) and the lists of :math:`\bar a_l` and :math:`\bar z_l` of the hidden layers."""
    a_bars, z_bars = [], []
    a_bar = weights[-1].repeat(n, 1)
    for weight, jet in zip(reversed(weights[:-1]), reversed(jets), strict=True):
        a_bars.append(a_bar)
        z_bars.append(a_bar * jet[1])
        a_bar = z_bars[-1] @ weight
    return a_bar, a_bars[::-1], z_bars[::-1]


def tangent(
    weights: Parameters, jets: Sequence[Sequence[Tensor]], direction: Tensor, curvature: Sequence[Tensor] | None = None
):
    r"""Return the lists of :math:`\dot a_0 .. \dot a_{L-1}` and of :math:`\dot z_l` of the hidden layers.

    `direction` is (..., n, d). With `curvature` (one tensor per hidden layer), it is added to each :math:`\dot a_l`:
    this makes the same pass compute mixed second derivatives.
    """
    a_dots, z_dots = [direction], []
    for layer, (weight, jet) in enumerate(zip(weights[:-1], jets, strict=True)):
        z_dot = a_dots[-1] @ weight.T
        a_dot = z_dot * jet[1] if curvature is None else torch.addcmul(curvature[layer], z_dot, jet[1])
        z_dots.append(z_dot)
        a_dots.append(a_dot)
    return a_dots, z_dots


def adjoint_tangent(
    weights: Parameters, jets: Sequence[Sequence[Tensor]], bends: Sequence[Tensor], z_dots: Sequence[Tensor]
):
    r"""Return the HVPs (..., n, d) and the lists of :math:`\dot{\bar a}_l`, :math:`\dot{\bar z}_l`.

    `bends` are the products :math:`f''(z_l)\, \bar a_l`.
    """
    a_bar_dots, z_bar_dots = [], []
    a_bar_dot = None  # the last layer is linear: its adjoint is constant
    for layer in reversed(range(len(jets))):
        z_bar_dot = bends[layer] * z_dots[layer]
        if a_bar_dot is not None:
            z_bar_dot.addcmul_(jets[layer][1], a_bar_dot)
        a_bar_dots.append(a_bar_dot)
        z_bar_dots.append(z_bar_dot)
        a_bar_dot = z_bar_dot @ weights[layer]
    return a_bar_dot, a_bar_dots[::-1], z_bar_dots[::-1]


def _sum(products: Tensor) -> Tensor:
    """Sum over directions, the third dimension from the end; that of one direction is itself."""
    return products.squeeze(-3) if products.shape[-3] == 1 else products.sum(-3)


class Pass:
    """One pass through an MLP: its outputs up to an order, and the factors of their derivatives by the parameters."""

    def __init__(
        self,
        activation: Activation,
        weights: Parameters,
        biases: Parameters,
        u: Tensor,
        *,
        order: int,
        directions: Tensor | None,
        reverse: bool = True,
    ):
        self.weights, self.order = weights, order
        # The reverse of the pass differentiates once more.
        value, self.activations, self.jets = forward(activation, weights, biases, u, order + reverse)
        self.outputs = (value,)
        if order == 0:
            return
        gradient, self.a_bars, self.z_bars = adjoint(weights, self.jets, u.shape[0])
        self.outputs += (gradient,)
        if order == 1:
            return
        self.a_dots, self.z_dots = tangent(weights, self.jets, directions)
        self.bends = [jet[2] * a_bar for jet, a_bar in zip(self.jets, self.a_bars, strict=True)]
        hvp, self.a_bar_dots, self.z_bar_dots = adjoint_tangent(weights, self.jets, self.bends, self.z_dots)
        self.outputs += (torch.zeros_like(directions) if hvp is None else hvp,)

    def factors(self, *cotangents: Tensor):
        r"""Return, per layer, left and right factors whose products sum to the gradient of :math:`s` (see the module).

        The gradient of ``weights[l]`` is the sum over pairs and samples of ``left right^T``, that of ``biases[l]``
        the sum of the first left factor. Cotangents are (..., n), (..., n, d) and (..., k, n, d); leading dimensions
        are rows of a Jacobian computed together.
        """
        return (self._factors_0, self._factors_1, self._factors_2)[self.order](*cotangents)

    def add_gradients(self, totals: Sequence[Tensor], *cotangents: Tensor) -> None:
        """Add the gradient of :math:`s` by weight matrix and bias vector, layer by layer, to `totals`, in place."""
        for layer, (lefts, rights) in enumerate(zip(*self.factors(*cotangents), strict=True)):
            for left, right in zip(lefts, rights, strict=True):
                totals[2 * layer].addmm_(left.reshape(-1, left.shape[-1]).T, right.reshape(-1, right.shape[-1]))
            totals[2 * layer + 1].add_(lefts[0].sum(0))

    def _factors_0(self, value_hat):
        z_hat = value_hat.unsqueeze(-1)
        lefts = [[z_hat]]
        for layer in reversed(range(len(self.jets))):
            z_hat = (z_hat @ self.weights[layer + 1]).mul_(self.jets[layer][1])
            lefts.append([z_hat])
        return lefts[::-1], [[a] for a in self.activations]

    def _factors_1(self, value_hat, gradient_hat):
        a_dots, z_dots = tangent(self.weights, self.jets, gradient_hat)
        z_hat = value_hat.unsqueeze(-1)
        lefts = [[z_hat, torch.ones_like(z_hat)]]
        for layer in reversed(range(len(self.jets))):
            jet = self.jets[layer]
            z_hat = (z_hat @ self.weights[layer + 1]).mul_(jet[1])
            z_hat.addcmul_(jet[2] * z_dots[layer], self.a_bars[layer])
            lefts.append([z_hat, self.z_bars[layer]])
        return lefts[::-1], [[a, a_dot] for a, a_dot in zip(self.activations, a_dots, strict=True)]

    def _factors_2(self, value_hat, gradient_hat, hvp_hat):
        weights, jets = self.weights, self.jets
        # Tangents: h in the directions of the HVPs' cotangents; m the mixed D_g + sum_k D_hk D_vk, linear in its seed.
        h_dots, zh_dots = tangent(weights, jets, hvp_hat)
        mixed = [_sum(zv * zh) for zv, zh in zip(self.z_dots, zh_dots, strict=True)]
        m_dots, zm_dots = tangent(weights, jets, gradient_hat, [jet[2] * m for jet, m in zip(jets, mixed, strict=True)])
        # Adjoints of s: of the mixed tangent (z_bar) and of zh (z_bar_dot) they are known; of zv and of z they follow.
        z_hat, zv_hat = value_hat.unsqueeze(-1), None
        lefts = [[z_hat, torch.ones_like(z_hat)]]
        for layer in reversed(range(len(jets))):
            jet, bend, zv, zh = jets[layer], self.bends[layer], self.z_dots[layer], zh_dots[layer]
            z_hat = (z_hat @ weights[layer + 1]).mul_(jet[1]).addcmul_(bend, zm_dots[layer])
            z_hat.addcmul_(jet[3] * self.a_bars[layer], mixed[layer])
            below = bend * zh
            if zv_hat is not None:
                av_hat = zv_hat @ weights[layer + 1]
                z_hat.addcmul_(jet[2], _sum((av_hat * zv).addcmul_(self.a_bar_dots[layer], zh)))
                below.addcmul_(jet[1], av_hat)
            zv_hat = below
            lefts.append([z_hat, self.z_bars[layer], zv_hat, self.z_bar_dots[layer]])
        pairs = zip(self.activations, m_dots, self.a_dots, h_dots, strict=True)
        rights = [list(factors) for factors in pairs]
        rights[-1] = rights[-1][:2]  # the last layer is linear: its tangents in v and h alone do not enter s
        return lefts[::-1], rights


def value_gradient_hvp(
    activation: Activation,
    weights: Parameters,
    biases: Parameters,
    u: Tensor,
    *,
    order: int,
    directions: Tensor | None = None,
):
    r"""Return (value,), (value, gradient) or (value, gradient, HVPs) of an MLP.

    Made of elementary operations, so automatic differentiation sees through it, by parameters and by inputs.

    Args:
        activation: The hidden layers' activation.
        weights: ``L`` matrices, each (out, in); the last has one row.
        biases: ``L`` vectors (out,).
        u: Inputs, (n, d).
        order: 0, 1 or 2.
        directions: At order 2, the directions of the Hessian-vector products, (k, n, d): directions first, so that
            each is one block of matrix products.

    Returns:
        ``(y,)`` with y (n,); ``(y, gradient)`` with gradient (n, d); ``(y, gradient, hvp)`` with hvp (k, n, d).

    Example:
        For :math:`y = \sin(2u)`, the gradient is :math:`2\cos 2u` and the second derivative :math:`-4 \sin 2u`.

        >>> import torch
        >>> from sobolev_lib.network.twin import value_gradient_hvp
        >>> one = torch.ones(1, 1, dtype=torch.float64)
        >>> y, g, h = value_gradient_hvp(sl.ACTIVATIONS["sin"], [2 * one, one], [0 * one[0], 0 * one[0]], 0.25 * one,
        ...                              order=2, directions=one[None])
        >>> [round(t.item(), 4) for t in (y, g, h)]
        [0.4794, 1.7552, -1.9177]
    """
    if torch.is_autocast_enabled("cpu"):  # half the digits are no derivatives
        with torch.autocast("cpu", enabled=False):
            return value_gradient_hvp(activation, weights, biases, u, order=order, directions=directions)
    return Pass(activation, weights, biases, u, order=order, directions=directions, reverse=False).outputs
