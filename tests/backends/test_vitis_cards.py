"""AMD's cards as a played /sys and /dev show them."""

import pytest
from played_fpga import pass_in, plug_board, plug_card

from accelserve.backends.vitis_fpga.cards import CardFinder


@pytest.fixture
def host(tmp_path):
    return tmp_path / "sys", tmp_path / "dev"


def test_a_host_without_a_card_says_where_it_looked(host):
    found = CardFinder(*host).find({})
    assert found.cards == ()
    (missing,) = found.missing
    assert missing.startswith("no AMD FPGA card")
    assert f"vendor 10ee in {host[0]}/bus/pci and no zocl device in {host[0]}/class/drm" in missing


def test_a_card_is_one_device_under_its_first_functions_address(host):
    plug_card(*host)
    (card,) = CardFinder(*host).find({}).cards
    assert (card.address, card.name, card.node) == ("0000:65:00.0", "xilinx_u250", host[1] / "dri" / "renderD128")


def test_two_cards_are_listed_by_address(host):
    plug_card(*host, slot="0000:b3:00", node="renderD129")
    plug_card(*host)
    assert [card.address for card in CardFinder(*host).find({}).cards] == ["0000:65:00.0", "0000:b3:00.0"]


def test_cards_of_other_makers_are_none(host):
    folder = host[0] / "bus" / "pci" / "devices" / "0000:01:00.0"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text("0x10de\n")
    assert CardFinder(*host).find({}).cards == ()


def test_a_board_is_a_device_under_its_nodes_name(host):
    plug_board(*host)
    assert [card.address for card in CardFinder(*host).find({}).cards] == ["renderD129"]


def test_a_card_that_was_not_passed_into_the_container_is_named_with_the_remedy(host):
    plug_card(*host)
    (host[1] / "dri" / "renderD128").unlink()
    found = CardFinder(*host).find({})
    assert found.cards == ()
    assert "renderD128 of card 0000:65:00.0 is not here: pass it in (--device" in found.missing[0]


def test_a_node_that_may_not_be_opened_is_named_with_the_remedy(host):
    plug_card(*host)
    found = CardFinder(*host, opens=lambda node: False).find({})
    assert "may not be opened: join the group" in found.missing[0]


def test_a_card_without_a_driver_is_named_with_the_remedy(host):
    plug_card(*host, driver="")
    assert "install XRT with its xocl kernel module" in CardFinder(*host).find({}).missing[0]


def test_a_card_whose_shell_is_not_flashed_is_named_with_the_remedy(host):
    plug_card(*host, node="")
    assert "0000:65:00.0 shows only its management function" in CardFinder(*host).find({}).missing[0]


def test_one_broken_card_does_not_hide_another(host):
    plug_card(*host)
    plug_card(*host, slot="0000:b3:00", node="renderD129")
    (host[1] / "dri" / "renderD128").unlink()
    found = CardFinder(*host).find({})
    assert [card.address for card in found.cards] == ["0000:b3:00.0"]
    assert len(found.missing) == 1


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [("all", 2), ("0", 1), ("0,1", 2), ("0000:b3:00.0", 1), ("none", 0), ("", 0), ("7", 0)],
)
def test_the_variable_of_the_container_runtime_is_honoured(host, wanted, shown):
    plug_card(*host)
    plug_card(*host, slot="0000:b3:00", node="renderD129")
    found = CardFinder(*host).find({"XILINX_VISIBLE_DEVICES": wanted})
    assert len(found.cards) == shown
    assert bool(found.missing) is (shown == 0)


def test_cards_that_are_hidden_are_named(host):
    plug_card(*host)
    (missing,) = CardFinder(*host).find({"XILINX_VISIBLE_DEVICES": "none"}).missing
    assert missing == "XILINX_VISIBLE_DEVICES=none hides 0000:65:00.0: unset it, or name a card"


def test_a_node_alone_is_no_card(host):
    pass_in(host[1], "renderD128")
    assert CardFinder(*host).find({}).cards == ()
