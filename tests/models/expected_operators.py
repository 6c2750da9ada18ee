"""The operators of the smallest form of every network on the device, with their counts."""

# With a method whose quantizers and scales fold into the binary convolutions.
OWN = {
    "alexnet": "ADD:1 CONV_2D:1 FULLY_CONNECTED:1 LceBMaxPool2d:2 LceBconv2d:6 LceQuantize:2 MAX_POOL_2D:1 RESHAPE:1",
    "aresb10": (
        "ADD:12 AVERAGE_POOL_2D:1 CONCATENATION:1 CONV_2D:1 FULLY_CONNECTED:1 LceBconv2d:4 LceQuantize:4 MEAN:1 "
        "PAD:4 PRELU:4 RESHAPE:8 TRANSPOSE:4"
    ),
    "bireal18": "ADD:4 AVERAGE_POOL_2D:1 CONV_2D:2 FULLY_CONNECTED:1 LceBconv2d:4 LceQuantize:4 MEAN:1",
    "compact32": (
        "ADD:4 AVERAGE_POOL_2D:1 CONCATENATION:1 CONV_2D:1 FULLY_CONNECTED:1 LceBconv2d:4 LceQuantize:4 MEAN:1 PRELU:4"
    ),
    "dorefa_svhn": "CONV_2D:1 FULLY_CONNECTED:1 LceBMaxPool2d:2 LceBconv2d:6 LceQuantize:1 RELU_N1_TO_1:1",
    "plain18": "CONV_2D:1 FULLY_CONNECTED:1 LceBconv2d:4 LceQuantize:1 MEAN:1",
    "presb10": (
        "ADD:22 AVERAGE_POOL_2D:2 CONCATENATION:1 CONV_2D:1 FULLY_CONNECTED:1 LceBconv2d:5 LceQuantize:5 MEAN:17 "
        "MUL:20 PAD:4 PRELU:12 RESHAPE:8 RSQRT:4 SUB:8 TRANSPOSE:4"
    ),
    "react10": "ADD:4 AVERAGE_POOL_2D:1 CONCATENATION:1 CONV_2D:1 FULLY_CONNECTED:1 LceBconv2d:4 LceQuantize:4 MEAN:1",
    "resnet18": "ADD:2 AVERAGE_POOL_2D:1 CONV_2D:2 FULLY_CONNECTED:1 LceBconv2d:4 LceQuantize:2 MEAN:1",
    "resnet20": "ADD:6 AVERAGE_POOL_2D:2 CONV_2D:3 FULLY_CONNECTED:1 LceBconv2d:6 LceQuantize:6 MEAN:1",
    "tiny": "ADD:4 AVERAGE_POOL_2D:1 CONV_2D:2 FULLY_CONNECTED:1 LceBconv2d:4 LceQuantize:4 MEAN:1",
    "vgg_small": "CONV_2D:1 FULLY_CONNECTED:1 LceBMaxPool2d:2 LceBconv2d:5 LceQuantize:1 MAX_POOL_2D:1",
}

# Operators of the layers that a method adds around binary convolutions, and operators that these prevent from fusing.
ADDED = {
    "alexnet": {
        "adabin": "ADD:9 CONV_2D:6 LceBconv2d:6 LceQuantize:4 MUL:3 PRELU:2 RESHAPE:3",
        "irnet": "ADD:1 LceQuantize:1",
        "react": "ADD:3 LceQuantize:1 PRELU:2 RESHAPE:3",
        "irnet+ml+bma": "ADD:3 LceQuantize:1 MUL:2 PRELU:2 RESHAPE:3",
        "xnor+std+ml+bma": "ADD:1 LceQuantize:1 MUL:1 PRELU:2 RESHAPE:3",
    },
    "bireal18": {
        "adabin": "ADD:7 CONV_2D:4 LceBconv2d:4 MUL:4 PRELU:4",
        "react": "ADD:3 PRELU:4",
        "irnet+ml+bma": "ADD:3",
        "siman+code": "MEAN:8 PRELU:4 SUB:4",
    },
    "compact32": {
        "adabin": "ADD:7 CONV_2D:4 LceBconv2d:4 MUL:4",
        "irnet": "PRELU:-4",
        "irnet+ml+bma": "ADD:3 PRELU:-4",
        "react": "ADD:3",
    },
    "dorefa_svhn": {
        "adabin": "ADD:6 CONV_2D:6 LceBconv2d:6 LceQuantize:5 RELU_N1_TO_1:-1",
    },
    "plain18": {
        "adabin": "ADD:4 CONV_2D:4 LceBconv2d:4 LceQuantize:3 MUL:1 PRELU:1",
        "irnet": "RELU_N1_TO_1:1",
        "react": "PRELU:1",
        "irnet+ml+bma": "RELU_N1_TO_1:1",
    },
    "react10": {
        "adabin": "ADD:7 CONV_2D:4 LceBconv2d:4 MUL:4 PRELU:4",
        "react": "ADD:3 PRELU:4",
        "irnet+ml+bma": "ADD:3",
    },
    "resnet18": {
        "adabin": "ADD:5 CONV_2D:4 LceBconv2d:4 LceQuantize:2 MUL:2 PRELU:2",
        "react": "ADD:1 PRELU:2",
        "irnet+ml+bma": "ADD:1",
    },
    "resnet20": {
        "adabin": "ADD:11 CONV_2D:6 LceBconv2d:6 MUL:6 PRELU:6",
        "react": "ADD:5 PRELU:6",
        "irnet+ml+bma": "ADD:5",
        "siman+code": "MEAN:12 PRELU:6 SUB:6",
    },
    "tiny": {
        "adabin": "ADD:7 CONV_2D:4 LceBconv2d:4 MUL:4 PRELU:4",
        "react": "ADD:3 PRELU:4",
        "irnet+ml+bma": "ADD:3",
    },
    "vgg_small": {
        "adabin": "ADD:5 CONV_2D:5 LceBconv2d:5 LceQuantize:4",
        "siman+code": "LceBMaxPool2d:-2 LceQuantize:4 MAX_POOL_2D:2 MEAN:10 PRELU:5 SUB:5",
    },
}


def expected(network: str, method: str) -> dict[str, int]:
    """The operators of a converted network of `small_networks.distinct()`, with their numbers."""
    own, added = _counts(OWN[network]), _counts(ADDED.get(network, {}).get(method, ""))
    counts = {name: own.get(name, 0) + added.get(name, 0) for name in own | added}
    return {name: count for name, count in counts.items() if count}


def _counts(text: str) -> dict[str, int]:
    return {name: int(count) for name, count in (pair.split(":") for pair in text.split())}
