"""The container of labels, and its file format."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sobolev_lib import _check, _show

__all__ = ["Samples", "concatenate"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and their labels.

    Labels of another simulator become samples in one line: arrays of any kind and precision are copied to float64,
    the rule for all labels, whatever the network's precision is. They may be noisy or exact, in any units, with
    gradients or without; training takes orders up to those that are there. ``torch.save(vars(samples), path)`` stores
    them, and ``Samples(**torch.load(path))`` has them again.

    Attributes:
        x: inputs (n, d).
        value: (n,).
        gradient: (n, d), or None at order 0.
        hvp: Hessian-vector products (n, k, d), or None below order 2.
        directions: the vectors of the products, (k, d) or (n, k, d), or None below order 2.
        value_error: standard errors of the means over paths (n,); None if there is one path per input.
        gradient_error: the same of the gradients (n, d).
        hvp_error: the same of the products (n, k, d).
        source: what made the labels; ``label`` writes scheme and steps.

    Raises:
        ValueError: shapes that do not belong together, or an ``hvp`` without its ``directions``.

    Chapter 3, "Reverse mode: remember, then sweep back".

    >>> samples = sl.Samples(x=[[1.0], [2.0], [3.0]], value=[1.0, 4.0, 9.0], gradient=[[2.0], [4.0], [6.0]])
    >>> len(samples), samples[samples.value > 2].gradient.tolist(), samples.hvp
    (3, [[4.0], [6.0]], None)
    """

    x: Tensor
    value: Tensor
    gradient: Tensor | None = None
    hvp: Tensor | None = None
    directions: Tensor | None = None
    value_error: Tensor | None = None
    gradient_error: Tensor | None = None
    hvp_error: Tensor | None = None
    source: str = ""

    def __post_init__(self):
        """Copy to float64 without graph, and check that the shapes belong together; values need not be finite."""
        for name, value in vars(self).items():
            if name != "source" and value is not None:
                tensor = _check.tensor(name, value, dtype=torch.float64, finite=False, copy=True, detach=True)
                object.__setattr__(self, name, tensor)
        n, d = _check.tensor("x", self.x, shape=("n", "d"), finite=False).shape
        shapes = {"value": (n,), "value_error": (n,), "gradient": (n, d), "gradient_error": (n, d)}
        if self.hvp is not None:
            k = _check.tensor("hvp", self.hvp, shape=(n, "k", d), finite=False).shape[1]
            if self.directions is None:
                raise ValueError("directions: got None beside an hvp, need the vectors of the products")
            shapes |= {"hvp_error": (n, k, d), "directions": (k, d) if self.directions.ndim == 2 else (n, k, d)}
        for name, shape in shapes.items():
            if getattr(self, name) is not None or name == "value":
                _check.tensor(name, getattr(self, name), shape=shape, finite=False)

    @classmethod
    def of(cls, **fields) -> "Samples":
        """Samples that share the memory of fields that are known to fit."""
        samples = object.__new__(cls)
        vars(samples).update(fields)  # defaults are attributes of the class
        return samples

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.x)

    def __repr__(self) -> str:
        """The sizes: a million labels are no text."""
        return f"Samples({len(self):,} inputs of {self.x.shape[1]} components, {', '.join(self._labels())})"

    def _repr_html_(self) -> str:
        labels = {name: label for name, label in self._labels().items() if label.numel()}
        rows = [
            (name, str(tuple(t.shape)), *(f"{x:.3g}" for x in (t.mean(), t.std(correction=0), t.min(), t.max())))
            for name, t in {"x": self.x, **labels}.items()
        ]
        header = ["tensor", "shape", "mean", "deviation", "smallest", "largest"]
        return _show.table(f"{len(self):,} samples", header, rows)

    def _labels(self) -> dict[str, Tensor]:
        return {name: t for name in ("value", "gradient", "hvp") if (t := getattr(self, name)) is not None}

    def __getitem__(self, rows) -> "Samples":
        """The samples of the given rows: a slice, which shares their memory, a mask or indices, which copy them.

        >>> samples = sl.Samples(x=[[1.0], [2.0], [3.0]], value=[1.0, 4.0, 9.0])
        >>> len(samples[1:]), samples[samples.x[:, 0] < 2.5].value.tolist(), samples[[2, 0]].value.tolist()
        (2, [1.0, 4.0], [9.0, 1.0])
        """
        rows = rows if isinstance(rows, slice) else _check.indices("rows", rows)
        shared = {"directions"} if self.directions is not None and self.directions.ndim == 2 else set()
        picked = {name: tensor if name in shared else tensor[rows] for name, tensor in self._tensors().items()}
        return Samples.of(**picked, source=self.source)

    def split(self, count: int) -> tuple["Samples", "Samples"]:
        """The first ``count`` samples and the rest, neither of them empty.

        Raises:
            ValueError: a count that leaves one of them empty.

        >>> import torch
        >>> x = torch.zeros(5, 1)
        >>> [len(part) for part in sl.Samples(x, x[:, 0]).split(4)]
        [4, 1]
        """
        count = _check.count("count", count, most=len(self) - 1)
        return self[:count], self[count:]

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors that are there, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


def concatenate(samples: Iterable[Samples]) -> Samples:
    """Join samples that have the same labels, e.g. those of several runs.

    Args:
        samples: two or more, with the same number of inputs and labels of the same kinds.

    Shape:
        Any; numbers of rows add up. Directions that all rows share must be the same in all.

    Returns:
        ``Samples`` in memory of their own.

    Raises:
        TypeError: something else than samples.
        ValueError: none, labels of different kinds or shapes, or different directions.

    Chapter 3, "Reverse mode: remember, then sweep back".

    >>> one = sl.Samples(x=[[1.0]], value=[1.0])
    >>> sl.concatenate([one, one]).value.tolist()
    [1.0, 1.0]
    """
    parts = [_check.instance(f"samples[{i}]", part, Samples) for i, part in enumerate(samples)]
    if not parts:
        raise ValueError("samples: got none, need at least one")
    fields = [part._tensors() for part in parts]
    vectors = [one.pop("directions") for one in fields if "directions" in one and one["directions"].ndim == 2]
    shapes = [{name: tuple(tensor.shape[1:]) for name, tensor in one.items()} for one in fields]
    for shape in shapes:
        if shape != shapes[0]:
            raise ValueError(f"samples: got labels of shapes {shape} and {shapes[0]} behind the rows, need the same")
    if not all(torch.equal(v, vectors[0]) for v in vectors):
        raise ValueError("samples: got different directions that all rows share, need the same, or one set per row")
    joined = {name: torch.cat([one[name] for one in fields]) for name in fields[0]}
    joined |= {"directions": vectors[0]} if vectors else {}
    return Samples.of(**joined, source="; ".join(dict.fromkeys(part.source for part in parts)))
