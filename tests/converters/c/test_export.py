"""Networks as folders of C code, equal to LCE's interpreter; what is refused, and that nothing is left behind."""

import re
import shutil
import subprocess

import numpy as np
import pytest
import sample_networks
from compiled import WARNINGS
from operators import compute

from kbnn.converters import ConversionError, Description, convert, export_c
from kbnn.converters.c import export, plan, writers
from kbnn.converters.tflite import flatbuffer, interpreter
from kbnn.errors import KbnnError, UsageError

FILES = {
    "CMakeLists.txt",
    "README.md",
    "idf_component.yml",
    "kbnn_nn.c",
    "kbnn_nn.h",
    "library.json",
    "library.properties",
    "net.c",
    "net.h",
    "net_test.c",
    "zephyr/module.yml",
}
LABELS = ("a cat", 'quoted "dog" \\ ?', "Ångström 3", *"defghij")


def int8_path(model, folder, **options):
    path = folder / "model.tflite"
    calibration = sample_networks.images(model, 64, seed=2)
    options = {"device": "microcontroller", **options}
    convert(model, path, sample_networks.images(model), calibration=calibration, **options)
    return path


@pytest.fixture(scope="session")
def int8(bireal, tmp_path_factory):
    description = Description("bireal", labels=LABELS, mean=(120.0, 115.0, 105.0), std=(60.0, 61.0, 62.0))
    return int8_path(bireal, tmp_path_factory.mktemp("int8"), description=description)


@pytest.fixture(scope="session")
def exported(int8, bireal, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "firmware"
    return export_c(int8, folder, name="net", calibration=sample_networks.images(bireal, 8, seed=3))


def written(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def equal_to_the_interpreter(file, compiler, images):
    """The C program's scores and LCE's, for float images."""
    network, planned, program = compiler.network(file)
    levels, scores = export.int8_values(file, network, images)
    np.testing.assert_array_equal(compiler.run(program, levels), scores)
    return network, planned


@pytest.mark.slow
def test_the_folder_is_complete_and_its_self_test_passes(exported, tmp_path):
    assert written(tmp_path.parent / exported.folder) == FILES
    checked = export.check(exported.folder, "net")
    assert checked.passed
    assert "largest difference 0" in checked.output
    assert "your board" in str(checked)
    assert f"{exported.arena_bytes} bytes of arena" in str(exported)


@pytest.mark.slow
def test_a_wrong_score_fails_the_self_test(exported, tmp_path):
    folder = shutil.copytree(exported.folder, tmp_path / "copy")
    text = (folder / "net.c").read_text()
    # The last layer's first bias.
    bias = re.search(r"kbnn_filter v_logits_\w*filters\[10\] = \{\n    \{(-?\d+),", text)
    (folder / "net.c").write_text(text[: bias.start(1)] + "123456" + text[bias.end(1) :])
    checked = export.check(folder, "net")
    assert not checked.passed
    assert "largest difference" in checked.output


@pytest.mark.slow
def test_scores_equal_the_interpreters(int8, bireal, compiler):
    images = sample_networks.images(bireal, 40, seed=5)
    _, planned = equal_to_the_interpreter(flatbuffer.read(int8), compiler, images)
    # Only 12x12x32 values are stored whole; the 1x1 convolution's weights are expanded to 5 kB.
    assert 12 * 12 * 32 < planned.arena_bytes < 12 * 12 * 32 + 7500


def test_the_operators_in_numpy_compute_what_the_interpreter_does(int8, bireal):
    """Each operator of a file in NumPy, on the interpreter's own values."""
    file = flatbuffer.read(int8)
    model = flatbuffer.tree(file.data)
    indices = [operator.outputs[0].index for operator in file.operators]
    model.subgraphs[0].outputs, model.signatureDefs = np.array(indices, np.int32), []
    images = sample_networks.images(bireal, 30, seed=6)
    outputs = interpreter.run(flatbuffer.pack(model), [images], kernel="reference")
    values = {file.inputs["image"].index: images, **dict(zip(indices, outputs, strict=True))}
    for operator in file.operators[:-1]:
        given = [t.value() if t is not None and t.data is not None else t and values[t.index] for t in operator.inputs]
        expected = values[operator.outputs[0].index]
        np.testing.assert_array_equal(compute(operator, given), expected, err_msg=operator.name)


def test_names_labels_and_scales(exported, int8):
    header = (export.Path(exported.folder) / "net.h").read_text()
    for name in ("ARENA_BYTES", "INPUT_HEIGHT", "INPUT_WIDTH", "INPUT_CHANNELS", "CLASSES", "SCORES"):
        assert re.search(rf"#define NET_{name} \d+", header)
    tensor = writers.write(flatbuffer.read(int8)).input
    scale = re.search(r"NET_INPUT_SCALE (\S+)f", header)[1]
    assert np.float32(scale) == np.float32(tensor.scale)
    assert f"#define NET_INPUT_ZERO_POINT ({tensor.zero_point})" in header


@pytest.mark.slow
def test_two_networks_in_one_program_from_c_and_cpp(exported, int8, tmp_path):
    """Pixels, labels and both networks; compiled as C++ and linked with C that is compiled without warnings."""
    other = export_c(int8, tmp_path / "other", name="other")
    (tmp_path / "main.cpp").write_text(
        """
        #include <stdio.h>
        #include "net.h"
        #include "other.h"
        static uint32_t arenas[2][NET_ARENA_BYTES / 4];
        static uint8_t pixels[NET_INPUT_HEIGHT * NET_INPUT_WIDTH * 3];
        static int8_t image[sizeof(pixels)];
        int main() {
            int8_t scores[2][NET_CLASSES];
            for (unsigned k = 0; k < sizeof(pixels); ++k) { pixels[k] = (uint8_t)(k * 7); }
            net_quantize_pixels(pixels, image);
            for (unsigned k = 0; k < 6; ++k) { printf("%d ", image[k]); }
            int status = net_run(image, scores[0], arenas[0]) | other_run(image, scores[1], arenas[1]);
            for (int k = 0; k < NET_CLASSES; ++k) {
                status |= scores[0][k] != scores[1][k] || scores[0][k] > scores[0][net_class(scores[0])];
            }
            status |= net_run(0, scores[0], arenas[0]) != -1;
            status |= net_run(image, scores[0], (unsigned char *)arenas[0] + 1) != -2;
            printf("%d\\n%s\\n%s\\n%s\\n", status, net_labels[0], net_labels[1], net_labels[2]);
        }
        """
    )
    objects = []
    for folder, name in ((exported.folder, "net"), (other.folder, "other"), (other.folder, "kbnn_nn")):
        objects.append(tmp_path / f"{name}.o")
        subprocess.run(["gcc", *WARNINGS, "-O2", "-c", f"{folder}/{name}.c", "-o", objects[-1]], check=True)
    includes = ["-I", exported.folder, "-I", other.folder]
    command = ["g++", "-std=c++11", "-Wall", "-Wextra", "-Werror", *includes, tmp_path / "main.cpp", *objects]
    subprocess.run([*command, "-o", tmp_path / "main"], check=True)
    lines = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.splitlines()
    image = writers.write(flatbuffer.read(int8)).input
    pixels = (np.arange(6) * 7).astype(np.float32).reshape(2, 3)
    mean, std = np.float32([120, 115, 105]), np.float32([60, 61, 62])
    levels = np.clip(np.round((pixels - mean) / std / np.float32(image.scale)) + image.zero_point, -128, 127)
    assert lines[0].split() == [*(str(int(v)) for v in levels.ravel()), "0"]
    assert tuple(lines[1:4]) == LABELS[:3]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_cmake_builds_the_folder_and_runs_its_test(exported, tmp_path):
    subprocess.run(["cmake", "-S", exported.folder, "-B", tmp_path], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", tmp_path], check=True, capture_output=True)
    done = subprocess.run(["ctest", "--test-dir", tmp_path], check=True, capture_output=True, text=True)
    assert "100% tests passed" in done.stdout


@pytest.mark.slow
def test_a_model_is_converted_on_the_way_and_the_code_needs_nothing_else(bireal, tmp_path):
    images = sample_networks.images(bireal, 64, seed=2)
    made = export_c(bireal, tmp_path / "out", calibration=images)
    assert made.name == "bireal"
    symbols = {}
    for name in ("bireal", "kbnn_nn"):
        subprocess.run(["gcc", "-O2", "-fno-pie", "-c", f"{tmp_path}/out/{name}.c", "-o", tmp_path / "o.o"], check=True)
        listed = subprocess.run(["nm", tmp_path / "o.o"], capture_output=True, text=True, check=True).stdout
        symbols[name] = [line.split()[-2:] for line in listed.splitlines()]
    (tmp_path / "o.o").unlink()
    assert {name for kind, name in symbols["bireal"] if kind == "U"} <= {name for _, name in symbols["kbnn_nn"]}
    # No library functions, and nothing that can be written: not even memcpy, which compilers may insert.
    assert not [name for kind, name in symbols["kbnn_nn"] if kind == "U" and not name.startswith(("mem", "_GLOBAL"))]
    assert not [name for kind, name in symbols["bireal"] + symbols["kbnn_nn"] if kind in "DdBbC"]
    with pytest.raises(UsageError, match="received no images"):
        export_c(bireal, tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_feature_map_is_refused(bireal, tmp_path):
    model = sample_networks.tf.keras.Model(bireal.inputs, bireal.get_layer("add2").output, name="features")
    with pytest.raises(ConversionError, match=r"one score per class: the network's output '\S+' is 6x6x64"):
        export_c(model, tmp_path / "out", calibration=sample_networks.images(model, 16, seed=2))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 255.0, "pixel"),
        (0.0, 200.0, "pixel"),
        (0.0, 1.0, "pixel / 255"),
        (0.1, 0.9, "pixel / 255"),
        (-1.0, 1.0, "pixel / 127.5 - 1"),
        (-2.1, 2.6, "pixel / 127.5 - 1"),
    ],
)
def test_pixels_without_a_recorded_normalization_fill_the_inputs_range(low, high, expected):
    """A network that scales pixels itself takes them as they are."""
    scale = (high - low) / 255
    image = plan.Tensor("image", 8, 8, 1, "int8", scale, round(-128 - low / scale), "image")
    assert export._normalization(image, None, None).startswith(f"{expected}, which fits")
    (table,) = export._pixel_tables(image, None, None)
    values = np.array(table.replace(",", " ").split(), int)
    assert values.shape == (256,)
    if low in (0.0, -1.0) and high != 200.0:
        np.testing.assert_allclose(values, np.arange(-128, 128), atol=1)


@pytest.mark.slow
def test_a_relu_fused_into_a_binary_convolution_equals_the_interpreters(compiler, tmp_path):
    """A block as in QuickNet: x + BatchNorm(ReLU(conv(x)))."""
    layers, larq = sample_networks.layers, sample_networks.lq
    image = sample_networks.tf.keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same")(image))
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "ste_sign", "use_bias": False}
    y = larq.layers.QuantConv2D(32, 3, padding="same", pad_values=1.0, activation="relu", **quantizers)(x)
    x = layers.Add()([x, layers.BatchNormalization()(y)])
    logits = layers.Dense(4)(layers.GlobalAveragePooling2D()(x))
    model = sample_networks.randomized(sample_networks.tf.keras.Model(image, logits, name="quick"))
    file = flatbuffer.read(int8_path(model, tmp_path))
    network, _ = equal_to_the_interpreter(file, compiler, sample_networks.images(model, 40, seed=5))
    shapes = [step.params.fields["shape"].fields["write"] for step in network.steps if "bconv" in step.kernel]
    assert shapes == ["kbnn_write_limited"]


def test_a_layer_without_an_integer_form_is_refused_by_its_name(bireal, tmp_path):
    layers, keras = sample_networks.layers, sample_networks.tf.keras
    x = layers.UpSampling2D(interpolation="bilinear", name="enlarged")(bireal.get_layer("add2").output)
    logits = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(bireal.inputs, logits, name="large")
    with pytest.raises(
        ConversionError, match=r"'enlarged' \(RESIZE_BILINEAR\) has no form in C: .*; use the layers that docs"
    ):
        export_c(model, tmp_path / "out", calibration=sample_networks.images(model, 16, seed=2))
    assert not list(tmp_path.iterdir())


def ending(x, outputs, activation, image, name):
    """A model with random weights whose logits give different images different scores."""
    layers, keras = sample_networks.layers, sample_networks.tf.keras
    logits = layers.Dense(outputs, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x))
    sample_networks.varied(sample_networks.randomized(keras.Model(image, logits)))
    end = layers.Activation(activation, name="score")(logits) if activation else logits
    return keras.Model(image, end, name=name)


def mobile():
    """MobileNet's blocks, padded by a layer of their own, and a separable convolution, for one class or the other."""
    layers = sample_networks.layers
    image = sample_networks.tf.keras.Input((11, 10, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, use_bias=False, name="stem")(layers.ZeroPadding2D(((0, 1), (1, 1)))(image))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.Activation("swish")(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, name="second")(layers.ZeroPadding2D()(x))
    x = layers.SeparableConv2D(32, 3, padding="same", activation="tanh", name="separable")(x)
    return ending(sample_networks.convolution(x, 32, "conv"), 1, "sigmoid", image, "mobile")


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_score_decides_between_two_classes(activation, tmp_path):
    layers = sample_networks.layers
    image = sample_networks.tf.keras.Input((8, 8, 3), name="image")
    x = layers.BatchNormalization()(layers.Conv2D(32, 3, padding="same", name="stem")(image))
    model = ending(sample_networks.convolution(x, 32, "conv"), 1, activation, image, "pair")
    path = int8_path(model, tmp_path, description=Description(labels=("cat", "dog")))
    images = sample_networks.images(model, 64, seed=5)
    made = export_c(path, tmp_path / "out", calibration=images)
    assert (made.classes, export.check(made.folder, "pair").passed) == (2, True)
    (tmp_path / "main.c").write_text(
        """
        #include <stdio.h>
        #include "pair.h"
        int main(void) {
            int8_t score;
            while (fread(&score, 1, PAIR_SCORES, stdin)) { puts(pair_labels[pair_class(&score)]); }
            return 0;
        }
        """
    )
    sources = [tmp_path / "main.c", f"{made.folder}/pair.c", f"{made.folder}/kbnn_nn.c"]
    command = ["gcc", *WARNINGS, "-I", made.folder, *sources, "-o", tmp_path / "main"]
    subprocess.run(command, check=True)
    file = flatbuffer.read(path)
    _, levels = export.int8_values(file, writers.write(file), images)
    (scores,) = interpreter.run(file.data, [images], kernel="reference")
    expected = ["dog" if score > (0.5 if activation else 0.0) else "cat" for score in scores.ravel()]
    assert set(expected) == {"cat", "dog"}
    done = subprocess.run([tmp_path / "main"], input=levels.tobytes(), capture_output=True, check=True)
    assert done.stdout.decode().split() == expected


def gated():
    """Squeeze-and-excite by dense layers and by hard swish, a gate per pixel, and pooling of joined channels."""
    layers = sample_networks.layers
    image = sample_networks.tf.keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", name="stem")(image)
    y = sample_networks.convolution(x, 32, "conv1")
    gate = layers.Reshape((1, 1, 32))(layers.GlobalAveragePooling2D()(y))
    gate = layers.Dense(32, activation="sigmoid")(layers.Dense(8, activation="relu")(gate))
    x = layers.Add()([x, layers.Multiply(name="per_channel")([y, gate])])
    gate = layers.Conv2D(1, 3, padding="same", activation="hard_sigmoid")(x)
    x = layers.Concatenate(name="joined")([x, layers.Multiply(name="per_pixel")([x, gate])])
    x = sample_networks.convolution(layers.AveragePooling2D(name="pooled")(x), 32, "conv2")
    return ending(x, 5, None, image, "gated")


def ordinary():
    """What else small networks have: raw pixels, groups, dilation, ELU, moved pixels, pairs of values, softmax."""
    layers = sample_networks.layers
    image = sample_networks.tf.keras.Input((9, 11, 1), name="image")
    x = layers.Rescaling(2.0, offset=-0.5)(layers.Cropping2D(((1, 0), (2, 1)))(image))
    x = layers.Conv2D(12, 3, padding="same", dilation_rate=2, activation="elu", name="dilated")(x)
    x = layers.Conv2D(12, 3, padding="same", groups=3, strides=2, name="grouped")(x)
    x = layers.UpSampling2D((2, 1), name="upsampled")(layers.Permute((2, 1, 3))(x))
    y = sample_networks.convolution(x, 12, "conv")
    y = layers.Maximum()([x, layers.Subtract()([x, y])])
    x = layers.Average()([y, layers.Minimum()([x, y])])
    x = layers.Lambda(lambda x: sample_networks.tf.nn.space_to_depth(x, 2))(x)
    return ending(sample_networks.convolution(x, 7, "conv2"), 5, "softmax", image, "ordinary")


def signal():
    """Convolutions along time, means and maxima joined as vectors, and a binary dense layer."""
    layers, larq = sample_networks.layers, sample_networks.lq
    given = sample_networks.tf.keras.Input((30, 2), name="signal")
    x = layers.Conv1D(10, 5, strides=2, padding="same", activation="relu", name="along")(given)
    x = layers.BatchNormalization()(x)
    x = layers.Reshape((1, 15, 10))(layers.MaxPooling1D(2, strides=1, padding="same")(x))
    x = layers.Reshape((15, 12))(sample_networks.convolution(x, 12, "conv"))
    x = layers.Concatenate()([layers.GlobalAveragePooling1D()(x), layers.GlobalMaxPooling1D()(x)])
    quantizers = {"input_quantizer": "ste_sign", "kernel_quantizer": "magnitude_aware_sign", "use_bias": False}
    x = layers.BatchNormalization()(larq.layers.QuantDense(33, name="binary", **quantizers)(x))
    model = sample_networks.tf.keras.Model(given, layers.Dense(5, name="logits")(x), name="signal")
    return sample_networks.varied(sample_networks.randomized(model))


KERNELS = {
    ordinary: {"kbnn_conv_grouped", "kbnn_rearrange", "kbnn_maximum", "kbnn_minimum", "kbnn_softmax"},
    signal: {"kbnn_channels", "kbnn_bconv_of_int8"},
    mobile: {"kbnn_conv", "kbnn_depthwise", "kbnn_multiply"},
    gated: {"kbnn_multiply", "kbnn_channels", "kbnn_average_pool"},
}


@pytest.mark.slow
@pytest.mark.parametrize("network", KERNELS)
def test_networks_with_ordinary_layers_equal_the_interpreters(network, compiler, tmp_path):
    model = network()
    file = flatbuffer.read(int8_path(model, tmp_path))
    # All in int8, but for functions of one value, which become tables.
    in_float = {o.name for o in file.operators if o.outputs[0].dtype == "float32"}
    assert in_float <= {"DEQUANTIZE", "MUL", "ADD", "MINIMUM", "RELU", "ELU"}
    images = sample_networks.images(model, 40, seed=5)
    found, _ = equal_to_the_interpreter(file, compiler, images)
    assert KERNELS[network] <= {step.kernel for step in found.steps}
    assert len(np.unique(export.int8_values(file, found, images)[1], axis=0)) > 10


def test_an_earlier_export_is_replaced_and_anything_else_is_kept(int8, tmp_path):
    export_c(int8, tmp_path / "out", name="net")
    before = (tmp_path / "out" / "net.c").read_text()
    export_c(int8, tmp_path / "out", name="net")
    assert (tmp_path / "out" / "net.c").read_text() == before
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"contains other files, such as 'mine.txt'"):
        export_c(int8, tmp_path / "out", name="net")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="must be a folder"):
        export_c(int8, tmp_path / "file", name="net")
    assert written(tmp_path / "out") == {*FILES, "mine.txt"}


@pytest.mark.parametrize(
    "name", ["9net", "a-b", "int", "", "kbnn_nn", "naïve", "_net", "class", "test", "String", "KBNN_NN"]
)
def test_a_name_that_is_no_identifier_is_refused(name, int8, tmp_path):
    with pytest.raises(UsageError, match="must be a C identifier"):
        export_c(int8, tmp_path / "out", name=name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_has_to_stay_gets_the_files_one_by_one(int8, tmp_path, monkeypatch):
    """The working directory, a link to a folder, and a failure that puts an earlier export back."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        export_c(int8, ".", name="net")
        assert written(export.Path()) == FILES
    (tmp_path / "link").symlink_to(tmp_path / "linked", target_is_directory=True)
    for _ in range(2):
        export_c(int8, tmp_path / "link", name="net")
        assert (tmp_path / "link").is_symlink()
        assert written(tmp_path / "linked") == FILES
    export.Path("net.h").write_text("earlier")
    write, failures = export.files.write, [KeyboardInterrupt]

    def fails(path, data):
        if path.name == "net_test.c" and failures:
            raise failures.pop()
        write(path, data)

    monkeypatch.setattr(export.files, "write", fails)
    with pytest.raises(KeyboardInterrupt):
        export_c(int8, ".", name="net")
    assert written(export.Path()) == FILES
    assert export.Path("net.h").read_text() == "earlier"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_networks_of_one_zephyr_application_share_the_kernels(int8, tmp_path):
    """Zephyr links whole libraries: kernels that two of them hold are defined twice."""
    for name in ("one", "two"):
        export_c(int8, tmp_path / name, name=name)
    (tmp_path / "CMakeLists.txt").write_text(
        """
        cmake_minimum_required(VERSION 3.13)
        project(zephyr_like C)
        function(zephyr_include_directories)
        endfunction()
        macro(zephyr_library_named name)
          set(current ${name})
          add_library(${name} STATIC "")
        endmacro()
        function(zephyr_library_sources)
          foreach(source ${ARGN})
            message("SOURCE ${current} ${source}")
          endforeach()
        endfunction()
        add_subdirectory(one)
        add_subdirectory(two)
        """
    )
    command = ["cmake", "-S", tmp_path, "-B", tmp_path / "build"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = [(library, export.Path(path).name) for library, path in re.findall(r"SOURCE (\w+) (.+)", done.stderr)]
    assert found == [("kbnn_nn", "kbnn_nn.c"), ("one", "one.c"), ("two", "two.c")], done.stderr


@pytest.fixture(scope="session")
def of_two_versions(int8, tmp_path_factory):
    """Exports of two versions of kbnn: in one of them, a struct of the kernels has its fields in another order."""
    folder = tmp_path_factory.mktemp("versions")
    shutil.copytree(export._HERE, folder / "older")
    header = folder / "older" / "kbnn_nn.h"
    fields = "    int32_t a_multiplier;\n    int32_t b_multiplier;\n"
    assert fields in header.read_text()
    header.write_text(header.read_text().replace(fields, "".join(reversed(fields.splitlines(keepends=True)))))
    export_c(int8, folder / "net", name="net")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(export, "_HERE", folder / "older")
        export_c(int8, folder / "other", name="other")
    (folder / "main.c").write_text(
        """
        #include "net/net.h"
        #include "other/other.h"
        static uint32_t arena[NET_ARENA_BYTES / 4 + OTHER_ARENA_BYTES / 4];
        static int8_t image[NET_INPUT_HEIGHT * NET_INPUT_WIDTH * NET_INPUT_CHANNELS], scores[NET_CLASSES];
        int main(void) { return net_run(image, scores, arena) | other_run(image, scores, arena); }
        """
    )
    return folder


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_networks_of_two_versions_do_not_link(of_two_versions):
    def linked(*sources):
        command = ["gcc", "-std=c99", "main.c", *sources, "-o", "main"]
        return subprocess.run(command, cwd=of_two_versions, capture_output=True, text=True)

    networks = ("net/net.c", "other/other.c")
    for kernels in ("net/kbnn_nn.c", "other/kbnn_nn.c"):
        done = linked(*networks, kernels)
        assert done.returncode != 0
        assert "undefined reference to `kbnn_run_of_kernels_" in done.stderr
    both = linked(*networks, "net/kbnn_nn.c", "other/kbnn_nn.c")
    assert "multiple definition of `kbnn_conv'" in both.stderr


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed")
def test_cmake_refuses_networks_of_two_versions(of_two_versions, tmp_path):
    lines = ["cmake_minimum_required(VERSION 3.13)", "project(app C)"]
    lines += [f"add_subdirectory({of_two_versions / name} {name})" for name in ("net", "other")]
    (tmp_path / "CMakeLists.txt").write_text("\n".join(lines))
    done = subprocess.run(["cmake", "-S", tmp_path, "-B", tmp_path / "build"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "exported by different versions of kbnn: export both with one" in " ".join(done.stderr.split())


def test_too_little_memory_is_refused_with_what_takes_it(int8, tmp_path):
    with pytest.raises(
        ConversionError, match=r"needs an arena of \d+ bytes: received a limit of 2000; the largest tensor is '"
    ):
        export_c(int8, tmp_path / "out", name="net", max_ram=2000)
    assert not list(tmp_path.iterdir())


def test_a_float_file_and_a_damaged_one_are_refused(bireal_path, int8, tmp_path):
    with pytest.raises(ConversionError, match=r"convert the model to int8 for the device .microcontroller."):
        export_c(bireal_path, tmp_path / "out")
    data = int8.read_bytes()
    (tmp_path / "cut.tflite").write_bytes(data[: len(data) // 2])
    with pytest.raises(KbnnError, match="truncated or damaged"):
        export_c(tmp_path / "cut.tflite", tmp_path / "out")
    with pytest.raises(UsageError, match="no such file"):
        export_c(tmp_path / "none.tflite", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["cut.tflite"]
