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
draws the figures of the book. What a module names in its `__all__` is public and
stands here (`import sobolev_lib as sl`); `plotting`, and Matplotlib with it, is loaded when it is asked for.
"""

from typing import TYPE_CHECKING

from sobolev_lib.simulation.noise import *
from sobolev_lib.simulation.models import *
from sobolev_lib.simulation.schemes import *
from sobolev_lib.simulation.payoffs import *
from sobolev_lib.simulation.closed_form import *
from sobolev_lib.simulation.samples import *
from sobolev_lib.simulation import directions as directions
from sobolev_lib.simulation.labels import *
from sobolev_lib.simulation.case_study import *
from sobolev_lib.network.activations import *
from sobolev_lib.network.surrogate import *
from sobolev_lib.enclosure import interval as interval
from sobolev_lib.enclosure.interval import *
from sobolev_lib.enclosure.affine import *
from sobolev_lib.enclosure.adjoints import *
from sobolev_lib.training.loss import *
from sobolev_lib.training.checkpoint import *
from sobolev_lib.training.fit import *
from sobolev_lib.training.errors import *
from sobolev_lib.training.uncertainty import *
from sobolev_lib.certificates.references import *
from sobolev_lib.certificates.verdicts import *
from sobolev_lib.certificates.error_bound import *
from sobolev_lib.certificates.repair import *
from sobolev_lib.pruning.scores import *
from sobolev_lib.pruning.cut import *
from sobolev_lib.pruning.selection import *
from sobolev_lib.pruning.certified import *
from sobolev_lib.pruning.judge import *
from sobolev_lib.pruning.shrink import *
from sobolev_lib.export.onnx import *
from sobolev_lib.export.source import *

if TYPE_CHECKING:
    from sobolev_lib.plotting import *

__version__ = "0.2.0"

_FIGURES = ["PALETTE", "draw_network", "use_style"]
_HIDDEN = {"TYPE_CHECKING", "simulation", "network", "enclosure", "training", "certificates", "pruning", "export"}
__all__ = [name for name in globals() if name[0] != "_" and name not in _HIDDEN] + _FIGURES


def __getattr__(name: str):
    """Load `plotting`, and matplotlib with it, when somebody asks for a figure."""
    if name not in (*_FIGURES, "plotting"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    plotting = import_module("sobolev_lib.plotting")
    return plotting if name == "plotting" else getattr(plotting, name)


def __dir__() -> list[str]:
    """Return what is here, and what `__getattr__` fetches."""
    return [*globals(), *_FIGURES]
