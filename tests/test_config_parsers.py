"""What an option's text means."""

import pytest

from accelserve.config import ALL_VERSIONS, VersionPolicy
from accelserve.config_parsers import one_of, parse_backends, parse_bytes, parse_file, parse_model_files, parse_versions


@pytest.mark.parametrize(
    ("text", "number"), [("64MiB", 2**26), ("64M", 2**26), ("10", 10), ("1 kb", 1024), ("2GiB", 2**31)]
)
def test_sizes_are_read_in_powers_of_1024(text, number):
    assert parse_bytes(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5M", "lots", "1TB"])
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(ValueError, match="want"):
        parse_bytes(text)


def test_a_path_may_start_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert parse_file("~/key.pem") == "/home/me/key.pem"


@pytest.mark.parametrize("text", ["", "a\0b", "~nobody-of-this-name/key.pem"])
def test_a_path_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="want a file"):
        parse_file(text)


def test_files_of_models_are_pairs_quoted_as_in_a_shell():
    assert parse_model_files("a=/files/a 'b=/two words/b=c'") == (("a", "/files/a"), ("b", "/two words/b=c"))
    assert parse_model_files("") == ()


@pytest.mark.parametrize("text", ["a", "a=", "=/files/a", "a=/files/a b"])
def test_files_of_models_that_are_no_pairs_are_refused(text):
    with pytest.raises(ValueError, match="want NAME=PATH"):
        parse_model_files(text)


def test_a_word_is_taken_in_any_case_and_given_as_it_stands_in_the_table():
    assert [one_of("null", "NaN")(text) for text in ("NULL", "nan")] == ["null", "NaN"]
    with pytest.raises(ValueError, match="want one of null, NaN"):
        one_of("null", "NaN")("none")


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        ("latest", VersionPolicy()),
        ("latest:2", VersionPolicy(latest=2)),
        ("all", ALL_VERSIONS),
        ([3, 1, 3], VersionPolicy(specific=(1, 3))),
        ("7", VersionPolicy(specific=(7,))),
    ],
)
def test_versions_are_chosen_by_a_word_or_by_number(value, policy):
    assert parse_versions(value) == policy


def test_names_of_plug_ins_are_told_once_each():
    assert parse_backends("npu, tiny,npu") == ("npu", "tiny")
    assert parse_backends("") == ()
