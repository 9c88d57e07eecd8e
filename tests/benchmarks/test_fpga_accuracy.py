"""What quantization costs digits, held to its limits; and the page's table, held to the committed result."""

import json

import pytest

from benchmarks.fpga_accuracy import PAGE, RESULT, Task, cnn_task, difference, formats, mlp_task, table, with_table

POINTS = {3: 1.5, 5: 0.5, 7: 0.5}  # mantissa bits -> what they may cost


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {"mlp": mlp_task(), "cnn": cnn_task()}


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_a_few_mantissa_bits_read_digits_nearly_as_fp32_does(tasks: dict[str, Task], network: str):
    task = tasks[network]
    fp32 = task.accuracy("fp32")
    pairs = [(bits, block) for bits in POINTS for block in (16, 128)]
    lost = {(bits, block): fp32 - task.accuracy(f"bfp(m={bits},e=8,b={block})") for bits, block in pairs}
    assert all(points <= POINTS[bits] for (bits, _), points in lost.items()), lost


def test_one_bit_is_seen_in_the_accuracy(tasks: dict[str, Task]):
    # else the figures above would say nothing: the emulation would not be there
    mlp = tasks["mlp"]
    assert mlp.accuracy("bfp(m=1,e=8,b=128)") < mlp.accuracy("fp32") - 3


def test_the_page_has_the_table_of_the_committed_result():
    rows = json.loads(RESULT.read_text())["result"]["rows"]
    assert [row["format"] for row in rows] == [name for name, _ in formats()]
    page = PAGE.read_text()
    assert with_table(page, table(rows)) == page


def test_differences_are_told_in_points_with_a_sign():
    assert [difference(*pair) for pair in ((97.5, 97), (96, 97.04), (97.01, 97))] == ["+0.5", "-1.0", "0.0"]
