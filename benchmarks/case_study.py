"""The case study as one command: simulate, train, prune, fine-tune; a table, and the same as JSON.

    python -m benchmarks.case_study --dim 7 --seed 0 1 2 --samples 1048576 --strike 1.1 --volatility 0.2 \
        --max-parameters 40 --order 2 --out results/case_study.json

Everything random follows from the seed: volatilities and correlations (and weights, unless d = 7 or they are given),
labels, initial weights, test points. Chapter 9 discusses the table.
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

FULL = (128,) * 6  # hidden widths of the oversized network
HELD_OUT = 8  # one in so many samples judges the pruned networks and trains none
WORK = 1.2e10  # samples x labels x squared parameters of one Levenberg-Marquardt step: about four seconds
ENOUGH = 16_384  # samples: with fewer than these, least squares would waste the others
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
    max_parameters: int | None = None
    order: int = 2
    brief: bool = False

    def __post_init__(self):
        """Refuse what cannot be run, before any work."""
        least = self.dim + 3
        if not 1 <= self.dim <= 100:
            raise ValueError(f"dim: got {self.dim}, need 1 to 100")
        if self.samples < 4096:
            raise ValueError(f"samples: got {self.samples}, need at least 4096")
        if self.order not in (0, 1, 2):
            raise ValueError(f"order: got {self.order}, need 0, 1 or 2")
        if self.weights is not None and len(self.weights) != self.dim:
            raise ValueError(f"weights: got {len(self.weights)}, need one for each of {self.dim} assets")
        if self.max_parameters is not None and self.max_parameters < least:
            raise ValueError(f"max_parameters: got {self.max_parameters}, need {least}, one node's, or more")

    @property
    def budget(self) -> int:
        """Most parameters of the pruned network: those of d-3-3-1, unless it is given."""
        return self.max_parameters or 3 * self.dim + 19


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


def draw(case: sl.BasketCase, count: int, seed: int, order: int) -> sl.Samples:
    """Return labels of single antithetic pairs, from Sobol' points; order 2 along (1, .., 1)."""
    noise = sl.sobol(seed=seed)
    directions = torch.ones(1, case.dim, dtype=torch.float64) if order == 2 else None
    x = case.inputs(count, noise)
    return sl.label(case.model, case.payoff, x, horizon=case.horizon, noise=noise, order=order, directions=directions)


class Stopwatch:
    """Seconds since it was last read."""

    def __init__(self):
        self.at = time.perf_counter()

    def read(self) -> float:
        """Return the seconds, and start again."""
        before, self.at = self.at, time.perf_counter()
        return self.at - before


def train_small(net: sl.Surrogate, samples: sl.Samples, order: int, *, steps: int, seed: int) -> None:
    """Sobolev training of a small network: least squares where it is affordable, else Adam alone."""
    labels = 1 + (order >= 1) * net.widths[0] + (order == 2) * net.widths[0]
    rows = int(WORK / (labels * net.parameter_count**2))
    balance = "moments" if order == 0 else "covariance"
    if rows >= min(ENOUGH, len(samples)):
        sl.fit(net, samples[:rows], order=order, steps=steps, balance=balance, seed=seed)
    else:
        sl.fit(net, samples, order=order, steps=3000, learning_rate=3e-3, balance=balance, finish=0, seed=seed)


def fine_tuned(net: sl.Surrogate, samples: sl.Samples, order: int) -> sl.Surrogate:
    """Return a copy after Sobolev training of the given order."""
    tuned = net.copy()
    train_small(tuned, samples, order, steps=0, seed=0)
    return tuned


def cut_in_one_stroke(net: sl.Surrogate, widths: list[int], x: Tensor) -> sl.Surrogate:
    """Return the network cut to the given widths, layers first, without any training."""
    surplus = len(net.widths) - len(widths)
    if surplus:
        net = sl.remove_layers(net, sl.affine_layers(net, x[:4096], surplus), x)
    scores = sl.significance(net, sl.balls(x[:256], radius=0.1 * net.input_scale))
    return sl.cut(net, sl.keep_most(scores.hidden, widths[1:-1]), x=x)


def networks(config: Config, case: sl.BasketCase):
    """Yield name, network (or path of `shrink`) and seconds of each step, in the order of the pipeline."""
    watch = Stopwatch()
    held_count = config.samples // HELD_OUT
    held = draw(case, held_count, 1_000_003 + config.seed, min(config.order, 1))
    train = draw(case, config.samples - held_count, config.seed, config.order)
    yield "labels", None, watch.read()
    generator = torch.Generator().manual_seed(config.seed)
    full = sl.Surrogate([config.dim, *FULL, 1], generator=generator)
    sobolev = full.copy()
    settings = {"steps": 2000, "batch": 256, "learning_rate": 3e-3, "seed": config.seed}
    sl.fit(full, train, order=0, **settings)
    yield "full", full, watch.read()
    if config.order and not config.brief:
        sl.fit(sobolev, train, order=1, **settings)
        yield "full_order1", sobolev, watch.read()
    pruned, path = sl.shrink(full, train, validation=held, enough=config.budget, seed=config.seed)
    seconds = watch.read()
    yield "path", path, seconds
    yield "cut", cut_in_one_stroke(full, pruned.widths, train.x[:16384]), watch.read()
    yield "pruned", pruned, seconds
    for order in [config.order] if config.brief else range(config.order + 1):
        tuned = fine_tuned(pruned, train, order)
        yield f"pruned_finetuned_order{order}", tuned, watch.read()
    if config.brief:
        return
    start = sl.Surrogate(pruned.widths, generator=generator)
    for order in range(1, config.order + 1):
        scratch = start.copy()
        train_small(scratch, train, order, steps=2000, seed=config.seed)
        yield f"scratch_order{order}", scratch, watch.read()
    if config.order:
        best = fine_tuned(pruned, train, 1)
        smallest, path = sl.shrink(best, train, order=1, validation=held, seed=config.seed)
        yield "path_further", path, watch.read()
        yield "pruned_further_finetuned_order1", fine_tuned(smallest, train, 1), watch.read()


def run(config: Config) -> dict:
    """Run the whole case study for one seed and return what is to be reported."""
    case = problem(config)
    x = case.test_inputs(seed=config.seed)
    exact = case.reference(x)
    scale = {name: getattr(exact, name).square().mean().sqrt().item() for name in ("price", "delta", "gamma")}
    result: dict = {"config": asdict(config) | {"max_parameters": config.budget}, "scale": scale, "networks": []}
    start = time.perf_counter()
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
    result["seconds"] = round(time.perf_counter() - start, 1)
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
    parser.add_argument("--max-parameters", type=int, help="of the pruned network; default: 3 d + 19")
    parser.add_argument("--order", type=int, default=2, help="highest order of the fine-tuning, 0 to 2")
    parser.add_argument("--brief", action="store_true", help="only the pipeline, without what it is compared with")
    parser.add_argument("--out", type=Path, default=Path("results/case_study.json"), help="where the JSON goes")
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
            max_parameters=options.max_parameters,
            order=options.order,
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
        write_whole(options.out, json.dumps({"runs": runs, "environment": environment()}, indent=1) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
