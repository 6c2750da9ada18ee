"""Reasons not to trust a measurement."""

from collections.abc import Sequence
from dataclasses import dataclass

from kbnn.converters.benchmark.output import Output
from kbnn.converters.benchmark.report import BenchmarkOptions, Measurement, State, Summary, Target, number

# If the slowest and the fastest process differ by a larger fraction, the figures are not reliable.
SPREAD_LIMIT = 0.10
# Fewer processes tell too little about the spread between them.
ENOUGH_REPEATS = 5
_PI_NOW = 0x0F
_PI_SINCE_START = 0x0F0000


@dataclass(frozen=True)
class Finding:
    """A warning, and whether it makes the figures invalid."""

    text: str
    invalidates: bool


def judge(
    target: Target, settings: BenchmarkOptions, outputs: Sequence[Output], runs: Sequence[Measurement], summary: Summary
) -> list[Finding]:
    """All reasons not to trust the figures of one file."""
    return [*_about_runs(settings, outputs, runs, summary), *_about_target(target)]


def _about_runs(
    settings: BenchmarkOptions, outputs: Sequence[Output], runs: Sequence[Measurement], summary: Summary
) -> list[Finding]:
    found = []
    if settings.repeats < ENOUGH_REPEATS:
        asked = "1 process was" if settings.repeats == 1 else f"{settings.repeats} processes were"
        found.append(Finding(f"only {asked} asked for: at least {ENOUGH_REPEATS} are needed to see a spread", True))
    if len(runs) < settings.repeats:
        asked = number(settings.repeats, "process")
        found.append(Finding(f"the connection was lost: {len(runs)} of {asked} measured", True))
    fewest = min((run.count for run in runs), default=settings.runs)
    if fewest < settings.runs:
        found.append(Finding(f"fewer inferences than asked for: {fewest} instead of {settings.runs}", True))
    unconsumed = {output.unconsumed for output in outputs} - {""}
    if unconsumed:
        found.append(Finding(f"the tool ignored {' '.join(sorted(unconsumed))}; use a newer one", True))
    if summary.spread is not None and summary.spread > SPREAD_LIMIT:
        found.append(
            Finding(
                f"the means of the processes differ by {summary.spread:.0%}, more than {SPREAD_LIMIT:.0%}; "
                f"stop other programs, let the device cool down, and measure again",
                True,
            )
        )
    return found


def _about_target(target: Target) -> list[Finding]:
    if target.emulated:
        return [Finding("emulated: the file runs, but its latency is withheld because it is meaningless", True)]
    found = []
    if target.word_bits == 32:
        found.append(Finding("32-bit operating system: LCE's fast kernels need 64-bit ARM", True))
    throttled = _throttled(target.before, target.after)
    if throttled:
        found.append(Finding(f"{throttled}: let the device cool down, check its power supply, measure again", True))
    if target.governor and "powersave" in target.governor.split():
        found.append(Finding("the governor is 'powersave': the clock stays low; set 'performance' to compare", False))
    before = target.before
    if before and before.load is not None and target.cores and before.load > target.cores / 2:
        found.append(Finding(f"the device was busy (load {before.load:g} on {target.cores} cores)", False))
    return found


def _throttled(before: State | None, after: State | None) -> str:
    if before is None or after is None:
        return ""
    bits = (before.pi_throttled or 0, after.pi_throttled or 0)
    if (bits[0] | bits[1]) & _PI_NOW or bits[1] & ~bits[0] & _PI_SINCE_START:
        return f"the Raspberry Pi reports throttling or low voltage ({bits[1]:#x})"
    status = max(before.android_thermal_status or 0, after.android_thermal_status or 0)
    if status:
        return f"Android reports thermal status {status}"
    if (after.throttle_count or 0) > (before.throttle_count or 0):
        return "the processor was throttled"
    return ""
