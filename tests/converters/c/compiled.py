"""C code on this machine and on emulated cores: compiled with all warnings, fed with images."""

import shutil
import subprocess

import cores
import numpy as np
import pytest
from operators import Builder, run

WARNINGS = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Wsign-conversion", "-Wshadow", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Reads images from stdin until it ends, writes their scores to stdout. Image and scores are not aligned on purpose.
_MAIN = """
#include <stdio.h>
#include <stdlib.h>
int {name}_run(const signed char *image, signed char *scores, void *arena);
int main(void) {{
    signed char *image = (signed char *)malloc({image} + 1) + 1;
    signed char *scores = (signed char *)malloc({scores} + 1) + 1;
    unsigned *arena = (unsigned *)malloc({arena});
    for (int k = 0; k < {arena} / 4; ++k) {{ arena[k] = 0x80FF7F01u; }}
    while (fread(image, 1, {image}, stdin) == {image}) {{
        if ({name}_run(image, scores, arena) != 0) {{ return 2; }}
        fwrite(scores, 1, {scores}, stdout);
    }}
    free(image - 1);
    free(scores - 1);
    free(arena);
    return 0;
}}
"""


class Compiler:
    """gcc with the kernels compiled once."""

    def __init__(self, folder):
        self.folder = folder
        self.kernels = folder / "kbnn_nn.o"
        self._call([*WARNINGS, *SANITIZERS, "-O1", "-g", "-c", cores.KERNELS / "kbnn_nn.c", "-o", self.kernels])

    def _call(self, arguments):
        done = subprocess.run(["gcc", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def network(self, file):
        """Compiles the C code of a synthetic file to a program."""
        network, planned = cores.write_bare(file, self.folder)
        program = self.folder / "program"
        sizes = network.input.height * network.input.row_bytes, network.output.height * network.output.row_bytes
        main = self.folder / "main.c"
        main.write_text(_MAIN.format(name="net", image=sizes[0], scores=sizes[1], arena=planned.arena_bytes))
        self._call([*WARNINGS, *SANITIZERS, "-O1", main, self.folder / "net.c", self.kernels, "-o", program])
        return network, planned, program

    @staticmethod
    def run(program, images):
        """Scores `(B, bytes)` of int8 images."""
        done = subprocess.run([program], input=np.ascontiguousarray(images, np.int8).tobytes(), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return np.frombuffer(done.stdout, np.int8).reshape(len(images), -1)


# The same program with files, because an emulated core has no pipes.
_FILES = """
#include <stdio.h>
#include "net.h"
static uint32_t arena[NET_ARENA_BYTES / 4];
static int8_t image[NET_INPUT_HEIGHT * NET_INPUT_WIDTH * NET_INPUT_CHANNELS], scores[NET_CLASSES];
int main(void) {
    FILE *images = fopen("images.bin", "rb");
    FILE *results = fopen("scores.bin", "wb");
    while (fread(image, 1, sizeof(image), images) == sizeof(image)) {
        if (net_run(image, scores, arena) != 0) { return 2; }
        fwrite(scores, 1, sizeof(scores), results);
    }
    fclose(results);
    return 0;
}
"""


class Emulated:
    """A core's compiler, with the kernels compiled once."""

    def __init__(self, core, folder):
        self.core, self.folder = core, folder
        self.kernels = cores.compile_all(core, [cores.KERNELS / "kbnn_nn.c"], folder)[-1]
        self.kernels = self.kernels.rename(folder / "kernels.o")

    def network(self, file):
        network, planned = cores.write_bare(file, self.folder)
        main = self.folder / "main.c"
        main.write_text(_FILES)
        sources = [main, self.folder / "net.c", self.kernels]
        return network, planned, cores.build(self.core, sources, self.folder, hosted=True)

    def run(self, program, images):
        (self.folder / "images.bin").write_bytes(np.ascontiguousarray(images, np.int8).tobytes())
        printed = cores.run(self.core, program)
        assert not printed.strip(), printed
        return np.frombuffer((self.folder / "scores.bin").read_bytes(), np.int8).reshape(len(images), -1)


@pytest.fixture(scope="session")
def compiler(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return Compiler(tmp_path_factory.mktemp("c"))


def check(compiler, builder, batch=3, seed=1, images=None):
    """Compares a file's C code with what its operators define, on random images or given ones; returns its kernels."""
    file = builder.file()
    if images is None:
        images = np.random.default_rng(seed).integers(-128, 128, size=(batch, *file.inputs["image"].shape[1:]))
    images, batch = images.astype(np.int8), len(images)
    network, _, program = compiler.network(file)
    expected = run(file, images)[builder.last.index].reshape(batch, -1)
    np.testing.assert_array_equal(compiler.run(program, images), expected)
    return {step.kernel for step in network.steps}


def binary(shape, *layers):
    builder = Builder(*shape)
    for layer in layers:
        builder.signs()
        builder.binary(**layer)
    return builder
