"""The modelled time of a card."""

from dataclasses import replace

import pytest

from accelserve.backends.fpga_emulator.latency_model import CARDS, Card, LayerWork

PLAIN = Card(tiles=2, native_dim=10, lanes=5, clock_hz=1e9, calibration=1.0, overhead_s=0.0, link_bytes_per_s=1e9)


def ns(card, *layers, moved=0):
    return card.run_ns(layers, moved)


def test_a_layer_that_fills_its_tiles_takes_its_work_over_the_multipliers():
    layer = LayerWork("l", positions=4, outputs=10, summed=20)
    assert layer.macs == 800
    # 4 positions x 2 tiles on 2 tiles of hardware: 4 passes of 10 / 5 cycles
    assert ns(PLAIN, layer) == 8 == ns(replace(PLAIN, packing="ideal"), layer)


def test_a_layer_that_leaves_a_tile_half_empty_pays_for_the_whole():
    assert ns(PLAIN, LayerWork("l", positions=2, outputs=11, summed=1)) == 2 * 2  # 2 x 2 tiles on 2, of 2 cycles each


def test_aligned_taps_begin_tiles_of_their_own():
    layer = LayerWork("l", positions=1, outputs=10, summed=9 * 3, taps=9)
    assert ns(PLAIN, layer) == 2 * 2  # 27 values in 3 tiles, on 2
    assert ns(replace(PLAIN, packing="aligned"), layer) == 5 * 2  # 9 tiles of 3 values


def test_overhead_and_transfers_are_added_uncalibrated():
    card = replace(PLAIN, overhead_s=100e-9, calibration=3.0)
    assert ns(card, LayerWork("l", 4, 10, 20), moved=50) == 3 * 8 + 100 + 50


@pytest.mark.parametrize(
    ("packing", "wanted_ms"), [("ideal", 0.78), ("packed", 1.00), ("aligned", 3.09)], ids=["ideal", "packed", "aligned"]
)
def test_resnet_50_on_the_older_card_takes_what_the_table_of_the_specification_says(packing, wanted_ms):
    card = replace(CARDS["brainwave-a10"], packing=packing, calibration=1.0, overhead_s=0.0)
    assert card.run_ns(_resnet50(), 0) / 1e6 == pytest.approx(wanted_ms, abs=0.011)


def _resnet50():
    """Convolutions of ResNet-50 v1 at 224 x 224, stride in the first 1x1 of a block."""
    layers = [LayerWork("conv1", 112 * 112, 64, 147, 49)]
    channels = 64
    for width, blocks, side in ((64, 3, 56), (128, 4, 28), (256, 6, 14), (512, 3, 7)):
        positions = side * side
        for block in range(blocks):
            layers.append(LayerWork("1x1", positions, width, channels))
            layers.append(LayerWork("3x3", positions, width, 9 * width, 9))
            layers.append(LayerWork("1x1", positions, 4 * width, width))
            if block == 0:
                layers.append(LayerWork("shortcut", positions, 4 * width, channels))
            channels = 4 * width
    return layers
