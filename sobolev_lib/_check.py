"""The gate: whatever comes from a user is converted, copied and checked here, before any work starts.

One rule for everybody. Arrays and numbers of any kind (lists, NumPy of any precision, read-only or strided,
integers, `requires_grad`, inference tensors) are what they are in float64, or in the `dtype` that the caller needs:
simulation and labels work in float64, a network in its own. Only a floating-point tensor keeps its dtype where the
caller needs none. What is kept is a copy (`copy=True`), so that nothing a user changes later changes a result;
labels carry no graph (`detach=True`). Numbers are finite. Counts and seeds are integers by `operator.index`.

A message names the argument, what was given and what is needed. Wrong kinds of objects raise `TypeError`,
wrong values and shapes raise `ValueError`.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from numbers import Real

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int | str, ...]


def tensor(
    name: str,
    value,
    *,
    shape: Shape | None = None,
    dtype: torch.dtype | None = None,
    finite: bool = True,
    copy: bool = False,
    detach: bool = False,
    least: int = 0,
) -> Tensor:
    """Return `value` as a floating-point tensor of the given shape; a letter in `shape` stands for any size.

    Only a floating-point tensor keeps its dtype if `dtype` is not given; all else becomes float64. With `copy` the
    result shares no memory with `value`; NumPy arrays never do. `least` is the smallest size of the first dimension.
    """
    result = value if isinstance(value, Tensor) else _from_numpy(name, value)
    if result.is_complex() or result.dtype == torch.bool or result.layout != torch.strided:
        raise TypeError(f"{name}: got dtype {result.dtype} ({result.layout}), need real numbers, not sparse")
    if detach:
        result = result.detach()
    converted = result.to(dtype or (result.dtype if result.is_floating_point() else torch.float64))
    if (copy and converted is result) or (converted.is_inference() and not torch.is_inference_mode_enabled()):
        with torch.inference_mode(False):
            converted = converted.clone(memory_format=torch.contiguous_format)
    if shape is not None and not _fits(converted.shape, shape):
        needed = "(" + ", ".join(str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{name}: got shape {tuple(converted.shape)}, need {needed}")
    if least and len(converted) < least:
        needed = "one row" if least == 1 else f"{least} rows"
        raise ValueError(f"{name}: got shape {tuple(converted.shape)}, need at least {needed}")
    if finite and not torch.isfinite(converted).all():
        bad = int((~torch.isfinite(converted)).sum())
        raise ValueError(f"{name}: got {bad} non-finite of {converted.numel()} values, need finite numbers")
    return converted


def _from_numpy(name: str, value) -> Tensor:
    """A copy in float64 of anything that NumPy can read as an array of real numbers."""
    try:
        array = np.array(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name}: got {type(value).__name__}, need a tensor or what converts to one") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name}: got {type(value).__name__} of dtype {array.dtype}, need real numbers")
    return torch.from_numpy(array.astype(np.float64, order="C", copy=False))


def _fits(given: torch.Size, needed: Shape) -> bool:
    if len(given) != len(needed):
        return False
    sizes: dict[str, int] = {}
    return all(h == (sizes.setdefault(w, h) if isinstance(w, str) else w) for h, w in zip(given, needed, strict=True))


def indices(name: str, value) -> Tensor:
    """Return `value`, integers of any kind or one truth value per row, as a tensor (k,)."""
    array = value.detach().numpy() if isinstance(value, Tensor) else np.array(value)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iub"):
        raise TypeError(f"{name}: got shape {array.shape} of {array.dtype}, need integers, or truth values, in one row")
    return torch.from_numpy(array if array.dtype == bool else array.astype(np.int64))


def number(name: str, value, needed: str = "a finite number") -> float:
    """Return `value` as a finite float of either sign; an array or a tensor of no dimensions is a number too."""
    plain = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    if isinstance(plain, bool) or not isinstance(plain, Real):
        raise TypeError(f"{name}: got {type(value).__name__} {value!r}, need {needed}")
    if not math.isfinite(plain):
        raise ValueError(f"{name}: got {value!r}, need {needed}")
    return float(plain)


def positive(name: str, value, *, or_zero: bool = False, or_infinite: bool = False) -> float:
    """Return `value` as a float, finite and greater than zero (or, asked for, equal to zero, or infinite)."""
    if or_infinite and isinstance(value, Real) and value == math.inf:
        return math.inf
    needed = "a number > 0" if or_infinite else "a finite number " + (">= 0" if or_zero else "> 0")
    result = number(name, value, needed)
    if result < 0 or (result == 0 and not or_zero):
        raise ValueError(f"{name}: got {value!r}, need {needed}")
    return result


def count(name: str, value, *, least: int = 1, most: int | None = None) -> int:
    """Return `value`, an integer of any kind, as an int between `least` and `most`."""
    needed = f"an integer >= {least}" if most is None else f"an integer from {least} to {most}"
    try:
        if isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, np.bool_):
            raise TypeError
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: got {type(value).__name__} {value!r}, need {needed}") from None
    if result < least or (most is not None and result > most):
        raise ValueError(f"{name}: got {value}, need {needed}")
    return result


def seed(name: str, value) -> int:
    """Return `value` as an int that every generator takes, from 0 to 2^63 - 1."""
    return count(name, value, least=0, most=2**63 - 1)


def choice(name: str, value, options: Iterable) -> object:
    """Return the one of `options` that equals `value`."""
    options = tuple(options)
    for option in options:
        if isinstance(value, bool) == isinstance(option, bool) and np.ndim(value) == 0 and option == value:
            return option
    raise ValueError(f"{name}: got {value!r}, need one of {', '.join(repr(option) for option in options)}")


def instance(name: str, value, kind: type) -> object:
    """Return `value`, an instance of `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: got {type(value).__name__}, need {kind.__name__}")
    return value


def function(name: str, value, needed: str) -> Callable:
    """Return `value`, which can be called; a class is taken for an object that was not made."""
    if not callable(value) or isinstance(value, type):
        raise TypeError(f"{name}: got {value!r}, need {needed}")
    return value


def directions(value, n: int, d: int, **how) -> Tensor:
    """Return vectors (k, d) that n rows share, or (n, k, d), at least one; `how` as for `tensor`."""
    vectors = tensor("directions", value, **how)
    shape = tuple(vectors.shape)
    if len(shape) not in (2, 3) or 0 in shape or shape[-1] != d or shape[0] != (n if len(shape) == 3 else shape[0]):
        raise ValueError(f"directions: got shape {shape}, need (k, {d}) or ({n}, k, {d}), at least one")
    return vectors


@contextmanager
def ordinary_mode() -> Iterator[None]:
    """Whatever mode the caller is in: gradients on, no inference mode, no autocast. For `with`, or as a decorator."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        yield
