"""Folders that appear whole, or not at all."""

import errno
import shutil

import pytest

from accelserve.convert.unfinished import appearing
from accelserve.errors import Kind, ScoringError


def test_a_folder_appears_with_all_that_is_in_it(tmp_path):
    with appearing("m", tmp_path / "out") as folder:
        (folder / "file").write_text("whole")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "file").read_text() == "whole"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        shutil.Error([("a", "b", "No space left on device"), ("c", "d", "No space left on device")]),
    ],
)
def test_a_full_disk_is_told_in_one_line_and_nothing_is_left(tmp_path, error):
    with pytest.raises(ScoringError) as refusal, appearing("m", tmp_path / "out"):
        raise error
    assert refusal.value.kind is Kind.PRECONDITION
    assert refusal.value.message == f"m: {tmp_path / 'out'} cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []
