"""Sobolev pruning: small neural surrogates of stochastic models that keep their derivatives.

Modules stand in the order of the book, and each imports only from those before it:

noise, models, schemes, payoffs, closed_form - the stochastic model (Chapters 1 and 2);
labels, directions, case_study - its labels (Chapter 3);
activations, twin, network - the surrogate (Chapter 4);
rounding, interval, elementary, affine, zonotope, sweeps, adjoints, certify - enclosures (Chapters 5 and 6);
significance, rivals, pruning, selection, linearise - which nodes matter, and cutting the others (Chapter 7);
sobolev, gauss_newton, checkpoint, training - the Sobolev loss and its minimisers (Chapters 4 and 8);
shrinking, growing - cutting and training in turns, and when to stop (Chapter 7);
metrics, plotting - errors and figures.
"""

from sobolev_lib import directions, interval
from sobolev_lib._candidates import Path
from sobolev_lib._samples import Samples
from sobolev_lib.activations import ACTIVATIONS, Activation
from sobolev_lib.adjoints import Enclosure, Split, enclose
from sobolev_lib.affine import affine
from sobolev_lib.case_study import BasketCase, basket_case
from sobolev_lib.certify import Bounds, Verdict, bounds, is_convex, is_increasing, is_non_negative, lipschitz
from sobolev_lib.checkpoint import History
from sobolev_lib.closed_form import Greeks, bachelier, black_scholes, heston
from sobolev_lib.growing import grow
from sobolev_lib.interval import Interval
from sobolev_lib.labels import label
from sobolev_lib.linearise import Linearised, linearise
from sobolev_lib.metrics import Errors, Violations, evaluate, noise_floor, table, violations
from sobolev_lib.models import Bachelier, BlackScholes, Heston
from sobolev_lib.network import Surrogate
from sobolev_lib.noise import antithetic, gaussian, sobol
from sobolev_lib.payoffs import (
    Asian,
    Blend,
    Call,
    Digital,
    LastStep,
    Payoff,
    Put,
    Sigmoid,
    Softplus,
    Straddle,
)
from sobolev_lib.plotting import PALETTE, draw_network, draw_path, use_style
from sobolev_lib.pruning import (
    affine_layers,
    cut,
    cut_inputs,
    keep_above,
    keep_most,
    keep_share,
    means,
    midpoints,
    remove_layers,
)
from sobolev_lib.rivals import score_at_random, score_by_magnitude, score_by_taylor, score_by_variance
from sobolev_lib.schemes import EulerMaruyama, Exact, FullTruncation, Milstein, simulate
from sobolev_lib.selection import keep_predictive
from sobolev_lib.shrinking import shrink
from sobolev_lib.significance import Significance, balls, significance
from sobolev_lib.sobolev import SobolevLoss, balance_by_covariance, balance_by_moments
from sobolev_lib.training import fit

__version__ = "0.1.0"

__all__ = [
    # Chapters 1 to 3: the stochastic model and its labels
    "gaussian",
    "sobol",
    "antithetic",
    "Bachelier",
    "BlackScholes",
    "Heston",
    "Exact",
    "EulerMaruyama",
    "Milstein",
    "FullTruncation",
    "simulate",
    "Payoff",
    "Call",
    "Put",
    "Digital",
    "Straddle",
    "Asian",
    "Sigmoid",
    "Softplus",
    "Blend",
    "LastStep",
    "Greeks",
    "bachelier",
    "black_scholes",
    "heston",
    "Samples",
    "label",
    "directions",
    "BasketCase",
    "basket_case",
    # Chapter 4: the surrogate
    "ACTIVATIONS",
    "Activation",
    "Surrogate",
    # Chapters 5 and 6: enclosures
    "interval",
    "Interval",
    "affine",
    "Split",
    "Enclosure",
    "enclose",
    "Bounds",
    "bounds",
    "lipschitz",
    "Verdict",
    "is_non_negative",
    "is_increasing",
    "is_convex",
    # Chapter 7: significance and pruning
    "Significance",
    "balls",
    "significance",
    "score_by_magnitude",
    "score_by_taylor",
    "score_by_variance",
    "score_at_random",
    "keep_most",
    "keep_share",
    "keep_above",
    "keep_predictive",
    "midpoints",
    "means",
    "cut",
    "cut_inputs",
    "affine_layers",
    "remove_layers",
    "Linearised",
    "linearise",
    "Path",
    "shrink",
    "grow",
    # Chapters 4 and 8: Sobolev training
    "SobolevLoss",
    "balance_by_moments",
    "balance_by_covariance",
    "History",
    "fit",
    # Chapter 9: errors; figures
    "Errors",
    "evaluate",
    "noise_floor",
    "Violations",
    "violations",
    "table",
    "PALETTE",
    "draw_network",
    "draw_path",
    "use_style",
]
