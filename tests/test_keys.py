"""A service's two keys: the file, the spellings that clients send, and that none is ever shown."""

import json
import os
import pickle
import threading
import traceback
from pathlib import Path

import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.keys import (
    KeyFileError,
    Keyring,
    Keys,
    new_key,
    new_keys,
    read_keys,
    readable_by_others,
    replace_key,
    write_keys,
    write_new_keys,
)

PRIMARY = "primary-Key+/=_.~!0123456789"
SECONDARY = "secondary:Key;,'\"\\<>{}|^`@#$%&*()"
KEYS = Keys(PRIMARY, SECONDARY)


@pytest.fixture
def ring() -> Keyring:
    return Keyring(KEYS)


@pytest.mark.parametrize("key", [PRIMARY, SECONDARY])
@pytest.mark.parametrize("spelling", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}", "Bearer\t{} ", "{}", " {}"])
def test_each_spelling_of_either_key_is_accepted(ring, key, spelling):
    assert ring.accepts(spelling.format(key))


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        " ",
        "Bearer",
        "Bearer ",
        "bearer \t",
        "Bearer Bearer " + PRIMARY,
        "Bearer" + PRIMARY,
        "Basic " + PRIMARY,
        "Token " + PRIMARY,
        PRIMARY[:-1],
        PRIMARY + "x",
        PRIMARY.lower(),
        PRIMARY + SECONDARY,
        f"{PRIMARY},{SECONDARY}",
        f"Bearer {PRIMARY} {SECONDARY}",
        "Bearer " + PRIMARY + "\0",
        "Bearer schlüssel-schlüssel",
        "Bearer \udcff\udcfe",
        "x" * 100_000,
        "Bearer" + " " * 100_000 + PRIMARY,
    ],
)
def test_everything_else_is_not(ring, sent):
    assert not ring.accepts(sent)


def test_a_replaced_key_is_refused_from_then_on_and_the_other_goes_on(ring):
    before = ring.version
    ring.replace(Keys(new := new_key(), SECONDARY))
    assert ring.version != before
    assert [ring.accepts(key) for key in (PRIMARY, new, SECONDARY)] == [False, True, True]


def test_an_internal_key_outlives_every_change_of_the_others():
    ring = Keyring(KEYS, internal := new_key())
    ring.replace(new_keys())
    assert ring.accepts(f"Bearer {internal}")
    assert not Keyring(KEYS).accepts(f"Bearer {internal}")


def test_no_key_can_be_read_out_of_a_ring_or_seen_in_what_python_prints():
    ring = Keyring(KEYS, "internal-internal")
    for shown in (repr(ring), repr(KEYS), str(KEYS), f"{KEYS}", str(vars(ring)), str(pickle.dumps(ring))):
        for key in (PRIMARY, SECONDARY, "internal-internal"):
            assert key not in shown


def test_new_keys_differ_and_need_no_quotes_anywhere():
    made = {new_key() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(key) == 43 and key.isascii() and key.isalnum() for key in made)


def test_keys_are_written_for_their_owner_alone_and_read_back(tmp_path):
    path = tmp_path / "keys.json"
    old_mask = os.umask(0)
    try:
        write_keys(path, KEYS)
    finally:
        os.umask(old_mask)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_keys(path) == KEYS
    assert json.loads(path.read_text()) == {"primary": PRIMARY, "secondary": SECONDARY}
    assert list(tmp_path.iterdir()) == [path]


def test_a_wide_open_file_is_narrow_again_once_it_is_rewritten(tmp_path):
    path = tmp_path / "keys.json"
    write_new_keys(path)
    path.chmod(0o644)
    assert readable_by_others(path)
    replace_key(path, "primary")
    assert not readable_by_others(path)


def test_a_group_may_be_let_in_and_a_file_that_is_gone_is_read_by_nobody(tmp_path):
    write_new_keys(tmp_path / "keys.json")
    (tmp_path / "keys.json").chmod(0o640)
    assert not readable_by_others(tmp_path / "keys.json")
    assert not readable_by_others(tmp_path / "gone")


def test_one_key_is_replaced_and_the_other_stays(tmp_path):
    path = tmp_path / "keys.json"
    write_keys(path, KEYS)
    after = replace_key(path, "secondary")
    assert after.primary == PRIMARY
    assert after.secondary != SECONDARY
    assert replace_key(path, "primary", "a-key-of-my-own-choice") == Keys("a-key-of-my-own-choice", after.secondary)
    assert read_keys(path) == Keys("a-key-of-my-own-choice", after.secondary)


@pytest.mark.parametrize(
    "wrong", ["", "short", "x" * 513, "with a space in it....", "line\nbreak-line-break", "é" * 20]
)
def test_what_cannot_be_a_key_is_not_written_and_not_repeated(tmp_path, wrong):
    path = tmp_path / "keys.json"
    write_keys(path, KEYS)
    with pytest.raises(ScoringError) as raised:
        replace_key(path, "primary", wrong)
    assert raised.value.kind is Kind.INVALID
    assert not wrong or wrong not in str(raised.value)
    assert read_keys(path) == KEYS


def test_two_who_replace_different_keys_at_once_both_succeed(tmp_path):
    path = tmp_path / "keys.json"
    write_keys(path, KEYS)

    def change(name):
        for _ in range(20):
            replace_key(path, name)
        replace_key(path, name, f"the-last-{name}-key")

    threads = [threading.Thread(target=change, args=(name,)) for name in ("primary", "secondary")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_keys(path) == Keys("the-last-primary-key", "the-last-secondary-key")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        '"' + PRIMARY + '"',
        json.dumps({"primary": PRIMARY}),
        json.dumps({"primary": PRIMARY, "secondary": SECONDARY, "third": PRIMARY}),
        json.dumps({"primary": PRIMARY, "secondary": None}),
        json.dumps({"primary": PRIMARY, "secondary": "short"}),
        json.dumps({"primary": PRIMARY, "secondary": "two words of sixteen"}),
        json.dumps({"primary": PRIMARY, "secondary": SECONDARY})[:-5],
        json.dumps({"primary": PRIMARY, "secondary": SECONDARY}) + " " * 20_000,
        "[" * 10_000,
        b"\xff\xfe\x00",
    ],
    ids=range(14),
)
def test_a_file_that_is_wrong_is_named_and_its_content_is_not(tmp_path, content):
    path = tmp_path / "keys.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KeyFileError, match=r"keys\.json") as raised:
        read_keys(path)
    told = "".join(traceback.format_exception(raised.value))
    assert PRIMARY not in told
    assert "two words of sixteen" not in told
    assert raised.value.__context__ is None


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, told in ((tmp_path / "pipe", "not a regular"), (tmp_path, "a directory"), (Path("/dev/zero"), "regular")):
        with pytest.raises(KeyFileError, match=told):
            read_keys(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(KeyFileError, match=r"keys\.json: No such file"):
        read_keys(tmp_path / "keys.json")
