"""What travels to a GPU machine, as far as it needs no package index."""

import os
import shutil
import subprocess
import sys

import pytest

from benchmarks import gpu_carry


def part(folder, listed=("ort_gpu.part.00",)):
    folder.mkdir()
    (folder / "ort_gpu.part.00").write_bytes(b"packed")
    (folder / "parts.sha256").write_text("".join(f"00  {name}\n" for name in listed))
    (folder / gpu_carry.UNPACK).write_text("")
    return folder


def test_one_packed_part_is_copied(tmp_path):
    gpu_carry.copy_part(part(tmp_path / "p00"), tmp_path / "ort")
    assert (tmp_path / "ort" / "ort_gpu.part.00").read_bytes() == b"packed"


def test_a_build_in_several_parts_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="one of 2 parts"):
        gpu_carry.copy_part(part(tmp_path / "p00", ("ort_gpu.part.00", "ort_gpu.part.01")), tmp_path / "ort")


def test_a_folder_without_a_part_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="want one ort_gpu"):
        gpu_carry.copy_part(tmp_path, tmp_path / "ort")


def test_the_fp16_converter_that_the_packed_build_lacks_travels_too(tmp_path):
    gpu_carry.copy_left_out(tmp_path)
    assert "def convert_float_to_float16" in (tmp_path / "transformers" / "float16.py").read_text()


def test_too_much_for_one_transfer_is_refused_with_the_numbers(tmp_path, capsys):
    (tmp_path / "large").write_bytes(b"0" * 2**20)
    with pytest.raises(SystemExit, match="too much by"):
        gpu_carry.report(tmp_path, "run.sh", limit_mib=1)
    assert "1.00 MiB  large" in capsys.readouterr().out


def test_what_fits_is_told_with_the_command_to_run(tmp_path, capsys):
    gpu_carry.report(tmp_path, "run.sh", limit_mib=1000)
    assert f"bash {tmp_path.name}/run.sh" in capsys.readouterr().out


def script(name, folder, **environ):
    shutil.copyfile(gpu_carry.SCRIPTS / name, folder / name)
    (folder / "settings").write_text("python_version=3.1\ncommit=abc\n")
    command = ["bash", str(folder / name)]
    environ = {**os.environ, "PYTHON": sys.executable, **environ}
    return subprocess.run(command, cwd=gpu_carry.ROOT, env=environ, capture_output=True, text=True, timeout=30)


def test_another_python_is_refused_before_anything_is_installed(tmp_path):
    done = script("run.sh", tmp_path, TARGET=str(tmp_path / "target"))
    assert done.returncode == 2
    assert "the wheels are for Python 3.1, and" in done.stderr
    assert not (tmp_path / "target").exists()


def test_there_must_be_something_to_add_to(tmp_path):
    done = script("add.sh", tmp_path, TARGET=str(tmp_path / "target"))
    assert done.returncode == 2
    assert "call run.sh of the first folder first" in done.stderr


def test_names_are_compared_as_indexes_do():
    assert gpu_carry.normal("ML_dtypes") == "ml-dtypes"
