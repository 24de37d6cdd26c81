"""The container of labels, and its file format."""

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sobolev_lib import _check, _show

_FORMAT = "sobolev_lib samples 1"


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and their labels.

    Attributes:
        x: inputs (n, d).
        value: (n,).
        gradient: (n, d), or None at order 0.
        hvp: Hessian-vector products (n, k, d), or None below order 2.
        directions: the vectors of the products, (k, d) or (n, k, d), or None below order 2.
        parameter_gradient: by parameter name, (n, p) for a parameter with p components.
        value_error: standard errors of the means over paths (n,); None if there is one path per input.
        gradient_error: the same of the gradients (n, d).
        hvp_error: the same of the products (n, k, d).
        parameter_gradient_error: the same by parameter name; empty if there is one path per input.

    Raises:
        ValueError: shapes that do not belong together, or an ``hvp`` without its ``directions``.

    Chapter 3, "Reverse mode: remember, then sweep back".

    >>> import torch
    >>> samples = Samples(x=torch.zeros(3, 2), value=torch.ones(3))
    >>> len(samples), len(samples[:2]), samples.gradient
    (3, 2, None)
    """

    x: Tensor
    value: Tensor
    gradient: Tensor | None = None
    hvp: Tensor | None = None
    directions: Tensor | None = None
    value_error: Tensor | None = None
    gradient_error: Tensor | None = None
    hvp_error: Tensor | None = None
    parameter_gradient: dict[str, Tensor] = field(default_factory=dict)
    parameter_gradient_error: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        """Check that the shapes belong together; values need not be finite."""
        n, d = _check.tensor("x", self.x, shape=("n", "d"), finite=False).shape
        shapes = {"value": (n,), "value_error": (n,), "gradient": (n, d), "gradient_error": (n, d)}
        if self.hvp is not None:
            k = _check.tensor("hvp", self.hvp, shape=(n, "k", d), finite=False).shape[1]
            if self.directions is None:
                raise ValueError("directions: got None beside an hvp, need the vectors of the products")
            shapes |= {"hvp_error": (n, k, d), "directions": (k, d) if self.directions.ndim == 2 else (n, k, d)}
        for name, shape in shapes.items():
            if getattr(self, name) is not None:
                _check.tensor(name, getattr(self, name), shape=shape, finite=False)
        for group in (self.parameter_gradient, self.parameter_gradient_error):
            for name, tensor in group.items():
                _check.tensor(f"parameter {name}", tensor, shape=(n, "p"), finite=False)

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
        """The samples of the given rows: a slice, a tensor of indices or a mask.

        >>> import torch
        >>> x = torch.zeros(5, 1)
        >>> len(Samples(x, x[:, 0])[1:3])
        2
        """
        if not isinstance(rows, slice | Tensor):
            raise TypeError(f"rows: got {type(rows).__name__}, need a slice or a tensor")
        shared = {"directions"} if self.directions is not None and self.directions.ndim == 2 else set()
        return Samples(**self._each(lambda name, tensor: tensor if name in shared else tensor[rows]))

    def split(self, count: int) -> tuple["Samples", "Samples"]:
        """The first ``count`` samples and the rest, neither of them empty.

        Raises:
            ValueError: a count that leaves one of them empty.

        >>> import torch
        >>> x = torch.zeros(5, 1)
        >>> [len(part) for part in Samples(x, x[:, 0]).split(4)]
        [4, 1]
        """
        _check.count("count", count, most=len(self) - 1)
        return self[:count], self[count:]

    def save(self, path):
        """Write a safetensors file, whole or not at all.

        Args:
            path: file name; an existing file is replaced.
        """
        tensors = {}
        for name, value in self._each(lambda name, tensor: tensor.contiguous()).items():
            if isinstance(value, dict):
                tensors |= {f"{name}/{key}": tensor for key, tensor in value.items()}
            elif value is not None:
                tensors[name] = value.clone()  # safetensors refuses tensors that share memory
        path = Path(path)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as file:
            try:
                file.write(save(tensors, metadata={"format": _FORMAT}))
                file.flush()
                os.fsync(file.fileno())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise

    @classmethod
    def load(cls, path) -> "Samples":
        """Read a file that ``save`` wrote.

        Args:
            path: file name.

        Raises:
            ValueError: the file is damaged, or not one of ours.
        """
        loaded: dict = {"parameter_gradient": {}, "parameter_gradient_error": {}}
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("format") != _FORMAT:
                    raise ValueError(
                        f"path: got {path}, a safetensors file of another kind, need one written by Samples.save"
                    )
                for key in file.keys():
                    group, _, name = key.partition("/")
                    (loaded[group] if name else loaded)[name or group] = file.get_tensor(key)
            return cls(**loaded)
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(
                f"path: got {path}, which cannot be read ({error}), need one written by Samples.save"
            ) from error

    def _each(self, function) -> dict:
        """Apply function(name, tensor) to every tensor, those in dictionaries included; None stays None."""
        result = {}
        for name, value in vars(self).items():
            if isinstance(value, dict):
                result[name] = {key: function(key, tensor) for key, tensor in value.items()}
            else:
                result[name] = None if value is None else function(name, value)
        return result
