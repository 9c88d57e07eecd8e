"""What the operators of a TensorFlow graph mean for a cut; by their names, without TensorFlow."""

# The model's weights are used here: the network has begun.
WEIGHTED = frozenset(
    {
        "MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "_FusedMatMul", "_FusedConv2D",
        "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2",
        "FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "LSTMBlockCell", "BlockLSTM", "BlockLSTMV2",
        "CudnnRNN",
    }
)  # fmt: skip

# Handles of loops over lists and arrays. They stay where the loop goes, and tf2onnx knows them (recurrent networks).
_LOOP_HANDLES = ("TensorList", "TensorArray")
PASSING = frozenset(
    {"Enter", "Exit", "Merge", "Switch", "NextIteration", "LoopCond", "Identity", "IdentityN"}
)  # they give what they take; the network may be all inside a loop or a condition, but never all of these
CONTROL_FLOW = PASSING | {
    "While",
    "StatelessWhile",
    "If",
    "StatelessIf",
    "Case",
    "StatelessCase",
    "PartitionedCall",
    "StatefulPartitionedCall",
}
PIVOTS = frozenset({"Identity", "Switch", "Merge"})  # what a TF1 loop's or condition's control edges hang from
TABLES = frozenset({"HashTableV2", "MutableHashTableV2", "MutableDenseHashTableV2"})
OLD_TABLES = frozenset({"HashTable", "MutableHashTable", "MutableDenseHashTable"})
VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp"})
CHECKS = frozenset({"Assert", "If", "StatelessIf", "Print", "PrintV2"})  # where no output is computed from them
PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})

_RANDOM = frozenset(
    {
        "RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "Multinomial", "RandomShuffle",
        "RandomGamma", "RandomPoisson", "RandomPoissonV2", "ParameterizedTruncatedNormal", "RandomCrop",
        "StatefulUniform", "StatefulUniformInt", "StatefulStandardNormalV2", "StatefulTruncatedNormal", "RngSkip",
    }
)  # fmt: skip
_CHANGES = (
    "Assign",
    "ResourceApply",
    "ResourceScatter",
    "ResourceSparseApply",
    "LookupTableInsert",
    "LookupTableRemove",
)
_REF_CHANGES = frozenset(
    {"ScatterUpdate", "ScatterAdd", "ScatterSub", "ScatterMul", "ScatterDiv", "ScatterNdUpdate", "CountUpTo"}
)
_QUEUES = ("FIFOQueue", "PaddingFIFOQueue", "RandomShuffleQueue", "PriorityQueue", "Queue", "Barrier", "Stage")
_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})


def is_loop_handle(op: str) -> bool:
    return op.startswith(_LOOP_HANDLES)


def why_not_frozen(op: str) -> str:
    """Why a graph with this operator cannot be frozen and answer as before; empty when it can."""
    if op.startswith(_CHANGES) or op in _REF_CHANGES:
        return "it changes a variable or table at each request, which a frozen graph would forget"
    if op in _RANDOM:
        return "it draws random numbers, so that no two runs can be compared"
    if "Dataset" in op or "Iterator" in op:
        return "it is a tf.data pipeline inside the graph"
    if op.startswith(_QUEUES):
        return "it waits on a queue inside the graph"
    if op in _PYTHON:
        return "it calls Python code, which a SavedModel does not hold"
    if op in OLD_TABLES:
        return "it is a table of TensorFlow before 1.4, whose content cannot be read back"
    return ""
