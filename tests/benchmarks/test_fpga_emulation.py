"""benchmarks/fpga_emulation.py: what it makes of times, and that the committed result reaches the goals."""

import json

from benchmarks.fpga_emulation import GOALS, RESULT, missed, numerics, ratio, table


def row(network: str, times: float, prepare_s: float = 1.0) -> dict[str, object]:
    best = {"fp32": 10.0, "msfp12": 10 * times}
    told = {"ratio": {"msfp12": times}, "prepare_s": {"msfp12": prepare_s}, "exact_layers": {"msfp12": [14, 15]}}
    return {"network": network, "best_ms": best, **told}


def test_a_ratio_is_the_median_of_the_rounds_own():
    assert ratio([2, 6, 30], [1, 4, 10]) == 2


def test_goals_that_are_missed_are_named():
    assert missed([row("resnet50", 1.4), row("vgg16", 1.1, prepare_s=99)]) == []
    assert missed([row("densenet121", 1.81)]) == ["densenet121: 1.81 times fp32's time, the goal is 1.8"]
    assert missed([row("resnet50", 1.3, prepare_s=20.1)]) == ["resnet50: prepared in 20.1 s, the goal is 20 s"]


def test_the_table_has_a_line_for_each_numerics():
    assert table([row("vgg16", 1.1)]).splitlines()[2:] == [
        "| vgg16 | fp32 | 10.0 | 1 |  |  |  |",
        "| vgg16 | msfp12 | 11.0 | 1.10 | 1.2 | 14 of 15 | 1.0 |",
    ]


def test_a_name_says_format_and_elementwise_width():
    assert str(numerics("msfp12+fp16")) == "bfp(m=3,e=8,b=16)+fp16"


def test_the_committed_result_reaches_every_goal():
    rounds = json.loads(RESULT.read_text())["rounds"]
    assert [found["network"] for found in rounds] == list(GOALS)
    assert missed(rounds) == []
