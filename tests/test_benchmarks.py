"""The benchmarks that others run: arguments, the JSON they promise, and what `results/` holds."""

import itertools
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

import sobolev_lib as sl
from benchmarks import case_study, certificates, coverage, design, dimensions, problems, suite
from sobolev_lib.simulation.case_study import PUBLISHED_WEIGHTS

RESULTS = Path(__file__).resolve().parents[1] / "results"


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """The whole case study with a small "large" network and few samples, from the command line."""
    out = tmp_path_factory.mktemp("results") / "made" / "case.json"
    patch = pytest.MonkeyPatch()
    patch.setattr(case_study, "FULL", (12, 12))
    arguments = "case_study --dim 2 --seed 3 4 --samples 4096 --strike 0.95 --volatility 0.3 --weights 1 3"
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
        assert run["config"]["weights"] == [1, 3]
        assert [net["name"] for net in run["networks"]] == [
            *("full_order1", "pruned", "pruned_order1", "cut", "cut_order1", "scratch_order0", "scratch_order1"),
            *("searched_order1", "full", "pruned_order0"),
        ]
        for net in run["networks"]:
            widths = net["widths"]
            assert net["parameters"] == sum((a + 1) * b for a, b in itertools.pairwise(widths))
            assert all(0 < net["rmse"][q] <= net["max"][q] for q in ("price", "delta", "gamma")) and net["seconds"] >= 0
        by_name = {net["name"]: net for net in run["networks"]}
        assert by_name["pruned_order1"]["widths"] == by_name["scratch_order1"]["widths"] == by_name["cut"]["widths"]
        assert by_name["pruned"]["parameters"] < by_name["full"]["parameters"]


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
        ({"weights": (1.0,)}, "weights: got 1, need one for each of 7"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(arguments, message):
    with pytest.raises(ValueError, match=message):
        case_study.Config(**arguments)


def test_the_stored_results_are_those_of_the_full_experiment():
    runs = json.loads((RESULTS / "case_study.json").read_text(encoding="utf-8"))["runs"]
    assert [run["config"]["seed"] for run in runs] == list(range(len(runs)))
    assert all(run["config"]["samples"] == 2**20 and run["config"]["dim"] == 7 for run in runs)


def test_the_stored_certificates_bound_what_was_sampled():
    stored = json.loads((RESULTS / "certificates.json").read_text(encoding="utf-8"))
    assert all(len(stored[part]) >= 3 for part in certificates.PARTS)
    for row in stored["rows"] + stored["two_directions"]:
        for name, proved in row["proved"].items():
            assert row["sampled"][name] <= proved and row["seen"][name] <= proved
    for row in stored["two_directions"]:
        assert all(row["proved"][name] <= 3 * row["sampled"][name] for name in certificates.NAMES)
    assert all(row["removed"]["proved"] <= row["removed"]["sampled"] < row["nodes"] for row in stored["cuts"])


def test_the_stored_suite_has_all_problems_and_their_rivals():
    runs = json.loads((RESULTS / "suite.json").read_text(encoding="utf-8"))["runs"]
    assert {run["problem"] for run in runs} == {make().name for make in problems.PROBLEMS}
    needed = {name for part in ("full", "grid", "rival", "pipeline", "magnitude") for name in suite.NAMES[part]}
    for run in runs:
        assert run["seed"] < 100  # from there on seeds are for tuning
        assert needed <= {entry["name"] for entry in run["networks"]}


def test_the_stored_robustness_has_few_labels_and_both_ways_for_every_seed():
    runs = json.loads((RESULTS / "robustness.json").read_text(encoding="utf-8"))["runs"]
    assert {(run["problem"], run["labels"]) for run in runs} == set(suite.FEW.items())
    assert len({run["seed"] for run in runs}) * len(suite.FEW) == len(runs) and min(run["seed"] for run in runs) > 2
    for run in runs:
        assert {entry["name"] for entry in run["networks"]} == {"rival", "pruned", "pruned_finetuned"}


@pytest.mark.parametrize("make", problems.PROBLEMS, ids=lambda make: make().name)
def test_the_truth_of_a_problem_is_the_mean_of_its_labels(make):
    """Level: 15 problems with up to 22 comparisons each at 5 standard errors, one false alarm in 10,000 runs."""
    problem = make()
    x = problem.truth["x"][:: max(1, len(problem.truth["x"]) // 64)]
    rows = torch.arange(0, len(problem.truth["x"]), max(1, len(problem.truth["x"]) // 64))
    found = problem.label(x.repeat(40, 1), sl.gaussian(seed=7))
    gaps = [found.value - problem.truth["value"][rows].repeat(40)]
    gaps += list((found.gradient - problem.truth["gradient"][rows].repeat(40, 1)).T)
    bias = {"Heston call": 0.02, "Heston put": 0.02}.get(problem.name, 0.0)  # of sixteen steps, in spreads of a label
    for gap in gaps:
        assert gap.mean().abs() <= (5 / len(gap) ** 0.5 + bias) * gap.std()


@pytest.mark.parametrize("make", problems.PROBLEMS, ids=lambda make: make().name)
def test_the_curvature_of_a_problem_is_the_slope_of_its_gradient(make):
    problem = make()
    if problem.exact is None:  # second derivatives by Monte Carlo: its standard error is stored, and small
        stored = json.loads(problems.REFERENCES.read_text(encoding="utf-8"))[problem.name]
        assert all(stored[f"{name}_error"][0] < 5e-3 for name in problems.QUANTITIES)
        return
    x, u = problem.truth["x"][:8], problem.direction
    bump = 1e-4
    up, down = (problem.exact(x + sign * bump * u, u)[1] @ u for sign in (1, -1))
    curvature = problem.truth["curvature"]
    size = 1e-4 * curvature.square().mean().sqrt().item()
    torch.testing.assert_close((up - down) / (2 * bump), curvature[:8], rtol=1e-3, atol=size)


@pytest.fixture(scope="module")
def quick_suite(tmp_path_factory):
    """The suite in its quick mode, from the command line."""
    out = tmp_path_factory.mktemp("suite") / "suite.json"
    patch = pytest.MonkeyPatch()
    patch.setattr("sys.argv", ["suite", "--quick", "--out", str(out)])
    threads = torch.get_num_threads()
    suite.main()
    before = out.read_text(encoding="utf-8")
    suite.main()  # what is there is not repeated
    torch.set_num_threads(threads)
    patch.undo()
    assert out.read_text(encoding="utf-8") == before
    return json.loads(before)["runs"]


@pytest.mark.slow
def test_the_quick_suite_writes_what_is_promised(quick_suite):
    assert [run["problem"] for run in quick_suite] == ["Asian", "Ornstein-Uhlenbeck"]
    for run in quick_suite:
        assert run["seed"] == 0 and run["labels"] == 2**10
        assert [entry["name"] for entry in run["networks"]] == list(itertools.chain(*suite.NAMES.values()))
        for entry in run["networks"]:
            assert entry["parameters"] == sum((a + 1) * b for a, b in itertools.pairwise(entry["widths"]))
            assert entry["held_out"] > 0 and entry["seconds"] > 0
            assert all(entry["error"][name] > 0 for name in problems.QUANTITIES)
        by_name = {entry["name"]: entry for entry in run["networks"]}
        assert by_name["pruned_finetuned"]["parameters"] < by_name["full"]["parameters"] / 10
        assert suite.geometric(by_name["pruned_finetuned"]) < suite.geometric(by_name["full"])


def test_several_answers_are_learned_about_as_well_by_one_network_as_by_one_for_each():
    """What the page on your own model says: means over seeds, by answer, values and gradients."""
    runs = json.loads((RESULTS / "several.json").read_text(encoding="utf-8"))["runs"]
    ways = "one for each", "one for all"
    for name in ("value", "gradient"):
        each, together = (np.mean([run[way][name] for run in runs], 0) for way in ways)
        assert len(runs) == 3 and ((0.5 < each / together) & (each / together < 2)).all()
        assert (each > together).tolist() == [True, False, False]
    assert all(abs(run[ways[0]]["parameters"] / run[ways[1]]["parameters"] - 1) < 0.1 for run in runs)


def test_the_stored_error_bars_are_those_of_all_problems_and_hold_where_the_network_fits():
    rows = json.loads((RESULTS / "coverage.json").read_text(encoding="utf-8"))["rows"]
    names = {make().name for make in problems.PROBLEMS}
    assert {(row["problem"], row["noise"]) for row in rows} == {(n, kind) for n in names for kind in coverage.KINDS}
    for row in rows:
        assert row["seeds"] == 20 and row.get("cost", 1) <= 2
        if max(row["bias"].values()) < 0.5:
            assert all(row["coverage"][name] > 0.895 for name in problems.QUANTITIES), row


def test_the_stored_choice_of_inputs_has_four_problems_and_five_seeds():
    rows = json.loads((RESULTS / "design.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 4 and all(len(row["errors"][kind]) == 5 for row in rows for kind in design.KINDS)


def test_the_stored_dimensions_have_all_parts():
    made = json.loads((RESULTS / "dimensions.json").read_text(encoding="utf-8"))
    assert set(dimensions.PARTS) <= set(made) and len(made["suite"]) == 9
    assert {row["inputs"] for row in made["growth"]} == {7, 20, 50, 100}


def test_a_network_fitted_in_components_is_the_same_function_of_all_inputs():
    problem = dimensions.basket(5)
    samples = problem.draw(512, 1)
    net = dimensions.in_components(samples, 0)
    axes = sl.directions.principal(samples.gradient, share=1 - 1e-9)
    assert len(axes) == 1
    across = torch.linalg.qr(torch.cat([axes.T, torch.eye(5).double()], 1))[0][:, 1:5]
    value, gradient = net.taylor(samples.x, order=1)
    assert (gradient @ across).abs().max() < 1e-12  # nothing moves it across the gradients
    assert ((value - samples.value).square().mean() < 1.5 * (samples.value - problem.exact(samples.x, None)[0]).var())


def test_own_covariances_where_all_are_alike_change_little():
    problem = dimensions.basket(2)
    samples, net = problem.draw(2**11, 1), dimensions.started(problem, 2**11)
    after = dimensions.locally_weighted(net, samples, 1)
    assert all(dimensions.errors(problem, after)[name] < 0.1 for name in ("value", "gradient"))
