"""accelserve.toml: what it may say, and that nothing else passes unnoticed."""

import pytest

from accelserve.batching.policy import BatchPolicy
from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import Manifest, read_manifest, with_signature
from accelserve.preprocessing import Preprocessing


def write(tmp_path, text):
    path = tmp_path / "accelserve.toml"
    path.write_text(text)
    return path


def refused(tmp_path, text):
    with pytest.raises(ScoringError) as caught:
        read_manifest(write(tmp_path, text))
    assert caught.value.kind is Kind.PRECONDITION
    assert "accelserve.toml" in caught.value.message
    return caught.value.message


def test_a_place_that_nothing_normalises_in_is_refused(tmp_path):
    assert 'want "device" or "host", got \'gpu\'' in refused(tmp_path, '[preprocessing]\nnormalize = "gpu"\n')


def test_handing_over_the_decoding_is_said_in_known_words_and_without_other_steps(tmp_path):
    assert 'want "model" or "server", got \'host\'' in refused(tmp_path, '[preprocessing]\ndecode = "host"\n')
    for number in ("-1", '"0.1"', "true", "nan"):
        assert "want a number of 0 or more" in refused(tmp_path, f"[preprocessing]\ndecode_tolerance = {number}\n")
    both = '[preprocessing]\ndecode = "server"\nexif = true\nsize = [8, 8]\n'
    assert "leave out exif, size" in refused(tmp_path, both)
    asked = read_manifest(write(tmp_path, '[preprocessing]\ndecode = "server"\ndecode_tolerance = 1\n'))
    assert (asked.decode, asked.decode_tolerance, asked.preprocessing) == ("server", 1.0, {})
    assert read_manifest(write(tmp_path, "")).decode == "model"


def test_no_file_says_nothing(tmp_path):
    assert read_manifest(tmp_path / "accelserve.toml") == Manifest()


def test_everything_it_can_say_is_read(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    path = write(
        tmp_path,
        """
        labels = "names.txt"
        device = "gpu:0"
        threads = 2
        instances = 3
        [batching]
        allowed_batch_sizes = [1, 4, 8]
        max_queue_delay_us = 250
        max_queue_rows = 64
        max_queue_bytes = "16MiB"
        [preprocessing]
        resize = "fit-crop"
        size = [224, 224]
        channel_order = "BGR"
        layout = "NCHW"
        mean = [123.68, 116.779, 103.939]
        scale = 0.017
        exif = true
        normalize = "device"
        [backend]
        spinning = true
        """,
    )
    manifest = read_manifest(path)
    assert manifest.labels == ("cat", "dog")
    assert manifest.backend == {"spinning": True}
    assert manifest.normalize == "device"
    assert (manifest.device, manifest.threads, manifest.instances, manifest.source) == ("gpu:0", 2, 3, path)
    assert manifest.batching == BatchPolicy(8, (1, 4, 8), 250_000, 64, 16 * 2**20)
    assert with_signature(manifest.preprocessing, None) == Preprocessing(
        (224, 224), "fit-crop", "BGR", "NCHW", (123.68, 116.779, 103.939), (0.017,), True
    )


@pytest.mark.parametrize(("text", "ns"), [("50", 50_000_000), ("2.5", 2_500_000), ("1e-7", 1)])
def test_a_latency_objective_is_read_in_milliseconds(tmp_path, text, ns):
    assert read_manifest(write(tmp_path, f"[batching]\nlatency_slo_ms = {text}")).batching.latency_slo_ns == ns


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("label = 'x'", "unknown key 'label'"),
        ("[batching]\nmax_batch = 4", "[batching] unknown key 'max_batch'"),
        ("[preprocessing]\nsizes = [1, 1]", "[preprocessing] unknown key 'sizes'"),
        ("[batching]\nmax_batch_size = 0", "max_batch_size must be at least 1"),
        ("[batching]\nallowed_batch_sizes = [4, 2]", "allowed_batch_sizes must be ascending"),
        ("[batching]\nmax_batch_size = 'many'", "max_batch_size: want int"),
        ("[batching]\nmax_queue_bytes = 'lots'", "max_queue_bytes"),
        ("[preprocessing]\nresize = 'zoom'", "resize must be one of stretch, fit-crop, letterbox, azure-accel"),
        ("[preprocessing]\nresampling = 'cubic'", "resampling must be one of server, half_pixel"),
        ("[preprocessing]\nresize = 'azure-accel'\nresampling = 'area'", "samples as \"legacy\" does, not as 'area'"),
        ("[preprocessing]\nsize = [1, 2, 3]", "want [height, width]"),
        ("[preprocessing]\nmean = [1, 2]", "mean must be 1 or 3 numbers"),
        ("threads = true", "threads: want int"),
        ("threads = -3", "threads: want a number of threads from 1 to 1024, got -3"),
        ("threads = 99999999999999999999", "threads: want a number of threads from 1 to 1024"),
        ("instances = 0", "instances: want a number of instances from 1 to 64, got 0"),
        ("instances = 3000", "instances: want a number of instances from 1 to 64, got 3000"),
        ("[batching]\nmax_queue_delay_us = -1", "max_queue_delay_us must be from 0 to 60000000 (a minute), got -1"),
        ("[batching]\nlatency_slo_ms = 0", "latency_slo_ms: want a number of milliseconds above 0, up to 60000"),
        ("[batching]\nlatency_slo_ms = 60001", "latency_slo_ms: want a number of milliseconds above 0"),
        ("[batching]\nlatency_slo_ms = nan", "latency_slo_ms: want a number of milliseconds above 0"),
        ("[batching]\nlatency_slo_ms = true", "latency_slo_ms: want a number of milliseconds above 0"),
        ("[batching]\nlatency_slo_ms = 50\nmax_queue_delay_us = 5", "leave out max_queue_delay_us"),
        ("[batching]\nmax_queue_delay_us = 60000001", "max_queue_delay_us must be from 0 to 60000000 (a minute)"),
        ('instances = "2"', "instances: want int"),
        ("backend = 1", "want a table [backend]"),
        ("labels = 'nowhere.txt'", "cannot read"),
        ("batching = 3", "want a table [batching]"),
        ("this is no toml", "accelserve.toml"),
    ],
)
def test_a_mistake_is_refused_by_name(tmp_path, text, part):
    assert part in refused(tmp_path, text)


def test_what_the_file_says_goes_on_top_of_what_the_signature_says():
    guess = Preprocessing((32, 32), layout="NCHW", scale=(1 / 255,), guessed=True)
    assert with_signature({}, guess) is guess
    joined = with_signature({"resize": "letterbox"}, guess)
    assert (joined.resize, joined.layout, joined.scale, joined.guessed) == ("letterbox", "NCHW", (1 / 255,), False)


def test_a_mean_in_the_file_ends_the_guessed_scale():
    guess = Preprocessing((32, 32), scale=(1 / 255,), guessed=True)
    assert with_signature({"mean": (128.0,)}, guess).scale == (1.0,)


def test_preprocessing_without_a_size_anywhere_is_refused():
    with pytest.raises(ScoringError, match="add size"):
        with_signature({"resize": "stretch"}, None)
