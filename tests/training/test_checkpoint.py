"""Runs that are killed and taken up again, against runs that were left alone; files that are refused."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from sobolev_lib._files import digest
from sobolev_lib.network.surrogate import Surrogate
from sobolev_lib.training import checkpoint, gauss_newton
from sobolev_lib.training.checkpoint import Checkpoint
from sobolev_lib.training.fit import fit
from tests.training.test_fit import fresh_net, taught, wave, weights_of


def options(kind: str) -> tuple[object, dict]:
    given = taught(600, noise=0.3)
    return {
        "finish": (given, dict(finish=9, balance="covariance")),
        "validation": (given, dict(validation=taught(200, 0.3, seed=4), balance="covariance")),
        "covariance": (given, dict(finish=0, balance="covariance", validation=given)),
        "fresh": (lambda step: taught(64, 0.3, seed=step), dict(finish=0)),
        "coarse": (taught(2**15, 0.3), dict(finish=5)),
    }[kind]


def run(kind: str, path: Path | None = None, moment: int = 10**6, stop=lambda: None):
    """Train, and call `stop` after the Adam step of that number, or (if negative) before that evaluation of J^T J."""
    samples, arguments = options(kind)
    equations, calls = gauss_newton._normal_equations, []

    def counted(*given):
        calls.append(0)
        if len(calls) == -moment:
            stop()
        return equations(*given)

    net = fresh_net(seed=3)
    callback = lambda step, loss: stop() if step == moment else None  # noqa: E731
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gauss_newton, "_normal_equations", counted)
        patch.setattr(checkpoint, "PAUSE", 0.0)  # a file after every step
        patch.setattr(checkpoint, "SHARE", 1e9)
        history = fit(net, samples, order=1, steps=40, batch=64, callback=callback, checkpoint=path, **arguments)
    return [p.detach() for p in net.parameters()], history


class Stopped(Exception):
    pass


def stop():
    raise Stopped


@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        ("finish", (13, -4)),  # in the middle of Adam; then of the finish
        ("finish", (-9,)),  # with a balance that was measured on the way
        ("validation", (15, -5)),  # behind the best network
        ("covariance", (19, 31)),  # beside and behind the switch of the balance
        ("fresh", (1, 25)),
        ("coarse", (-6,)),  # on the larger subset
    ],
)
def test_a_run_that_is_stopped_ends_with_the_same_bits(tmp_path, kind, moments):
    weights, history = run(kind)
    for moment in moments:
        with pytest.raises(Stopped):
            run(kind, tmp_path / "run", moment, stop)
        assert (tmp_path / "run").exists()
    ours, our_history = run(kind, tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(ours, weights, strict=True)) and our_history == history


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_with_the_same_bits(tmp_path):
    program = (
        "import sys; from tests.training.test_checkpoint import kill, run; "
        "run('finish', sys.argv[1], int(sys.argv[2]), kill)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])}
    for moment in (13, -4):
        command = [sys.executable, "-c", program, str(tmp_path / "run"), str(moment)]
        assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    weights, history = run("finish")
    ours, our_history = run("finish", tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(ours, weights, strict=True)) and our_history == history
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def trained(path, *, net=None, samples=None, **arguments):
    net = net or fresh_net()
    options = dict(order=1, steps=12, batch=32, finish=3) | arguments
    return net, fit(net, samples or wave(noise=0.1), checkpoint=path, **options)


def test_a_checkpoint_does_not_change_the_result_and_a_finished_run_is_not_run_again(tmp_path):
    net, history = trained(tmp_path / "run")
    other = fresh_net()
    assert fit(other, wave(noise=0.1), order=1, steps=12, batch=32, finish=3) == history
    assert torch.equal(weights_of(net), weights_of(other))
    heard, before = [], (tmp_path / "run").stat().st_mtime_ns
    for given in (None, net):  # the network as it was at first; and as the run left it
        again, found = trained(tmp_path / "run", net=given, callback=lambda *step: heard.append(step))
        assert torch.equal(weights_of(again), weights_of(net)) and found == history and not again.is_new
    assert heard == [] and (tmp_path / "run").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(steps=13), "of another run .steps was 12, now 13.; need|steps was 12, now 13"),
        (dict(learning_rate=0.5), "learning_rate was 0.01, now 0.5"),
        (dict(balance="covariance"), "balance was moments, now covariance"),
        (dict(seed=1, batch=16), "batch was 32, now 16; seed was 0, now 1"),
        (dict(samples=wave(noise=0.2)), "samples was 256 with digest [0-9a-f]{16}, now 256 with digest"),
        (dict(validation=wave(9)), "validation was None, now 9 with digest"),
        (dict(net=fresh_net(widths=(2, 4, 1))), "network was 2-5-1, tanh, 21 parameters, torch.float64, now 2-4-1"),
        (dict(net=fresh_net(seed=1)), "whose run began with other weights, need the network as it was then"),
    ],
)
def test_the_file_of_another_run_is_refused(tmp_path, change, message):
    trained(tmp_path / "run")
    net = change.pop("net", None) or fresh_net()
    before, content = weights_of(net), (tmp_path / "run").read_bytes()
    with pytest.raises(ValueError, match=message):
        trained(tmp_path / "run", net=net, **change)
    assert torch.equal(weights_of(net), before) and net.is_new
    assert (tmp_path / "run").read_bytes() == content


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"which cannot be read .*, need a checkpoint or no file"):
        trained(path)
    fresh_net().save(path)
    with pytest.raises(ValueError, match=r"format 'sobolev_lib\.Surrogate/1', need 'sobolev_lib\.checkpoint/1': a ch"):
        trained(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="format None, need"):
        trained(path)
    trained(tmp_path / "run")
    path.write_bytes((tmp_path / "run").read_bytes()[:-9])
    with pytest.raises(ValueError, match="which cannot be read"):
        trained(path)
    with pytest.raises(ValueError, match="need a file name in a folder that exists"):
        trained(tmp_path / "nowhere" / "run")


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    file = Checkpoint(tmp_path / "run", {})
    file.write({"x": torch.zeros(2)}, {"step": 1})

    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        file.write({"x": torch.ones(2)}, {"step": 2})
    tensors, facts = file.read()
    assert tensors["x"].tolist() == [0, 0] and facts == {"step": 1} and len(list(tmp_path.iterdir())) == 1


def test_files_are_written_as_often_as_costs_a_twentieth(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(os, "fsync", lambda handle: setattr(clock, "now", clock.now + 3))
    file = Checkpoint(tmp_path / "run", {})
    assert not file.due
    clock.now += 1.5
    assert file.due
    file.write({}, {})
    clock.now += 59
    assert not file.due
    clock.now += 2
    assert file.due


def test_a_digest_sees_every_bit_shape_and_type():
    x = torch.arange(6.0)
    others = [x.reshape(2, 3), x.double(), x.int(), torch.nextafter(x, x + 1), -x, None]
    assert len({digest(x), *(digest(other) for other in others), digest(x, x), digest(x, None)}) == 9
    assert digest(x.reshape(2, 3).T) == digest(x.reshape(2, 3).T.contiguous())


def test_float32_networks_are_taken_up_as_well(tmp_path):
    single = SimpleNamespace(**{k: v.float() for k, v in vars(wave(noise=0.1)).items()})
    make = lambda: Surrogate([2, 5, 1], "tanh", dtype=torch.float32)  # noqa: E731
    net, history = trained(tmp_path / "run", net=make(), samples=single, steps=60)
    again, found = trained(tmp_path / "run", net=make(), samples=single, steps=60)
    assert torch.equal(weights_of(net), weights_of(again)) and found == history


def test_a_run_that_is_interrupted_before_its_second_file_goes_on_from_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PAUSE", 1e9)
    net, expected = fresh_net(), trained(None)[0]

    def interrupt(step, loss):
        if step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "run", net=net, callback=interrupt)
    again, _ = trained(tmp_path / "run", net=net)
    assert again is net and torch.equal(weights_of(net), weights_of(expected))
