"""Which nodes to keep: significance against its rivals, on five trained networks, at equal size and folding.

python -m benchmarks.pruning_rivals --out results/pruning_rivals.json     (about eight minutes on one quiet core)

Each seed draws its own labels, initial weights and order of samples. Chapter 7 reads the file that this writes.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import sobolev_lib as sl
from benchmarks.report import environment, write_whole

SEEDS = (0, 1, 2, 3, 4)
SIZES = (64, 32, 16, 8, 4)  # nodes that are kept in each layer; the fold is a regression
MILD = (120, 112, 96, 64)  # the same with sample means as the fold
TUNED = 8  # nodes per layer after which the network is fine-tuned as well
WIDTHS = [7, *[128] * 6, 1]
Policy = Callable[[int], list[Tensor]]


def trained(case: sl.BasketCase, seed: int) -> tuple[sl.Surrogate, sl.Samples]:
    """Train the full network on values alone, as Chapter 0 does."""
    noise = sl.sobol(seed=seed)
    x = case.inputs(2**15, noise)
    samples = sl.label(case.model, case.payoff, x, horizon=case.horizon, noise=noise, order=1)
    net = sl.Surrogate(WIDTHS, generator=torch.Generator().manual_seed(seed))
    sl.fit(net, samples, order=0, steps=2000, batch=256, learning_rate=3e-3, seed=seed)
    return net, samples


def rescored(net: sl.Surrogate, x: Tensor, count: int, score: Callable[[sl.Surrogate], list[Tensor]]) -> sl.Surrogate:
    """Halve the layers again and again, with new scores of the network that is left."""
    width = max(net.widths[1:-1])
    while width > count:
        width = max(count, width // 2)
        net = sl.cut(net, sl.keep_most(score(net), width), x=x)
    return net


def policies(net: sl.Surrogate, x: Tensor, seed: int) -> dict[str, Policy]:
    """Return, by name, how each rival chooses the nodes to keep."""
    boxes = sl.balls(x[:256], 0.1 * net.input_scale)
    enclosure = sl.enclose(net, boxes, rounding="nearest")
    few = sl.balls(x[:32], 0.1 * net.input_scale)
    scores = {
        "IASA": sl.significance(net, enclosure).hidden,
        "IASA, product": sl.significance(net, enclosure, measure="product").hidden,
        "IASA, gradient": sl.significance(net, boxes, of="gradient").hidden,
        "IASA, zonotopes": sl.significance(net, few, domain="zonotope", degree=1).hidden,
        "IASA, maximum": sl.significance(net, enclosure, aggregate="max").hidden,
        "IASA, large boxes": sl.significance(net, sl.balls(x[:256], net.input_scale)).hidden,
        "magnitude": sl.score_by_magnitude(net),
        "Taylor": sl.score_by_taylor(net, x),
        "Taylor, centred": sl.score_by_taylor(net, x, centred=True),
        "variance": sl.score_by_variance(net, x),
    }
    for draw in range(3):
        generator = torch.Generator().manual_seed(10 * seed + draw)
        scores[f"random {draw}"] = sl.score_at_random(net, generator)
    found = {name: (lambda count, s=score: sl.keep_most(s, count)) for name, score in scores.items()}
    found["predictive"] = lambda count: sl.keep_predictive(net, x, count)
    found["predictive, IASA"] = lambda count: sl.keep_predictive(net, x, count, enclosure=enclosure)
    return found


def measure(seed: int) -> dict[str, dict[str, list[float]]]:
    """Return the errors of price, delta and gamma of all cuts of one network."""
    case = sl.basket_case(smoothing=sl.Blend(width=0.02))
    x_test = case.test_inputs()
    truth = case.reference(x_test)
    net, samples = trained(case, seed)
    x, constants = samples.x[:8192], sl.means(net, samples.x[:8192])

    def errors(small: sl.Surrogate) -> list[float]:
        return [float(f"{error:.3e}") for error in sl.evaluate(small, x_test, truth).rmse.values()]

    def tuned(small: sl.Surrogate) -> list[float]:
        small = small.copy()
        sl.fit(small, samples, order=1, steps=500, batch=256, learning_rate=1e-3, finish=0, seed=seed)
        return errors(small)

    found = {"full": {"128": errors(net)}}
    for name, keep in policies(net, x, seed).items():
        cuts = {count: sl.cut(net, keep(count), x=x) for count in SIZES}
        found[name] = {str(count): errors(small) for count, small in cuts.items()}
        found[name] |= {f"{c}, means": errors(sl.cut(net, keep(c), values=constants)) for c in MILD}
        found[name][f"{TUNED}, tuned"] = tuned(cuts[TUNED])
        found[name][f"{TUNED}, largest weight"] = [float(f"{max(w.abs().max() for w in cuts[TUNED].weights):.3g}")]
    again = {
        "IASA": lambda small: sl.significance(small, sl.balls(x[:256], 0.1 * net.input_scale)).hidden,
        "Taylor, centred": lambda small: sl.score_by_taylor(small, x, centred=True),
        "random": lambda small: sl.score_at_random(small, torch.Generator().manual_seed(10 * seed)),
    }
    for name, score in again.items():
        found[f"{name}, rescored"] = {str(count): errors(rescored(net, x, count, score)) for count in SIZES}
    return found


def main() -> None:
    """Measure, print the means over the seeds, and write all errors as JSON."""
    parser = argparse.ArgumentParser(description="Compare ways to choose nodes at equal size and folding.")
    parser.add_argument("--out", type=Path, default=Path("results/pruning_rivals.json"), help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs, start = [], time.perf_counter()
    for seed in SEEDS:
        runs.append(measure(seed))
        print(f"seed {seed} done after {time.perf_counter() - start:.0f} s", flush=True)
    for name in runs[0]:
        means = {key: torch.tensor([run[name][key] for run in runs]).mean(0).tolist() for key in runs[0][name]}
        print(f"{name:18}", "  ".join(f"{key}: " + " ".join(f"{e:.1e}" for e in m[:2]) for key, m in means.items()))
    content = {"seeds": SEEDS, "quantities": ["price", "delta", "gamma"], "runs": runs, "environment": environment()}
    write_whole(options.out, json.dumps(content) + "\n")
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
