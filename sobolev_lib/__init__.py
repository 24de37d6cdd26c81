"""Sobolev pruning: small neural surrogates of stochastic models that keep their derivatives.

The packages stand in the order of the method, and each imports only from those before it; so do the modules inside
them:

simulation - the stochastic model and its labels (Chapters 1 to 3);
network - the surrogate (Chapter 4);
enclosure - intervals and zonotopes through a network, forward and back (Chapters 5 and 6);
training - the Sobolev loss and its minimisers (Chapters 4 and 8);
certificates - what can be proved of a network over a box (Chapters 6 and 10);
pruning - which nodes matter, how the others go, when to stop (Chapter 7);
export - the network in another runtime, another language, a web page (Chapter 14).

Beside them `_check` refuses bad input, `_files` writes files whole, `_show` shows results in notebooks, and `plotting`
draws the figures of the book. All public names are here: `import sobolev_lib as sl`.
"""

from sobolev_lib.certificates.error_bound import ErrorBound, Extreme, error_bound
from sobolev_lib.certificates.references import Reference, bachelier_reference, black_scholes_reference
from sobolev_lib.certificates.repair import Repaired, repair
from sobolev_lib.certificates.verdicts import (
    Bounds,
    Verdict,
    bounds,
    is_convex,
    is_increasing,
    is_non_negative,
    lipschitz,
    within,
)
from sobolev_lib.enclosure import interval
from sobolev_lib.enclosure.adjoints import Enclosure, Split, enclose
from sobolev_lib.enclosure.affine import affine
from sobolev_lib.enclosure.interval import Interval
from sobolev_lib.export.onnx import export_onnx, load_onnx
from sobolev_lib.export.source import export_source
from sobolev_lib.network.activations import ACTIVATIONS, Activation
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.plotting import PALETTE, draw_network, draw_path, use_style
from sobolev_lib.pruning.certified import CertifiedCut, cut_certified
from sobolev_lib.pruning.cut import (
    affine_layers,
    cut,
    cut_inputs,
    keep_most,
    means,
    midpoints,
    remove_layers,
)
from sobolev_lib.pruning.grow import grow
from sobolev_lib.pruning.judge import Path
from sobolev_lib.pruning.linearise import Linearised, linearise
from sobolev_lib.pruning.scores import (
    Scores,
    balls,
    score_at_random,
    score_by_magnitude,
    score_by_taylor,
    score_by_variance,
    significance,
)
from sobolev_lib.pruning.selection import keep_predictive
from sobolev_lib.pruning.shrink import shrink
from sobolev_lib.simulation import directions
from sobolev_lib.simulation.case_study import BasketCase, basket_case
from sobolev_lib.simulation.closed_form import Greeks, bachelier, black_scholes, heston
from sobolev_lib.simulation.labels import label
from sobolev_lib.simulation.models import Bachelier, BlackScholes, Heston
from sobolev_lib.simulation.noise import antithetic, gaussian, sobol
from sobolev_lib.simulation.payoffs import (
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
from sobolev_lib.simulation.samples import Samples, concatenate
from sobolev_lib.simulation.schemes import EulerMaruyama, Exact, FullTruncation, Milstein, simulate
from sobolev_lib.training.checkpoint import History
from sobolev_lib.training.errors import Errors, Violations, evaluate, score, table, violations
from sobolev_lib.training.fit import fit
from sobolev_lib.training.loss import SobolevLoss, balance_by_covariance, balance_by_moments, clip_tails
from sobolev_lib.training.uncertainty import Bars, LackOfFit, Uncertainty, lack_of_fit, noise_floor, uncertainty

__version__ = "0.2.0"

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
    "concatenate",
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
    "within",
    # Chapter 10: proved errors
    "Reference",
    "bachelier_reference",
    "black_scholes_reference",
    "Extreme",
    "ErrorBound",
    "error_bound",
    "Repaired",
    "repair",
    "CertifiedCut",
    "cut_certified",
    # Chapter 7: significance and pruning
    "Scores",
    "balls",
    "significance",
    "score_by_magnitude",
    "score_by_taylor",
    "score_by_variance",
    "score_at_random",
    "keep_most",
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
    "clip_tails",
    "History",
    "fit",
    # Chapters 9 and 11: errors and error bars
    "Errors",
    "evaluate",
    "score",
    "noise_floor",
    "Violations",
    "violations",
    "Bars",
    "LackOfFit",
    "Uncertainty",
    "lack_of_fit",
    "uncertainty",
    "table",
    # Chapter 14: export
    "export_onnx",
    "load_onnx",
    "export_source",
    # Figures
    "PALETTE",
    "draw_network",
    "draw_path",
    "use_style",
]
