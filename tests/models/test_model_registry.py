"""Networks by name, and the errors for those that cannot be built."""

import copy

import pytest

from kbnn import methods, models
from kbnn.errors import UsageError
from kbnn.models import registry


def test_names_match_patterns():
    assert models.names("bireal*") == ["bireal18", "bireal34"]
    assert models.names("x*") == []


def test_default_shape_classes_and_method():
    model = models.build("tiny")
    assert (model.name, model.input_shape, model.output_shape) == ("tiny", (None, 8, 8, 1), (None, 10))


def test_a_method_object_is_accepted_like_its_name():
    model = models.build("tiny", method=methods.get("float"))
    assert model.get_layer("block1_conv1").kernel_quantizer is None


def test_networks_built_from_one_method_have_separate_penalties():
    method = methods.get("bireal+ml")
    first, second = (models.build("tiny", method=method).get_layer("block1_conv1") for _ in range(2))
    assert first.kernel_regularizer is not second.kernel_regularizer
    assert first.kernel_regularizer.layers == 4


@pytest.mark.slow
def test_lists_and_text_are_converted_to_the_type_of_the_option():
    assert models.build("bireal18", input_shape=[32, 32, 3], blocks=[1, 1, 1, 1], width="0.125").get_layer("stem_bn")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "bireal81"}, "unknown model: received 'bireal81'; did you mean bireal18"),
        ({"method": "xnro"}, "unknown method: received 'xnro'; did you mean xnor"),
        (
            {"name": "presb10", "method": "irnet"},
            "presb10 cannot take method 'irnet': an RPReLU follows each addition",
        ),
        (
            {"name": "presb10", "method": "siman+code"},
            "presb10: method 'siman\\+code' has a layer after each addition",
        ),
        ({"shortcut": "res"}, "unknown option of bireal18: received 'shortcut'; did you mean shortcuts"),
        ({"shortcuts": "red"}, "shortcuts: input should be 'bireal', 'res', 'preactivation' or 'none', received 'red'"),
        ({"width": 0}, "bireal18: width: input should be greater than 0, received 0"),
        ({"width": float("nan")}, "bireal18: width:"),
        ({"blocks": (2, 2, 2, 2, 2)}, "bireal18: blocks: "),
        ({"blocks": (2, 2, 2, 0)}, "bireal18: blocks: input should be greater than 0"),
        ({"classes": 0}, "bireal18: classes: input should be greater than 0, received 0"),
        ({"input_shape": (32, 32)}, r"bireal18: input_shape \(height, width, channels\): .* received \(32, 32\)"),
        ({"input_shape": 32}, "bireal18: input_shape"),
        (
            {"input_shape": (None, None, 3)},
            "bireal18: the image's size is unknown.*choose stem='cifar'",
        ),
        ({"name": "alexnet", "input_shape": (8, 8, 3)}, "alexnet: needs images of a fixed size of at least 15x15"),
        ({"name": "alexnet", "input_shape": (56, 224, 3)}, "alexnet: .* at least 57x57"),
        ({"name": "dorefa_svhn", "input_shape": (32, 32, 3)}, "dorefa_svhn: .* at least 40x40"),
        ({"name": "vgg_small", "input_shape": (None, None, 3)}, "vgg_small: needs images of a fixed size"),
    ],
    ids=str,
)
def test_clear_errors(arguments: dict, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        models.build(**{"name": "bireal18", "method": "bireal", **arguments})
    assert "\n" not in str(caught.value)


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(registry, "_ARCHITECTURES", copy.deepcopy(registry._ARCHITECTURES))
    registry.register(
        "picky", input_shape=(8, 8, 1), classes=2, summary="", refuses={"xnor": "it has scales of its own"}
    )(models.get("tiny").builder)
    return "picky"


def test_a_method_that_an_architecture_cannot_take_says_why(picky: str):
    with pytest.raises(UsageError, match="picky cannot take method 'xnor': it has scales of its own"):
        models.build(picky, method="xnor")
    assert "xnor" not in models.get(picky).methods()
    assert "bireal" in models.get(picky).methods()
