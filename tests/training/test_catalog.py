"""The recipes in the package: all of them parse and build; one of each kind takes a step in each stage."""

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kbnn import datasets
from kbnn.datasets import Arrays, Dataset, Normalization
from kbnn.errors import UsageError
from kbnn.training import Grid, Learner, Recipe, catalog
from kbnn.training.networks import check, method, network
from kbnn.training.optimizers import optimizer
from kbnn.training.recipe import parse, read_toml, tomllib

CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet2012": 1000}

# The smallest options of each network, so that a test can build dozens.
SMALLEST: dict[str, dict[str, object]] = {
    "alexnet": {"width": 0.05},
    "dorefa_svhn": {"width": 0.1},
    "vgg_small": {"width": 0.05},
    "resnet20": {"width": 0.5, "blocks": 1},
    "compact32": {"blocks": [1, 1]},
}
RESIDUAL = {"width": 0.125, "blocks": [1, 1, 1, 1]}


def smallest(recipe: Recipe) -> Recipe:
    options = {**recipe.model.options, **SMALLEST.get(recipe.model.name, RESIDUAL)}
    return recipe.changed({"model.options": options})


def images(recipe: Recipe, size: int | None = None) -> Dataset:
    """Four images of noise in the size of the recipe's data set, or smaller."""
    classes = CLASSES[str(recipe.data.name)]
    stored = 32 if classes <= 100 else 256
    transform = datasets.Transform() if size else recipe.data.transform() or datasets.Transform()
    pixels = np.random.default_rng(0).integers(0, 256, (4, size or stored, size or stored, 3), np.uint8)
    arrays = Arrays(pixels, np.arange(4, dtype=np.int32))
    names = tuple(map(str, range(classes)))
    return Dataset("noise", names, Normalization((128.0,) * 3, (64.0,) * 3), arrays, arrays, arrays, transform)


NAMES = [name for name in catalog.names() if name not in catalog.grids()]
# Networks that differ only in depth are the same in their smallest form.
DISTINCT = {
    (recipe.model.name[:5], recipe.model.method, str(recipe.model.options), recipe.data.name): recipe.name
    for recipe in map(catalog.find, NAMES)
    if "/" not in recipe.name
}


def test_every_row_exists():
    assert {table: len(catalog.of_table(table)) for table in catalog.tables()} == {
        "bireal-table1": 60,
        "bnnplus-table1": 48,
        "bnnplus-table2": 18,
        "mlbma-table1": 3,
        "mlbma-table2": 5,
        "mlbma-table3": 5,
        "mlbma-table4": 4,
        "mlbma-table5": 8,
        "presb-table2": 7,
        "presb-table3": 6,
        "presb-table4": 3,
        "presb-table5": 7,
        "siman-table1": 4,
        "siman-table2": 6,
        "siman-table3": 2,
    }


@pytest.mark.parametrize("name", catalog.grids())
def test_every_variant_of_a_grid_has_the_papers_figure(name: str):
    grid = catalog.grid(name)
    assert set(grid.paper) == set(grid.labels)
    assert set(grid.paper_top5) in (set(), set(grid.labels))
    assert all(grid.paper[label] < top5 for label, top5 in grid.paper_top5.items())
    assert len({str(recipe.tables()) for recipe in grid.variants().values()}) == len(grid.labels)


def test_every_row_has_the_papers_figure_and_source():
    rows = [catalog.find(name) for name in NAMES]
    # kbnn's own recipes belong to no paper.
    assert [row.name for row in rows if (row.paper is None) != row.source.startswith("ours: ")] == []


def test_printed_top5_figures():
    """Bi-Real Net's tables 1 and 2, BNN+'s 2, ML+BMA's 5, PresB-Net's 2 to 4, SiMaN's 1 and 3; CIFAR-10 has none."""
    recipes = {name: catalog.find(name) for name in NAMES}
    on_imagenet = {name for name, recipe in recipes.items() if recipe.data.name == "imagenet2012"}
    assert {name for name in on_imagenet if recipes[name].paper_top5 is None} == {"fast-bireal18-imagenet"}
    assert not any(recipe.paper_top5 for recipe in recipes.values() if recipe.data.name == "cifar10")
    assert recipes["bireal-table1/clip/proposed/proposed/bireal18"].paper_top5 == 79.5
    assert recipes["bireal-table1-real/clip/plain34"].paper_top5 == 79.9
    assert recipes["bnnplus-table2-resnet18/r1/ss10"].paper_top5 == 74.94
    assert (recipes["aresb18-imagenet"].paper, recipes["aresb18-imagenet"].paper_top5) == (54.8, 78.2)


def test_only_presbnet_has_1x1_shortcuts_in_the_comparison():
    """PresB-Net, "Basic and expand blocks": an addition "compared with existing ReActNet and AresB-Net"."""
    found = {name: catalog.find(name).model.options for name in catalog.names("aresb*")}
    assert {name: options.get("block_shortcut") for name, options in found.items()} == dict.fromkeys(found, "none")
    assert not any("block_shortcut" in catalog.find(name).model.options for name in catalog.names("presb*-cifar10"))


def test_every_method_is_known():
    for recipe in map(catalog.find, NAMES):
        for stage in recipe.stage:
            # Its modifiers may be in another order.
            assert method(recipe.model, stage).base == (stage.method or recipe.model.method).split("+")[0]


@pytest.mark.slow
def test_every_setting_has_an_effect():
    for recipe in map(catalog.find, NAMES):
        check(recipe)


@pytest.mark.core("best-resnet20-cifar10")
@pytest.mark.parametrize("name", DISTINCT.values())
def test_every_network_builds(name: str):
    recipe = smallest(catalog.find(name))
    data = images(recipe)
    built = network(recipe, recipe.stage[-1], data)
    assert built.output_shape == (None, CLASSES[str(recipe.data.name)])
    seen = data.transform.training(tf.constant(data.train.images[:1]), tf.constant([1, 2]))
    assert built.input_shape == (None, *seen.shape[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "bireal-table1/relu/original/original/plain18",
        "bireal18-imagenet",
        "bnnplus-table1-dorefa/none/htanh",
        "bnnplus-table1-dorefa/r1/sst",
        "bnnplus-table1-dorefa/xnor/bireal",
        "mlbma-bireal18-irnet-cifar10",
        "mlbma-resnet20-xnor+std-cifar10",
        "presb18-cifar100",
        "react10-cifar100",
        "siman-resnet20-cifar10",
        "siman-resnet20-cifar10-code",
    ],
)
def test_a_step_in_each_stage(name: str):
    recipe = smallest(catalog.find(name))
    data, model = images(recipe, 40 if recipe.model.name == "dorefa_svhn" else 8), None
    inputs, labels = data.inputs(data.train), data.train.labels
    for stage in recipe.stage:
        model = network(recipe, stage, data, model)
        trainer = Learner(model, label_smoothing=stage.label_smoothing)
        trainer.compile(optimizer(stage, 1), run_eagerly=True)
        before = [weight.numpy() for weight in model.trainable_weights]
        figures = trainer.train_on_batch(inputs, labels, return_dict=True)
        assert np.isfinite(list(figures.values())).all()
        moved = [(old != new.numpy()).any() for old, new in zip(before, model.trainable_weights, strict=True)]
        assert sum(moved) > len(moved) / 2


def test_a_recipe_file(tmp_path: Path):
    path = tmp_path / "mine.toml"
    recipe = catalog.find("siman-resnet20-cifar10").changed({"name": "mine"})
    recipe.write(path)
    assert catalog.find(path) == catalog.find(str(path)) == recipe
    path.write_text(path.read_text().replace("batch", "bacth"))
    with pytest.raises(UsageError, match=r"recipe '.*mine\.toml': unknown key .* 'data.bacth'; did you mean batch\?"):
        catalog.find(path)


def test_differences_from_a_named_recipe():
    recipe = catalog.find("mlbma-table2/1e-3").changed({"stage.1.epochs": 4})
    assert catalog.deviations(recipe) == ["stage.1.epochs: 400 -> 4"]
    assert catalog.deviations(Recipe.of("tiny", "bireal", "digits")) == []


def test_the_documentation_shows_recipes_that_parse():
    example, grid, *_ = re.findall(r"```toml\n(.*?)```", Path("docs/training.md").read_text(), re.DOTALL)
    recipe = Recipe.parse(tomllib.loads(example))
    assert method(recipe.model, recipe.stage[0]).name == "xnor+ml"
    values = {**tomllib.loads(grid), "recipe": recipe.tables()}
    assert parse(Grid, values).labels == ["bireal", "siman"]


def grid_tables(**changes: object) -> dict[str, object]:
    recipe = Recipe.of("tiny", "bireal", "digits").tables()
    axis = [{"name": "seed", "values": {"a": {"seed": 1}, "b": {"seed": 2}}}]
    return {"recipe": recipe, "axis": axis, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"paper": {"a": 1.0, "c": 2.0}}, "paper has a figure for 'c', which is not a combination of the axes"),
        ({"axis": [{"name": "seed", "valeus": {}}]}, "unknown key of a recipe: received 'axis.1.valeus'; did you mean"),
        ({"recipe": {"sead": 1}}, "unknown key of a recipe: received 'recipe.sead'; did you mean seed?"),
    ],
)
def test_invalid_grids(tmp_path: Path, changes: dict[str, object], message: str):
    import tomli_w

    (tmp_path / "grid.toml").write_text(tomli_w.dumps(grid_tables(**changes)))
    with pytest.raises(UsageError) as caught:
        Grid.read(tmp_path / "grid.toml")
    assert message in str(caught.value)


def test_axes_that_overwrite_each_other():
    axes = [{"name": name, "values": {name: {"data.batch": size}}} for name, size in (("a", 1), ("b", 2))]
    with pytest.raises(UsageError, match=r"two axes set 'data.batch': received 1 and, for 'b', 2"):
        parse(Grid, grid_tables(axis=axes))


def test_a_recipe_over_several_values():
    recipe = catalog.find("siman-resnet20-cifar10")
    grid = Grid.of(recipe, {"data.batch": [64, 128], "model.options": [{"shortcut_type": "A"}, {"shortcut_type": "B"}]})
    assert len(grid.labels) == 4
    first = grid.variant(grid.labels[0])
    assert (first.data.batch, first.model.options, first.paper) == (64, {"shortcut_type": "A"}, None)
    assert len(set(grid.variants())) == 4


def test_no_variant_replaces_another_one():
    recipe = catalog.find("siman-resnet20-cifar10")
    with pytest.raises(UsageError, match=r"cannot vary 'seed' over equal values: received \[0, 0\]"):
        Grid.of(recipe, {"seed": [0, 0]})
    axes = [
        {"name": "batch", "values": {"a/b": {"data.batch": 1}, "a": {"data.batch": 2}}},
        {"name": "seed", "values": {"c": {"seed": 1}, "b/c": {"seed": 2}}},
    ]
    with pytest.raises(UsageError, match="two variants have the label 'a/b/c'"):
        parse(Grid, grid_tables(axis=axes)).variants()


def test_the_files_are_data_of_the_package():
    packaged = read_toml("pyproject.toml")["tool"]["setuptools"]
    assert packaged["package-dir"]["kbnn.models.recipes"] == "models/recipes"
    assert "*.toml" in packaged["package-data"]["*"]
