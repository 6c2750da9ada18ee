"""Compares the outputs on a device with those of the interpreter on this machine."""

from collections.abc import Sequence

import numpy as np

from kbnn import files
from kbnn.converters.benchmark.report import BenchmarkOptions, Numerics
from kbnn.converters.benchmark.tool import KERNEL_FLAGS, ToolCommand, explain
from kbnn.converters.benchmark.transports import Transport
from kbnn.converters.tflite import flatbuffer, interpreter
from kbnn.converters.verify.agreement import agreements, least
from kbnn.errors import KbnnError, UsageError

_FLAGS = ("input_layer", "input_layer_shape", "input_layer_value_files", "output_filepath")
_SECONDS = 600.0


def check_images(command: ToolCommand, path: str, images: np.ndarray) -> None:
    """Checks, before anything is measured, that images `(N, H, W, C)` fit a file, and that the tool can run them.

    Raises:
        UsageError: the images do not fit the file's one input.
        KbnnError: the tool cannot read inputs or write outputs.
    """
    missing = [flag for flag in _FLAGS if not command.knows(flag)]
    if missing:
        raise KbnnError(f"'{command.path}' has no --{missing[0]}: it cannot write its outputs; use a newer one")
    _fitting(flatbuffer.read(path), path, images)


def check_numerics(
    place: Transport, command: ToolCommand, settings: BenchmarkOptions, path: str, graph: str, images: np.ndarray
) -> Numerics:
    """Runs the tool on images `(N, H, W, C)`, one process each, and compares its outputs with those on this machine.

    The outputs of files in int8 are compared as real values.

    Raises:
        KbnnError: the tool fails, or returns outputs of another size.
    """
    file = flatbuffer.read(path)
    batch = _fitting(file, path, images)
    outputs = interpreter.run(file.data, [batch])
    words = _words(command, settings, graph, batch.shape[1:])
    try:
        samples = [_split(_outputs(place, words, image, path), outputs) for image in batch]
    except ValueError as error:
        raise KbnnError(f"'{path}' gave outputs of another size on {place.name}; use another tool") from error
    received = [np.stack(parts) for parts in zip(*samples, strict=True)]
    tensors = list(file.outputs.values())
    if len(tensors) == len(outputs):
        outputs = [tensor.real(values) for tensor, values in zip(tensors, outputs, strict=True)]
        received = [tensor.real(values) for tensor, values in zip(tensors, received, strict=True)]
    here, there = ({str(k): values for k, values in enumerate(each)} for each in (outputs, received))
    expected = np.concatenate([values.ravel().astype(float) for values in outputs])
    found = np.concatenate([values.ravel().astype(float) for values in received])
    difference = np.abs(np.where(np.isnan(expected) & np.isnan(found), 0.0, found - expected))
    return Numerics(
        images=len(batch),
        max_abs_difference=float(np.max(np.nan_to_num(difference, nan=np.inf))),
        output_range=float(np.ptp(expected)),
        top1_agreement=least(agreements(here, there)),
    )


def _split(content: bytes, outputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of one image, each in its own type, from the bytes that the tool wrote; ValueError if they differ."""
    parts = []
    for output in outputs:
        part, content = content[: output[0].nbytes], content[output[0].nbytes :]
        parts.append(np.frombuffer(part, output.dtype).reshape(output[0].shape))
    if content:
        raise ValueError(f"{len(content)} bytes are left")
    return parts


def _fitting(file: flatbuffer.File, path: str, images: np.ndarray) -> np.ndarray:
    """The images in the type of the file's input: quantized, if the file takes int8 values."""
    tensors = list(file.inputs.values())
    if len(tensors) == 1 and tensors[0].shape[1:] == images.shape[1:]:
        if tensors[0].dtype == images.dtype:
            return images
        if tensors[0].is_quantized and np.issubdtype(images.dtype, np.floating):
            return tensors[0].stored(images)
    wanted = ", ".join(f"{tensor.dtype} {tensor.shape}" for tensor in tensors)
    raise UsageError(
        f"images do not fit '{path}': received {images.dtype} {images.shape}, its input is {wanted}; "
        f"give images like those that the network was trained on"
    )


def _words(command: ToolCommand, settings: BenchmarkOptions, graph: str, shape: tuple[int, ...]) -> list[str]:
    limits = {name: "0" for name in ("min_secs", "warmup_min_secs") if command.knows(name)}
    return [
        *(*command.words, f"--graph={graph}", "--warmup_runs=0", "--num_runs=1"),
        *(f"--{name}={value}" for name, value in {**settings.flags, **limits}.items()),
        *(f"--num_threads={settings.threads}", *KERNEL_FLAGS[settings.kernel]),
        *("--input_layer=image", f"--input_layer_shape={','.join(map(str, (1, *shape)))}"),
        *("--input_layer_value_files=image:image.bin", "--output_filepath=output.bin"),
    ]


def _outputs(place: Transport, words: list[str], image: np.ndarray, path: str) -> bytes:
    with files.scratch() as folder:
        content = folder / "image.bin"
        content.write_bytes(np.ascontiguousarray(image).tobytes())
        place.send(content, content.name)
    done = place.run(words, _SECONDS)
    if done.status:
        raise KbnnError(f"cannot run '{path}' on an image on {place.name}: {explain(done)}")
    return place.fetch("output.bin")
