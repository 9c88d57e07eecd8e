"""What /metrics says of models at the moment it is asked."""

from types import SimpleNamespace

from accelserve.backends.base import Device, Placement
from accelserve.batching.admission import Learned
from accelserve.batching.lanes import Instance
from accelserve.batching.policy import BatchPolicy
from accelserve.devices import DeviceKind
from accelserve.messages import VersionStatus
from accelserve.models.gauges import model_gauges

GPUS = tuple(Device(f"gpu:{number}", DeviceKind.GPU, "made up") for number in range(2))


def manager(*statuses, servables=()):
    return SimpleNamespace(
        names=lambda: ["m"], statuses=lambda ref: statuses, servables=lambda: servables, device_states=dict
    )


def values(models, name, *labels):
    return {tuple(g.labels[label] for label in labels): g.value for g in model_gauges(models) if g.name == name}


def on_two_gpus(lost, learned=None, objective_ns=None):
    session = SimpleNamespace(placement=Placement({"CUDAExecutionProvider": 7}))
    instances = tuple(Instance(gpu, 0, number in lost) for number, gpu in enumerate(GPUS))
    scheduler = SimpleNamespace(
        instances=instances, queue_rows=3, queue_bytes=40, inflight=1, learned=learned or Learned((), 8, 0)
    )
    policy = BatchPolicy(max_batch_size=12, latency_slo_ns=objective_ns)
    model = SimpleNamespace(devices=GPUS, session=session, sessions=[session], backend="played", policy=policy)
    return SimpleNamespace(name="m", version=2, model=model, scheduler=scheduler)


def test_every_version_has_a_state():
    models = manager(VersionStatus(2, "END", 9, "no weights"), VersionStatus(1, "AVAILABLE"))
    found = values(models, "accelserve_model_state", "version", "state")
    assert {key for key, value in found.items() if value == 1} == {("2", "END"), ("1", "AVAILABLE")}
    assert len(found) == 2 * 5


def test_every_device_and_every_instance_is_counted_lost_ones_apart():
    models = manager(VersionStatus(2, "AVAILABLE"), servables=[on_two_gpus(lost={1})])
    assert values(models, "accelserve_device_info", "device", "emulated") == {
        ("gpu:0", "false"): 1.0,
        ("gpu:1", "false"): 1.0,
    }
    assert values(models, "accelserve_instances", "version", "state") == {("2", "serving"): 1, ("2", "lost"): 1}
    assert values(models, "accelserve_nodes", "provider") == {("CUDAExecutionProvider",): 7}
    assert values(models, "accelserve_queue_rows", "version") == {("2",): 3}


def test_a_few_of_the_sizes_that_were_learned_are_told():
    learned = Learned([(rows, 1_000_000 * rows) for rows in range(1, 13)], 12, 0)
    models = manager(VersionStatus(2, "AVAILABLE"), servables=[on_two_gpus(lost={}, learned=learned)])
    found = values(models, "accelserve_admission_run_seconds", "rows")
    assert found == {("1",): 0.001, ("2",): 0.002, ("4",): 0.004, ("8",): 0.008, ("12",): 0.012}
    assert values(models, "accelserve_admission_batch_rows", "version") == {}


def test_what_an_objective_chose_is_told():
    served = on_two_gpus(lost={}, learned=Learned((), 6, 2_000_000), objective_ns=50_000_000)
    models = manager(VersionStatus(2, "AVAILABLE"), servables=[served])
    assert values(models, "accelserve_admission_batch_rows", "version") == {("2",): 6}
    assert values(models, "accelserve_admission_delay_seconds", "version") == {("2",): 0.002}
