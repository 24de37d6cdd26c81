"""Source: each program built, run on 10,000 points, and compared with the library."""

import json
import subprocess

import pytest
import torch

import sobolev_lib as sl
from tests.export.test_onnx import SMOOTH, inputs, network

POINTS = 10_000
DOMAIN = [-3.0] * 4, [4.0] * 4
C_MAIN = """
#include <stdio.h>
extern int surrogate(const double x[{d}], double value[1]{parameters});
int main(void) {{
    double x[{d}], out[{size}];
    while (fread(x, sizeof x, 1, stdin)) {{
        double inside = surrogate(x, out{arguments});
        fwrite(out, sizeof out, 1, stdout);
        fwrite(&inside, sizeof inside, 1, stdout);
    }}
    return 0;
}}
"""
JS_MAIN = """
import {{ surrogate }} from "./net.mjs";
import {{ readFileSync, writeFileSync }} from "node:fs";
const bytes = readFileSync(0), all = new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8), rows = [];
for (let n = 0; n < all.length; n += {d}) {{
    const r = surrogate(all.slice(n, n + {d}));
    rows.push(r.value, ...(r.gradient ?? []), ...(r.curvature ?? []).flat(), r.inside === true ? 1 : 0);
}}
writeFileSync(1, Buffer.from(new Float64Array(rows).buffer));
"""


def known(net):
    """The network with a range of training inputs."""
    for buffer, ends in zip((net.input_low, net.input_high), DOMAIN, strict=True):
        buffer.copy_(torch.tensor(ends))
    return net


def build(net, folder, language, program, **options):
    """Write the program and return a function from inputs (n, d) to its numbers, (n, outputs and inside)."""
    path = folder / {"c": "net.c", "javascript": "net.mjs", "python": "net.py"}[language]
    sl.export_source(net, path, language=language, **options)
    if language == "python":
        exec(path.read_text(), names := {})
        return lambda x: torch.tensor([flat(names["surrogate"](row)) for row in x.tolist()], dtype=torch.float64)
    order, d, rows = options.get("order", 2), net.widths[0], len(options.get("directions", [None] * net.widths[0]))
    if language == "javascript":
        (folder / "main.mjs").write_text(JS_MAIN.format(d=d))
        command = [program("node"), str(folder / "main.mjs")]
    else:
        parameters = ["", f", double gradient[{d}]", f", double curvature[{rows}][{d}]"][: order + 1]
        arguments = ["", ", out + 1", f", (double (*)[{d}])(out + {1 + d})"][: order + 1]
        size = 1 + d * (order > 0) + rows * d * (order > 1)
        text = C_MAIN.format(d=d, size=size, parameters="".join(parameters), arguments="".join(arguments))
        (folder / "main.c").write_text(text)
        command = [str(folder / "program")]
        flags = ["-std=c99", "-O2", "-Wall", "-Wextra", "-pedantic", "-Werror", "-ffp-contract=off"]
        files = [str(folder / "main.c"), str(path), "-lm", "-o", command[0]]
        done = subprocess.run([program("compiler"), *flags, *files], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

    def call(x):
        done = subprocess.run(command, input=x.numpy().tobytes(), capture_output=True, check=True)
        return torch.frombuffer(bytearray(done.stdout), dtype=torch.float64).view(len(x), -1)

    return call


def flat(values):
    if not isinstance(values, tuple | list):
        return [float(values)]
    return [number for value in values for number in flat(value)]


def expected(net, x, order, directions):
    """What the library says, side by side."""
    parts = [net(x, outside="ignore")[:, None]]
    parts += [net.gradient(x, outside="ignore")] if order else []
    parts += [net.hvp(x, directions, outside="ignore").flatten(1)] if order == 2 else []
    return torch.cat(parts, 1)


def far(ours, theirs):
    """The largest error, relative where an entry has at least a thousandth of its output's largest size."""
    size = ours.abs().maximum(1e-3 * ours.abs().amax(0))
    return ((ours - theirs).abs() / size.clamp_min(1e-300)).max()


@pytest.mark.parametrize("language", ["c", "javascript", "python"])
@pytest.mark.parametrize("activation", SMOOTH)
def test_a_program_gives_what_the_library_gives(tmp_path, program, language, activation):
    net = known(network(activation=activation))
    x = inputs(net, POINTS if activation == "silu" else 1000)
    directions = torch.tensor([[0.1, 0.2, 0.3, 0.4], [1.0, 0.0, -1.0, 0.0]], dtype=torch.float64)
    call = build(net, tmp_path, language, program, directions=directions)
    result = call(x)
    assert far(expected(net, x, 2, directions), result[:, :-1]) < 1e-12
    inside = ((x >= torch.tensor(DOMAIN[0])) & (x <= torch.tensor(DOMAIN[1]))).all(1)
    assert 0 < inside.sum() < len(x)
    assert torch.equal(result[:, -1], inside.double())


@pytest.mark.parametrize("language", ["c", "javascript", "python"])
@pytest.mark.parametrize(("widths", "activation", "order"), [((4, 3, 1), "relu", 1), ((4, 1), "silu", 2)])
def test_few_layers_and_orders(tmp_path, program, language, widths, activation, order):
    net = network(widths, activation)
    x = inputs(net, 200)
    for k in range(order + 1):
        result = build(net, tmp_path, language, program, order=k)(x)
        assert far(expected(net, x, k, torch.eye(4).double()), result[:, :-1]) < 1e-12
        assert result[:, -1].all()


@pytest.mark.parametrize("language", ["c", "javascript", "python"])
def test_a_single_precision_network_is_computed_in_double(tmp_path, program, language):
    net = network(dtype=torch.float32)
    double = sl.Surrogate.from_layers(
        [w.double() for w in net.weights],
        [b.double() for b in net.biases],
        "silu",
        scaling={name: b.double() for name, b in net.named_buffers()},
    )
    x = inputs(double, 200)
    result = build(net, tmp_path, language, program, order=0)(x)
    assert far(double(x)[:, None], result[:, :-1]) < 1e-12


@pytest.mark.parametrize("language", ["c", "javascript", "python"])
def test_far_out_nothing_overflows_and_nan_is_outside(tmp_path, program, language):
    net = known(network(activation="softplus"))
    call = build(net, tmp_path, language, program)
    x = torch.tensor([[1e6, -1e6, 1e6, 1e6], [-1e6, 1e6, -1e6, -1e6], [torch.nan, 0, 0, 0]]).double()
    result = call(x)
    assert far(expected(net, x[:2], 2, torch.eye(4).double()), result[:2, :-1]) < 1e-12
    assert not result[:, -1].any()
    assert result[2, 0].isnan()


def test_the_header_says_where_a_program_comes_from(tmp_path):
    path = sl.export_source(known(network()), tmp_path / "a.py", language="python", name="price")
    text = path.read_text()
    assert f"# writer: sobolev_lib {sl.__version__}\n" in text
    assert "# network: 4-6-5-1, silu, 71 parameters\n" in text
    assert f"# low: {json.dumps(DOMAIN[0])}\n" in text
    assert "import" in text
    assert [line for line in text.splitlines() if "import" in line] == ["from math import exp, fabs"]


@pytest.mark.parametrize("language", ["c", "javascript", "python"])
def test_what_else_is_known_stands_in_the_header_whatever_it_is(tmp_path, program, language):
    """Text of several lines, or one that ends in a sign by which C goes on in the next line, stays a comment."""
    facts = {"proved error": 1e-3, "path": "C:\\labels\\", "remark": "two\nlines */ ??/", "writer": "somebody"}
    net = network()
    x = inputs(net, 20)
    result = build(net, tmp_path, language, program, order=0, facts=facts)(x)
    assert far(expected(net, x, 0, None), result[:, :-1]) < 1e-12
    text = next(tmp_path.glob("net.*")).read_text()
    for line in ("proved error: 0.001", "remark: two lines */ ??", f"writer: sobolev_lib {sl.__version__}"):
        assert f" {line}\n" in text


def test_what_cannot_be_exported_leaves_no_file(tmp_path):
    path = tmp_path / "a.c"
    with pytest.raises(ValueError, match="net: got 4545 parameters, need at most 2000: use export_onnx"):
        sl.export_source(network((4, 64, 64, 1)), path)
    with pytest.raises(ValueError, match="language: got 'fortran', need one of 'c', 'javascript', 'python'"):
        sl.export_source(network(), path, language="fortran")
    with pytest.raises(ValueError, match="name: got '3d', need a letter"):
        sl.export_source(network(), path, name="3d")
    with pytest.raises(FileNotFoundError):
        sl.export_source(network(), tmp_path / "none" / "a.c")
    assert list(tmp_path.iterdir()) == []


def test_price_delta_and_gamma_of_a_point_take_a_microsecond_in_c(tmp_path, program):
    sl.export_source(network((7, 3, 3, 1)), tmp_path / "net.c", directions=torch.ones(1, 7))
    (tmp_path / "main.c").write_text("""
#include <stdio.h>
#include <time.h>
extern int surrogate(const double x[7], double value[1], double gradient[7], double curvature[1][7]);
int main(void) {
    double x[7] = {1, 1, 1, 1, 1, 1, 1}, value, gradient[7], curvature[1][7], sum = 0, best = 1e9;
    for (int run = 0; run < 20; run++) {
        clock_t start = clock();
        for (int i = 0; i < 10000; i++) {
            x[i % 7] += 1e-6;
            surrogate(x, &value, gradient, curvature);
            sum += value + gradient[0] + curvature[0][0];
        }
        double seconds = (double) (clock() - start) / CLOCKS_PER_SEC;
        if (seconds < best) best = seconds;
    }
    printf("%g %g", best / 10000, sum);
    return 0;
}
""")
    files = [str(tmp_path / name) for name in ("main.c", "net.c")]
    subprocess.run([program("compiler"), "-std=c99", "-O2", *files, "-lm", "-o", str(tmp_path / "main")], check=True)
    done = subprocess.run([str(tmp_path / "main")], capture_output=True, text=True, check=True)
    assert float(done.stdout.split()[0]) <= 1e-6
