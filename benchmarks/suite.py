"""Pruning and its rivals on fifteen problems: size, error against the truth, time; a table, and the same as JSON.

    python -m benchmarks.suite --out results/suite.json                # all problems, seeds 0, 1 and 2: about an hour
    python -m benchmarks.suite --quick                                 # two problems, small: under a minute
    python -m benchmarks.suite --only Heston --parts full grid         # some problems, some networks; resumes --out
    python -m benchmarks.suite --robustness --out results/robustness.json    # few labels, many seeds

All networks learn from the same three quarters of the labels; the last quarter, held out, only judges: it stops the
pruning, and chooses among networks from scratch. Times are processor seconds of one thread.
"""

import argparse
import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks.problems import PROBLEMS, QUANTITIES, Problem
from benchmarks.report import environment, write_whole

FULL = (64, 64)
GRID = ((2, 2), (3, 3), (4, 4), (8, 8), (16, 16), (32, 32))  # 64-64 is the full network at order 1
STARTS = 2  # initial weights of each network that the search from below tries
AFFORDABLE = 1.5e9  # rows x labels x squared parameters up to which least squares finishes: a step takes half a second
FEW = {"case study, d = 7": 2**13, "Black-Scholes put": 2**13, "Heston call": 2**13, "Ornstein-Uhlenbeck": 2**12}


@dataclass(frozen=True)
class Found:
    """A network, and the processor seconds that it took."""

    name: str
    net: sl.Surrogate
    seconds: float


@dataclass(frozen=True, eq=False)
class Task:
    """One problem and seed: the labels, and what is common to all networks."""

    problem: Problem
    seed: int
    steps: int = 1200  # of Adam for large networks
    patience: float = 20.0  # seconds after which the search over small networks ends

    @cached_property
    def labels(self) -> sl.Samples:
        """All labels."""
        return self.problem.draw(self.problem.labels, 1000 + self.seed)

    @property
    def train(self) -> sl.Samples:
        """Three quarters of the labels."""
        return self.labels[: 3 * self.problem.labels // 4]

    @property
    def held(self) -> sl.Samples:
        """The last quarter."""
        return self.labels[3 * self.problem.labels // 4 :]

    def generator(self, number: int = 0) -> torch.Generator:
        """Return the source of initial weights."""
        return torch.Generator().manual_seed(10_007 * (self.seed + 1) + number)

    @cached_property
    def full_order1(self) -> Found:
        """The large network, trained on values and gradients."""
        start = time.process_time()
        net = sl.Surrogate([self.problem.dim, *FULL, 1], generator=self.generator())
        sl.fit(net, self.train, order=1, steps=self.steps, balance="covariance", seed=self.seed)
        return Found("full_order1", net, time.process_time() - start)

    @cached_property
    def pruned(self) -> Found:
        """The large network after pruning."""
        large, start = self.full_order1, time.process_time()
        net, _ = sl.shrink(large.net, self.train, validation=self.held, seed=self.seed)
        return Found("pruned", net, large.seconds + time.process_time() - start)

    @cached_property
    def whitening(self) -> sl.SobolevLoss:
        """What makes the residuals of the held-out labels comparable: their covariance."""
        return sl.balance_by_covariance(self.full_order1.net, self.held, 1)

    @torch.no_grad()
    def squares(self, net: sl.Surrogate) -> Tensor:
        """Return the whitened squared residuals of the held-out labels, (n,)."""
        return self.whitening.residuals(net, self.held).square().sum(1)

    def cost(self, net: sl.Surrogate) -> float:
        """Return the work of one step of least squares."""
        return len(self.train) * (1 + self.problem.dim) * net.parameter_count**2

    def trained(self, net: sl.Surrogate, steps: int = 200) -> sl.Surrogate:
        """Return the network after training on values and gradients, by Adam and least squares where affordable."""
        how = {"order": 1, "balance": "covariance", "seed": self.seed}
        if self.cost(net) <= AFFORDABLE:
            sl.fit(net, self.train, steps=steps, finish=40, **how)
        else:
            sl.fit(net, self.train, steps=self.steps, finish=0, **how)
        return net

    def scratch(self, hidden: tuple[int, ...], start: int) -> sl.Surrogate:
        """Return a network that was trained from random weights."""
        generator = self.generator(1 + start + 100 * sum(hidden))
        return self.trained(sl.Surrogate([self.problem.dim, *hidden, 1], gain=1.0, generator=generator))


def full(task: Task) -> Iterator[Found]:
    """Yield the large network, trained on values, and on gradients too."""
    start = time.process_time()
    net = sl.Surrogate([task.problem.dim, *FULL, 1], generator=task.generator())
    sl.fit(net, task.train, order=0, steps=task.steps, seed=task.seed)
    yield Found("full", net, time.process_time() - start)
    yield task.full_order1


def grid(task: Task) -> Iterator[Found]:
    """Yield networks of given shapes from scratch."""
    for hidden in GRID:
        start = time.process_time()
        net = task.scratch(hidden, 0)
        yield Found("scratch_" + "-".join(map(str, hidden)), net, time.process_time() - start)


def rival(task: Task) -> Iterator[Found]:
    """Yield what a search from below finds: one and two hidden layers of k = 1, 2, 3, ... nodes, two starts each.

    It ends when two further sizes have not lowered the held-out error by a standard error, or its time is spent; the
    smallest network within one standard error of the best is taken.
    """
    start, tried, best, since = time.process_time(), [], None, 0
    for k in itertools.count(1):
        before = best
        for hidden, number in itertools.product(((k,), (k, k)), range(STARTS)):
            net = task.scratch(hidden, number)
            tried.append((net, task.squares(net)))
        best = min((squares for _, squares in tried), key=lambda squares: squares.mean().item())
        since = 0 if before is None or excess(before, best) > 1 else since + 1
        if since >= 2 or time.process_time() - start > task.patience:
            break
    within = [net for net, squares in tried if excess(squares, best) <= 1]
    yield Found("rival", min(within, key=lambda net: net.parameter_count), time.process_time() - start)


def excess(squares: Tensor, best: Tensor) -> float:
    """Return the mean difference of squared residuals in standard errors."""
    gaps = squares - best
    return 0.0 if squares is best else (gaps.mean() / gaps.std() * len(gaps) ** 0.5).item()


def pipeline(task: Task) -> Iterator[Found]:
    """Yield the large network after pruning, and after more least squares if held-out labels find that better."""
    yield task.pruned
    start, net = time.process_time(), task.pruned.net
    tuned = net.copy()
    sl.fit(tuned, task.train, order=1, steps=0, finish=30, balance="covariance", seed=task.seed)
    better = min(net, tuned, key=lambda n: task.squares(n).mean().item())
    yield Found("pruned_finetuned", better, task.pruned.seconds + time.process_time() - start)


def magnitude(task: Task) -> Iterator[Found]:
    """Yield what magnitudes choose, of the size that pruning found, trained as networks from scratch are."""
    widths, start = task.pruned.net.widths, time.process_time()
    cut = in_one_stroke(task.full_order1.net, widths, task.train.x)
    yield Found("magnitude", task.trained(cut), task.full_order1.seconds + time.process_time() - start)


def in_one_stroke(net: sl.Surrogate, widths: list[int], x: Tensor) -> sl.Surrogate:
    """Return the network cut to the given widths by magnitude, layers first; what goes is folded by regression."""
    surplus = len(net.widths) - len(widths)
    if surplus:
        net = sl.remove_layers(net, sl.affine_layers(net, x, surplus), x)
    return sl.cut(net, sl.keep_most(sl.score_by_magnitude(net), widths[1:-1]), x=x)


PARTS: dict[str, Callable[[Task], Iterator[Found]]] = {
    "full": full,
    "grid": grid,
    "rival": rival,
    "pipeline": pipeline,
    "magnitude": magnitude,
}
NAMES = {
    "full": ("full", "full_order1"),
    "grid": tuple("scratch_" + "-".join(map(str, hidden)) for hidden in GRID),
    "rival": ("rival",),
    "pipeline": ("pruned", "pruned_finetuned"),
    "magnitude": ("magnitude",),
}


def described(task: Task, found: Found) -> dict:
    """Return what is stored of a network."""
    return {
        "name": found.name,
        "widths": found.net.widths,
        "parameters": found.net.parameter_count,
        "seconds": round(found.seconds, 2),
        "held_out": float(f"{task.squares(found.net).mean().item():.7g}"),
        "error": {name: float(f"{error:.4g}") for name, error in task.problem.errors(found.net).items()},
    }


def geometric(entry: dict) -> float:
    """Return the one figure: the geometric mean of the relative errors of value, gradient and curvature."""
    return math.prod(entry["error"][name] for name in QUANTITIES) ** (1 / len(QUANTITIES))


class Store:
    """The runs so far, in a file that is written whole after every part."""

    def __init__(self, path: Path | None):
        self.path = path
        known = path is not None and path.exists()
        self.runs: list[dict] = json.loads(path.read_text(encoding="utf-8"))["runs"] if known else []

    def run(self, task: Task) -> dict:
        """Return the run of a problem and seed, a new one if there is none."""
        key = {"problem": task.problem.name, "seed": task.seed, "labels": task.problem.labels}
        for run in self.runs:
            if all(run[name] == value for name, value in key.items()):
                return run
        self.runs.append(key | {"inputs": task.problem.dim, "networks": []})
        return self.runs[-1]

    def add(self, task: Task, part: str) -> None:
        """Train the networks of a part, unless they are there."""
        run = self.run(task)
        if set(NAMES[part]) <= {entry["name"] for entry in run["networks"]}:
            return
        for found in PARTS[part](task):
            entry = described(task, found)
            run["networks"] = [e for e in run["networks"] if e["name"] != entry["name"]] + [entry]
            widths = "-".join(map(str, entry["widths"]))
            errors = " ".join(f"{entry['error'][name]:.1e}" for name in QUANTITIES)
            text = f"{run['problem']:20} {run['seed']:>3} {entry['name']:16} {widths:>12} {entry['parameters']:>6}"
            print(f"{text} {entry['held_out']:9.4f}  {errors}  {entry['seconds']:6.1f} s", flush=True)
        if self.path is not None:
            content = {"runs": self.runs, "environment": environment()}
            write_whole(self.path, json.dumps(content).replace('{"problem"', '\n{"problem"') + "\n")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Pruning and its rivals on fifteen problems.")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[""], help="parts of problems' names")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="which networks")
    parser.add_argument("--quick", action="store_true", help="two problems, one seed, few labels and steps")
    parser.add_argument("--robustness", action="store_true", help="four problems with few labels, ten seeds")
    parser.add_argument("--out", type=Path, help="where the JSON goes; runs that it has are not repeated")
    return parser.parse_args()


def tasks(options: argparse.Namespace) -> Iterator[Task]:
    """Yield what was asked for."""
    problems = [problem for problem in (make() for make in PROBLEMS) if any(o in problem.name for o in options.only)]
    if options.quick:
        chosen = [replace(p, labels=2**10) for p in problems if p.name in ("Asian", "Ornstein-Uhlenbeck")]
        yield from (Task(problem, 0, steps=200, patience=3.0) for problem in chosen)
    elif options.robustness:
        chosen = [replace(p, labels=FEW[p.name]) for p in problems if p.name in FEW]
        yield from (Task(problem, 10 + seed) for seed in range(10) for problem in chosen)
    else:
        yield from (Task(problem, seed) for seed in options.seed for problem in problems)


def main() -> None:
    """Run, print, and write JSON."""
    options = arguments()
    torch.set_num_threads(1)
    store = Store(options.out)
    parts = ("rival", "pipeline") if options.robustness else options.parts
    for task in tasks(options):
        for part in parts:
            store.add(task, part)


if __name__ == "__main__":
    main()
