"""Our own comparison: every method on one network, one data set and one schedule."""

from kbnn.reproduction.accuracy import Row
from kbnn.training import Recipe

METHODS = (
    *("float", "bnn", "xnor", "xnor+ml", "xnor+bma", "xnor+ml+bma"),
    *("bireal", "irnet", "siman", "bnnplus_r1", "bnnplus_r2"),
)
EPOCHS = 20
LARGER = (("bireal18", "bireal"), ("presb10", "presb"))


def budget() -> list[Row]:
    """ResNet-20 with Bi-Real shortcuts on CIFAR-10: Adam, 2e-3 with a cosine schedule, batch 128, crops and flips."""
    return [Row(method, recipe("resnet20", method, EPOCHS)) for method in METHODS]


def recipe(model: str, method: str, epochs: int) -> Recipe:
    """A recipe with the common schedule; a tenth of the training images is held out for validation."""
    return Recipe.parse(
        {
            "name": f"{model}-{method}-cifar10",
            "data": {"name": "cifar10", "batch": 128, "pad": 4, "flip": True},
            "model": {"name": model, "method": method},
            "stage": [{"epochs": epochs, "optimizer": "adam", "learning_rate": 2e-3, "schedule": "cosine"}],
        }
    )


def larger() -> list[Row]:
    """Two larger networks with the same schedule, for a hundred epochs, which takes days on two cores."""
    return [Row(f"{model}-{method}", recipe(model, method, 100)) for model, method in LARGER]
