"""The benchmarks that others run: arguments, the JSON they promise, and what `results/` holds."""

import itertools
import json
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from benchmarks import case_study
from sobolev_lib.simulation.case_study import PUBLISHED_WEIGHTS

RESULTS = Path(__file__).resolve().parents[1] / "results"


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The whole case study with a small "large" network and few samples, from the command line."""
    out = tmp_path_factory.mktemp("results") / "made" / "case.json"
    patch = pytest.MonkeyPatch()
    patch.setattr(case_study, "FULL", (12, 12))
    arguments = "case_study --dim 2 --seed 3 4 --samples 4096 --strike 0.95 --volatility 0.3 --weights 1 3 --order 1"
    patch.setattr("sys.argv", [*arguments.split(), "--out", str(out)])
    threads = torch.get_num_threads()
    case_study.main()
    torch.set_num_threads(threads)
    patch.undo()
    return json.loads(out.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_json_is_what_is_promised(small_run):
    assert set(small_run) == {"runs", "environment"} and small_run["environment"]["torch"] == version("torch")
    assert [run["config"]["seed"] for run in small_run["runs"]] == [3, 4]
    for run in small_run["runs"]:
        assert run["config"]["weights"] == [1, 3] and run["config"]["max_parameters"] == 25
        assert [net["name"] for net in run["networks"]] == [
            *("full", "full_order1", "cut", "pruned", "pruned_finetuned_order0", "pruned_finetuned_order1"),
            *("scratch_order1", "pruned_further_finetuned_order1"),
        ]
        for net in run["networks"]:
            widths = net["widths"]
            assert net["parameters"] == sum((a + 1) * b for a, b in itertools.pairwise(widths))
            assert all(0 < net["rmse"][q] <= net["max"][q] for q in ("price", "delta", "gamma")) and net["seconds"] >= 0
        assert all(net["parameters"] <= 25 for net in run["networks"] if "pruned" in net["name"])


@pytest.mark.slow
def test_fine_tuning_lowers_all_errors(small_run):
    for run in small_run["runs"]:
        error = {net["name"]: net["rmse"] for net in run["networks"]}
        assert all(error["pruned_finetuned_order1"][q] < error["pruned"][q] for q in ("price", "delta", "gamma"))


def test_the_problem_is_the_one_that_was_asked_for():
    config = case_study.Config(dim=3, seed=5, strike=0.8, volatility=0.4, weights=(1.0, 1.0, 2.0))
    case = case_study.problem(config)
    assert case.strike == 0.8 and case.weights.tolist() == [0.25, 0.25, 0.5]
    loading = case.weights @ case.model.cholesky
    assert loading.norm().item() == pytest.approx(0.4, rel=1e-12)


def test_weights_are_published_for_seven_assets_and_drawn_otherwise():
    published = torch.tensor(PUBLISHED_WEIGHTS, dtype=torch.float64)
    seven, five, other = (
        case_study.problem(case_study.Config(dim=dim, seed=seed)).weights for dim, seed in ((7, 4), (5, 0), (5, 1))
    )
    torch.testing.assert_close(seven, published / published.sum())
    assert not torch.equal(five, other) and five.sum().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "dim: got 0, need 1 to 100"),
        ({"samples": 100}, "samples: got 100, need at least 4096"),
        ({"order": 3}, "order: got 3, need 0, 1 or 2"),
        ({"weights": (1.0,)}, "weights: got 1, need one for each of 7"),
        ({"max_parameters": 9}, "max_parameters: got 9, need 10"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(arguments, message):
    with pytest.raises(ValueError, match=message):
        case_study.Config(**arguments)


def test_the_stored_results_are_three_seeds_of_the_full_experiment():
    runs = json.loads((RESULTS / "case_study.json").read_text(encoding="utf-8"))["runs"]
    assert [run["config"]["seed"] for run in runs] == [0, 1, 2]
    assert all(run["config"]["samples"] == 2**20 and run["config"]["dim"] == 7 for run in runs)
