"""Networks by name. Each is a plain `tf.keras.Model`.

>>> import kbnn
>>> model = kbnn.models.build("resnet20", method="bireal")
"""

from kbnn.models import (  # noqa: F401  (importing registers them)
    alexnet,
    aresb,
    compact,
    dorefa_svhn,
    presb,
    react,
    resnet,
    resnet_cifar,
    tiny,
    vgg_small,
)
from kbnn.models.registry import Architecture, architectures, build, get, names, register

__all__ = ["Architecture", "architectures", "build", "get", "names", "register"]
