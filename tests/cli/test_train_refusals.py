"""Errors of `kbnn train`, `kbnn sweep` and `kbnn recipes`: one line, an exit status, and no files."""

from pathlib import Path

import pytest

from kbnn.cli import main


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("train --model tinny --dataset digits", 2, "unknown model: received 'tinny'; did you mean tiny?"),
        ("train --model tiny --method bireel --dataset digits", 2, "did you mean bireal"),
        ("train --model tiny --dataset digits --set stage.1.epoch=3", 2, "'stage.1.epoch'; did you mean epochs?"),
        ("train --model tiny --dataset digits --set stage.1.epochs=0", 2, "key 'stage.1.epochs' of the recipe: receiv"),
        (
            "train --model tiny --dataset digits --set stage.1.epochs=ten",
            2,
            "received 'ten'; input should be a valid i",
        ),
        ("train --model tiny --dataset digits --epochs 0", 2, "Invalid value for '--epochs': 0 is not in the range"),
        (
            "train --model tiny --dataset digits --batch 5000",
            2,
            "batch size does not fit data set 'digits': received 5",
        ),
        (
            "train --model tiny --dataset digits --set stage.1.patience=3 --set data.validation=0",
            2,
            "needs validation images",
        ),
        (
            "train --model tiny --dataset digits --set model.weights=none.h5",
            2,
            "no trained weights 'none.h5' of tiny, and no such path",
        ),
        (
            "train --model tiny --data nowhere --set model.options.widht=2",
            2,
            "unknown option of tiny: received 'widht'",
        ),
        ("train --model tiny --data nowhere --set model.options.width=-1", 2, "tiny: width: "),
        ("train --model presb10 --method irnet+ml --data nowhere", 2, "presb10 cannot take method 'irnet"),
        ("train --model tiny --data nowhere --set model.weights=none", 2, "no trained weights 'none' of tiny"),
        (
            "train --model tiny --data nowhere --set stage.1.distillation.teacher=none",
            2,
            "/none': give a run or a .keras file",
        ),
        ("train --weights taken/notes.txt --data nowhere", 2, "does not record the name of its network: give --model"),
        ("models --pretrained --max-kb 10", 2, "--pretrained lists trained weights as they are"),
        ("models --classes 0", 2, "--input, --classes, --method and --option need --cost"),
        ("train --model tiny --data nowhere", 2, "no folder of images at "),
        ("train --model tiny --dataset digits --data photos", 2, "give either name (a known data set) or folder"),
        ("train --model tiny --dataset digits -o /proc/kbnn", 1, "cannot write '/proc/kbnn'"),
        ("train --model tiny --dataset digits -o taken", 2, "'taken' exists and is not a run"),
        ("train -o taken --resume", 2, "'taken' is not a run"),
        ("train siman-resnet20-cifar10 -o taken --resume", 2, "no run to resume: 'taken' is not a run; check --output"),
        ("train --model tiny --dataset digits --resume", 2, "no run to resume: 'runs/tiny-bireal-digits' is not a run"),
        ("train", 2, "nothing to train: give RECIPE"),
        ("train siman-resnet20-cifer10", 2, "unknown recipe: received 'siman-resnet20-cifer10'; did you mean siman-r"),
        ("train mlbma-table2", 2, "'mlbma-table2' is a grid of recipes: sweep it to train all"),
        ("train mlbma-table2/1e-9", 2, "unknown variant of mlbma-table2: received '1e-9'; did you mean 1e-"),
        ("train nothing.toml", 2, "cannot read recipe 'nothing.toml': No such file"),
        ("sweep siman-resnet20-cifar10", 2, "is a recipe, not a grid: train it, or name the settings"),
        ("sweep mlbma-table2 --only r2/*", 2, "unknown variant of mlbma-table2: received 'r2/*'"),
        ("sweep siman-resnet20-cifar10 --over seed=0,1 --over seed=2", 2, "cannot vary 'seed' twice"),
        ("sweep siman-resnet20-cifar10 --over seed=0,0", 2, "cannot vary 'seed' over equal values"),
        (
            "train --model tiny --dataset digits --set name=../up",
            2,
            "name '../up' cannot be the name",
        ),
        ("sweep siman-resnet20-cifar10 --over seed", 2, "cannot set 'seed': give KEY=VALUE"),
        (
            "train --model tiny --dataset digits --set seed=1 --set seed=2",
            2,
            "cannot set 'seed' twice: received 1 and 2, give one of them",
        ),
        (
            "train --model tiny --dataset digits --batch 64 --set data.batch=32",
            2,
            "cannot set 'data.batch' twice: received 64 from its option and 32 from --set",
        ),
        (
            "train --model tiny --dataset digits --epochs 5 --set stage.1.epochs=9",
            2,
            "cannot set 'stage.1.epochs' along with --epochs, the total of all stages: received 9 and 5",
        ),
        (
            "sweep mlbma-table2 --over model.method=bireel,xnor+ml --set data.name=digits",
            2,
            "is a grid of recipes: sweep it to train all of them",
        ),
        (
            "sweep mlbma-resnet20-xnor+ml-cifar10 --over data.name=digits,digit",
            2,
            "row 'digit': unknown data set: received 'digit'; did you mean digits?",
        ),
        (
            "sweep mlbma-resnet20-xnor+ml-cifar10 --over model.method=xnor+ml,xnor+mm",
            2,
            "row 'xnor+mm': ",
        ),
        ("recipes siman-vgg*x", 2, "no recipe's name matches: received 'siman-vgg*x'"),
    ],
)
def test_invalid_requests_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: str,
    status: int,
    message: str,
):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    printed, errors = capfd.readouterr()
    assert caught.value.code == status, errors
    assert printed == ""
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1, errors
    assert message in errors
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "notes.txt"]


def refused(arguments: str, capfd: pytest.CaptureFixture[str]) -> str:
    """The error message of a command that must not do anything."""
    with pytest.raises(SystemExit) as caught:
        main(arguments.split())
    assert caught.value.code == 2
    return capfd.readouterr().err


def test_resuming_a_mistyped_run_suggests_runs_nearby(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    from kbnn.training import Recipe, Run

    monkeypatch.chdir(tmp_path)
    for name in ("digits", "digits-2", "photos"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        Recipe.of("tiny", "bireal", "digits").write(tmp_path / "runs" / name / "config.toml")
    (tmp_path / "runs" / "digit").mkdir()
    for arguments in ("", "--model tiny --dataset digits", "siman-resnet20-cifar10"):
        errors = refused(f"train {arguments} -o runs/digitz --resume", capfd)
        assert "'runs/digitz' is not a run; did you mean runs/digits or runs/digits-2?" in errors
    # Options that differ from the run's settings are refused, too.
    errors = refused("train -o runs/digits --resume --epochs 9 --seed 4", capfd)
    assert "run 'runs/digits' was started with other settings (seed: 0 -> 4; stage.1.epochs: 60 -> 9)" in errors
    assert not (tmp_path / "runs" / "digitz").exists()
    assert Run.open("runs/digits").recipe.epochs == 60
