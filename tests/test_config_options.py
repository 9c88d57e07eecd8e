"""The table of options: what each row takes, and how it is spelt."""

import pytest

from accelserve.config import ServerConfig
from accelserve.config_options import OPTIONS

OPTION = {option.name: option for option in OPTIONS}


def test_every_option_is_a_field_and_every_field_an_option():
    fields = set(ServerConfig.__dataclass_fields__) - {"models"}
    assert {option.name for option in OPTIONS} == fields


def test_a_row_has_three_spellings_without_the_unit_of_its_field():
    option = OPTION["grace_period_s"]
    assert (option.flag, option.env, option.key) == ("--grace-period", "ACCELSERVE_GRACE_PERIOD", "grace_period")


def test_a_switch_is_told_by_its_parser_and_a_text_by_its_default():
    assert [name for name in ("strict", "auth_everywhere", "threads", "host") if OPTION[name].is_switch] == [
        "strict",
        "auth_everywhere",
    ]
    assert [name for name in ("host", "device", "http_port", "backends") if OPTION[name].is_text] == ["host", "device"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("threads", "0"),
        ("threads", "-1"),
        ("threads", "1025"),
        ("decode_threads", "-7"),
        ("decode_threads", "1025"),
        ("http_port", "-1"),
        ("http_port", "65536"),
        ("read_timeout_s", "0"),
        ("read_timeout_s", "-1"),
        ("keep_alive_s", "-0.1"),
        ("max_pixels", "0"),
        ("max_pixels", "64M"),
        ("grpc_max_message_bytes", "2GiB"),
        ("host", ""),
        ("host", "two words"),
        ("host", "a" * 64),
        ("host", "nul\0"),
        ("device", "cpu:0"),
        ("jpeg_decoder", "auto"),
        ("jpeg_decoder", "gpu:0,1"),
        ("jpeg_decoder", "fpga"),
        ("strict", "perhaps"),
        ("instances", "0"),
        ("instances", "65"),
        ("poll_interval_s", "-1"),
        ("reload_attempts", "-1"),
        ("store", ""),
        ("store", "a\0b"),
        ("store", "~nobody-of-this-name/store"),
        ("log_format", "xml"),
    ],
)
def test_a_value_that_an_option_cannot_use_is_refused_with_what_is_wanted(name, text):
    with pytest.raises(ValueError, match=r"^want "):
        OPTION[name].parse(text)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("decode_threads", "0", 0),
        ("decode_threads", "3", 3),
        ("read_timeout_s", "0.1", 0.1),
        ("keep_alive_s", "0", 0.0),
        ("drain_timeout_s", "86400", 86400.0),
        ("max_pixels", "1000000", 1_000_000),
        ("grpc_max_message_bytes", "2047MiB", 2047 * 2**20),
        ("host", "::1", "::1"),
        ("host", "localhost", "localhost"),
        ("device", " gpu:0 ", "gpu:0"),
        ("strict", "Yes", True),
        ("strict", "", False),
        ("log_level", "INFO", "info"),
        ("poll_interval_s", "0", 0.0),
        ("reload_attempts", "0", 0),
        ("instances", "64", 64),
        ("script_nan", "nan", "NaN"),
    ],
)
def test_a_value_at_the_edge_is_taken(name, text, value):
    assert OPTION[name].parse(text) == value


def test_the_pictures_limit_is_counted_in_pixels_not_in_bytes():
    with pytest.raises(ValueError, match="pixels") as caught:
        OPTION["max_pixels"].parse("many")
    assert "bytes" not in str(caught.value)
