"""A whole file as steps of the C kernels."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kbnn.converters.c.plan import Step, Tensor
from kbnn.converters.c.writers.lowering import WRITERS, Deferred, Function, Lowering
from kbnn.converters.c.writers.operators import LARGEST_SIZE, named_after_layer, refused, sample_shape
from kbnn.converters.errors import ConversionError
from kbnn.converters.tflite import flatbuffer
from kbnn.converters.tflite.flatbuffer import File
from kbnn.errors import KbnnError


@dataclass(frozen=True)
class Network:
    """A file as steps. `input` is the image in int8 and `output` the scores, with their indices in the file."""

    steps: tuple[Step, ...]
    input: Tensor
    output: Tensor
    input_index: int
    output_index: int


def write(file: File) -> Network:
    """The steps of a file.

    Raises:
        ConversionError: an operator has no integer form, or the network has several inputs or outputs.
    """
    if len(file.inputs) != 1 or len(file.outputs) != 1:
        raise ConversionError(
            f"C code has one input and one output: received {len(file.inputs)} and {len(file.outputs)}, export a "
            f"network with one of each"
        )
    (given,), (returned,) = file.inputs.values(), file.outputs.values()
    lowering = Lowering(file)
    with _damage("the input", given.name):
        image = _image(file, given, lowering)
    for written in file.operators:
        if written.outputs and written.outputs[0].index in lowering.values:
            continue
        operator = named_after_layer(file, written)
        if operator.name not in WRITERS:
            raise refused(operator, "there is no kernel for this operator")
        with _damage(operator.name, operator.outputs[0].name if operator.outputs else ""):
            WRITERS[operator.name](lowering, operator)
    value = lowering.values.get(returned.index)
    if isinstance(value, Deferred):
        value = lowering.computed(value)
    if isinstance(value, Function) and isinstance(value.source, Tensor):
        value = value.source
    if not isinstance(value, Tensor) or value is image:
        raise ConversionError(
            f"the network's output '{returned.name}' is not int8: convert to int8 with calibration images"
        )
    indices = {id(held): index for index, held in lowering.values.items()}
    return _with_scores(lowering.steps, image, value, indices[id(image)], indices[id(value)])


@contextlib.contextmanager
def _damage(kind: str, name: str) -> Iterator[None]:
    """Turns the exceptions that a tampered file causes, such as by a missing operand, into one error."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise KbnnError(
            f"cannot export {kind} '{name}': the file is damaged there ({error}); convert the model again"
        ) from error


def _image(file: File, given: flatbuffer.Tensor, lowering: Lowering) -> Tensor:
    """The network's input in int8: the input itself, or the output of the operator that quantizes it."""
    readers = file.consumers[given.index]
    item = given
    if given.dtype == "float32" and len(readers) == 1 and readers[0].name == "QUANTIZE":
        item = readers[0].outputs[0]
    if item.dtype != "int8":
        raise ConversionError(
            f"input '{given.name}' of the network is {given.dtype} and is not quantized to int8: convert the model to "
            f"int8 for the device 'microcontroller'"
        )
    sizes = sample_shape(item.shape)
    if sizes is None:
        raise ConversionError(
            f"input '{given.name}' of the network has the shape {item.shape}: C code takes one vector, signal (length, "
            f"channels) or image (height, width, channels) of at most {LARGEST_SIZE} values per axis"
        )
    height, width, channels = sizes
    image = Tensor("image", height, width, channels, "int8", item.scales[0], item.zero_points[0], "image")
    lowering.values[item.index] = image
    return image


def _with_scores(steps: Sequence[Step], image: Tensor, output: Tensor, input_index: int, output_index: int) -> Network:
    """Moves the output from the arena to the scores."""
    scores = dataclasses.replace(output, memory="scores")

    def moved(tensor: Tensor) -> Tensor:
        return scores if tensor is output else tensor

    made = tuple(
        dataclasses.replace(step, inputs=tuple(moved(t) for t in step.inputs), output=moved(step.output))
        for step in steps
    )
    return Network(made, image, scores, input_index, output_index)
