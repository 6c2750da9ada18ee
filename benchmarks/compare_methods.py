"""Trains, converts and measures our comparison of methods row by row; run it again to continue.

    python benchmarks/compare_methods.py runs/rates --choose-rates
    python benchmarks/compare_methods.py runs/resnet20-20
    python benchmarks/compare_methods.py runs/resnet20-60 --epochs 60 --methods xnor xnor+ml+bma

With `--choose-rates`, each method is trained for three epochs at each of the rates in `kbnn.reproduction.ours.RATES`,
and the validation accuracies are written to `results/rates.csv`. The best rate of each method belongs in
`ours.METHODS`; a test compares the two.

Without it, each row runs `kbnn reproduce cifar10-resnet20` and then `benchmarks/trained.py` in child processes. If a
row fails, the error is reported and the next row starts. When the script is run again, finished rows take seconds and
an interrupted row resumes from its last step. Ctrl-C, SIGTERM and a closed terminal stop it with everything saved.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

import record

from kbnn import training
from kbnn.reproduction.ours import CHOICE_EPOCHS, EPOCHS, METHODS, RATES, comparison

TABLE = "cifar10-resnet20"
# Exit statuses of a process that SIGHUP, SIGINT or SIGTERM ended, with and without its own handler.
INTERRUPTED = (-1, -2, -15, 129, 130, 143)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("output", type=Path, help="folder of the runs")
    arguments.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of each row")
    arguments.add_argument("--seeds", type=int, default=1, help="runs of each row")
    arguments.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD", help="which rows"
    )
    arguments.add_argument("--precision", default="mixed_bfloat16", help="precision in which layers compute")
    arguments.add_argument("--choose-rates", action="store_true", help="train each method at each learning rate")
    options = arguments.parse_args()
    if options.choose_rates:
        return _choose_rates(options)
    failed = [method for method in options.methods if not _row(method, options)]
    print(f"failed: {', '.join(failed)}" if failed else f"all {len(options.methods)} rows are done", flush=True)
    return 1 if failed else 0


def _choose_rates(options: argparse.Namespace) -> int:
    """Trains each method at each rate, except for those with a row, and records the validation accuracies."""
    known = {(row["method"], row["learning_rate"]) for row in record.read("rates")}
    wanted = [(method, rate) for method in options.methods for rate in RATES if (method, str(rate)) not in known]
    for method, rate in wanted:
        recipe = comparison(method, rate).changed({"policy": options.precision}).shortened(CHOICE_EPOCHS)
        try:
            run = training.train(recipe, options.output / f"{method}-{rate}", resume=True)
        except training.InterruptedRunError as error:
            print(f"{error} with the same command", flush=True)
            return error.exit_status
        last = run.history()[-1]
        row = {
            "method": method,
            "learning_rate": rate,
            "epochs": recipe.epochs,
            "validation_top1": f"{last['val_accuracy']:.4f}",
            "training_loss": f"{last['loss']:.4f}",
        }
        record.append("rates", [row], seed=recipe.seed)
    return 0


def _row(method: str, options: argparse.Namespace) -> bool:
    begun = time.monotonic()
    print(f"{time.strftime('%H:%M:%S')} {method}", flush=True)
    train = [
        *(_sibling(sys.executable, "kbnn"), "reproduce", TABLE, "--only", method, "--epochs", str(options.epochs)),
        *("--seeds", str(options.seeds), "--precision", options.precision, "--output", str(options.output)),
    ]
    runs = [str(options.output / f"{method}-seed{seed}") for seed in range(options.seeds)]
    done = _succeeds(train) and _succeeds([sys.executable, _sibling(__file__, "trained.py"), *runs])
    print(f"{method} {'done' if done else 'FAILED'} after {time.monotonic() - begun:.0f} s", flush=True)
    return done


def _sibling(path: str, name: str) -> str:
    return str(Path(path).with_name(name))


def _succeeds(command: list[str]) -> bool:
    """Whether a command succeeded. It gets SIGTERM and SIGHUP, too, so that it can save; Ctrl-C reaches it anyway."""
    with subprocess.Popen(command) as process:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        for number, handler in before.items():
            # Under nohup, SIGHUP stays ignored.
            if handler != signal.SIG_IGN:
                signal.signal(number, lambda given, _: None if given == signal.SIGINT else process.send_signal(given))
        try:
            status = process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if status in INTERRUPTED:
        raise SystemExit(130)
    return status == 0


if __name__ == "__main__":
    raise SystemExit(main())
