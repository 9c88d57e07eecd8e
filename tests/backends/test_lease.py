import os
import subprocess
import sys
from pathlib import Path

import pytest

import accelserve
from accelserve.backends.lease import acquire_lease
from accelserve.errors import Kind, ScoringError

DIES_HOLDING = """
import os, sys
from pathlib import Path
from accelserve.backends.lease import acquire_lease
lease = acquire_lease(Path(sys.argv[1]), "fpga:0", "crasher")
print("held", flush=True)
sys.stdin.readline()
os._exit(1)
"""

FORKS_HOLDING = """
import os, sys
from pathlib import Path
from accelserve.backends.lease import acquire_lease
lease = acquire_lease(Path(sys.argv[1]), "fpga:0", "parent")
end, keep = os.pipe()
if os.fork() == 0:
    os.close(keep)
    os.read(end, 1)
    os._exit(0)
lease.release()
acquire_lease(Path(sys.argv[1]), "fpga:0", "next").release()
os.close(keep)
os.wait()
"""


def test_a_second_holder_is_refused_with_the_name_of_the_first(tmp_path):
    acquire_lease(tmp_path, "gpu:0", "resnet50")
    with pytest.raises(ScoringError, match="resnet50") as refusal:
        acquire_lease(tmp_path, "gpu:0", "bert")
    assert refusal.value.kind is Kind.CONFLICT
    assert str(os.getpid()) in refusal.value.message


def test_a_released_device_can_be_taken_again(tmp_path):
    acquire_lease(tmp_path, "gpu:0", "first").release()
    assert acquire_lease(tmp_path, "gpu:0", "second").device_id == "gpu:0"


def test_releasing_twice_leaves_the_next_holder_alone(tmp_path):
    first = acquire_lease(tmp_path, "gpu:0", "first")
    first.release()
    acquire_lease(tmp_path, "gpu:0", "second")
    first.release()
    with pytest.raises(ScoringError, match="second"):
        acquire_lease(tmp_path, "gpu:0", "third")


def test_two_devices_are_two_leases(tmp_path):
    paths = {acquire_lease(tmp_path, device, "m").path for device in ("gpu:0", "gpu:1", "fpga:0000:65:00.0", "a/../b")}
    assert len(paths) == 4
    assert {path.parent for path in paths} == {tmp_path}


def test_a_holder_whose_name_is_unreadable_still_holds(tmp_path):
    lease = acquire_lease(tmp_path, "gpu:0", "m")
    lease.path.write_text("{half a li")
    with pytest.raises(ScoringError, match="another process"):
        acquire_lease(tmp_path, "gpu:0", "n")


def test_the_kernel_gives_up_the_lease_of_a_process_that_dies(tmp_path):
    source = str(Path(accelserve.__file__).parents[1])
    command = [sys.executable, "-c", DIES_HOLDING, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": source}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ScoringError, match=f"crasher .process {process.pid}"):
            acquire_lease(tmp_path, "fpga:0", "m")
        process.communicate("die\n", timeout=30)
    assert acquire_lease(tmp_path, "fpga:0", "m").device_id == "fpga:0"


def test_a_forked_child_that_lives_on_does_not_keep_a_released_device(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(accelserve.__file__).parents[1])}
    command = [sys.executable, "-c", FORKS_HOLDING, str(tmp_path)]
    done = subprocess.run(command, env=environment, timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_cannot_be_used_is_named_with_the_setting(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ScoringError, match=r"the lease of fpga:0 cannot be taken: .*file.*--lease-dir") as refusal:
        acquire_lease(tmp_path / "file" / "leases", "fpga:0", "m")
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_file_that_names_nobody_is_read_again_and_then_said_to_be_anothers(tmp_path):
    held = acquire_lease(tmp_path, "fpga:0", "m")
    held.path.write_text("")
    with pytest.raises(ScoringError, match="held by another process"):
        acquire_lease(tmp_path, "fpga:0", "n")
