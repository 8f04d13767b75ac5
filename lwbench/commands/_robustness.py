"""Evaluate a run on every corruption and severity of CIFAR-10-C: the mean corruption error.

Hendrycks and Dietterich: Benchmarking neural network robustness to common corruptions and
perturbations, ICLR 2019, https://arxiv.org/abs/1903.12261.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from ..config import specs
from ..errors import UsageError, plural
from ..logs import console
from ..runs.directory import Run
from ..runs.images import require_same_classes
from ._building import configured_data, prepared_device
from ._eval_run import evaluated, run_network, run_to_evaluate

SEVERITIES = range(1, 6)
# The paper's mean is over the other fifteen; these four were published for validation.
VALIDATION = {"gaussian_blur", "saturate", "spatter", "speckle_noise"}
Errors = Mapping[str, list[float]]  # corruption -> error in percent at severities 1 to 5


def evaluate_corruptions(
    run: Run, changes: dict[str, Any], reference: str | None, trust_code: bool
) -> int:
    """Print the errors of a run's final weights, and their mean.

    `reference`: the directory of a run by whose errors each corruption is normalised. Raises
    UsageError where the set is missing, or the runs are of other classes.
    """
    root = changes.get("data.root")
    if root is None:
        raise UsageError(
            "data=cifar10_c needs data.root=<folder> with <corruption>.npy, labels.npy"
        )
    from ..data.sets.arrays import corruptions

    names = corruptions(Path(str(root)))
    if not names:
        raise UsageError(f"data.root={root}: no <corruption>.npy in it")
    errors = _errors(run, changes, names, trust_code)
    base = _errors(Run(Path(reference)), changes, names, trust_code) if reference else None
    width = max(map(len, names))
    screen = console()
    screen.print(f"error in %, by severity; final weights of {run.path}")
    head = "  ".join(f"{severity:>5}" for severity in SEVERITIES)
    screen.print(f"{'corruption':<{width}}  {head}   mean" + "  normalised" * bool(base))
    for name in names:
        figures = "  ".join(f"{error:5.2f}" for error in errors[name])
        line = f"{name:<{width}}  {figures}  {mean(errors[name]):5.2f}"
        screen.print(line + (f"  {_normalised(name, errors, base):10.2f}" if base else ""))
    counted = [name for name in names if name not in VALIDATION] or names
    rest = sorted(set(names) - set(counted))
    over = f"{plural(len(counted), 'corruption')}" + f", without {', '.join(rest)}" * bool(rest)
    unnormalised = mean(mean(errors[name]) for name in counted)
    screen.print(
        f"mean corruption error {unnormalised:.2f} %, unnormalised: the mean error over severities "
        f"and {over}"
    )
    if base:
        normalised = mean(_normalised(name, errors, base) for name in counted)
        screen.print(
            f"mean corruption error {normalised:.2f} %, normalised: the mean over {over} of the "
            f"summed errors as a share of those of {reference}"
        )
    return 0


def _normalised(name: str, errors: Errors, base: Errors) -> float:
    """The corruption error of the paper, in percent; infinite where the reference has no error."""
    below = sum(base[name])
    return 100 * sum(errors[name]) / below if below else float("inf")


def _errors(run: Run, changes: dict[str, Any], names: list[str], trust_code: bool) -> Errors:
    config, _ = run_to_evaluate(run, changes, trust_code)
    environment, device = run.environment(), prepared_device(config.device)
    model, path = None, run.checkpoints / "last.pt"
    found: dict[str, list[float]] = {}
    for name in names:
        for severity in SEVERITIES:
            changed = config.changed({"data.corruption": name, "data.severity": severity})
            groups = specs(changed)
            data = configured_data(changed, groups.data, device)
            data.source.require_labels()
            images = data.source.images(changed.data_root)
            require_same_classes(environment.data, images, str(run.path))
            if model is None:
                threads = environment.threads
                model = run_network(path, groups.model, data.num_classes, device, threads)
            figures = evaluated(model, path, data, changed.precision, device)
            found.setdefault(name, []).append(100 - figures.top1)
    return found
