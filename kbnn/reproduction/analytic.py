"""Computes the papers' tables and figures that follow from formulas and counts."""

import functools
import math
from collections.abc import Callable

import numpy as np

from kbnn import accounting, analysis, quantizers, structure
from kbnn.analysis import figures
from kbnn.reproduction.comparison import Cell
from kbnn.reproduction.registry import Build

IMAGENET = {"input_shape": (224, 224, 3), "classes": 1000}
CIFAR10 = {"input_shape": (32, 32, 3), "classes": 10}
_ROUNDING = 0.004


def bireal_table_3(build: Build) -> list[Cell]:
    """Memory in Mbit and FLOPs of Bi-Real, XNOR and real ResNets at 224x224, and the savings over the real ones."""
    printed = {
        18: {"Bi-Real net": (33.6, 1.63e8), "XNOR-Net": (33.7, 1.67e8), "full-precision ResNet": (374.1, 1.81e9)},
        34: {"Bi-Real net": (43.7, 1.93e8), "XNOR-Net": (43.9, 1.98e8), "full-precision ResNet": (697.3, 3.66e9)},
    }
    savings = {
        18: {"Bi-Real net": (11.14, 11.06), "XNOR-Net": (11.10, 10.86)},
        34: {"Bi-Real net": (15.97, 18.99), "XNOR-Net": (15.88, 18.47)},
    }
    cells = []
    for depth, rows in printed.items():
        costs = {method: _cost(build, method, depth) for method in rows}
        real = costs["full-precision ResNet"]
        for method, (megabits, flops) in rows.items():
            row, cost = f"{depth}-layer {method}", costs[method]
            cells += [
                Cell(row, "memory (Mbit)", megabits, cost.storage_bits / 1e6),
                Cell(row, "FLOPs", flops, cost.flops),
            ]
            if method in savings[depth]:
                saving, speedup = savings[depth][method]
                cells += [
                    Cell(row, "memory saving", saving, real.storage_bits / cost.storage_bits, 2 * 0.008),
                    Cell(row, "speedup", speedup, real.flops / cost.flops, 2 * 0.008),
                ]
    return cells


@functools.cache
def _cost(build: Build, method: str, depth: int) -> accounting.Cost:
    network, by = {
        "Bi-Real net": (f"bireal{depth}", "bireal"),
        "Bi-Real+ML+BMA": (f"bireal{depth}", "bireal+ml+bma"),
        "XNOR-Net": (f"resnet{depth}", "xnor"),
        "full-precision ResNet": (f"resnet{depth}", "float"),
    }[method]
    return accounting.count(build(network, by, **IMAGENET))


def bireal_capability(build: Build) -> list[Cell]:
    """Representational capability of a 3x3x32 binary convolution on 14x14, and the areas of figure 5.

    The capabilities are huge powers, so their base-10 logarithms are compared. A sum of n = 288 signs takes n + 1
    values.
    """
    values, entries = 3 * 3 * 32 + 1, 14 * 14 * 32
    return [
        Cell("binary feature map", "log10 R", 6272 * math.log10(2), entries * math.log10(2), _ROUNDING),
        Cell("after a 1-bit convolution", "log10 R", 6272 * math.log10(289), entries * math.log10(values), _ROUNDING),
        Cell("with a shortcut", "log10 R", 6272 * math.log10(289**2), entries * 2 * math.log10(values), _ROUNDING),
        Cell("figure 5, clip", "area to sign", 1.0, _area(quantizers.SteSign()), _ROUNDING),
        Cell("figure 5, ApproxSign", "area to sign", 2 / 3, _area(quantizers.ApproxSign()), _ROUNDING),
    ]


def _area(quantizer: structure.Quantizer) -> float:
    """The area on [-1, 1] between the sign and the function whose derivative the quantizer passes back."""
    x = np.linspace(-1, 1, 20_001, dtype=np.float32)
    implied = figures.implied_function(x, figures.derivative_of(quantizer)(x))
    return float(np.trapz(np.abs(np.where(x >= 0, 1, -1) - implied), x))


def mlbma_table_6(build: Build) -> list[Cell]:
    """Storage and FLOPs of ResNets with Bi-Real shortcuts under ML and BMA and under the other methods, at 224x224."""
    printed = {
        18: {
            "full-precision ResNet": (374.1, 1.81e9),
            "XNOR-Net": (33.7, 1.67e8),
            "Bi-Real net": (33.6, 1.63e8),
            "Bi-Real+ML+BMA": (33.6, 1.63e8),
        },
        34: {
            "full-precision ResNet": (697.3, 3.66e9),
            "XNOR-Net": (43.9, 1.98e8),
            "Bi-Real net": (43.7, 1.93e8),
            "Bi-Real+ML+BMA": (43.7, 1.93e8),
        },
    }
    savings = {18: (11.13, 11.10, 11.7e3, 4.62e6), 34: (15.96, 18.96, 22.8e3, 7.12e6)}
    quoted = "quoted: the increment does not follow from the paper's text"
    cells = []
    for depth, rows in printed.items():
        for method, (megabits, flops) in rows.items():
            row, cost, ours = f"ResNet-{depth} {method}", _cost(build, method, depth), method == "Bi-Real+ML+BMA"
            stored = (0.02, "with a threshold per channel") if ours else (0.008, "")
            cells += [
                Cell(row, "storage (Mbit)", megabits, cost.storage_bits / 1e6, *stored),
                Cell(row, "FLOPs", flops, cost.flops),
            ]
        real, plain, both = (
            _cost(build, method, depth) for method in ("full-precision ResNet", "Bi-Real net", "Bi-Real+ML+BMA")
        )
        saving, speedup, bits, operations = savings[depth]
        cells += [
            Cell(row, "storage saving", saving, real.storage_bits / both.storage_bits, 0.02 + 0.008),
            Cell(row, "speedup", speedup, real.flops / both.flops, 2 * 0.008),
            Cell(row, "storage increment (bit)", bits, both.storage_bits - plain.storage_bits, None, quoted),
            Cell(row, "FLOPs increment", operations, both.flops - plain.flops, None, quoted),
        ]
    return cells


def mlbma_entropy_bound(build: Build) -> list[Cell]:
    """The largest sum of entropies that ResNet-20's 18 binary layers can have, in log10 units."""
    layers = structure.binary_layers(build("resnet20", "xnor", input_shape=(32, 32, 3), classes=10))
    bound = analysis.network_entropy([1.0] * len(layers))
    return [Cell("XNOR-Net/ResNet-20", "H of weights with ML, of activations with BMA", 5.41, bound, _ROUNDING)]


def siman_corollaries(build: Build) -> list[Cell]:
    """Shares of ones in the optimal code, and its angles to the half-half code (corollaries 2 and 3)."""
    laplacian = _optimal_share(lambda t: math.exp(-t), lambda t: (1 + t) * math.exp(-t))
    gaussian = _optimal_share(lambda t: math.erfc(t / math.sqrt(2)), lambda t: math.exp(-t * t / 2))
    cells = [
        Cell("Laplacian weights", "share of +1", 0.37, laplacian, 0.015),
        Cell("Gaussian weights", "share of +1", 0.54, gaussian, 0.015),
    ]
    for row, k, r, low, high in (
        ("with L2, k = 0.37 n, r = 0.13 n", 0.37, 0.13, 30.66, 36.35),
        ("without L2, k = 0.51 n, r = 0.01 n", 0.51, 0.01, 7.97, 8.05),
    ):
        bounds = analysis.angle(k, r)
        cells += [
            Cell(row, "smallest angle (°)", low, bounds.lower, 2e-4),
            Cell(row, "largest angle (°)", high, bounds.upper, 4e-3),
        ]
    return cells


def _optimal_share(beyond: Callable[[float], float], moment: Callable[[float], float]) -> float:
    """P(|w| > t) for the t that maximizes E[|w|; |w| > t] / √P(|w| > t) (equation 13), where factors do not matter."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda t: -moment(t) / math.sqrt(beyond(t)), bounds=(0.0, 3.0), method="bounded")
    return beyond(float(found.x))


def presb_cost(build: Build) -> list[Cell]:
    """FLOPs and storage of PresB-Net-18 against ResNet-18 and AresB-Net-18 at 32x32."""
    resnet = accounting.count(build("resnet18", "float", **CIFAR10))
    network = build("presb18", "bireal", **CIFAR10)
    presb, plain = accounting.count(network, rule="presb"), accounting.count(network)
    ares = accounting.count(build("aresb18", "bireal", **CIFAR10), rule="presb")
    rule = "counts the stem's BN and 5 more multiplications per half-block output, see kbnn.accounting"
    return [
        Cell("ResNet-18 / PresB-Net-18", "FLOPs ratio", 36.8, resnet.flops / presb.flops, 0.01, rule),
        Cell(
            "ResNet-18 / PresB-Net-18",
            "FLOPs ratio, Bi-Real's rule",
            36.8,
            resnet.flops / plain.flops,
            None,
            "other rule",
        ),
        Cell(
            "AresB-Net-18 / PresB-Net-18",
            "FLOPs ratio",
            0.9,
            ares.flops / presb.flops,
            None,
            "counted for another stem",
        ),
        Cell("PresB-Net-18 / ResNet-18", "storage ratio", 0.038, presb.storage_bits / resnet.storage_bits, 0.02),
    ]
