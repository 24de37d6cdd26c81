r"""Checkpoints: the state of a run in one file, so that a run that was killed goes on and ends with the same bits.

A run that is a sequence of states :math:`s_{t+1} = F(s_t)`, with :math:`F` fixed by arguments and data, ends the same
whether it is watched from the start or taken up from any :math:`s_t`, if the file holds every bit of :math:`s_t` and
the rest of the run depends on nothing else. What belongs to :math:`F` is kept as text and digests; a file whose
:math:`F` is another one is refused. Chapter 8.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from sobolev_lib import _files
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training.gauss_newton import Damping
from sobolev_lib.training.loss import SobolevLoss

__all__ = ["History"]

FORMAT = "sobolev_lib.checkpoint/1"
PAUSE = 1.0  # seconds between two files, at least
SHARE = 0.05  # of the time that writing may take


class Checkpoint:
    """A file that holds the state of one run.

    Args:
        path: Where the file is, or will be.
        run: What the run is determined by, as text by name.

    Example:
        >>> import torch
        >>> from pathlib import Path
        >>> from sobolev_lib.training.checkpoint import Checkpoint
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Checkpoint(Path(folder) / "run", {"steps": "2"})
        ...     before = file.read()
        ...     file.write({"weights": torch.ones(2)}, {"step": 1})
        ...     before, file.read()
        (None, ({'weights': tensor([1., 1.])}, {'step': 1}))
    """

    def __init__(self, path: str | os.PathLike, run: Mapping[str, str]):
        self.path, self.run = Path(path), dict(run)
        if not self.path.parent.is_dir():
            raise ValueError(f"checkpoint: got {self.path}, need a file name in a folder that exists")
        self._next = time.monotonic() + PAUSE

    def read(self) -> tuple[dict[str, Tensor], dict] | None:
        """Return the tensors and the other facts of the state, or None if there is no file.

        Raises:
            ValueError: The file is not a checkpoint, is damaged, or belongs to another run; says what differs.
        """
        if not self.path.exists():
            return None
        tensors, metadata = _files.read("checkpoint", self.path, FORMAT, "a checkpoint or no file")
        other = json.loads(metadata["run"])
        names = [name for name in {**other, **self.run} if other.get(name) != self.run.get(name)]
        if names:
            differences = "; ".join(f"{name} was {other.get(name)}, now {self.run.get(name)}" for name in names)
            raise ValueError(
                f"checkpoint: got {self.path} of another run ({differences}), need the run it was written by, "
                "another path, or no file"
            )
        return tensors, json.loads(metadata["facts"])

    @property
    def due(self) -> bool:
        """Whether it is time for the next file: a second after the last, or when writing has cost too small a share."""
        return time.monotonic() >= self._next

    def write(self, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
        """Write the state, whole or not at all: under another name, to the disk, and then under its own."""
        start = time.monotonic()
        metadata = {"format": FORMAT, "run": json.dumps(self.run), "facts": json.dumps(facts)}
        _files.write(self.path, tensors, metadata)
        now = time.monotonic()
        self._next = now + max(PAUSE, (now - start) / SHARE)


@dataclass
class History:
    """What `fit` did.

    Attributes:
        loss: The batch loss at every Adam step.
        finish: The full loss after every accepted Levenberg-Marquardt step, one list per balance and subset; the last
            one is that of all samples.
        validation: Pairs (step, loss on the validation samples).
        kept: Why the network is not that of the last step, or empty: with `validation`, the best one is returned.
        far: Why the end is no minimum to rely on, or empty: the best affine function fits clearly better.

    Chapter 8, "The minimiser: Levenberg-Marquardt".
    """

    loss: list[float] = field(default_factory=list)
    finish: list[list[float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    kept: str = ""
    far: str = ""


@dataclass
class State:
    """Where a run is: with the settings and the data, everything that the rest of it depends on."""

    net: Surrogate
    loss: SobolevLoss
    start: str  # digest of the network that the run began with
    history: History = field(default_factory=History)
    step: int = 0  # the next one of Adam
    lowest: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    damping: Damping = field(default_factory=Damping)
    started: bool = False
    finished: bool = False
    file: Checkpoint | None = None

    def __post_init__(self):
        trained = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        if any(parameter.is_inference() for parameter in self.net.parameters()):
            raise ValueError("net: got one that was made in inference mode, need one made outside, to be changed")
        if not trained:
            raise ValueError("net: got parameters that all have requires_grad=False, need one to train")
        self.optimizer = torch.optim.Adam(trained, fused=True)

    def restore(self, file: Checkpoint) -> None:
        """Take the state that is in the file, if it exists, and keep the file for ``save``."""
        self.file = file
        found = file.read()
        if found is None:
            return
        tensors, facts = found
        group = lambda prefix: {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}  # noqa: E731
        weights = group("net.")
        if self.start != facts["start"] and any(
            not torch.equal(tensor, weights[name]) for name, tensor in self.net.state_dict().items()
        ):
            raise ValueError(
                f"checkpoint: got {file.path}, whose run began with other weights, need the network as it was then, "
                "or as the file has it, another path, or no file"
            )
        self.net.load_state_dict(weights)
        for index, parameter in enumerate(self.net.parameters()):
            self.optimizer.state[parameter] = group(f"adam.{index}.")
        self.start, self.step, self.lowest = facts["start"], facts["step"], facts["lowest"]
        self.finished, self.best = facts["finished"], group("best.")
        self.started = True
        self.loss, self.damping = SobolevLoss(self.loss.order, tensors["balance"]), Damping(**facts["damping"])
        pairs = [(step, value) for step, value in facts["validation"]]
        self.history = History(tensors["history.loss"].tolist(), facts["finish"], pairs, facts["kept"], facts["far"])

    def retreat(self) -> None:
        """Leave a network that can be relied on when a run is broken off: that of the file, or the best one."""
        if self.file is not None:
            self.restore(self.file)
        elif self.best:
            self.net.load_state_dict(self.best)

    def save(self, *, now: bool = False) -> None:
        """Write the state to the file, if there is one and it is time to."""
        if self.file is None or not (now or self.file.due):
            return
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        for index, parameter in enumerate(self.net.parameters()):
            tensors |= {f"adam.{index}.{name}": t for name, t in self.optimizer.state.get(parameter, {}).items()}
        tensors |= {"balance": self.loss.matrix, "history.loss": torch.tensor(self.history.loss, dtype=torch.float64)}
        facts = {name: getattr(self, name) for name in ("start", "step", "lowest", "finished")}
        facts |= {name: getattr(self.history, name) for name in ("finish", "validation", "kept", "far")}
        self.file.write(tensors, facts | {"damping": asdict(self.damping)})

    def end(self) -> None:
        """Note that there is nothing left to do."""
        if not self.finished:
            self.finished = True
            self.save(now=True)
