"""C code on this machine: compiled with sanitizers and all warnings, fed with images."""

import shutil
import subprocess

import numpy as np
import pytest

from kbnn.converters.c import plan, source, writers
from kbnn.converters.c.export import _HERE as KERNELS

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
        self._call([*WARNINGS, *SANITIZERS, "-O1", "-g", "-c", KERNELS / "kbnn_nn.c", "-o", self.kernels])

    def _call(self, arguments):
        done = subprocess.run(["gcc", *map(str, arguments)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def network(self, file):
        """A program of a synthetic file, without labels and pixels."""
        network = writers.write(file)
        planned = plan.plan(network.steps)
        made = source.program(network, planned)
        text = (
            f'#include "kbnn_nn.h"\nint net_run(const signed char *image, signed char *scores, void *arena);\n'
            f"{made.constants}\nstatic const kbnn_rows rows[] = {{\n{made.rows}}};\n"
            f"static const kbnn_step steps[] = {{\n{made.steps}}};\n"
            f"static const kbnn_pass passes[] = {{\n{made.passes}}};\n"
            f"int net_run(const signed char *image, signed char *scores, void *arena) {{\n"
            f"    static const kbnn_network network = {{passes, rows, {made.pass_count}}};\n"
            f"    return kbnn_run(&network, image, scores, arena);\n}}\n"
        )
        sizes = network.input.height * network.input.row_bytes, network.output.height * network.output.row_bytes
        return network, planned, self.program("net", text, *sizes, planned.arena_bytes)

    def program(self, name, text, image, scores, arena):
        main = self.folder / f"{name}_main.c"
        main.write_text(_MAIN.format(name=name, image=image, scores=scores, arena=arena))
        code = self.folder / f"{name}.c"
        code.write_text(text)
        program = self.folder / f"{name}_program"
        include = ["-I", KERNELS]
        self._call([*WARNINGS, *SANITIZERS, "-O1", *include, main, code, self.kernels, "-o", program])
        return program

    @staticmethod
    def run(program, images):
        """Scores `(B, bytes)` of int8 images."""
        done = subprocess.run([program], input=np.ascontiguousarray(images, np.int8).tobytes(), capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return np.frombuffer(done.stdout, np.int8).reshape(len(images), -1)


@pytest.fixture(scope="session")
def compiler(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return Compiler(tmp_path_factory.mktemp("c"))
