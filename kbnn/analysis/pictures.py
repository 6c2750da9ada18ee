"""Pictures that are legible on light and dark pages."""

import base64
import functools
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart, and which are visible on both backgrounds.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_INK = {"light": "#1b1f24", "dark": "#e6e8eb"}
_FAINT = {"light": "#c4c9d0", "dark": "#4a5058"}

Draw = Callable[["Figure"], None]


@dataclass(frozen=True)
class Picture:
    """A drawing, as SVG for light and dark pages and as PNG, with a caption."""

    caption: str
    draw: Draw
    size: tuple[float, float]

    @functools.cached_property
    def light(self) -> bytes:
        """SVG for a light page."""
        return _render(self, "light", "svg", "none", "Date")

    @functools.cached_property
    def dark(self) -> bytes:
        """SVG for a dark page."""
        return _render(self, "dark", "svg", "none", "Date")

    @functools.cached_property
    def png(self) -> bytes:
        """PNG on white, for documents and slides."""
        return _render(self, "light", "png", "white", "Software", dpi=150)

    def _repr_html_(self) -> str:
        image = base64.b64encode(self.png).decode()
        caption = html.escape(self.caption)
        return f'<img alt="" style="max-width: 100%" src="data:image/png;base64,{image}"><p>{caption}</p>'

    @property
    def is_broad(self) -> bool:
        """Whether it takes the full width of a page."""
        return self.size[0] > 7

    @property
    def light_uri(self) -> str:
        return _uri(self.light)

    @property
    def dark_uri(self) -> str:
        return _uri(self.dark)


def picture(draw: Draw, caption: str, size: tuple[float, float] = (6.0, 3.4)) -> Picture:
    """A picture that is drawn on first use.

    Args:
        draw: draws on a matplotlib figure.
        caption: what the picture shows, with units and sample sizes.
        size: width and height in inches.
    """
    return Picture(caption, draw, size)


def _render(
    drawing: Picture, theme: str, kind: str, facecolor: str, undated: str, dpi: float | str = "figure"
) -> bytes:
    """The drawing as a file of a kind; `undated` is the metadata entry that would change with each run."""
    import cycler
    import matplotlib
    from matplotlib.figure import Figure

    ink, faint = _INK[theme], _FAINT[theme]
    style = {
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": faint,
        "xtick.color": ink,
        "ytick.color": ink,
        "grid.color": faint,
        "grid.alpha": 0.5,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler.cycler(color=COLOURS),
        "font.size": 10,
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "svg.hashsalt": "kbnn",
        # Names of classes, files and operators may contain dollar signs.
        "text.parse_math": False,
        # matplotlib reads settings from the working directory, which may be somebody else's.
        "text.usetex": False,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=drawing.size, layout="constrained")
        drawing.draw(figure)
        out = io.BytesIO()
        is_transparent = facecolor == "none"
        metadata = {undated: None}
        figure.savefig(out, format=kind, transparent=is_transparent, facecolor=facecolor, dpi=dpi, metadata=metadata)
    return out.getvalue()


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def training_curve(history: Sequence[dict[str, float]], caption: str) -> Picture:
    """Accuracy on training and validation images in percent, over epochs."""
    epochs = [row["epoch"] for row in history]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for key, label in (("accuracy", "training"), ("val_accuracy", "validation")):
            if key in history[0]:
                axes.plot(epochs, [100 * row[key] for row in history], label=label)
        axes.set(xlabel="epoch", ylabel="top-1 accuracy (%)", ylim=(0, 100))
        axes.grid(axis="y")
        axes.legend(loc="lower right")

    return picture(draw, caption)


def confusion_matrix(counts: np.ndarray, classes: Sequence[str], caption: str) -> Picture:
    """Numbers of images `(classes, classes)` by actual class (rows) and predicted class (columns)."""

    def draw(figure: "Figure") -> None:
        import matplotlib.colors

        axes = figure.subplots()
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        # Opaque where the share is large, so that a small one is pale on a light page and dim on a dark one.
        cells = np.zeros((*shares.shape, 4))
        cells[..., :3] = matplotlib.colors.to_rgb(COLOURS[0])
        cells[..., 3] = np.where(shares > 0, 0.15 + 0.85 * shares, 0)
        axes.imshow(cells)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                text = axes.text(column, row, str(count), ha="center", va="center", fontsize=8)
                if shares[row, column] > 0.5:
                    text.set_color("white")
        axes.set(xlabel="predicted", ylabel="actual")
        axes.set_xticks(range(len(classes)), classes, rotation=45 if max(map(len, classes)) > 3 else 0)
        axes.set_yticks(range(len(classes)), classes)

    return picture(draw, caption, (5.0, 4.6))


def bars(values: dict[str, float], unit: str, caption: str, form: str = "{:,.1f}") -> Picture:
    """Horizontal bars from zero, each with its value."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        drawn = axes.barh(list(values), list(values.values()), color=COLOURS[: len(values)])
        axes.bar_label(drawn, [form.format(value) for value in values.values()], padding=4)
        axes.invert_yaxis()
        axes.set(xlabel=unit, xlim=(0, 1.15 * max(values.values())))
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)

    return picture(draw, caption, (6.0, 0.9 + 0.5 * len(values)))


def gallery(images: np.ndarray, titles: Sequence[str], caption: str, columns: int = 8) -> Picture:
    """uint8 images `(N, H, W, C)` in a grid, each with a title above it."""
    rows = -(-len(images) // columns)

    def draw(figure: "Figure") -> None:
        for axes in np.ravel(figure.subplots(rows, columns, squeeze=False)):
            axes.set_axis_off()
        for axes, image, title in zip(figure.axes, images, titles, strict=False):
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(title, fontsize=9)

    return picture(draw, caption, (1.0 * columns, 1.3 * rows))
