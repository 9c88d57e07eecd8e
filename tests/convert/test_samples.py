import numpy as np
import pytest

from accelserve.convert.samples import from_file, generated, widened
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import BY_NAME, Signature, TensorSpec


def signature(**inputs: tuple[str, tuple[int, ...]]) -> Signature:
    specs = {name: TensorSpec(name, BY_NAME[dtype], shape, f"{name}:0") for name, (dtype, shape) in inputs.items()}
    return Signature("serving_default", specs, {"y": TensorSpec("y", BY_NAME["float32"], (-1,), "y:0")})


NUMBERS = signature(x=("float32", (-1, 2)), ids=("int64", (-1,)))
PICTURES = signature(images=("string", (-1,)))


def test_numbers_are_asked_once_with_rows_that_differ():
    [(name, inputs)] = generated(NUMBERS, 3)
    assert name == "generated"
    assert inputs["x"].shape == (3, 2)
    assert len(np.unique(inputs["x"], axis=0)) == 3
    assert inputs["ids"].tolist() == [0, 1, 0]


def test_a_wide_sample_has_numbers_of_both_signs_and_the_same_shapes():
    inputs = {"x": np.zeros((40, 2), np.float32), "ids": np.zeros(40, np.int64), "on": np.ones(40, bool)}
    (name, both), (_, positive) = widened("generated", inputs)
    assert name == "generated, numbers of both signs"
    assert all(both[key].dtype == inputs[key].dtype and both[key].shape == inputs[key].shape for key in inputs)
    assert both["x"].min() < 0 < both["x"].max()
    assert both["ids"].min() < 0 <= positive["ids"].min() < 2 < positive["ids"].max()
    assert both["on"].all()


def test_there_is_no_wide_sample_of_strings_and_pixels():
    assert not list(widened("s", {"text": np.array([b"a"], object), "pixels": np.zeros((1, 2), np.uint8)}))


def test_string_inputs_are_asked_with_a_tables_keys_first_then_a_picture():
    samples = list(generated(PICTURES, 2, [(b"cat", b"dog")]))
    assert samples[0][1]["images"].tolist() == [b"cat", b"dog"]
    assert samples[1][1]["images"][0].startswith(b"\x89PNG")
    assert samples[-1][1]["images"].tolist() == [b"", b""]


def test_a_lone_string_is_an_object_array_of_bytes():
    _, inputs = next(generated(signature(picture=("string", ())), 3))
    assert (inputs["picture"].shape, inputs["picture"].dtype) == ((), object)
    assert inputs["picture"].item().startswith(b"\x89PNG")


def test_an_npz_gives_inputs_by_key_or_tensor_name(tmp_path):
    np.savez(tmp_path / "s.npz", **{"x:0": np.ones((2, 2), np.float32), "ids": np.zeros(2, np.int64)})
    assert {k: v.shape for k, v in from_file(NUMBERS, tmp_path / "s.npz").items()} == {"x": (2, 2), "ids": (2,)}


def test_an_npz_of_texts_becomes_bytes(tmp_path):
    np.savez(tmp_path / "s.npz", images=np.array(["a", "bc"]))
    assert from_file(PICTURES, tmp_path / "s.npz")["images"].tolist() == [b"a", b"bc"]


def test_any_other_file_is_the_bytes_of_a_string_input_twice(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8picture")
    assert from_file(PICTURES, tmp_path / "cat.jpg")["images"].tolist() == [b"\xff\xd8picture"] * 2


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"x": np.ones((2, 2), np.float32)}, "it has no ids"),
        ({"z": np.ones(2)}, 'it has "z"'),
        ({"x": np.ones((2, 2)), "ids": np.zeros(2, np.int64)}, r'its "x" is float64\[2,2\]'),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_what_is_wanted(tmp_path, arrays, complaint):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(ScoringError, match=rf'wants "x" float32\[-1,2\], "ids" int64\[-1\]; {complaint}'):
        from_file(NUMBERS, tmp_path / "s.npz")


@pytest.mark.parametrize(
    ("x", "ids", "got"),
    [
        (np.zeros((0, 2), np.float32), np.zeros(0, np.int64), r'"x" float32\[0,2\], "ids" int64\[0\]'),
        (np.zeros((2, 2), np.float32), np.zeros(3, np.int64), r'"x" float32\[2,2\], "ids" int64\[3\]'),
        (np.float32(1), np.int64(1), r'"x" float32\[\], "ids" int64\[\]'),
    ],
    ids=["no rows", "other rows", "no axis"],
)
def test_a_sample_without_rows_of_which_to_prove_anything_is_refused(tmp_path, x, ids, got):
    np.savez(tmp_path / "s.npz", x=x, ids=ids)
    with pytest.raises(ScoringError, match=f"with as many rows each, at least one; it has {got}") as error:
        from_file(NUMBERS, tmp_path / "s.npz")
    assert error.value.kind is Kind.INVALID


@pytest.mark.parametrize("name", ["s.npz", "s.npy"])
@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 and no more", b"\x93NUMPY", b"\x80\x04K\x01."])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ScoringError, match=f"sample .*{name}: ") as error:
        from_file(signature(x=("float32", (-1, 2))), tmp_path / name)
    assert error.value.kind is Kind.INVALID


def test_bytes_for_a_dense_input_are_refused(tmp_path):
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8picture")
    with pytest.raises(ScoringError, match=r"give the tensor as \.npz"):
        from_file(signature(x=("float32", (-1, 2))), tmp_path / "cat.jpg")


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(ScoringError) as error:
        from_file(NUMBERS, tmp_path / "absent.npz")
    assert error.value.kind is Kind.NOT_FOUND
