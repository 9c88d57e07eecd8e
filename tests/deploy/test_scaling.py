"""How many replicas are wanted, by the requests under way."""

from accelserve.deploy.definition import Autoscale, ServiceDefinition
from accelserve.deploy.scaling import Autoscaler

S = 1_000_000_000


def scaler(low=1, high=10, target=50, refresh=1, busy=4, now=0):
    scale = Autoscale(low, high, target, refresh)
    return Autoscaler(ServiceDefinition("numbers", "m", 1, autoscale=scale, max_concurrent=busy), now)


def test_each_replica_is_kept_at_its_target():
    wanted = {in_flight: scaler().look(in_flight, 0) for in_flight in (0, 1, 2, 3, 4, 5, 19, 1000)}
    assert wanted == {0: 1, 1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 19: 10, 1000: 10}


def test_without_autoscale_the_definition_says_how_many():
    fixed = Autoscaler(ServiceDefinition("numbers", "m", 1, replicas=3))
    assert [fixed.look(in_flight, 0) for in_flight in (0, 500)] == [3, 3]


def test_it_looks_no_more_often_than_it_is_told():
    slow = scaler(refresh=10)
    assert slow.look(0, 0) == 1
    assert slow.look(100, 9 * S) == 1
    assert slow.look(100, 10 * S) == 10


def test_it_grows_at_once_and_shrinks_to_the_most_of_the_last_minute():
    steady = scaler()
    wanted = [steady.look({5: 8, 30: 4}.get(second, 0), second * S) for second in range(120)]
    assert wanted[4] == 1
    assert wanted[5:66] == [4] * 61
    assert wanted[66:91] == [2] * 25
    assert wanted[91:] == [1] * 29


def test_a_changed_definition_begins_with_the_replicas_that_there_are():
    assert scaler(now=6).look(0, 0) == 6
    assert scaler(low=7, now=6).look(0, 0) == 7
    assert scaler(high=5, now=6).look(0, 0) == 5
