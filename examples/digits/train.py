"""Train the digits model that ships with accelserve, and write it as ONNX or as a SavedModel.

python examples/digits/train.py --onnx OUT_DIR           trains (two minutes), writes OUT_DIR/digits, OUT_DIR/pictures
python examples/digits/train.py --saved-model OUT_DIR    writes the shipped weights as a SavedModel (seconds)
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from digit_network import CHANNELS, FEATURES, MIN_VARIANCE, SIZE, Weights, onnx_model, read_weights, write_saved_model
from digit_pictures import (
    Picture,
    Split,
    Style,
    any_style,
    dark_on_light,
    draw,
    encode_jpeg,
    most_typical,
    shrink,
    split_digits,
)

SHIPPED = Path(__file__).parents[2] / "server/accelserve/builtin/digits/1/model.onnx"
SEED = 7
EPOCHS = 40
PICTURE_SIDE = 480
TRAINING_SIDE = 96  # drawn smaller than a photograph, because it is drawn 57,000 times
WANTED_ACCURACY = 0.97
LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

BATCHING = """
[batching]
max_batch_size = 64
"""
PREPROCESSING = f"""
[preprocessing]
resize = "stretch"
size = [{SIZE}, {SIZE}]
channel_order = "RGB"
layout = "NHWC"
exif = false
"""
SETTINGS_ONNX = f'labels = "labels.txt"\n{PREPROCESSING}{BATCHING}'
SETTINGS_SAVED_MODEL = f'labels = "labels.txt"\n{BATCHING}'


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", metavar="OUT_DIR", type=Path, help="train, and write the ONNX model and ten pictures")
    parser.add_argument("--saved-model", metavar="OUT_DIR", type=Path, help="write the weights as a SavedModel")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="ONNX file to take the SavedModel's weights from")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    chosen = parser.parse_args(arguments)
    if not (chosen.onnx or chosen.saved_model):
        parser.error("say what to write: --onnx OUT_DIR or --saved-model OUT_DIR")
    if chosen.onnx:
        accuracy = train_and_write(chosen.onnx, chosen.epochs)
        if accuracy < WANTED_ACCURACY:
            print(f"held-out accuracy {accuracy:.4f} is below {WANTED_ACCURACY}", file=sys.stderr)
            return 1
    if chosen.saved_model:
        write_saved_model(read_weights(chosen.weights), chosen.saved_model / "digits" / "1")
        _write_settings(chosen.saved_model / "digits", SETTINGS_SAVED_MODEL)
        print(f"wrote {chosen.saved_model / 'digits'}")
    return 0


def train_and_write(out: Path, epochs: int) -> float:
    """Train, print and return the accuracy on the held-out digits, write model, settings and pictures."""
    digits = split_digits()
    network = train(digits, epochs)
    accuracy = held_out_accuracy(network, digits, Style())
    print(f"held-out accuracy: {accuracy:.4f} of {len(digits.held_out_truths)} digits, light on dark")
    print(f"held-out accuracy: {held_out_accuracy(network, digits, dark_on_light(Style())):.4f} dark on light")
    model = onnx_model(weights_of(network), accuracy)
    folder = out / "digits" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    _write_settings(out / "digits", SETTINGS_ONNX)
    write_pictures(digits, out / "pictures")
    print(f"wrote {out / 'digits'} and {out / 'pictures'}")
    return accuracy


def train(digits: Split, epochs: int):
    """A trained Keras model over planes float32 [n, 32, 32, 1] ending in logits."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras

    keras.utils.set_random_seed(SEED)
    rng = np.random.default_rng(SEED)
    layers = [keras.Input((SIZE, SIZE, 1))]
    for number, channels in enumerate(CHANNELS, start=1):
        layers.append(keras.layers.Conv2D(channels, 3, padding="same", activation="relu", name=f"conv{number}"))
        layers.append(keras.layers.MaxPooling2D(2))
    layers += [keras.layers.Flatten(), keras.layers.Dropout(0.4), keras.layers.Dense(len(LABELS), name="dense")]
    network = keras.Sequential(layers)
    steps = epochs * -(-len(digits.train_truths) // 32)
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    for epoch in range(epochs):
        pictures = [shrink(draw(c, TRAINING_SIDE, any_style(rng), rng), SIZE) for c in digits.train_cells]
        done = network.fit(_planes(pictures), digits.train_truths, batch_size=32, verbose=0)
        print(f"epoch {epoch + 1} of {epochs}: loss {done.history['loss'][0]:.4f}", flush=True)
    return network


def held_out_accuracy(network, digits: Split, style: Style) -> float:
    """The part of the held-out digits read right, drawn at a photograph's size as the shipped pictures are."""
    rng = np.random.default_rng(SEED)
    pictures = [shrink(draw(c, PICTURE_SIDE, style, rng), SIZE) for c in digits.held_out_cells]
    guesses = network.predict(_planes(pictures), verbose=0).argmax(axis=1)
    return float((guesses == digits.held_out_truths).mean())


def weights_of(network) -> Weights:
    """Keras's weights in ONNX's layout (`digit_network`)."""
    weights = {}
    for number in range(1, len(CHANNELS) + 1):
        kernel, bias = network.get_layer(f"conv{number}").get_weights()
        weights |= {f"conv{number}_w": kernel.transpose(3, 2, 0, 1).copy(), f"conv{number}_b": bias}
    kernel, bias = network.get_layer("dense").get_weights()
    side = SIZE // 8
    channels_first = kernel.reshape(side, side, CHANNELS[-1], len(LABELS)).transpose(2, 0, 1, 3)
    return weights | {"dense_w": channels_first.reshape(FEATURES, len(LABELS)).copy(), "dense_b": bias}


def write_pictures(digits: Split, folder: Path) -> None:
    """digit-0.jpg to digit-9.jpg: of each digit the most typical held-out example."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    for digit, index in enumerate(most_typical(digits.held_out_cells, digits.held_out_truths)):
        picture = draw(digits.held_out_cells[index], PICTURE_SIDE, Style(), rng)
        (folder / f"digit-{digit}.jpg").write_bytes(encode_jpeg(picture))


def _planes(pictures: list[Picture]) -> NDArray[np.float32]:
    """uint8 [32, 32, 3] each -> float32 [n, 32, 32, 1]: what the first nodes of the ONNX graph do."""
    grey = np.stack(pictures).astype(np.float32).mean(axis=3, keepdims=True) / 255
    deviation = np.sqrt(grey.var(axis=(1, 2), keepdims=True) + MIN_VARIANCE)
    return (grey - grey.mean(axis=(1, 2), keepdims=True)) / deviation


def _write_settings(folder: Path, settings: str) -> None:
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (folder / "accelserve.toml").write_text(settings)


if __name__ == "__main__":
    sys.exit(main())
