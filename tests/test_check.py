"""The gate: every kind of awkward input is the clean one, or is refused by name."""

import numpy as np
import pytest
import torch

from sobolev_lib import _check

CLEAN = torch.tensor([[0.5, -2.0], [0.25, 3.0]], dtype=torch.float64)


def _inference(x):
    with torch.inference_mode():
        return x.clone()


def _read_only(x):
    array = x.numpy().copy()
    array.flags.writeable = False
    return array


SAME = {
    "list": lambda x: x.tolist(),
    "list of arrays": lambda x: list(x.numpy()),
    "list of tensors": lambda x: list(x),
    "NumPy float64": lambda x: x.numpy(),
    "NumPy float32": lambda x: x.numpy().astype(np.float32),
    "NumPy float16": lambda x: x.numpy().astype(np.float16),
    "NumPy long double": lambda x: x.numpy().astype(np.longdouble),
    "read-only": _read_only,
    "other byte order": lambda x: x.numpy().astype(">f8"),
    "columns first": lambda x: np.asfortranarray(x.numpy()),
    "backwards": lambda x: x.numpy()[::-1].copy()[::-1],
    "strided array": lambda x: np.repeat(x.numpy(), 2, axis=1)[:, ::2],
    "strided tensor": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "transposed": lambda x: x.T.contiguous().T,
    "float32": lambda x: x.float(),
    "bfloat16": lambda x: x.bfloat16(),
    "requires grad": lambda x: x.clone().requires_grad_(),
    "parameter": torch.nn.Parameter,
    "not a leaf": lambda x: x.clone().requires_grad_() * 1.0,
    "inference tensor": _inference,
}
REFUSED = {
    "None": lambda x: None,
    "text": lambda x: "one",
    "ragged": lambda x: [[1.0], [1.0, 2.0]],
    "objects": lambda x: np.array([[None, 1.0], [1.0, 2.0]]),
    "complex": lambda x: x + 1j,
    "complex NumPy": lambda x: x.numpy() + 1j,
    "truth values": lambda x: x > 0,
    "truth values in NumPy": lambda x: x.numpy() > 0,
    "sparse": lambda x: x.to_sparse(),
    "no rows": lambda x: x[:0],
    "wrong shape": lambda x: x[0],
    "wrong width": lambda x: x[:, :1],
    "NaN": lambda x: x * torch.nan,
    "infinite": lambda x: x.numpy() * np.inf,
    "too large for float32": lambda x: x * 1e300,
}


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_array_is_what_it_is_in_the_dtype_asked_for_and_shares_no_memory(kind, dtype):
    given = SAME[kind](CLEAN.clone())
    result = _check.tensor("x", given, shape=("n", 2), dtype=dtype, copy=True, detach=True, least=1)
    assert result.dtype == dtype
    assert torch.equal(result, CLEAN.to(dtype))
    assert not result.requires_grad
    assert not result.is_inference()
    result.fill_(9.0)
    clean = _check.tensor("x", given, dtype=torch.float64, detach=True)
    assert torch.equal(clean, CLEAN)


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_refused_by_name(kind):
    with pytest.raises((TypeError, ValueError), match=r"^x: got "):
        _check.tensor("x", REFUSED[kind](CLEAN), shape=("n", 2), dtype=torch.float32, least=1)


@pytest.mark.parametrize("given", [np.array([1, 2]), np.array([1, 2], np.uint8), [1, 2], torch.tensor([1, 2])])
def test_integers_and_numbers_that_are_no_tensors_become_float64_in_every_default_dtype(given):
    try:
        for dtype in (torch.float64, torch.float32):
            torch.set_default_dtype(dtype)
            assert _check.tensor("x", given).dtype == torch.float64
            assert _check.tensor("x", 0.1).item() == 0.1  # a float32 in between would show
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_graph_passes_unless_it_is_to_be_cut():
    x = CLEAN.clone().requires_grad_()
    assert _check.tensor("x", x, copy=True).requires_grad
    assert _check.tensor("x", x) is x


@pytest.mark.parametrize("make", [int, np.int64, np.int32, np.uint8, torch.tensor, np.array])
def test_integers_of_every_kind_are_counts(make):
    assert type(_check.count("n", make(4))) is int
    assert _check.count("n", make(4)) == 4
    assert _check.seed("seed", make(4)) == 4
    assert type(_check.choice("order", make(2), (0, 1, 2))) is int


@pytest.mark.parametrize("value", [True, np.bool_(True), torch.tensor(True), 4.0, np.float64(4), "4", None, [4], 0, -1])
def test_nothing_else_is_a_count(value):
    with pytest.raises((TypeError, ValueError), match=r"^n: got .* need an integer >= 1"):
        _check.count("n", value)


def test_seeds_reach_up_to_the_largest_that_every_generator_takes():
    for seed in (0, 2**62, 2**63 - 1):
        torch.Generator().manual_seed(_check.seed("seed", seed))
    with pytest.raises(ValueError, match=r"^seed: got"):
        _check.seed("seed", 2**63)


@pytest.mark.parametrize("make", [float, np.float64, np.float32, np.array, lambda x: torch.tensor(x).double(), int])
def test_numbers_of_every_kind_are_floats(make):
    for check in (_check.number, _check.positive):
        assert type(check("k", make(2.0))) is float
        assert check("k", make(2.0)) == 2.0


@pytest.mark.parametrize("value", [True, "1", None, 1j, [1.0], np.array([1.0]), np.nan, np.inf, np.float32("inf")])
def test_nothing_else_is_a_number(value):
    for check in (_check.number, _check.positive):
        with pytest.raises((TypeError, ValueError), match=r"^k: got .* need a finite number"):
            check("k", value)


@pytest.mark.parametrize("value", [True, "b", None, [1], np.array([1, 2]), 3])
def test_what_is_no_option_is_refused(value):
    with pytest.raises(ValueError, match=r"^k: got .* need one of 1, 2, 'a'"):
        _check.choice("k", value, (1, 2, "a"))


def test_ordinary_mode_is_the_same_in_every_mode_of_the_caller():
    @_check.ordinary_mode()
    def slope():
        x = torch.ones(2, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad((x * x).sum(), x)[0]

    for mode in (torch.inference_mode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16), torch.enable_grad()):
        with mode:
            assert torch.equal(slope(), torch.full((2,), 2.0, dtype=torch.float64))
