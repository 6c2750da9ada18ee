"""Our own comparison on CIFAR-10: each method in the network form of its own paper, at a learning rate of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kbnn.reproduction.accuracy import Row
from kbnn.training import Recipe

EPOCHS = 20
# The learning rates to choose from, on validation images after `CHOICE_EPOCHS` epochs.
RATES = (2e-3, 5e-3, 1e-2)
CHOICE_EPOCHS = 3
LARGER = (("bireal18", "bireal"), ("presb10", "presb"))

# XNOR-Net's blocks, which BNN+ and ML+BMA use for ResNets: normalization before each sign, a shortcut per two layers.
_PREACTIVATION = {"options": {"shortcuts": "res"}}
# With the gradient of the authors' code, the default of `HalfHalf`. The paper's equation 6 passes it on unchanged, even
# to negative weights, whose magnitude grows the other way, and hardly trains (results/variants.csv).
_SIMAN = {"options": {"shortcut_type": "A"}}
_ADABIN = {"options": {"shortcut_type": "A_subsample", "features_norm": True, "stem_activation": "maxout"}}


@dataclass(frozen=True)
class Form:
    """How the comparison trains a method.

    Args:
        learning_rate: Adam's, one of `RATES`; chosen by `benchmarks/compare_methods.py --choose-rates`, which records
            the validation accuracies of all three in `results/rates.csv`.
        network: keys of a recipe's `[model]` for the network form of the method's paper. By default ResNet-20 has a
            shortcut around each convolution and the activation of the method.
        pretraining: share of the epochs in which the real-valued twin with a clip instead of the sign is trained first.
    """

    learning_rate: float = RATES[0]
    network: Mapping[str, object] = field(default_factory=dict)
    pretraining: float = 0.0


METHODS = {
    "float": Form(5e-3),
    "float+relu": Form(5e-3),
    "bnn": Form(1e-2),
    "xnor": Form(5e-3, network=_PREACTIVATION),
    "xnor+ml": Form(5e-3, network=_PREACTIVATION),
    "xnor+bma": Form(5e-3, network=_PREACTIVATION),
    "xnor+ml+bma": Form(5e-3, network=_PREACTIVATION),
    "bireal": Form(5e-3, pretraining=0.25),
    "irnet": Form(1e-2),
    "siman": Form(5e-3, network=_SIMAN),
    "bnnplus_r1": Form(1e-2, network=_PREACTIVATION),
    "bnnplus_r2": Form(1e-2, network=_PREACTIVATION),
    "adabin": Form(1e-2, network=_ADABIN),
}


def budget() -> list[Row]:
    """ResNet-20 on CIFAR-10: Adam with a cosine schedule to 0, batch 128, crops and flips, no weight decay."""
    return [Row(method, comparison(method)) for method in METHODS]


def comparison(method: str, learning_rate: float | None = None) -> Recipe:
    """The recipe of a row of the comparison.

    Args:
        method: one of `METHODS`.
        learning_rate: instead of the chosen one.
    """
    form = METHODS[method]
    found = recipe("resnet20", method, EPOCHS, learning_rate or form.learning_rate)
    if form.pretraining:
        first = round(form.pretraining * EPOCHS)
        (stage,) = (stage.model_dump(mode="json", exclude_none=True) for stage in found.stage)
        stages = [{**stage, "epochs": first, "method": "float"}, {**stage, "epochs": EPOCHS - first}]
        found = found.changed({"stage": stages})
    return found.changed({f"model.{key}": value for key, value in form.network.items()})


def recipe(model: str, method: str, epochs: int, learning_rate: float = 2e-3) -> Recipe:
    """A recipe with the common schedule; a tenth of the training images is held out for validation."""
    return Recipe.parse(
        {
            "name": f"{model}-{method}-cifar10",
            "data": {"name": "cifar10", "batch": 128, "pad": 4, "flip": True},
            "model": {"name": model, "method": method},
            "stage": [{"epochs": epochs, "optimizer": "adam", "learning_rate": learning_rate, "schedule": "cosine"}],
        }
    )


def larger() -> list[Row]:
    """Two larger networks with the same schedule, for a hundred epochs, which takes days on two cores."""
    return [Row(f"{model}-{method}", recipe(model, method, 100)) for model, method in LARGER]
