"""The papers' figures, drawn from the library's own quantizers and from observed networks."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from kbnn.analysis import measures
from kbnn.analysis.observation import Observation
from kbnn.analysis.pictures import COLOURS, Picture, picture
from kbnn.analysis.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kbnn.structure import Quantizer

Networks = Mapping[str, Sequence[Observation]]
_DASHES = ("-", "--", ":", "-.")


class Style(TypedDict):
    """The appearance of a line."""

    color: str
    linestyle: str


def estimators(derivatives: Mapping[str, Callable[[np.ndarray], np.ndarray]], reach: float = 2.0) -> Picture:
    """Surrogate derivatives of the sign, and the functions that have these derivatives (BNN+, figure 4).

    Args:
        derivatives: name -> surrogate derivative as a function of x, of shape `(N,)`.
        reach: x ranges from -reach to reach.
    """
    x = np.linspace(-reach, reach, 2001, dtype=np.float32)

    def draw(figure: "Figure") -> None:
        forward, backward = figure.subplots(1, 2)
        forward.step([-reach, 0, reach], [-1, 1, 1], where="post", color="0.5", label="sign")
        for name, style in zip(derivatives, _styles(), strict=False):
            slope = derivatives[name](x)
            forward.plot(x, implied_function(x, slope), **style, label=name)
            backward.plot(x, slope, **style)
        forward.set(xlabel="x", ylabel="implied forward function", ylim=(-1.6, 1.6))
        backward.set(xlabel="x", ylabel="derivative", title="")
        for axes in (forward, backward):
            axes.grid()
        figure.legend(loc="outside lower center", ncols=4)

    caption = (
        "Surrogate gradients. Right: the derivative that each quantizer passes back, by automatic differentiation. "
        "Left: the function with this derivative that is 0 at x = 0. The forward pass of all of them is the sign."
    )
    return picture(draw, caption, (9.0, 4.2))


def derivative_of(quantizer: "Quantizer") -> Callable[[np.ndarray], np.ndarray]:
    """dq/dx of an elementwise quantizer, by automatic differentiation."""
    import tensorflow as tf

    def derivative(x: np.ndarray) -> np.ndarray:
        values = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(values)
            y = quantizer(values)
        return tape.gradient(y, values).numpy()

    return derivative


def implied_function(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """The function with this derivative that is 0 at x = 0, by the trapezoidal rule; x is ascending."""
    areas = np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(x))])
    return areas - np.interp(0.0, x, areas)


def group_balance(gaps: Mapping[str, float]) -> Picture:
    """Two groups of features before and after layer normalization over both (PresB-Net, figures 5 and 6).

    Args:
        gaps: name -> distance of the groups' means, in units of the first group's deviation.
    """
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 20_000))

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(2, len(gaps), squeeze=False)
        for (name, gap), (before, after) in zip(gaps.items(), panels.T, strict=True):
            groups = np.stack([first, gap + 0.5 * second])
            normalized = layer_normalized(groups)
            for axes, values in ((before, groups), (after, normalized)):
                for k, group in enumerate(values):
                    axes.hist(group, 80, density=True, color=COLOURS[k], alpha=0.6, label=f"group {k + 1}")
                axes.set_yticks([])
            before.set_title(f"{name}: before")
            after.set_title(f"after: means {normalized[0].mean():.2f} and {normalized[1].mean():.2f}")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)

    caption = (
        "Two groups of a grouped convolution's outputs, simulated with normal distributions, before and after layer "
        "normalization over all channels: a large gap shrinks, a small one grows, and the order of the groups stays."
    )
    return picture(draw, caption, (8.0, 4.8))


def layer_normalized(values: np.ndarray) -> np.ndarray:
    """(A - mean)/√(var + 1e-5), with the mean and variance of all values of a sample, across its groups."""
    return (values - values.mean()) / np.sqrt(values.var() + 1e-5)


def regularizers(penalties: Mapping[str, Callable[[np.ndarray, float], np.ndarray]]) -> Picture:
    """The penalty of a weight w for two scales α (BNN+, figure 5).

    Args:
        penalties: name -> penalty of each weight `(N,)`, given the weights and α.
    """
    w = np.linspace(-2, 2, 401, dtype=np.float32)

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, len(penalties), sharey=True, squeeze=False)[0]
        for axes, (name, penalty) in zip(panels, penalties.items(), strict=True):
            for alpha, style in ((0.5, "-"), (1.0, "--")):
                axes.plot(w, penalty(w, alpha), style, color=COLOURS[0], label=f"α = {alpha:g}")
            axes.set(xlabel="w", title=name, ylim=(0, 2.3))
            axes.grid()
        figure.axes[0].set_ylabel("penalty of one weight, λ = 1")
        figure.axes[0].legend(loc="upper center")

    return picture(draw, "Regularizers, minimal at w = ±α, for two values of the trainable scale α.", (8.0, 3.4))


def of_networks(networks: Networks, reports: Mapping[str, Report]) -> dict[str, Picture]:
    """All pictures of observed networks by file name; several networks are overlaid or shown side by side."""
    samples = next(iter(reports.values())).samples
    return {
        "shares": positive_shares(networks, samples),
        "entropy": entropy_deficits(reports),
        "quantization-error": quantization_errors(reports),
        "optimal-code": optimal_proportions(networks),
        "weights": weight_histograms(networks),
    }


def positive_shares(networks: Networks, samples: int) -> Picture:
    """Share of +1 per layer, for weights and activations (ML+BMA, figures 2 and 4)."""

    def draw(figure: "Figure") -> None:
        weights, activations = figure.subplots(2, 1, sharex=True)
        _layer_bars(weights, networks, lambda seen: measures.proportion_positive(seen.filters, axis=0))
        _layer_bars(activations, networks, lambda seen: measures.proportion_positive(_by_channel(seen.signs), axis=0))
        weights.set(ylabel="share of +1, weights", ylim=(0, 1))
        activations.set(ylabel="share of +1, inputs", ylim=(0, 1), xlabel="binary layer, input to output")
        for axes in (weights, activations):
            axes.axhline(0.5, color="0.5", linewidth=0.8, linestyle=":")
        _legend_of(figure, networks)

    caption = (
        f"Share of +1 in each binary layer, {samples} held-out images. Bars: the whole layer; whiskers: the central "
        f"95 % of its filters (weights) and of its input channels (activations). Dotted: 0.5, where entropy is largest."
    )
    return picture(draw, caption, (8.0, 4.8))


def entropy_deficits(reports: Mapping[str, Report]) -> Picture:
    """The difference of each layer's entropy from 1 bit (ML+BMA, section 4.2)."""

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, attribute in zip(panels, ("weight_entropy", "activation_entropy"), strict=True):
            for (label, report), style in zip(reports.items(), _styles(), strict=False):
                deficits = [max(1 - getattr(layer, attribute), 1e-7) for layer in report.layers]
                axes.semilogy(
                    range(1, len(deficits) + 1), deficits, "o", **style, markersize=4, linewidth=1, label=label
                )
            axes.set(xlabel="binary layer, input to output", title=attribute.replace("_entropy", "s"))
            layers = max(len(report.layers) for report in reports.values())
            axes.set_xticks(range(1, layers + 1, 1 + layers // 10))
            axes.grid(axis="y")
        panels[0].set_ylabel("1 - entropy (bits), lower is better")
        _legend_of(figure, reports)

    totals = "; ".join(
        f"{label} {report.weight_entropy:.4f} and {report.activation_entropy:.4f}" for label, report in reports.items()
    )
    most = measures.network_entropy([1.0] * len(next(iter(reports.values())).layers))
    caption = (
        f"1 bit minus the entropy of binary weights and activations per layer, logarithmic (clipped at 1e-7), "
        f"{_samples(reports)} held-out images. Sums of the entropies of weights and activations in log10 units (at "
        f"most {most:.4f}): {totals}."
    )
    return picture(draw, caption, (8.0, 3.8))


def quantization_errors(reports: Mapping[str, Report]) -> Picture:
    """Quantization error of the activations per layer (ML+BMA, figure 3)."""
    kinds = {
        "quantization_error": "the network's threshold",
        "quantization_error_sign": "plain sign",
        "quantization_error_median": "batch median",
    }

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(len(reports), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (label, report) in zip(panels, reports.items(), strict=True):
            places = np.arange(1, len(report.layers) + 1)
            for k, (attribute, kind) in enumerate(kinds.items()):
                values = [getattr(layer, attribute) for layer in report.layers]
                axes.bar(places + 0.27 * (k - 1), values, 0.27, color=COLOURS[k], label=kind)
            axes.set(ylabel="relative error", title=label)
            axes.set_ylim(bottom=0)
            axes.set_xticks(places)
        panels[-1].set_xlabel("binary layer, input to output")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)

    samples = _samples(reports)
    caption = (
        f"Relative quantization error of the activations, mean((A - Â)²)/mean(A²), {samples} held-out images; the "
        f"levels are optimal for each threshold. The second and third bars show the error of the same activations with "
        f"the other thresholds. {_by_the_paper(reports)}"
    )
    return picture(draw, caption, (8.0, 1.2 + 2.4 * len(reports)))


def _by_the_paper(reports: Mapping[str, Report]) -> str:
    """A sentence with the mean errors of ML+BMA's own levels."""
    means = [
        f"{label} {np.mean([x.paper_error_sign for x in report.layers]):.3f} and "
        f"{np.mean([x.paper_error_median for x in report.layers]):.3f}"
        for label, report in reports.items()
    ]
    return f"With ML+BMA's own levels, the mean errors of plain sign and batch median are {'; '.join(means)}."


def optimal_proportions(networks: Networks) -> Picture:
    """Share of ones in SiMaN's optimal {0, 1} code of each filter (SiMaN, figure 2)."""

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(len(networks), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
        for axes, (label, layers) in zip(panels, networks.items(), strict=True):
            for place, seen in enumerate(layers, start=1):
                shares = measures.optimal_proportion(seen.latent)
                spread = place + np.linspace(-0.35, 0.35, len(shares))
                axes.plot(spread, shares, ".", markersize=2.5, color=COLOURS[0])
                axes.hlines(shares.mean(), place - 0.45, place + 0.45, color=COLOURS[4], linewidth=1.5)
            for share, name in ((0.37, "Laplacian"), (0.54, "Gaussian")):
                axes.axhline(share, color="0.5", linewidth=0.8, linestyle=":")
                axes.annotate(name, (1.0, share), xycoords=("axes fraction", "data"), fontsize=8, va="center")
            axes.set(ylabel="share of ones", title=label, ylim=(0, 1))
            axes.set_xticks(range(1, len(layers) + 1))
        panels[-1].set_xlabel("binary layer, input to output")

    caption = (
        "Share of ones in SiMaN's optimal {0, 1} code of a filter's latent weights: one dot per filter, and a line at "
        "the layer's mean. Dotted: the shares for Laplacian (0.37) and Gaussian (0.54) weights."
    )
    return picture(draw, caption, (8.0, 1.0 + 2.4 * len(networks)))


def weight_histograms(networks: Networks) -> Picture:
    """Latent weights of every binary layer, in units of the layer's mean magnitude; outlines of several networks."""
    layers = max(networks.values(), key=len)
    columns = 6 if len(layers) > 8 else 4
    lines = -(-len(layers) // columns)
    kind = "step" if len(networks) > 1 else "stepfilled"

    def draw(figure: "Figure") -> None:
        panels = np.ravel(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False))
        for axes in panels[len(layers) :]:
            axes.set_axis_off()
        for (label, observed), style in zip(networks.items(), _styles(), strict=False):
            for axes, seen in zip(panels, observed, strict=False):
                unit = np.abs(seen.latent).mean() or 1.0
                inner = np.clip(seen.latent.ravel() / unit, -4, 4)
                axes.hist(inner, 61, range=(-4, 4), density=True, histtype=kind, **style, label=label)
        for axes, seen, place in zip(panels, layers, itertools.count(1), strict=False):
            axes.set_title(f"{place}: {seen.latent.size:,}", fontsize=8)
            axes.set_yticks([])
        figure.supxlabel("w / mean |w|", fontsize=10)
        _legend_of(figure, networks, "outside upper center")

    caption = (
        "Density of the latent weights of each binary layer, in units of the layer's mean magnitude. All panels have "
        "the same axes; titles are the layer and its number of weights. The outermost bins hold all values beyond ±4."
    )
    return picture(draw, caption, (9.0, 1.0 + 1.4 * lines + (0.3 if len(networks) > 1 else 0)))


def histograms_over_epochs(
    epochs: np.ndarray, counts: np.ndarray, edges: np.ndarray, label: str, caption: str
) -> Picture:
    """Histograms of successive epochs, one below the other (BNN+, figures 2, 6 and 7).

    Args:
        epochs: the epochs, `(E,)`.
        counts: the histograms, `(E, bins)`.
        edges: edges of the bins, `(bins + 1,)`.
        label: label of the horizontal axis.
        caption: caption of the picture.
    """
    middles = (edges[1:] + edges[:-1]) / 2

    def draw(figure: "Figure") -> None:
        import matplotlib

        axes = figure.subplots()
        shades = matplotlib.colormaps["viridis"](np.linspace(0.15, 0.85, len(epochs)))
        for row, (epoch, values, shade) in enumerate(zip(epochs, counts, shades, strict=True)):
            heights = 1.6 * values / max(counts.max(), 1)
            axes.fill_between(middles, -row, heights - row, color=shade, alpha=0.8, linewidth=0.6, zorder=row)
            axes.annotate(
                f"{epoch}", (middles[0], -row), xytext=(-6, 0), textcoords="offset points", ha="right", fontsize=8
            )
        axes.set(xlabel=label, ylabel="epoch, downwards")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.yaxis.labelpad = 18

    return picture(draw, caption, (6.0, 1.6 + 0.28 * len(epochs)))


def flip_ratios(ratios: Mapping[str, tuple[np.ndarray, np.ndarray]], caption: str) -> Picture:
    """Share of binary weights that changed sign within each epoch.

    Args:
        ratios: name of a run or layer -> epochs and shares.
        caption: caption of the picture.
    """

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for (label, (epochs, shares)), style in zip(ratios.items(), _styles(), strict=False):
            axes.plot(epochs, 100 * shares, **style, label=label)
        axes.set(xlabel="epoch", ylabel="signs flipped (%)")
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)
        axes.grid(axis="y")
        axes.legend(fontsize=8, ncols=2)

    return picture(draw, caption)


def training_curves(histories: Mapping[str, Sequence[Mapping[str, float]]], caption: str) -> Picture:
    """Validation accuracy and training loss of several runs (ML+BMA, figures 5 and 6)."""

    def draw(figure: "Figure") -> None:
        accuracy, loss = figure.subplots(1, 2)
        for (label, history), style in zip(histories.items(), _styles(), strict=False):
            epochs = [row["epoch"] for row in history]
            held_out = "val_accuracy" in history[0]
            values = [100 * row["val_accuracy" if held_out else "accuracy"] for row in history]
            accuracy.plot(epochs, values, **style, label=label if held_out else f"{label} (training images)")
            loss.plot(epochs, [row["loss"] for row in history], **style)
        accuracy.set(xlabel="epoch", ylabel="held-out accuracy (%)")
        loss.set(xlabel="epoch", ylabel="training loss (nats)")
        loss.set_ylim(bottom=0)
        for axes in (accuracy, loss):
            axes.grid(axis="y")
            axes.locator_params(axis="x", integer=True)
        figure.legend(loc="outside lower center", ncols=min(4, len(histories)))

    return picture(draw, caption, (9.0, 3.6 + 0.2 * (len(histories) // 4)))


def _samples(reports: Mapping[str, Report]) -> str:
    return " / ".join(dict.fromkeys(str(report.samples) for report in reports.values()))


def _styles() -> list[Style]:
    """All colours with solid lines, then all with dashed ones."""
    return [Style(color=colour, linestyle=dash) for dash in _DASHES for colour in COLOURS]


def _by_channel(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, values.shape[-1])


def _layer_bars(axes: "Axes", networks: Networks, shares_of: Callable[[Observation], np.ndarray]) -> None:
    width = 0.8 / len(networks)
    for k, (label, layers) in enumerate(networks.items()):
        shares = [shares_of(seen) for seen in layers]
        means = np.array([share.mean() for share in shares])
        low, high = np.array([np.percentile(share, (2.5, 97.5)) for share in shares]).T
        whiskers = np.maximum([means - low, high - means], 0)
        places = np.arange(1, len(layers) + 1) + width * (k - (len(networks) - 1) / 2)
        axes.bar(
            places, means, width, yerr=whiskers, label=label, color=COLOURS[k % 6], error_kw={"ecolor": "0.5", "lw": 1}
        )
    axes.set_xticks(range(1, max(map(len, networks.values())) + 1))


def _legend_of(figure: "Figure", shown: Mapping[str, object], place: str = "outside lower center") -> None:
    if len(shown) > 1:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc=place, ncols=min(4, len(shown)))
