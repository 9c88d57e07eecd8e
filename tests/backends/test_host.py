from accelserve.backends.host import cpu_device


def test_the_cpu_has_the_name_that_the_kernel_gives_it(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A CPU: fast\n")
    assert cpu_device(tmp_path / "cpuinfo").name == "A CPU: fast"
    assert cpu_device(tmp_path / "absent").name == "CPU"
    assert cpu_device(tmp_path / "absent").memory_bytes > 0
