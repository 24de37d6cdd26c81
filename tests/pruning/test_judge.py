"""The judge's errors of both kinds, by simulation: least squares on Gaussian labels, where all errors are known."""

from types import SimpleNamespace

import pytest
import torch

from sobolev_lib.pruning.judge import Judge
from sobolev_lib.training.loss import SobolevLoss

RUNS, N, HELD, FEATURES, LEFT = 200, 1200, 400, 60, 50


class Linear:
    """A function with given coefficients, of which only those that were fitted count as parameters."""

    def __init__(self, coefficients, parameter_count):
        self.coefficients, self.parameter_count = coefficients, parameter_count

    def taylor(self, x, *, order, directions):
        return (x @ self.coefficients,)


def accepted(lost: float) -> int:
    """Return how often a fit without the last ten features is accepted that lose `lost` / N in squared error.

    The noise has variance 1, so a fit with p coefficients has the squared error p / N.
    """
    count = 0
    for run in range(RUNS):
        generator = torch.Generator().manual_seed(run)
        x = torch.randn(N + HELD, FEATURES, dtype=torch.float64, generator=generator)
        true = torch.ones(FEATURES, dtype=torch.float64)
        true[LEFT:] = (lost / N / (FEATURES - LEFT)) ** 0.5
        y = x @ true + torch.randn(N + HELD, dtype=torch.float64, generator=generator)
        large = torch.linalg.lstsq(x[:N], y[:N, None]).solution[:, 0]
        small = torch.zeros(FEATURES, dtype=torch.float64)
        small[:LEFT] = torch.linalg.lstsq(x[:N, :LEFT], y[:N, None]).solution[:, 0]
        held = SimpleNamespace(x=x[N:], value=y[N:], gradient=None, hvp=None, directions=None)
        judge = Judge(SobolevLoss(0, torch.eye(1, dtype=torch.float64)), held, N)
        _, verdicts = judge.verdicts([Linear(large, FEATURES), Linear(small, LEFT)])
        count += verdicts[1][2]
    return count


def test_a_candidate_that_is_truly_as_good_is_accepted_nine_times_in_ten():
    """What the ten features lose is what their coefficients' noise would cost: 10 / N. Expected: 93 %."""
    assert accepted(lost=FEATURES - LEFT) >= 0.9 * RUNS


def test_a_candidate_with_twice_the_statistical_error_is_refused_nine_times_in_ten():
    """Its error is twice the root of 60 / N, so its square is 240 / N, of which noise is 50 / N."""
    assert accepted(lost=4 * FEATURES - LEFT) <= 0.1 * RUNS


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad):
    x = torch.ones(64, 1, dtype=torch.float64)
    held = SimpleNamespace(x=x, value=x[:, 0], gradient=None, hvp=None, directions=None)
    nets = [Linear(torch.tensor([c], dtype=torch.float64), 1) for c in (1.1, bad)]
    best, verdicts = Judge(SobolevLoss(0, torch.eye(1, dtype=torch.float64)), held, 64).verdicts(nets)
    assert best == 0 and not verdicts[1][2]
