"""Several answers: one network for each, or one for all with as many parameters; a table, and the same as JSON.

    python -m benchmarks.several --out results/several.json    # about three minutes

Two quantities return to their levels, four inputs, three answers of the same paths: the greater at the end, the square
of the first, and the product. All networks have two hidden layers of SiLU nodes and are trained alike, by Adam with
a falling rate on all values and gradients, each answer in units of its own spread.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn

import sobolev_lib as sl
from benchmarks.report import environment, write_whole

ANSWERS = {
    "greater": lambda end: end.amax(1),
    "square": lambda end: end[:, 0].square(),
    "product": lambda end: end.prod(1),
}
LOW, HIGH = (torch.tensor(ends, dtype=torch.float64) for ends in ([0.5, 0.5, 0.5, 0.1], [1.5, 1.5, 1.5, 0.3]))
EACH, TOGETHER = 6, 12  # hidden nodes per layer: 3 x 79 parameters, and 255
STEPS, SEEDS = 3000, (0, 1, 2)


class Reverting:
    """dX = speed (1 - X) dt + noise dW in two components."""

    dim, speed, noise = 2, 1.0, 0.2

    def drift(self, t, x):
        """Return to 1."""
        return self.speed * (1 - x)

    def diffusion(self, t, x):
        """Each component has its own noise."""
        return self.noise * torch.ones_like(x)


def draw(n: int, seed: int, paths: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs in [-1, 1], values (n, m) and gradients (n, m, d) by these inputs."""
    unit = torch.rand(n, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    how = {"horizon": 1.0, "steps": 16, "varying": ("speed", "noise"), "paths": paths, "noise": sl.sobol(seed=seed)}
    made = [sl.label(Reverting(), answer, LOW + (HIGH - LOW) * unit, **how) for answer in ANSWERS.values()]
    half = (HIGH - LOW) / 2
    return 2 * unit - 1, torch.stack([s.value for s in made], 1), torch.stack([s.gradient * half for s in made], 1)


def network(hidden: int, outputs: int, seed: int) -> nn.Sequential:
    """Return a network with random weights."""
    torch.manual_seed(seed)
    layers = [nn.Linear(4, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, outputs)]
    return nn.Sequential(*layers).double()


def outputs(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return values (n, m) and gradients (n, m, d)."""
    x = x.requires_grad_()
    value = net(x)
    slopes = [torch.autograd.grad(v.sum(), x, create_graph=True)[0] for v in value.unbind(1)]
    return value, torch.stack(slopes, 1)


def trained(net: nn.Module, x: Tensor, value: Tensor, gradient: Tensor) -> nn.Module:
    """Return the network after training on labels of mean 0 and spread 1."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        rows = slice(step % 8 * 256, step % 8 * 256 + 256)
        found = outputs(net, x[rows].clone())
        loss = (found[0] - value[rows]).square().sum() + (found[1] - gradient[rows]).square().sum()
        optimizer.zero_grad()
        (loss / 256).backward()
        optimizer.step()
        rate.step()
    return net


def run(seed: int) -> dict:
    """Return relative errors of values and gradients by answer, for both ways."""
    x, value, gradient = draw(2048, 100 + seed)
    mean, spread = value.mean(0), value.std(0)
    value, gradient = (value - mean) / spread, gradient / spread[:, None]
    test, exact, slopes = draw(256, 999, paths=2**10)
    exact, slopes = (exact - mean) / spread, slopes / spread[:, None]
    nets = {
        "one for each": [
            trained(network(EACH, 1, seed + 10 * k), x, value[:, k : k + 1], gradient[:, k : k + 1])
            for k in range(len(ANSWERS))
        ],
        "one for all": [trained(network(TOGETHER, len(ANSWERS), seed), x, value, gradient)],
    }
    rows = {}
    for name, group in nets.items():
        parts = [outputs(net, test.clone()) for net in group]
        found = [torch.cat(pieces, 1).detach() for pieces in zip(*parts, strict=True)]
        error = ((found[0] - exact).square().mean(0) / exact.square().mean(0)).sqrt()
        slope = ((found[1] - slopes).square().mean((0, 2)) / slopes.square().mean((0, 2))).sqrt()
        size = sum(p.numel() for net in group for p in net.parameters())
        rows[name] = {"parameters": size, "value": error.tolist(), "gradient": slope.tolist()}
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="One network for each answer, or one for all.")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = []
    for seed in SEEDS:
        runs.append({"seed": seed, **run(seed)})
        for name in ("one for each", "one for all"):
            row = runs[-1][name]
            pairs = zip(ANSWERS, row["value"], row["gradient"], strict=True)
            shown = "  ".join(f"{answer} {v:.1e} / {g:.1e}" for answer, v, g in pairs)
            print(f"seed {seed}  {name:13} {row['parameters']:4} parameters  {shown}", flush=True)
    if options.out:
        write_whole(options.out, json.dumps({"runs": runs, "environment": environment()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
