from importlib.metadata import version

from accelserve.installed import installed_versions


def test_what_is_not_installed_is_left_out_and_the_order_is_that_of_the_question():
    found = installed_versions(("pytest", "no-such-distribution", "numpy"))
    assert list(found.items()) == [("pytest", version("pytest")), ("numpy", version("numpy"))]
