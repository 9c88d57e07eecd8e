import gc

import pytest

from accelserve.collector import imports_that_stay


@pytest.fixture(autouse=True)
def _as_before():
    was_on = gc.isenabled()
    yield
    gc.unfreeze()
    gc.enable() if was_on else gc.disable()


def test_nothing_is_collected_meanwhile_and_what_was_made_is_not_looked_at_again():
    frozen = gc.get_freeze_count()
    with imports_that_stay():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(kept)


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with imports_that_stay():
        pass
    assert not gc.isenabled()


def test_an_import_that_fails_leaves_it_on():
    with pytest.raises(ImportError), imports_that_stay():
        raise ImportError
    assert gc.isenabled()
