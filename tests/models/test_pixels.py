"""Where pictures are normalised: what the model's file asks for, what its sessions can, and that a refusal is told."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import TensorProto
from small_networks import scorer

import model_builders
from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import BatchResult, DecodedInput, Device, Placement
from accelserve.backends.discovery import BackendPool
from accelserve.backends.probes import onnx_runtime, synthetic
from accelserve.batching.policy import BatchPolicy
from accelserve.codecs.images import decode_picture
from accelserve.codecs.round_trip import check_round_trip
from accelserve.config import ModelConfig
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.models.loading import Loader
from accelserve.models.manifest import Manifest
from accelserve.models.pixels import PixelPaths, take_decoded, take_pixels
from accelserve.models.self_check import check_pixels, normalised
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, Signature, TensorSpec

SIZE = (4, 6)
SERVED = "serving_default"
STEPS = Preprocessing(SIZE, layout="NCHW", mean=(120.0, 117.0, 104.0), scale=(0.017, 0.018, 0.019))
OURS = Path("m.accelserve.toml")
CPU, GPU = (Device(f"{kind.value}:0", kind, "played") for kind in (DeviceKind.CPU, DeviceKind.GPU))


def signature(dtype="float32") -> Signature:
    image = TensorSpec("image", BY_NAME[dtype], (-1, 3, *SIZE), "image")
    return Signature(SERVED, {"image": image}, {"scores": TensorSpec("scores", BY_NAME["float32"], (-1, 3), "scores")})


class Floats:
    """A session of a model that gives the mean of each plane, and takes no pixels."""

    placement = Placement()

    def __init__(self, device=CPU, dtype="float32"):
        self.device = device
        self.signatures = {SERVED: signature(dtype)}
        self.ran = []

    def run(self, batch):
        image = batch.inputs["image"]
        self.ran.append((batch.signature, len(image)))
        return BatchResult({"scores": self.planes(batch.signature, image).mean(axis=(2, 3))})

    def planes(self, name, image):
        return image

    def close(self): ...


class Pixels(Floats):
    """The same with pixels, normalised as the steps say plus `error`."""

    def __init__(self, device=CPU, dtype="float32", cannot=None, error=0.0):
        super().__init__(device, dtype)
        self.cannot, self.error = cannot, error

    def take_pixels(self, name, steps):
        if self.cannot is not None:
            raise self.cannot
        self.steps = steps
        pixels = TensorSpec("image", BY_NAME["uint8"], (-1, *SIZE, 3), "image")
        return replace(self.signatures[name], name="pixels", inputs={"image": pixels})

    def planes(self, name, image):
        if name == SERVED:
            return image
        return normalised(image, self.steps, self.signatures[SERVED].inputs["image"]) + np.float32(self.error)


def take(*sessions, normalize=None, steps=STEPS):
    return take_pixels(sessions, {SERVED: steps}, Manifest(normalize=normalize, source=OURS))


UNSUPPORTED = ScoringError(Kind.UNSUPPORTED, "m:1: letterbox fills with 0")


@pytest.mark.parametrize(
    ("device", "normalize", "where"),
    [
        (GPU, None, "on the device"),
        (CPU, None, "on the host"),
        (CPU, "device", "on the device"),
        (GPU, "host", "on the host"),
    ],
)
def test_a_gpu_normalises_and_a_cpu_does_not_unless_the_file_says_otherwise(device, normalize, where):
    paths = take(Pixels(device), normalize=normalize)
    assert paths.where == {SERVED: where}
    assert bool(paths.by_signature) is (where == "on the device")


def test_the_host_decodes_to_rows_of_bytes_where_the_device_does_the_rest():
    path = take(Pixels(GPU)).by_signature[SERVED]
    assert path.preprocessing == Preprocessing(SIZE, layout="NHWC")
    assert path.signature.name == "pixels"


def test_every_session_takes_pixels():
    sessions = Pixels(GPU), Pixels(GPU)
    take(*sessions)
    assert [session.steps for session in sessions] == [STEPS, STEPS]


def test_a_gpu_and_a_cpu_together_leave_it_to_the_host():
    assert take(Pixels(GPU), Pixels(CPU)).where == {SERVED: "on the host"}


def test_what_nobody_asked_for_and_cannot_be_is_told_with_its_reason():
    assert take(Pixels(GPU, cannot=UNSUPPORTED)).where == {SERVED: "on the host, since m:1: letterbox fills with 0"}
    assert take(Floats(GPU)).where == {SERVED: "on the host, since the back end of gpu:0 does not take pixels"}


@pytest.mark.parametrize("session", [Pixels(GPU, cannot=UNSUPPORTED), Floats(GPU)], ids=["cannot", "never"])
def test_what_the_file_asks_for_and_cannot_be_is_refused(session):
    with pytest.raises(ScoringError, match=r'm\.accelserve\.toml: .*normalize = "device" cannot be') as refusal:
        take(session, normalize="device")
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_device_that_fails_at_it_fails_the_load_and_is_not_left_for_the_host():
    full = ScoringError(Kind.DEVICE_MEMORY, "m:1 does not fit on gpu:0")
    with pytest.raises(ScoringError, match="does not fit"):
        take(Pixels(GPU, cannot=full))


def test_where_there_is_nothing_to_normalise_nobody_is_said_to_do_it():
    paths = take(Pixels(GPU, dtype="uint8"))
    assert (paths.where, paths.by_signature) == ({}, {})


# -- strings that the server decodes --------------------------------------------------------------------------------


class Strings(Pixels):
    """A session of a model that decodes pictures itself, and gives that away unless it cannot."""

    def __init__(self, device=CPU, cannot=None, error=0.001, name=SERVED):
        super().__init__(device)
        (self.rows,) = self.signatures.values()
        images = TensorSpec("image", BY_NAME["string"], (-1,), "image")
        self.signatures = {name: replace(self.rows, name=name, inputs={"image": images})}
        self.taken, self.away = replace(self.rows, name="rows"), cannot
        self.output_error = error

    def take_decoded(self, name):
        if self.away is not None:
            raise self.away
        return DecodedInput(self.taken, STEPS, 3.0, self.output_error)

    def take_pixels(self, name, steps):
        assert name == "rows"
        return replace(self.rows, name="pixels")


def hand_over(*sessions, decode="server", normalize=None, tolerance=0.02, model_format="cut"):
    manifest = Manifest(decode=decode, decode_tolerance=tolerance, normalize=normalize, source=OURS)
    decoded = take_decoded(sessions, manifest, model_format)
    return take_pixels(sessions, {name: each.preprocessing for name, each in decoded.items()}, manifest, decoded)


def test_the_server_decodes_only_where_the_file_says_so():
    assert hand_over(Strings(), decode="model") == PixelPaths()
    paths = hand_over(Strings())
    assert paths.by_signature[SERVED].signature.name == "rows"
    assert paths.by_signature[SERVED].preprocessing == STEPS
    assert paths.where == {SERVED: "on the host"}


def test_what_the_server_decodes_a_gpu_normalises_by_itself_and_others_when_told():
    for paths in (hand_over(Strings(GPU)), hand_over(Strings(), normalize="device")):
        assert paths.by_signature[SERVED].signature.name == "pixels"
        assert paths.by_signature[SERVED].preprocessing == STEPS.host_part()
        assert paths.where == {SERVED: "on the device"}


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        (Strings(cannot=ScoringError(Kind.UNSUPPORTED, "m:1: Slice crop")), "m:1: Slice crop; say decode"),
        (Strings(name="other", cannot=ScoringError(Kind.UNSUPPORTED, "m:1: Slice")), "m:1: Slice"),
        (Floats(), "no signature takes strings"),
    ],
    ids=["not known", "not known in the only one", "takes floats"],
)
def test_decoding_that_cannot_be_handed_over_is_refused_with_its_reason(session, reason):
    with pytest.raises(ScoringError, match=f'm.accelserve.toml: .*decode = "server" cannot be: {reason}') as refusal:
        hand_over(session)
    assert refusal.value.kind is Kind.PRECONDITION


def test_decoding_too_far_from_the_models_own_is_refused_unless_that_is_near_enough():
    for error in (0.03, float("nan")):
        with pytest.raises(ScoringError, match=r"outputs differ by .* tolerance 0.02; .*raise decode_tolerance"):
            hand_over(Strings(error=error))
    assert hand_over(Strings(error=0.03), tolerance=0.03).decoded[SERVED].output_error == 0.03


def test_a_model_made_for_an_fpga_leaves_decoding_to_the_server_whatever_its_file_says():
    paths = hand_over(Strings(), decode="model", model_format="accelonnx")
    assert paths.by_signature[SERVED].signature.name == "rows"
    assert hand_over(Floats(), decode="model", model_format="accelonnx") == PixelPaths()


def test_one_whose_pictures_nothing_decodes_does_not_load():
    session = Strings(cannot=ScoringError(Kind.UNSUPPORTED, "no decoder"))
    with pytest.raises(ScoringError, match="takes pictures that nothing decodes: no decoder") as refusal:
        hand_over(session, decode="model", model_format="accelonnx")
    assert refusal.value.kind is Kind.PRECONDITION


# -- the check ------------------------------------------------------------------------------------------------------


def check(session, normalize="device", sizes=(2, 4)):
    path = take(session, normalize=normalize).by_signature[SERVED]
    return check_pixels(session, session.signatures[SERVED], path, STEPS, BatchPolicy(4, sizes), deterministic=False)


def test_the_checks_own_normalisation_is_the_decoders_bit_for_bit():
    pixels = np.random.default_rng(5).integers(0, 256, (*SIZE, 3), np.uint8)
    png = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
    for layout, dtype in (("NCHW", "float32"), ("NHWC", "float32"), ("NCHW", "float16")):
        spec, steps = signature(dtype).inputs["image"], replace(STEPS, layout=layout)
        made = normalised(pixels[None], steps, spec)[0]
        wanted = decode_picture(png, steps, dtype=spec.dtype)
        assert made.dtype == wanted.dtype
        np.testing.assert_array_equal(made, wanted)


def test_pixels_are_warmed_at_every_size_and_held_against_the_host():
    session = Pixels(GPU)
    assert check(session) == "pixels normalised on the device get the host's answers"
    assert {rows for name, rows in session.ran if name == "pixels"} == {1, 2, 4}


def test_a_device_that_normalises_otherwise_than_the_host_fails_the_load():
    with pytest.raises(ScoringError, match=r'normalised on gpu:0 gets another answer.*normalize = "host"') as refusal:
        check(Pixels(GPU, error=0.01))
    assert refusal.value.reason == "self_check"


def test_a_difference_in_the_last_bits_passes():
    check(Pixels(GPU, error=1e-6))


def test_a_model_that_refuses_the_pictures_themselves_is_said_to_be_unchecked():
    session = Pixels(GPU)

    def refuse(batch):
        raise ScoringError(Kind.INVALID, "only cats")

    session.run = refuse
    assert "pixels not checked" in check(session)
    assert "only cats" in check(session)


def test_a_device_lost_in_the_check_fails_the_load():
    session = Pixels(GPU)

    def lose(batch):
        raise ScoringError(Kind.DEVICE_LOST, "gone")

    session.run = lose
    with pytest.raises(ScoringError, match="gone"):
        check(session)


# -- loading for real -----------------------------------------------------------------------------------------------

TOML = f"""
[preprocessing]
mean = {list(STEPS.mean)}
scale = {list(STEPS.scale)}
"""


def load(folder: Path, toml: str, elem_type=TensorProto.FLOAT):
    path = scorer(folder / "m.onnx", elem_type, 3, *SIZE)
    (folder / "m.accelserve.toml").write_text(toml)
    pool = BackendPool([onnx_runtime(), synthetic()])
    loader = Loader(pool, FolderArtifactCache(folder / "cache"), folder / "leases", check_round_trip)
    config = ModelConfig("m", path, "cpu")
    return loader.load(config, loader.find(config))


@pytest.mark.parametrize("binding", ["", "[backend]\nio_binding = true\n"], ids=["unbound", "bound"])
def test_a_cpu_that_is_asked_to_normalise_does_and_proves_it(tmp_path, binding):
    model = load(tmp_path, f'{TOML}normalize = "device"\n{binding}')
    try:
        assert model.pixels.where == {SERVED: "on the device"}
        assert list(model.session.signatures) == [SERVED]
        assert model.pixels.by_signature[SERVED].signature.name not in model.session.signatures
        assert model.report.check.detail.endswith("pixels normalised on the device get the host's answers")
    finally:
        model.close()


def test_a_cpu_that_is_not_asked_leaves_it_to_the_host(tmp_path):
    model = load(tmp_path, TOML)
    try:
        assert (model.pixels.where, model.pixels.by_signature) == ({SERVED: "on the host"}, {})
        assert "pixels" not in model.report.check.detail
    finally:
        model.close()


@pytest.mark.parametrize(
    ("toml", "elem_type", "reason"),
    [
        ('[preprocessing]\nresize = "letterbox"\nnormalize = "device"\n', TensorProto.FLOAT, "letterbox"),
        ('[preprocessing]\nnormalize = "device"\n', TensorProto.UINT8, "nothing to normalise"),
        ('[preprocessing]\nnormalize = "device"\n', TensorProto.INT32, "no signature has a single dense picture"),
    ],
    ids=["letterbox", "bytes", "no picture"],
)
def test_a_device_that_cannot_normalise_is_refused_at_load(tmp_path, toml, elem_type, reason):
    with pytest.raises(ScoringError, match=reason) as refusal:
        load(tmp_path, toml, elem_type)
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_text_model_that_is_asked_for_pixels_is_refused(tmp_path):
    model_builders.onnx_identity(tmp_path / "text.onnx", TensorProto.STRING)
    (tmp_path / "text.accelserve.toml").write_text('[preprocessing]\nnormalize = "device"\n')
    pool = BackendPool([onnx_runtime()])
    loader = Loader(pool, FolderArtifactCache(tmp_path / "cache"), tmp_path / "leases", check_round_trip)
    config = ModelConfig("text", tmp_path / "text.onnx", "cpu")
    with pytest.raises(ScoringError, match="no signature has a single dense picture"):
        loader.load(config, loader.find(config))
