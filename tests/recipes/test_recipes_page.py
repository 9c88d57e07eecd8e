"""The table of docs/recipes.md is what the recipes are."""

import re
from pathlib import Path

import pytest

from accelserve.recipes.catalog import RECIPES, Wanted

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
ROWS = {row[0].strip("`"): row[1:] for row in (line.strip("| ").split(" | ") for line in re.findall(r"\| `.*", PAGE))}


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_page_tells_names_and_costs_of_each_network(name):
    recipe = RECIPES[name]
    network = recipe.build(Wanted(recipe.classes))
    shown, device, answer, parameters, gmac, disk, _ = ROWS[name]
    assert shown == f"[N,{network.size},{network.size},3]"
    assert parameters == f"{network.parameter_count / 1e6:.2f} M"
    assert gmac == f"{network.macs / 1e9:.2f}"
    assert float(disk.removesuffix(" MiB")) == pytest.approx(4 * network.parameter_count / 2**20, rel=0.02)
    if len(network.outputs) == 1:
        assert device.startswith(f"`{network.device_outputs[0]}` [N,1,1,")
        assert answer.startswith(f"`{network.outputs[0].name}` [N,{recipe.classes}]")
    else:
        assert (device, len(network.outputs)) == ("the twelve outputs", 12)


def test_the_page_tells_what_keras_networks_cost():
    for name, gmac in (("resnet50", "3.86"), ("resnet152", "11.28")):
        assert gmac in PAGE
        assert f"{RECIPES[name].build(Wanted(1000, 'keras')).macs / 1e9:.2f}" == gmac
