"""ReActNet in the form of a ResNet, as PresB-Net's paper compares with it."""

from kbnn.models.registry import register
from kbnn.models.resnet import DEPTHS, resnet

for _depth, _published in ((10, "66.69"), (18, "70.81"), (34, "70.89")):
    register(
        f"react{_depth}",
        input_shape=(32, 32, 3),
        classes=100,
        summary=f"ReActNet as a ResNet-{_depth}: RSign, RPReLU, shortcuts that repeat their channels.",
        method="react",
        published=f"CIFAR-100 {_published} (PresB-Net's table 3)",
        blocks=DEPTHS[_depth],
        shortcut_type="duplicate",
    )(resnet)
