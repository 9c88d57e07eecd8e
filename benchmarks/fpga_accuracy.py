"""What the FPGA's number formats cost in accuracy: two networks that read digits, quantized after training.

    python -m benchmarks.fpga_accuracy      writes results/fpga_accuracy.json and the table in docs/fpga_numerics.md

An MLP 64-128-64-10, trained here on scikit-learn's digits (fixed seed), asked 719 held-out digits; and the network that
ships with accelserve (three convolutions, one dense layer), asked held-out digits drawn in many styles. Both run as
the emulator runs them: rewritten, in ONNX Runtime, every convolution and matrix product in the format.
"""

import argparse
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import ROOT
from benchmarks.record import write_result

RESULT = ROOT / "benchmarks" / "results" / "fpga_accuracy.json"
PAGE = ROOT / "docs" / "fpga_numerics.md"
BEGIN, END = "<!-- made by benchmarks.fpga_accuracy: begin -->\n", "<!-- end -->\n"
CLAIM = "Digits read right, in percent, by networks quantized after training, against fp32"
MANTISSAS = range(1, 8)
BLOCKS = (16, 128)
PRESETS = (
    *("brainwave-a10", "brainwave-s10", "mxint8"),
    *("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e3m2", "mxfp6_e2m3", "mxfp4_e2m1"),
)
SEED = 0
HIDDEN = (128, 64)
HELD_OUT = 0.4  # of 1797 digits, for the MLP: 719
STYLES = 4  # drawings of each of the 360 digits that the shipped network was not trained on
DRAWN_SIDE = 96


@dataclass(frozen=True, slots=True)
class Task:
    """A network and what it is asked. model: an ONNX file's bytes. x: rows for its only input. truths: int64 [rows]."""

    model: bytes
    x: NDArray[Any]
    truths: NDArray[np.int64]

    def accuracy(self, form: str) -> float:
        """Percent read right in a format of the emulator ("fp32": the plain network)."""
        return 100 * float((self._scores(form).argmax(axis=1) == self.truths).mean())

    def _scores(self, form: str) -> NDArray[np.float32]:
        import onnxruntime

        from accelserve.backends.base import SessionOptions
        from accelserve.backends.fpga_emulator.formats import Numerics, parse_format
        from accelserve.backends.fpga_emulator.rewrite import emulate
        from accelserve.backends.onnx_runtime.options import OnnxOptions, session_options
        from accelserve.wire import onnx_pb2

        emulated = emulate(onnx_pb2.ModelProto.FromString(self.model), Numerics(parse_format(form)))
        options = session_options(onnxruntime, OnnxOptions(), SessionOptions())
        session = onnxruntime.InferenceSession(
            emulated.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return session.run(None, {session.get_inputs()[0].name: self.x})[0]


def mlp_task() -> Task:
    """Seconds: the network is trained."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    cells, truths = load_digits(return_X_y=True)
    parts = train_test_split(cells / 16, truths, test_size=HELD_OUT, stratify=truths, random_state=SEED)
    with threadpool_limits(1), warnings.catch_warnings():  # so small that more threads are slower
        warnings.simplefilter("ignore")  # it says that more rounds would bring a little more
        network = MLPClassifier(HIDDEN, random_state=SEED, max_iter=100).fit(parts[0], parts[2])
    model = mlp_model(network.coefs_, network.intercepts_)
    return Task(model, parts[1].astype(np.float32), parts[3])


def mlp_model(weights: list[NDArray[np.float64]], biases: list[NDArray[np.float64]]) -> bytes:
    """weights [inputs, outputs] and biases of each layer -> ONNX: Gemm, ReLU, ..., Gemm. `x` to logits `y`."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, last = [], [], "x"
    for number, (matrix, bias) in enumerate(zip(weights, biases, strict=True), start=1):
        final = number == len(weights)
        sums = "y" if final else f"sums{number}"
        nodes.append(helper.make_node("Gemm", [last, f"w{number}", f"b{number}"], [sums], name=f"dense{number}"))
        if not final:
            last = f"hidden{number}"
            nodes.append(helper.make_node("Relu", [sums], [last]))
        constants += [
            numpy_helper.from_array(value.astype(np.float32), f"{letter}{number}")
            for letter, value in (("w", matrix), ("b", bias))
        ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(weights[0])])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", len(biases[-1])])
    graph = helper.make_graph(nodes, "mlp", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def cnn_task() -> Task:
    """The shipped network; pictures of the digits that it was never trained on, in styles that people use."""
    from accelserve.builtin import digits_path

    examples = str(ROOT / "examples" / "digits")
    if examples not in sys.path:
        sys.path.insert(0, examples)
    from digit_pictures import any_style, draw, shrink, split_digits

    digits, rng = split_digits(), np.random.default_rng(SEED)
    pictures = [
        shrink(draw(cells, DRAWN_SIDE, any_style(rng), rng), 32)
        for _ in range(STYLES)
        for cells in digits.held_out_cells
    ]
    model = (digits_path() / "1" / "model.onnx").read_bytes()
    return Task(model, np.stack(pictures), np.tile(digits.held_out_truths, STYLES))


def formats() -> Iterator[tuple[str, str]]:
    """(name in the table, text of the format), in the order of the table; fp32 first."""
    yield "fp32", "fp32"
    names = {(3, 16): " (MSFP12)", (7, 16): " (MSFP16)"}
    for block in BLOCKS:
        for mantissa in MANTISSAS:
            text = f"bfp(m={mantissa},e=8,b={block})"
            yield f"`{text}`{names.get((mantissa, block), '')}", text
    for preset in PRESETS:
        yield f"`{preset}`", preset


def measure() -> list[dict[str, Any]]:
    """A row for each format: its name, and the percentage read right by each network."""
    tasks = {"mlp": mlp_task(), "cnn": cnn_task()}
    rows = []
    for name, text in formats():
        accuracies = {task: round(each.accuracy(text), 2) for task, each in tasks.items()}
        print(name, accuracies, flush=True)
        rows.append({"format": name, **accuracies})
    return rows


def table(rows: list[Mapping[str, Any]]) -> str:
    """The rows as Markdown, with what each network loses against fp32, the first row."""
    lines = ["| format | MLP | against fp32 | CNN | against fp32 |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        cells = [f"{row[task]:.1f} % | {difference(row[task], rows[0][task])}" for task in ("mlp", "cnn")]
        lines.append(f"| {row['format']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def difference(value: float, base: float) -> str:
    """In points, with a sign; "0.0" has none."""
    text = f"{value - base:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def with_table(page: str, made: str) -> str:
    """The page with the table between its marks exchanged."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + made + END + after


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=RESULT, help="the result; the page is written only with the default"
    )
    out = parser.parse_args(arguments).out
    rows = measure()
    write_result(out, CLAIM, {"rows": rows}, [])
    if out == RESULT:
        PAGE.write_text(with_table(PAGE.read_text(), table(rows)))


if __name__ == "__main__":
    main()
