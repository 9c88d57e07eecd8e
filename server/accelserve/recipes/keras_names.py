"""What keras.applications calls the variables of these networks."""

import re

_BLOCKS = (
    # slim's scope -> Keras' layer, with {norm} for the word of convolutions or of normalisations
    (r"resnet_v1_\d+/conv1", "conv1_{kind}"),
    (r"resnet_v1_\d+/block(\d+)/unit_(\d+)/bottleneck_v1/(?:conv(\d)|shortcut)", "conv{0}_block{1}_{2}_{kind}"),
    (r"densenet121(?:/conv1)?", "conv1_{kind}"),
    (r"densenet121/dense_block(\d+)/conv_block(\d+)/x(\d)(?:/Conv)?", "conv{0}_block{1}_{2}_{kind}"),
    (r"densenet121/transition_block(\d+)/blk(?:/Conv)?", "pool{0}_{kind}"),
    (r"densenet121/final_block", "bn"),
    (r"vgg_16/conv(\d)/conv\d_(\d)", "block{0}_conv{1}"),
    (r"vgg_16/fc6", "fc1"),
    (r"vgg_16/fc7", "fc2"),
    (r"vgg_16/fc8|\w+/logits", "predictions"),
)
_VARIABLES = {"weights": "kernel", "biases": "bias"}


def keras_name(parameter: str) -> str:
    """LAYER/VARIABLE of Keras for a parameter by its slim name. Raises ValueError for one of no network of Keras."""
    scope, _, variable = parameter.rpartition("/")
    norm = scope.endswith("/BatchNorm")
    scope = scope.removesuffix("/BatchNorm")
    for pattern, layer in _BLOCKS:
        found = re.fullmatch(pattern, scope)
        if found:
            numbers = _numbers(scope, norm, [int(group or 0) for group in found.groups()])
            return f"{layer.format(*numbers, kind='bn' if norm else 'conv')}/{_VARIABLES.get(variable, variable)}"
    raise ValueError(f"{parameter} is in no network of Keras")


def _numbers(scope: str, norm: bool, numbers: list[int]) -> list[int]:
    """Keras counts the first convolution of a ResNet and a DenseNet as block 1; the normalisations of a DenseNet's
    layer stand before its convolutions and are counted from 0."""
    if scope.startswith("vgg_16") or not numbers:
        return numbers
    block, *inner = numbers
    if scope.startswith("densenet121") and norm and inner:
        inner[-1] -= 1
    return [block + 1, *inner]
