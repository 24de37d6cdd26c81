r"""Directions of Hessian-vector products: axes, random unit vectors, principal components of gradients, a given vector.

A label of second order is :math:`\nabla^2 V(x)\, u`. One direction u per sample costs as much as a gradient or two, all
d of them d times that, so it matters which are asked for (Chapter 8):

- the axes give the whole Hessian, or its columns for some inputs;
- fresh random directions give all of it on average: :math:`E\, \lVert H u \rVert^2 = \lVert H \rVert_F^2 / d` for u
  uniform on the sphere (Hutchinson 1990), so the loss is, up to the factor d, that of the whole Hessian;
- principal components of the gradients are where the value bends most if it is a function of few combinations;
- a vector one knows, such as a basket's weights, is where it bends if that is the only one.

All return directions as ``label`` takes them: (k, d) for all samples alike, or (n, k, d), k of each sample's own.
"""

import torch
from torch import Tensor

from sobolev_lib import _check
from sobolev_lib.simulation.noise import Noise


def axes(dim: int, which=None) -> Tensor:
    """Return unit vectors along the coordinate axes.

    Args:
        dim: Number of inputs d.
        which: Numbers of the inputs whose axes are wanted, k of them; default: all.

    Shape:
        The result is (k, d).

    Raises:
        ValueError: No inputs, or a number that is not of one.

    Chapter 8, "Which directions".

    Example:
        >>> sl.directions.axes(3, [2, 0])
        tensor([[0., 0., 1.],
                [1., 0., 0.]], dtype=torch.float64)
    """
    dim = _check.count("dim", dim)
    rows = range(dim) if which is None else [_check.count("which", i, least=0, most=dim - 1) for i in which]
    if not len(rows):
        raise ValueError("which: got no numbers, need at least one")
    return torch.eye(dim, dtype=torch.float64)[list(rows)]


def along(vector) -> Tensor:
    """Return the unit vector along a given one, such as the weights of a basket.

    Args:
        vector: Of any length but zero.

    Shape:
        vector (d,); the result is (1, d).

    Raises:
        ValueError: A vector of length zero.

    Chapter 8, "Which directions".

    Example:
        >>> sl.directions.along([3.0, 4.0])
        tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """
    vector = _check.tensor("vector", vector, shape=("d",), dtype=torch.float64)
    if not vector.any():
        raise ValueError(f"vector: got {len(vector)} zeros, need a direction")
    vector = vector / vector.abs().max()  # so that squares neither overflow nor vanish
    return (vector / vector.norm()).unsqueeze(0)


def uniform(count: int, dim: int, *, noise: Noise, start: int = 0, each: int = 1) -> Tensor:
    r"""Return random unit vectors, uniform on the sphere, some for each sample, at right angles to each other.

    Row i is made from row ``start + i`` of the noise, so directions are the same however the work is cut up; for
    fresh samples in batches, ``start`` is the number of the batch's first sample. Take another seed than for inputs and
    paths, of which directions must be independent.

    Args:
        count: Number of samples n.
        dim: Number of inputs d.
        noise: Where the normals come from, such as ``gaussian(seed=1)``.
        start: Row of the noise to begin with.
        each: Number of directions k per sample, at most d.

    Shape:
        The result is (n, k, d).

    Raises:
        ValueError: More directions than inputs, or a count below 1.

    Source: Hutchinson, A stochastic estimator of the trace of the influence matrix (1990).

    Chapter 8, "Which directions".

    Example:
        In one dimension there are two unit vectors.

        >>> sl.directions.uniform(100, 1, noise=sl.gaussian(seed=1)).unique()
        tensor([-1.,  1.], dtype=torch.float64)
    """
    count, dim = _check.count("count", count), _check.count("dim", dim)
    each, start = _check.count("each", each, most=dim), _check.count("start", start, least=0)
    normals = noise(start, count, each * dim).view(count, each, dim)
    vectors: list[Tensor] = []
    for vector in normals.unbind(1):
        for _ in range(2):  # Gram and Schmidt; twice is enough (Kahan, Parlett) for right angles to the last digits
            for other in vectors:
                vector = vector - (vector * other).sum(1, keepdim=True) * other
            vector = vector / vector.norm(dim=1, keepdim=True)
        vectors.append(vector)
    return torch.stack(vectors, 1)


def principal(gradients: Tensor, count: int | None = None, *, share: float = 0.99) -> Tensor:
    r"""Return principal components of gradients: eigenvectors of :math:`C = \frac1n \sum_i g_i g_i^T`, largest first.

    A value that depends on m combinations of its inputs only has gradients, and Hessians' images, in m dimensions. With
    noisy labels of a smooth value, C is that of the value plus the covariance of the noise, which for pathwise
    gradients lies in the same dimensions.

    Args:
        gradients: Gradient labels, or a network's gradients; inputs should have comparable spreads.
        count: Number of components k. Default: as many as are needed for `share`.
        share: How much of the gradients' squared length the components hold together.

    Shape:
        gradients (n, d); the result is (k, d), of unit length, each with its largest entry positive.

    Raises:
        ValueError: More components than inputs, gradients that are all zero, or a share not between 0 and 1.

    Source: Constantine, Active Subspaces (2015), section 3.1; as differential PCA in Huge & Savine (2021).

    Chapter 8, "Which directions".

    Example:
        Gradients of a function of :math:`3 x_1 + 4 x_2` have one component.

        >>> import torch
        >>> gradients = torch.linspace(-1, 2, 5, dtype=torch.float64).outer(torch.tensor([3.0, 4.0]).double())
        >>> sl.directions.principal(gradients)
        tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """
    gradients = _check.tensor("gradients", gradients, shape=("n", "d"), dtype=torch.float64)
    share = _check.positive("share", share)
    if share > 1:
        raise ValueError(f"share: got {share}, need a number from 0 to 1")
    largest = gradients.abs().max() if gradients.numel() else 0.0
    if largest == 0:
        raise ValueError(f"gradients: got {len(gradients)} that are all zero, need some that are not")
    gradients = gradients / largest
    eigenvalues, vectors = torch.linalg.eigh(gradients.T @ gradients)
    sizes, components = eigenvalues.flip(0), vectors.T.flip(0)
    if count is None:
        missing = 1 - sizes.cumsum(0) / sizes.sum()
        count = int((missing > max(1 - share, 1e-12)).sum()) + 1
    components = components[: _check.count("count", count, most=gradients.shape[1])]
    signs = components.gather(1, components.abs().argmax(1, keepdim=True)).sign()
    return components * signs
