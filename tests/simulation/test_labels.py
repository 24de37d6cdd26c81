"""Labels against closed forms, torch.func and finite differences; cuts of the work; files."""

import math

import numpy as np
import pytest
import torch

from sobolev_lib.simulation.case_study import basket_case
from sobolev_lib.simulation.labels import label
from sobolev_lib.simulation.models import Bachelier, Heston
from sobolev_lib.simulation.noise import gaussian, sobol
from sobolev_lib.simulation.payoffs import Blend, Call, Digital, LastStep, Sigmoid, Softplus
from sobolev_lib.simulation.samples import Samples, concatenate
from sobolev_lib.simulation.schemes import EulerMaruyama, Milstein

NOISE = gaussian(seed=0)
# torch's forward mode compiles its rules with torch.jit, which torch itself calls deprecated.
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


def by_hand(case, x, z):
    """Label of one antithetic pair of exact Bachelier steps, as a function of one input (d,)."""
    payoff = case.payoff
    shift = case.model.cholesky @ z
    return 0.5 * (payoff((x + shift)[None])[0] + payoff((x - shift)[None])[0])


@FORWARD_MODE
def test_labels_are_the_derivatives_of_the_simulated_payoff():
    case = basket_case(smoothing=Blend(width=0.1))
    x = case.inputs(20, gaussian(seed=1))
    u = torch.randn(20, 2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    samples = label(case.model, case.payoff, x, horizon=1.0, noise=NOISE, order=2, directions=u)
    z = NOISE(0, 20, 7)
    for i in range(20):
        value = torch.func.grad_and_value(by_hand, argnums=1)
        gradient, exact = value(case, x[i], z[i])
        hessian = torch.func.hessian(by_hand, argnums=1)(case, x[i], z[i])
        assert torch.allclose(samples.value[i], exact, atol=1e-14, rtol=1e-13)
        assert torch.allclose(samples.gradient[i], gradient, atol=1e-14, rtol=1e-13)
        assert torch.allclose(samples.hvp[i], u[i] @ hessian, atol=1e-12, rtol=1e-12)


@FORWARD_MODE
def test_hvp_equals_forward_over_reverse():
    case = basket_case(3, smoothing=Blend(width=0.1))
    x, z, u = case.inputs(50, gaussian(seed=1)), NOISE(0, 50, 3), torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    samples = label(case.model, case.payoff, x, horizon=1.0, noise=NOISE, order=2, directions=u)

    def product(x, z):
        return torch.func.jvp(lambda y: torch.func.grad(by_hand, argnums=1)(case, y, z), (x,), (u[0],))[1]

    oracle = torch.stack([product(*row) for row in zip(x, z, strict=True)])
    assert torch.allclose(samples.hvp[:, 0], oracle, atol=1e-12, rtol=1e-12)


def test_default_directions_give_the_hessian():
    case = basket_case(3, smoothing=Softplus(width=0.1))
    x = case.inputs(5, gaussian(seed=1))
    samples = label(case.model, case.payoff, x, horizon=1.0, noise=NOISE, order=2)
    assert samples.directions.tolist() == torch.eye(3).tolist()
    assert torch.allclose(samples.hvp, samples.hvp.transpose(1, 2), atol=1e-13)
    again = label(case.model, case.payoff, x, horizon=1.0, noise=NOISE, order=2, directions=samples.directions)
    assert torch.equal(again.hvp, samples.hvp)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("dim", [1, 7, 30])
@pytest.mark.parametrize("paths", [1, 3, 5000])
def test_chunks_do_not_change_a_bit(order, dim, paths):
    case = basket_case(dim, smoothing=Blend(width=0.05))
    x = case.inputs(211 if paths < 1000 else 3, gaussian(seed=1))
    u = torch.ones(1, dim, dtype=torch.float64) if order == 2 else None

    def run(chunk, threads=1):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return label(
                case.model,
                case.payoff,
                x,
                horizon=1.0,
                noise=NOISE,
                order=order,
                paths=paths,
                directions=u,
                chunk=chunk,
            )
        finally:
            torch.set_num_threads(before)

    whole = run(2**20)
    for chunk, threads in [(1, 1), (7, 1), (100, 1), (1024, 1), (5000, 1), (9000, 1), (2**20, 2), (None, 2)]:
        part = run(chunk, threads)
        for name in ("value", "gradient", "hvp", "value_error", "gradient_error", "hvp_error"):
            a, b = getattr(whole, name), getattr(part, name)
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b), (name, chunk, threads)


@pytest.mark.parametrize("scheme", [EulerMaruyama(), Milstein()])
def test_chunks_do_not_change_a_bit_over_many_steps(scheme):
    case = (
        basket_case(4, smoothing=LastStep())
        if isinstance(scheme, EulerMaruyama)
        else basket_case(4, smoothing=Blend(0.05))
    )
    x = case.inputs(150, gaussian(seed=1))
    runs = [
        label(
            case.model, case.payoff, x, horizon=1.0, noise=NOISE, order=2, paths=2, scheme=scheme, steps=5, chunk=chunk
        )
        for chunk in (2**20, 64, 33)
    ]
    for run in runs[1:]:
        assert torch.equal(run.value, runs[0].value)
        assert torch.equal(run.gradient, runs[0].gradient)
        assert torch.equal(run.hvp, runs[0].hvp)
        assert torch.equal(run.hvp_error, runs[0].hvp_error)


@pytest.mark.parametrize("paths", [1, 3])
def test_directions_of_ones_own_go_with_their_input_in_every_chunk(paths):
    case = basket_case(3, smoothing=Blend(width=0.1))
    x = case.inputs(300, gaussian(seed=1))
    u = torch.randn(300, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = {"horizon": 1.0, "noise": NOISE, "order": 2, "paths": paths}
    whole, cut = (label(case.model, case.payoff, x, directions=u, chunk=c, **given).hvp for c in (2**20, 64))
    hessian = label(case.model, case.payoff, x, **given).hvp
    assert torch.equal(cut, whole) and torch.allclose(whole, u @ hessian, atol=1e-12)


def test_path_j_of_input_i_takes_row_i_paths_plus_j():
    case = basket_case(2)
    x = case.inputs(4, gaussian(seed=1))
    many = label(case.model, case.payoff, x, horizon=1.0, noise=NOISE, paths=3)
    single = label(case.model, case.payoff, x.repeat_interleave(3, dim=0), horizon=1.0, noise=NOISE)
    assert torch.allclose(many.value, single.value.view(4, 3).mean(1), atol=1e-15)
    assert torch.allclose(many.gradient, single.gradient.view(4, 3, 2).mean(1), atol=1e-15)


def test_standard_errors_are_those_of_the_sample():
    case = basket_case(2)
    x = case.inputs(4, gaussian(seed=1))
    many = label(case.model, case.payoff, x, horizon=1.0, noise=NOISE, paths=2500)
    single = label(case.model, case.payoff, x.repeat_interleave(2500, dim=0), horizon=1.0, noise=NOISE)
    assert torch.allclose(many.value_error, single.value.view(4, 2500).std(1) / 50, rtol=1e-12)
    assert torch.allclose(many.gradient_error, single.gradient.view(4, 2500, 2).std(1) / 50, rtol=1e-12)
    assert single.value_error is None and single.gradient_error is None and single.hvp_error is None


def test_standard_error_survives_a_large_constant():
    model, payoff = Bachelier(volatility=1e-6), Call(strike=-1e6)
    samples = label(model, payoff, [[1.0]], horizon=1.0, noise=NOISE, paths=4000, antithetic=False)
    assert float(samples.value_error) == pytest.approx(1e-6 / math.sqrt(4000), rel=0.06)  # 5 deviations of a deviation


def test_antithetic_mean_is_one_label():
    case = basket_case(2)
    x = case.inputs(100, gaussian(seed=1))
    pair = label(case.model, case.payoff, x, horizon=1.0, noise=NOISE)
    up = label(case.model, case.payoff, x, horizon=1.0, noise=NOISE, antithetic=False)
    down = label(case.model, case.payoff, x, horizon=1.0, noise=lambda *a: -NOISE(*a), antithetic=False)
    assert torch.allclose(pair.value, 0.5 * (up.value + down.value), atol=1e-15)
    assert torch.allclose(pair.gradient, 0.5 * (up.gradient + down.gradient), atol=1e-15)


def test_conditioning_on_one_exact_step_gives_the_closed_form():
    case = basket_case(5, smoothing=LastStep())
    x = case.test_inputs(50)
    samples = label(case.model, case.payoff, x, horizon=1.0, noise=NOISE, order=2)
    truth = case.reference(x)
    assert torch.allclose(samples.value, truth.price, atol=1e-15)
    assert torch.allclose(samples.gradient, truth.delta, atol=1e-14)
    hessian = truth.gamma[:, None, None] * case.weights[:, None] * case.weights
    assert torch.allclose(samples.hvp, hessian, atol=1e-12)


def test_fingerprint():
    """Trained weights rest on these labels. When they change, say why here."""
    case = basket_case(smoothing=Blend(width=0.05))
    x = case.inputs(1000, gaussian(seed=1))
    u = torch.ones(1, 7, dtype=torch.float64)
    samples = label(case.model, case.payoff, x, horizon=1.0, noise=NOISE, order=2, directions=u)
    means = [float(samples.value.mean()), float(samples.gradient.mean()), float(samples.hvp.mean())]
    assert means == pytest.approx([0.0966349051434796, 0.3925270172476812 / 7, 1.0707029578403264 / 7], rel=1e-12)


def test_labels_do_not_touch_the_inputs():
    x = torch.ones(3, 1, dtype=torch.float64)
    samples = label(Bachelier(volatility=0.2), Call(strike=1.0), x, horizon=1.0, noise=NOISE)
    assert not x.requires_grad and not samples.x.requires_grad and not samples.gradient.requires_grad
    assert torch.equal(x, torch.ones(3, 1, dtype=torch.float64))


def test_sobol_paths_agree_with_the_closed_form():
    case = basket_case(2)
    x = case.test_inputs(3)
    runs = [label(case.model, case.payoff, x, horizon=1.0, noise=sobol(s), paths=1024).value for s in range(8)]
    runs = torch.stack(runs)
    # Eight independent scrambles: Student's t with 7 degrees of freedom, level 3 * 1e-4.
    assert ((runs.mean(0) - case.reference(x).price).abs() < 7.9 * runs.std(0) / math.sqrt(8)).all()


def samples_of_order_2():
    case = basket_case(3, smoothing=Blend(width=0.05))
    x = case.inputs(10, gaussian(seed=1))
    return label(
        case.model,
        case.payoff,
        x,
        horizon=1.0,
        noise=NOISE,
        order=2,
        paths=4,
        directions=x[:2],
    )


def assert_same(a, b):
    for name, value in vars(a).items():
        other = getattr(b, name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name


def test_samples_survive_a_file(tmp_path):
    samples = samples_of_order_2()
    for given in (samples, Samples(samples.x, samples.value)):
        torch.save(vars(given), tmp_path / "samples.pt")
        assert_same(Samples(**torch.load(tmp_path / "samples.pt")), given)


def test_rows_and_splits():
    samples = samples_of_order_2()
    train, test = samples.split(8)
    assert len(train) == 8 and len(test) == 2
    assert torch.equal(train.hvp, samples.hvp[:8]) and torch.equal(test.hvp_error[1], samples.hvp_error[9])
    assert torch.equal(test.directions, samples.directions)  # shared by all inputs
    picked = samples[torch.tensor([3, 1])]
    assert torch.equal(picked.value, samples.value[[3, 1]])
    own = Samples(samples.x, samples.value, samples.gradient, samples.hvp, directions=torch.zeros(10, 2, 3))
    assert own[:4].directions.shape == (4, 2, 3)


def test_samples_refuse_what_does_not_belong_together():
    x, value = torch.zeros(4, 2), torch.zeros(4)
    with pytest.raises(ValueError, match=r"x: got shape \(4,\), need \(n, d\)"):
        Samples(value, value)
    with pytest.raises(ValueError, match=r"value: got shape \(4, 2\), need \(4,\)"):
        Samples(x, x)
    with pytest.raises(ValueError, match=r"gradient: got shape \(4,\), need \(4, 2\)"):
        Samples(x, value, value)
    with pytest.raises(ValueError, match="directions: got None beside an hvp"):
        Samples(x, value, x, torch.zeros(4, 1, 2))
    with pytest.raises(ValueError, match=r"directions: got shape \(2, 2\), need \(1, 2\)"):
        Samples(x, value, x, torch.zeros(4, 1, 2), torch.zeros(2, 2))
    samples = Samples(x, value)
    with pytest.raises(ValueError, match="count: got 4, need an integer from 1 to 3"):
        samples.split(4)
    for rows in (2, 1.5, torch.zeros(4), [[0]], None):
        with pytest.raises(TypeError, match="rows: got shape"):
            samples[rows]


@pytest.mark.parametrize("kind", ["numpy float32", "list", "numpy read-only", "tensor"])
def test_labels_of_another_simulator_become_samples_in_one_line(kind):
    x, value = np.array([[1e3, 0.5], [2e3, 0.25], [3e3, 0.125]]), np.array([1.0, 4.0, 9.0])
    value.flags.writeable = False
    make = {
        "numpy float32": lambda a: a.astype(np.float32),
        "list": lambda a: a.tolist(),
        "numpy read-only": lambda a: a,
        "tensor": lambda a: torch.tensor(a, requires_grad=True),
    }[kind]
    given = [make(x), make(value), make(2 * x), make(np.ones((3, 1, 2))), make(np.ones((1, 2)))]
    samples = Samples(*given)
    for name in ("x", "value", "gradient", "hvp", "directions"):
        tensor = getattr(samples, name)
        assert tensor.dtype == torch.float64 and not tensor.requires_grad
    assert torch.equal(samples.x, torch.tensor(x))
    if kind == "tensor":
        with torch.no_grad():
            given[0].fill_(9.0)
    elif kind == "numpy float32":
        given[0][:] = 9.0
    assert torch.equal(samples.x, torch.tensor(x))
    assert torch.equal(samples[samples.value > 2].value, samples.value[1:])
    assert torch.equal(samples[np.array([2, 0])].x, samples.x[[2, 0]])
    assert torch.equal(samples[[True, False, True]].x, samples.x[[0, 2]])


def test_samples_are_joined():
    samples = samples_of_order_2()
    assert_same(concatenate(samples[i : i + 2] for i in range(0, 10, 2)), samples)
    other = Samples.of(**vars(samples) | {"directions": samples.directions + 1.0})
    with pytest.raises(ValueError, match="samples: got different directions that all rows share"):
        concatenate([samples, other])
    own = Samples.of(**vars(samples) | {"directions": samples.directions.expand(10, -1, -1)})
    assert torch.equal(concatenate([own, own[:2]]).directions, samples.directions.expand(12, -1, -1))
    with pytest.raises(ValueError, match="samples: got labels of shapes"):
        concatenate([samples, Samples(samples.x, samples.value)])
    with pytest.raises(ValueError, match="samples: got labels of shapes"):
        concatenate([Samples(samples.x, samples.value), samples])
    with pytest.raises(ValueError, match="samples: got none"):
        concatenate([])
    with pytest.raises(TypeError, match=r"samples\[1\]: got Tensor, need Samples"):
        concatenate([samples, samples.x])


@pytest.mark.parametrize("paths", [1, 3, 2000])
def test_rows_of_a_larger_set_are_those_of_the_whole(paths):
    case = basket_case(3, smoothing=Blend(width=0.1))
    x = case.inputs(50, gaussian(seed=1))
    for noise in (NOISE, sobol(seed=2)):
        given = {"horizon": 1.0, "noise": noise, "order": 2, "paths": paths}
        whole = label(case.model, case.payoff, x, **given)
        parts = [label(case.model, case.payoff, x[a:b], start=a, **given) for a, b in ((0, 1), (1, 33), (33, 50))]
        assert_same(concatenate(parts), whole)


def test_labels_do_not_depend_on_autograds_mode():
    case = basket_case(2, smoothing=Blend(width=0.1))
    x = case.inputs(64, gaussian(seed=1))
    with torch.inference_mode():
        made_there = x.clone()
    given = {"horizon": 1.0, "noise": NOISE, "order": 2, "steps": 3, "scheme": Milstein()}
    plain = label(case.model, case.payoff, x, **given)
    likelihood = {"horizon": 1.0, "noise": NOISE, "estimator": "likelihood_ratio"}
    ratio = label(case.model, case.payoff, x, **likelihood)
    vega = torch.cat([x, case.model.volatility.expand(64, -1)], dim=1)
    family = label(case.model, case.payoff, vega, varying=["volatility"], **given)
    assert_same(label(case.model, case.payoff, made_there, **given), plain)
    assert_same(label(case.model, case.payoff, x.clone().requires_grad_(), **given), plain)
    for mode in (torch.inference_mode(), torch.no_grad(), torch.enable_grad(), torch.autocast("cpu", torch.bfloat16)):
        with mode:
            assert_same(label(case.model, case.payoff, made_there, **given), plain)
            assert_same(label(case.model, case.payoff, x, **likelihood), ratio)
            assert_same(label(case.model, case.payoff, vega, varying=["volatility"], **given), family)
    try:
        torch.set_default_dtype(torch.float64)
        assert_same(label(case.model, case.payoff, x, **given), plain)
    finally:
        torch.set_default_dtype(torch.float32)


def test_nothing_that_a_user_changes_later_changes_labels():
    x, u, weights = torch.ones(4, 2).double(), torch.eye(2).double(), torch.ones(2).double()
    volatility, correlation = torch.tensor([0.2, 0.3]).double(), torch.tensor([[1.0, 0.5], [0.5, 1.0]]).double()
    model = Bachelier(volatility=volatility, correlation=correlation)
    payoff = Call(strike=2.0, weights=weights, smoothing=Blend(width=0.1))
    given = {"horizon": 1.0, "noise": NOISE, "order": 2}
    samples = label(model, payoff, x, directions=u, **given)
    before = samples.x.clone(), samples.directions.clone()
    for tensor in (x, u, weights, volatility, correlation):
        tensor.fill_(9.0)
    assert torch.equal(samples.x, before[0]) and torch.equal(samples.directions, before[1])
    assert_same(label(model, payoff, before[0], directions=before[1], **given), samples)
    spots = np.ones((4, 2))
    held = label(model, payoff, spots, **given).x
    spots[:] = 9.0
    assert torch.equal(held, torch.ones(4, 2))


def test_counts_and_seeds_may_be_numpy_integers():
    case = basket_case(np.int64(2), seed=np.int64(0))
    given = {"horizon": np.float32(1.0), "order": np.int64(1)}
    x = case.inputs(np.int64(8), gaussian(seed=np.int64(2**62)))
    a = label(case.model, case.payoff, x, noise=sobol(seed=np.int32(3)), paths=np.int64(4), steps=np.uint8(2), **given)
    b = label(case.model, case.payoff, x, noise=sobol(seed=3), paths=4, steps=2, horizon=1.0, chunk=np.int64(3))
    assert_same(a, b)


MODEL, X = Bachelier(volatility=[0.2, 0.3]), torch.ones(4, 2, dtype=torch.float64)
CALL = Call(strike=1.0, weights=[0.5, 0.5])


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"order": 3}, ValueError, "order: got 3, need one of 0, 1, 2"),
        ({"order": 2}, ValueError, "order: got 2 for a call without smoothing.*up to order 1 only"),
        (
            {"payoff": Digital(strike=1.0, weights=[1, 1])},
            ValueError,
            "order: got 1 for a digital without smoothing.*order 0 only",
        ),
        ({"estimator": "finite_difference"}, ValueError, "estimator: got 'finite_difference', need one of"),
        ({"paths": 0}, ValueError, "paths: got 0"),
        ({"antithetic": 1}, TypeError, "antithetic: got int, need bool"),
        ({"chunk": 0}, ValueError, "chunk: got 0"),
        ({"steps": 0}, ValueError, "steps: got 0"),
        ({"horizon": 0.0}, ValueError, r"horizon: got 0\.0"),
        ({"x": X[0]}, ValueError, r"x: got shape \(2,\), need \(n, 2\)"),
        ({"x": X[:, :1]}, ValueError, r"x: got shape \(4, 1\), need \(n, 2\)"),
        ({"x": X[:0]}, ValueError, r"x: got shape \(0, 2\), need at least one row"),
        ({"x": X / 0}, ValueError, "x: got 8 non-finite of 8 values"),
        ({"directions": X}, ValueError, "directions: got some at order 1, need order 2"),
        ({"noise": 3}, TypeError, "noise: got 3, need a noise such as"),
        (
            {"noise": lambda *a: torch.zeros(5)},
            ValueError,
            r"noise\(start, count, dims\): got shape \(5,\), need \(1, 2\)",
        ),
        ({"noise": sobol(), "paths": 2**29}, ValueError, r"start \+ count: got row 2147483648"),
        ({"payoff": 3}, TypeError, "payoff: got 3, need a payoff such as"),
        (
            {"payoff": lambda s: s},
            ValueError,
            r"payoff: got \(2, 2\) for states of shape \(2, 2\), need a tensor of shape \(2,\)",
        ),
        ({"payoff": lambda s: s.sum()}, ValueError, r"payoff: got \(\) for states of shape \(2, 2\)"),
        ({"payoff": lambda s: 1.0}, ValueError, "payoff: got float for states"),
        ({"payoff": Call(strike=1.0)}, ValueError, r"payoff\.weights: got shape \(1,\), need \(2,\), one per asset"),
        ({"scheme": "euler"}, TypeError, r"scheme: got 'euler', need an object such as EulerMaruyama\(\)"),
        ({"scheme": EulerMaruyama}, TypeError, "scheme: got the class EulerMaruyama, need an object"),
        (
            {"scheme": EulerMaruyama()},
            ValueError,
            "steps: got None, need the number of steps that EulerMaruyama shall take",
        ),
        ({"model": 3}, TypeError, "model: got int without dim"),
        ({"varying": ["rate"]}, ValueError, "varying: got 'rate', need, each once, attributes of the model"),
        ({"varying": ["volatility"]}, ValueError, r"x: got shape \(4, 2\), need \(n, 4\)"),
        ({"horizon": None}, ValueError, "horizon: got None, need a number, or"),
        ({"start": -1}, ValueError, "start: got -1"),
    ],
)
def test_bad_input_is_refused_before_simulation(change, error, match):
    def noise(start, count, dims):
        assert count == 1, "simulation has started"
        return torch.zeros(count, dims, dtype=torch.float64)

    arguments = {"model": MODEL, "payoff": CALL, "x": X, "horizon": 1.0, "noise": noise} | change
    with pytest.raises(error, match=match):
        label(arguments.pop("model"), arguments.pop("payoff"), arguments.pop("x"), **arguments)


@pytest.mark.parametrize(
    ("directions", "match"),
    [
        (torch.zeros(3), r"directions: got shape \(3,\), need \(k, 2\) or \(4, k, 2\)"),
        (torch.zeros(3, 1), r"directions: got shape \(3, 1\), need \(k, 2\)"),
        (torch.zeros(3, 1, 2), r"directions: got shape \(3, 1, 2\), need \(k, 2\) or \(4, k, 2\)"),
        (torch.zeros(0, 2), r"directions: got shape \(0, 2\), need .*, at least one"),
        (torch.full((1, 2), torch.nan), "directions: got 2 non-finite"),
    ],
)
def test_wrong_directions_are_refused(directions, match):
    payoff = Call(strike=1.0, weights=[0.5, 0.5], smoothing=Sigmoid(width=0.1))
    with pytest.raises(ValueError, match=match):
        label(MODEL, payoff, X, horizon=1.0, noise=NOISE, order=2, directions=directions)


def test_an_own_payoff_that_says_it_jumps_is_refused_by_its_name():
    class Jump:
        smooth_order = 0

        def __call__(self, states):
            return (states[:, 0] > 1).double()

    with pytest.raises(ValueError, match=r"^order: got 1 for a Jump, whose pathwise derivatives are unbiased up to"):
        label(Bachelier(volatility=0.2), Jump(), [[1.0]], horizon=1.0, noise=gaussian(seed=0), order=1)


@pytest.mark.parametrize("name", ["correlation", "factor", "weights", "dates", "dim"])
def test_what_cannot_vary_is_refused_by_its_name(name):
    model, payoff = Bachelier(volatility=[0.1, 0.2]), Call(strike=1.0, weights=[0.5, 0.5])
    with pytest.raises(ValueError, match=rf"^varying: got '{name}', "):
        label(model, payoff, torch.ones(3, 2 + (name == "dates")), horizon=1.0, noise=gaussian(), varying=[name])
    terms = dict(mean_reversion=1.0, long_variance=0.04, vol_of_variance=0.2)
    model, x = Heston(**terms, spot_variance_correlation=-0.5), [[1.0, 0.04, -0.5]]
    with pytest.raises(ValueError, match=r"^varying: got 'spot_variance_correlation', which drift.* do not read"):
        label(model, Call(strike=1.0), x, horizon=1.0, noise=gaussian(), steps=2, varying=["spot_variance_correlation"])
