"""Compares the outputs on a device with those of the interpreter on this machine."""

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


def check_numerics(
    place: Transport, command: ToolCommand, settings: BenchmarkOptions, path: str, graph: str, images: np.ndarray
) -> Numerics:
    """Runs the tool on images `(N, H, W, C)`, one process each, and compares its outputs with those on this machine.

    Raises:
        UsageError: the images do not fit the file's one input.
        KbnnError: the tool cannot read inputs or write outputs, or fails.
    """
    missing = [flag for flag in _FLAGS if not command.knows(flag)]
    if missing:
        raise KbnnError(f"'{command.path}' has no --{missing[0]}: it cannot write its outputs; use a newer one")
    file = flatbuffer.read(path)
    batch = _fitting(file, path, images)
    outputs = interpreter.run(file.data, [batch])
    expected = np.concatenate([output.reshape(len(batch), -1) for output in outputs], axis=1)
    words = _words(command, settings, graph, batch.shape[1:])
    raw = [_outputs(place, words, image, path) for image in batch]
    try:
        received = np.stack([np.frombuffer(content, expected.dtype) for content in raw]).reshape(expected.shape)
    except ValueError as error:
        raise KbnnError(f"'{path}' gave outputs of another size on {place.name}; use another tool") from error
    ends = np.cumsum([output[0].size for output in outputs])[:-1]
    names = [str(k) for k in range(len(outputs))]
    here = dict(zip(names, outputs, strict=True))
    there = {
        name: part.reshape(here[name].shape) for name, part in zip(names, np.split(received, ends, axis=1), strict=True)
    }
    return Numerics(
        images=len(batch),
        max_abs_difference=float(np.max(np.abs(received.astype(float) - expected))),
        output_range=float(np.ptp(expected.astype(float))),
        top1_agreement=least(agreements(here, there)),
    )


def _fitting(file: flatbuffer.File, path: str, images: np.ndarray) -> np.ndarray:
    tensors = list(file.inputs.values())
    if len(tensors) != 1 or tensors[0].shape[1:] != images.shape[1:] or tensors[0].dtype != images.dtype:
        wanted = ", ".join(f"{tensor.dtype} {tensor.shape}" for tensor in tensors)
        raise UsageError(
            f"images do not fit '{path}': received {images.dtype} {images.shape}, its input is {wanted}; "
            f"give images like those that the network was trained on"
        )
    return images


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
