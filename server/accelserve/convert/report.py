"""What `convert` and `verify` print for people."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_HANDED_OVER = 'decode = "server" under [preprocessing] of accelserve.toml'
_COLUMNS = ("signature", "output", "tensor", "error", "")


def report_as_text(report: Mapping[str, Any], output: Path) -> str:
    return "\n".join(_lines(report, output))


def _lines(report: Mapping[str, Any], output: Path) -> Iterator[str]:
    tools = ", ".join(f"{name} {version}" for name, version in report["tools"].items())
    yield f"{report['model']} -> {output} in {report['seconds']:.1f} s (opset {report['opset']}; {tools})"
    for file, error in report["fp16_errors"].items():
        yield f"{file} in fp16: largest error {error:.2g} with every inner value rounded"
    for name, told in report["signatures"].items():
        nodes = ", ".join(f"{kind} {count}" for kind, count in told["nodes"].items())
        yield f'signature "{name}": TensorFlow nodes {nodes}; ONNX nodes {told["onnx_nodes"]}'
        for tensor, described in told["cut"].items():
            yield f"  cut at {described} {tensor}"
        if told["moved"]:
            yield f"  TensorFlow runs on the CPU what tf2onnx cannot convert: {told['moved']}"
        if told["checks_left_out"]:
            yield f"  checks (tf.debugging.assert_...) are left out: {', '.join(told['checks_left_out'])}"
        yield from _decoding_lines(told)
    for name, reason in report["left_out"].items():
        yield f'signature "{name}" is left out: {reason}'
    yield from comparison_lines([told["comparison"] for told in report["signatures"].values()], report["tolerance"])


def _decoding_lines(told: Mapping[str, Any]) -> Iterator[str]:
    pictures = told["pictures"]
    if pictures is None:
        if "host" in told["nodes"]:
            yield f"  the server cannot decode in its host part's place: {told['no_pictures']}"
        return
    height, width = pictures["size"]
    shape = f"{height}x{width}x{pictures['channels']}"
    yield f"  its host part decodes pictures to {shape} ({pictures['grid']}); the server's decoder in its place"
    yield f"  ({_HANDED_OVER}) differs by"
    for each in pictures["measured"]:
        yield f"    {each['picture']}: pixels {each['pixel_error']:.1f} of 255, outputs {each['output_error']:.2g}"


def comparison_lines(comparisons: Sequence[Mapping[str, Any]], tolerance: float) -> Iterator[str]:
    """A table, output by output; a comparison as `dataclasses.asdict` makes it."""
    rows = [_COLUMNS]
    for comparison in comparisons:
        for output in comparison["outputs"]:
            verdict = "equal" if output["equal"] else f"DIFFERS: {output['note']}"
            rows.append((comparison["signature"], output["name"], output["tensor"], f"{output['error']:.2e}", verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for comparison in comparisons:
        sizes = ", ".join(map(str, comparison["batch_sizes"]))
        rode = {None: "no batch axis", True: f"batches of {sizes}", False: f"batches of {sizes}; ITS ROWS MIX"}
        independent = rode[comparison["rows_independent"]]
        yield f'signature "{comparison["signature"]}": sample {comparison["sample"]}; {independent}'
    yield f"error: largest difference over the output's largest magnitude; tolerance {tolerance:g}, other types equal"
