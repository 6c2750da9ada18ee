"""Small TFLite files that claim to be large, with shared parts, false sizes and loops."""

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers

from kbnn.converters.tflite import lce

# Numbers of fields in the TFLite schema.
_SUBGRAPHS, _CODES, _BUFFERS, _METADATA = 2, 1, 4, 6


class Writer:
    """Writes FlatBuffers by field number; a part can be referred to any number of times."""

    def __init__(self):
        self.builder = flatbuffers.Builder(1 << 16)

    def text(self, content):
        return self.builder.CreateString(content)

    def numbers(self, content, dtype=np.int32):
        return self.builder.CreateNumpyVector(np.asarray(content, dtype))

    def table(self, offsets=None, int8=None, int32=None, uint32=None):
        """A table; each argument maps a field's number to an offset or a number."""
        builder = self.builder
        builder.StartObject(16)
        for slot, value in (offsets or {}).items():
            builder.PrependUOffsetTRelativeSlot(slot, value, 0)
        for slot, value in (int32 or {}).items():
            builder.PrependInt32Slot(slot, value, 0)
        for slot, value in (uint32 or {}).items():
            builder.PrependUint32Slot(slot, value, 0)
        for slot, value in (int8 or {}).items():
            builder.PrependInt8Slot(slot, value, 0)
        return builder.EndObject()

    def tables(self, offsets):
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return self.builder.EndVector()

    def tensor(self, shape, name="t", buffer=0, scale=None, dtype=0):
        """`shape`, `name` and `scale` may be offsets of parts that have been written already; type 0 is float32."""
        shape = shape if isinstance(shape, int) else self.numbers(shape)
        offsets = {0: shape, 3: name if isinstance(name, int) else self.text(name)}
        if scale is not None:
            offsets[4] = self.table({2: scale})
        return self.table(offsets, int8={1: dtype}, uint32={2: buffer})

    def operator(self, inputs, outputs, code=0, options=None):
        """`inputs` and `outputs` may be offsets; `options` are packed custom options."""
        inputs = inputs if isinstance(inputs, int) else self.numbers(inputs)
        outputs = outputs if isinstance(outputs, int) else self.numbers(outputs)
        return self.table({1: inputs, 2: outputs, **({5: options} if options else {})}, uint32={0: code})

    def builtin(self, name):
        number = getattr(lce.schema().BuiltinOperator, name)
        return self.table(int8={0: min(number, 127)}, int32={3: number})

    def custom(self, name):
        custom = lce.schema().BuiltinOperator.CUSTOM
        return self.table({1: self.text(name)}, int8={0: custom}, int32={3: custom})

    def file(self, tensors, operators, codes, buffers=(), inputs=(0,), outputs=(0,), metadata=()):
        empty = self.table()
        graph = self.table(
            {
                0: self.tables(tensors),
                1: self.numbers(inputs),
                2: self.numbers(outputs),
                3: self.tables(operators),
            }
        )
        slots = {
            _SUBGRAPHS: self.tables([graph]),
            _CODES: self.tables(codes),
            _BUFFERS: self.tables([empty, *buffers]),
            **({_METADATA: self.tables(metadata)} if metadata else {}),
        }
        self.builder.Finish(self.table(slots), b"TFL3")
        return bytes(self.builder.Output())


def _convolutions(writer, count, source=0):
    """`count` convolutions of tensor `source` with one kernel, all with the same input and output vectors."""
    inputs, outputs = writer.numbers([source, 1]), writer.numbers([2])
    return [writer.operator(inputs, outputs, code=1) for _ in range(count)]


def feeds_itself(count=20_000):
    """A PAD that reads its own output, in front of many convolutions."""
    writer = Writer()
    kernel = writer.table({0: writer.numbers(np.ones(4 * 9 * 4, np.float32).view(np.uint8), np.uint8)})
    tensors = [writer.tensor([1, 4, 4, 4]), writer.tensor([4, 3, 3, 4], buffer=1), writer.tensor([1, 4, 4, 4])]
    operators = [writer.operator([0], [0], code=0), *_convolutions(writer, count)]
    return writer.file(tensors, operators, [writer.builtin("PAD"), writer.builtin("CONV_2D")], [kernel], inputs=())


def kernel_feeds_itself(count=20_000):
    """A MUL that reads its own output, as the kernel of many convolutions."""
    writer = Writer()
    factor = writer.table({0: writer.numbers(np.ones(1, np.float32).view(np.uint8), np.uint8)})
    shapes = ([1, 4, 4, 4], [4, 3, 3, 4], [1, 4, 4, 4])
    tensors = [*map(writer.tensor, shapes), writer.tensor([1], buffer=1)]
    operators = [writer.operator([1, 3], [1], code=0), *_convolutions(writer, count)]
    return writer.file(tensors, operators, [writer.builtin("MUL"), writer.builtin("CONV_2D")], [factor])


def long_shape(count=200_000):
    """One tensor with `count` dimensions."""
    writer = Writer()
    return writer.file([writer.tensor(np.full(count, 7))], [], [])


def shared_name(length=500_000, count=20_000):
    writer = Writer()
    name, shape = writer.text("a/Conv2D;" * (length // 9)), writer.numbers([1])
    return writer.file([writer.tensor(shape, name) for _ in range(count)], [], [])


def shared_scale(length=100_000, count=20_000):
    writer = Writer()
    scale, shape, name = writer.numbers(np.ones(length), np.float32), writer.numbers([1]), writer.text("t")
    return writer.file([writer.tensor(shape, name, scale=scale) for _ in range(count)], [], [])


def shared_inputs(length=100_000, count=20_000):
    writer = Writer()
    inputs, outputs = writer.numbers(np.zeros(length)), writer.numbers([0])
    operators = [writer.operator(inputs, outputs) for _ in range(count)]
    return writer.file([writer.tensor([1])], operators, [writer.builtin("CONCATENATION")])


def shared_options(length=1000, count=20_000):
    """Custom options with many keys, shared by many operators."""
    packer = flexbuffers.Builder()
    with packer.Map():
        for k in range(length):
            packer.Int(f"key{k}", k)
    writer = Writer()
    options = writer.numbers(np.frombuffer(bytes(packer.Finish()), np.uint8), np.uint8)
    inputs, outputs = writer.numbers([0]), writer.numbers([0])
    operators = [writer.operator(inputs, outputs, options=options) for _ in range(count)]
    return writer.file([writer.tensor([1])], operators, [writer.custom("LceBconv2d")])


def shared_metadata(length=1_000_000, count=20_000):
    """Entries with different names that all refer to the same buffer."""
    writer = Writer()
    buffer = writer.table({0: writer.numbers(np.zeros(length, np.uint8), np.uint8)})
    entries = [writer.table({0: writer.text(f"entry{k}")}, uint32={1: 1}) for k in range(count)]
    return writer.file([writer.tensor([1])], [], [], [buffer], metadata=entries)


def shared_kernel(megabytes=1, count=2_000):
    """Convolutions with kernels of different shapes in one buffer, behind a sign."""
    writer = Writer()
    size = megabytes * 2**18
    buffer = writer.table({0: writer.numbers(np.ones(size, np.float32).view(np.uint8), np.uint8)})
    splits = [(i, j, k) for i in range(1, 13) for j in range(13) for k in range(13) if i + j + k <= 18]
    shapes = [[size >> (i + j + k), 1 << i, 1 << j, 1 << k] for i, j, k in splits[:count]]
    kernels = [writer.tensor(shape, f"kernel{k}", buffer=1) for k, shape in enumerate(shapes)]
    tensors = [writer.tensor([1, 1, 1, 1]), writer.tensor([1, 1, 1, 1]), *kernels]
    operators = [writer.operator([0], [1], code=0)]
    operators += [writer.operator([1, 2 + k], [0], code=1) for k in range(len(shapes))]
    return writer.file(tensors, operators, [writer.builtin("SIGN"), writer.builtin("CONV_2D")], [buffer])


def one_long_name_everywhere(length=100_000, count=20_000):
    """Many convolutions that write the same tensor, whose name is long."""
    writer = Writer()
    kernel = writer.table({0: writer.numbers(np.ones(16, np.float32).view(np.uint8), np.uint8)})
    name = "x/" * (length // 2)
    tensors = [writer.tensor([1, 4, 4, 4]), writer.tensor([4, 1, 1, 4], buffer=1), writer.tensor([1, 4, 4, 4], name)]
    operators = _convolutions(writer, count)
    return writer.file(tensors, operators, [writer.builtin("PAD"), writer.builtin("CONV_2D")], [kernel])


def many_operators(count=100_000):
    """A chain of operators, each with its own vectors and tensor."""
    writer = Writer()
    shape = writer.numbers([1, 8, 8, 16])
    tensors = [writer.tensor(shape, f"model/layer{k}/Relu") for k in range(count + 1)]
    operators = [writer.operator([k], [k + 1]) for k in range(count)]
    return writer.file(tensors, operators, [writer.builtin("RELU")], inputs=(0,), outputs=(count,))


def no_outputs():
    """Operators that write nothing."""
    writer = Writer()
    return writer.file([writer.tensor([1])], [writer.operator([0], [])], [writer.builtin("RELU")])


def foreign_text():
    """Names that would clear a terminal, reorder text and start a script in a page."""
    writer = Writer()
    names = ["\x1b[2J\x1b[31mred", "safe\u202etxt", "<script>alert(1)</script>"]
    tensors = [writer.tensor([1, 4], name) for name in names]
    operators = [writer.operator([k], [k + 1]) for k in range(2)]
    return writer.file(tensors, operators, [writer.custom("=cmd\x07")], outputs=(2,))


ATTACKS = {
    attack.__name__: attack
    for attack in (
        feeds_itself,
        kernel_feeds_itself,
        long_shape,
        shared_name,
        shared_scale,
        shared_inputs,
        shared_options,
        shared_metadata,
        shared_kernel,
        one_long_name_everywhere,
        no_outputs,
        foreign_text,
        many_operators,
    )
}
