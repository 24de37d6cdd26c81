"""Guards: every public function checks its arguments here, before any work starts.

A message names the argument, what was given and what is needed. Wrong kinds of objects raise `TypeError`,
wrong values and shapes raise `ValueError`.
"""

import math
from collections.abc import Iterable
from numbers import Integral, Real

import torch
from torch import Tensor

Shape = tuple[int | str, ...]


def tensor(
    name: str, value, *, shape: Shape | None = None, dtype: torch.dtype | None = None, finite: bool = True
) -> Tensor:
    """Return `value` as a floating-point tensor of the given shape; letters in `shape` stand for any size.

    Integers and lists become float64. A tensor that is floating-point already keeps its dtype unless `dtype` is given.
    """
    try:
        result = torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"{name}: got {type(value).__name__}, need a tensor or something that converts to one"
        ) from error
    if result.is_complex() or result.dtype == torch.bool:
        raise TypeError(f"{name}: got dtype {result.dtype}, need real numbers")
    if dtype is not None or not result.is_floating_point() or not isinstance(value, Tensor):
        result = torch.as_tensor(value, dtype=dtype or torch.float64)
    if shape is not None and not _fits(result.shape, shape):
        needed = "(" + ", ".join(str(size) for size in shape) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{name}: got shape {tuple(result.shape)}, need {needed}")
    if finite and not torch.isfinite(result).all():
        bad = int((~torch.isfinite(result)).sum())
        raise ValueError(f"{name}: got {bad} non-finite of {result.numel()} values, need finite numbers")
    return result


def _fits(given: torch.Size, needed: Shape) -> bool:
    if len(given) != len(needed):
        return False
    return all(isinstance(want, str) or have == want for have, want in zip(given, needed, strict=True))


def positive(name: str, value, *, or_zero: bool = False) -> float:
    """Return `value` as a float, finite and greater than zero (or, asked for, equal to zero)."""
    needed = "a finite number >= 0" if or_zero else "a finite number > 0"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: got {type(value).__name__} {value!r}, need {needed}")
    number = float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not or_zero):
        raise ValueError(f"{name}: got {value!r}, need {needed}")
    return number


def number(name: str, value) -> float:
    """Return `value` as a finite float of either sign."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: got {type(value).__name__} {value!r}, need a finite number")
    if not math.isfinite(value):
        raise ValueError(f"{name}: got {value!r}, need a finite number")
    return float(value)


def count(name: str, value, *, least: int = 1, most: int | None = None) -> int:
    """Return `value` as an int between `least` and `most`."""
    needed = f"an integer >= {least}" if most is None else f"an integer from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: got {type(value).__name__} {value!r}, need {needed}")
    if value < least or (most is not None and value > most):
        raise ValueError(f"{name}: got {value}, need {needed}")
    return int(value)


def choice(name: str, value, options: Iterable) -> object:
    """Return `value`, one of `options`."""
    options = tuple(options)
    if value not in options:
        raise ValueError(f"{name}: got {value!r}, need one of {', '.join(repr(option) for option in options)}")
    return value


def instance(name: str, value, kind: type) -> object:
    """Return `value`, an instance of `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: got {type(value).__name__}, need {kind.__name__}")
    return value
