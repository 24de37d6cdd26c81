"""The case study as one command: simulate, train, prune, fine-tune; a table, and the same as JSON.

    python -m benchmarks.case_study --dim 7 --seed 0 1 2 --samples 1048576 --strike 1.1 --volatility 0.2 \
        --out results/case_study.json

Everything random follows from the seed: volatilities and correlations (and weights, unless d = 7 or they are given),
labels, initial weights, test points. Without `--out` the table goes to the terminal only. Times are processor seconds
of one thread. Chapter 9 discusses the table.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks.report import environment, write_whole
from benchmarks.suite import excess

FULL = (128,) * 6  # hidden widths of the oversized network
HELD_OUT = 8  # one in so many samples, at most, judges the pruned networks and trains none
BATCH = 1024  # of Adam for the oversized network; one pass over all labels, a thousand steps at least
WORK = 2e9  # samples x labels x squared parameters of one Levenberg-Marquardt step: about a second
ENOUGH = 2**15  # samples that decide, with as many held-out ones, which nodes go; fine-tuning uses more
FEW = 16_384  # samples on which the search from below compares sizes
WIDTH = 0.1  # of the payoff's smoothing, in units of the basket's volatility over the horizon


@dataclass(frozen=True)
class Config:
    """What a run depends on."""

    dim: int = 7
    seed: int = 0
    samples: int = 2**20
    strike: float = 1.1
    volatility: float = 0.2
    weights: tuple[float, ...] | None = None
    brief: bool = False

    def __post_init__(self):
        """Refuse what cannot be run, before any work."""
        if not 1 <= self.dim <= 100:
            raise ValueError(f"dim: got {self.dim}, need 1 to 100")
        if self.samples < 4096:
            raise ValueError(f"samples: got {self.samples}, need at least 4096")
        if self.weights is not None and len(self.weights) != self.dim:
            raise ValueError(f"weights: got {len(self.weights)}, need one for each of {self.dim} assets")


def problem(config: Config) -> sl.BasketCase:
    """Return model, payoff and truth."""
    smoothing = sl.Blend(width=WIDTH * config.volatility)
    return sl.basket_case(
        config.dim,
        seed=config.seed,
        strike=config.strike,
        volatility=config.volatility,
        weights=config.weights,
        smoothing=smoothing,
    )


def draw(case: sl.BasketCase, count: int, seed: int) -> sl.Samples:
    """Return values and gradients of single antithetic pairs, from Sobol' points."""
    noise = sl.sobol(seed=seed)
    x = case.inputs(count, noise)
    return sl.label(case.model, case.payoff, x, horizon=case.horizon, noise=noise)


class Stopwatch:
    """Processor seconds since it was last read."""

    def __init__(self):
        self.at = time.process_time()

    def read(self) -> float:
        """Return the seconds, and start again."""
        before, self.at = self.at, time.process_time()
        return self.at - before


def trained(net: sl.Surrogate, train: sl.Samples, order: int, *, steps: int = 0, seed: int = 0) -> sl.Surrogate:
    """Return a copy of a small network after Adam steps and least squares on as many labels as those can afford."""
    net, labels = net.copy(), 1 + order * net.widths[0]
    rows = max(FEW, int(WORK / (labels * net.parameter_count**2)))
    balance = "covariance" if order else "moments"
    sl.fit(net, train[:rows], order=order, steps=steps, balance=balance, finish=20, seed=seed)
    return net


def large(config: Config, train: sl.Samples, order: int) -> sl.Surrogate:
    """Return the oversized network, trained at one order on all labels."""
    net = sl.Surrogate([config.dim, *FULL, 1], generator=torch.Generator().manual_seed(config.seed))
    steps = max(1000, len(train) // BATCH)
    sl.fit(net, train, order=order, steps=steps, batch=BATCH, learning_rate=1e-2, seed=config.seed)
    return net


def cut_in_one_stroke(net: sl.Surrogate, widths: list[int], x: Tensor) -> sl.Surrogate:
    """Return the network cut to the given widths, layers first, without any training."""
    surplus = len(net.widths) - len(widths)
    if surplus:
        net = sl.remove_layers(net, sl.affine_layers(net, x[:4096], surplus), x)
    scores = sl.significance(net, sl.balls(x[:256], radius=0.1 * net.input_scale))
    return sl.cut(net, sl.keep_most(scores.hidden, widths[1:-1]), x=x)


def scratch(widths: list[int], train: sl.Samples, order: int, seed: int) -> sl.Surrogate:
    """Return a small network that was trained from random weights."""
    start = sl.Surrogate(widths, gain=1.0, generator=torch.Generator().manual_seed(seed))
    return trained(start, train, order, steps=500, seed=seed)


def searched(train: sl.Samples, held: sl.Samples, seed: int) -> sl.Surrogate:
    """Return the smallest d-k-1, k = 1, 2, .., 6, that held-out labels do not tell from the best; two starts each."""
    dim = train.x.shape[1]
    nets = [scratch([dim, k, 1], train[:FEW], 1, seed + 10 * start) for k in range(1, 7) for start in range(2)]
    loss = sl.balance_by_covariance(nets[-1], held, 1)
    with torch.no_grad():
        squares = [loss.residuals(net, held).square().sum(1) for net in nets]
    best = min(squares, key=lambda own: own.mean().item())
    fits = [net for net, own in zip(nets, squares, strict=True) if excess(own, best) <= 1]
    return min(fits, key=lambda net: net.parameter_count)


def networks(config: Config, case: sl.BasketCase):
    """Yield name, network (or path of `shrink`) and seconds of each step: the pipeline, then what it is compared with.

    The seconds of a network include those of the networks that it was made from, except those of the labels.
    """
    watch, count = Stopwatch(), min(config.samples // HELD_OUT, ENOUGH)
    held = draw(case, count, 1_000_003 + config.seed)
    train = draw(case, config.samples - count, config.seed)
    yield "labels", None, watch.read()
    full = large(config, train, 1)
    yield "full_order1", full, (so_far := watch.read())
    pruned, path = sl.shrink(full, train[:ENOUGH], validation=held, seed=config.seed)
    so_far += watch.read()
    yield "path", path, so_far
    yield "pruned", pruned, so_far
    tuned = trained(pruned, train, 1)
    yield "pruned_order1", tuned, so_far + watch.read()
    if config.brief:
        return
    cut = cut_in_one_stroke(full, pruned.widths, train.x[:FEW])
    yield "cut", cut, watch.read()
    yield "cut_order1", trained(cut, train, 1), watch.read()
    for order in (0, 1):
        yield f"scratch_order{order}", scratch(pruned.widths, train, order, config.seed), watch.read()
    found = searched(train, held, config.seed)
    yield "searched_order1", trained(found, train, 1), watch.read()
    values = large(config, train, 0)
    yield "full", values, (so_far := watch.read())
    small, path = sl.shrink(values, train[:ENOUGH], order=0, validation=held, seed=config.seed)
    so_far += watch.read()
    yield "path_order0", path, so_far
    tuned = trained(small, train, 0) if small.parameter_count < values.parameter_count else small
    yield "pruned_order0", tuned, so_far + watch.read()


def run(config: Config) -> dict:
    """Run the whole case study for one seed and return what is to be reported."""
    case = problem(config)
    x = case.test_inputs(seed=config.seed)
    exact = case.reference(x)
    scale = {name: getattr(exact, name).square().mean().sqrt().item() for name in ("price", "delta", "gamma")}
    result: dict = {"config": asdict(config), "scale": scale, "networks": []}
    start = time.process_time()
    for name, item, seconds in networks(config, case):
        if isinstance(item, sl.Path):
            trials = [asdict(trial) for trial in item.trials]
            result[name] = {"trials": trials, "reason": item.reason, "seconds": round(seconds, 1)}
            continue
        if item is None:
            result[f"seconds_{name}"] = round(seconds, 1)
            continue
        errors = sl.evaluate(item, x, exact)
        entry = {"name": name, "widths": list(errors.widths), "parameters": errors.parameters}
        entry |= {"rmse": errors.rmse, "max": errors.maximum, "seconds": round(seconds, 1)}
        result["networks"].append(entry)
        print(line(entry), flush=True)
    result["seconds"] = round(time.process_time() - start, 1)
    return result


def line(entry: dict) -> str:
    """Return one row of the table."""
    widths = "-".join(map(str, entry["widths"])).replace("128-128-128-128-128-128", "128x6")
    figures = "".join(f"{entry['rmse'][q]:9.1e} {entry['max'][q]:8.0e}" for q in ("price", "delta", "gamma"))
    return f"{entry['name']:32} {entry['parameters']:>7,} {widths:>14}{figures} {entry['seconds']:6.0f} s"


HEADER = f"{'RMSE and maximum of':32} {'params':>7} {'widths':>14}{'price':>18}{'delta':>18}{'gamma':>18}"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Simulate, train, prune, fine-tune: the case study for any basket.")
    parser.add_argument("--dim", type=int, nargs="+", default=[7], help="numbers of assets, 1 to 100")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one run for each, and for each dim")
    parser.add_argument("--samples", type=int, default=2**20, help="labels in all, held-out ones included")
    parser.add_argument("--strike", type=float, default=1.1)
    parser.add_argument("--volatility", type=float, default=0.2, help="of the basket")
    parser.add_argument("--weights", type=float, nargs="+", help="of the basket; default: published (d = 7) or drawn")
    parser.add_argument("--brief", action="store_true", help="only the pipeline, without what it is compared with")
    parser.add_argument("--out", type=Path, help="where the JSON goes; default: nowhere")
    return parser.parse_args()


def main() -> None:
    """Run the case study for every seed, print the table, write the JSON."""
    options = arguments()
    weights = tuple(options.weights) if options.weights else None
    configs = [
        Config(
            dim=dim,
            seed=seed,
            samples=options.samples,
            strike=options.strike,
            volatility=options.volatility,
            weights=weights,
            brief=options.brief,
        )
        for dim in options.dim
        for seed in options.seed
    ]
    torch.set_num_threads(1)  # batches are too small for more, and a second thread that waits its turn costs much
    runs = []
    for config in configs:
        print(f"d = {config.dim}, seed {config.seed}\n{HEADER}", flush=True)
        runs.append(run(config))
        print(f"{runs[-1]['seconds']:.0f} s; {runs[-1]['path']['reason']}", flush=True)
        if options.out:
            write_whole(options.out, json.dumps({"runs": runs, "environment": environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
