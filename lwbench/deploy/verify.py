"""An exported network beside PyTorch's on the same images."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import LwbenchError
from .runtime import Runtime

TOP = 5
# Logits may differ by this share of the largest one where there is no accuracy to judge by. The
# differences of float32 sums in another order stay two orders below.
OUTPUT_TOLERANCE = 1e-3

# what the runtime takes, what the network in PyTorch takes, and the labels (N,), None if unknown
Case = tuple[np.ndarray, Tensor, Tensor | None]


@dataclass
class Comparison:
    """What two forms of a network answered on the same images.

    `changed`: images whose first class differs. `only_torch`, `only_runtime`: images that one of
    them alone got right. Accuracies are in percent and None without labels.
    """

    images: int = 0
    labelled: bool = False
    changed: int = 0
    only_torch: int = 0
    only_runtime: int = 0
    largest_difference: float = 0.0
    largest_logit: float = 0.0
    hits: dict[str, int] = field(default_factory=dict)

    def add(self, ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray | None) -> None:
        """Take in a batch of logits, (N, classes), of PyTorch and of the runtime."""
        if theirs.shape != ours.shape or not (
            np.isfinite(ours).all() and np.isfinite(theirs).all()
        ):
            who = "PyTorch" if not np.isfinite(ours).all() else "the runtime"
            raise LwbenchError(
                f"the logits of {who} are not comparable: shape {theirs.shape}, expected "
                f"{ours.shape} with finite values"
            )
        self.images += len(ours)
        self.largest_difference = max(self.largest_difference, float(np.abs(ours - theirs).max()))
        self.largest_logit = max(self.largest_logit, float(np.abs(ours).max()))
        firsts = [logits.argmax(1) for logits in (ours, theirs)]
        self.changed += int((firsts[0] != firsts[1]).sum())
        if labels is None:
            return
        self.labelled = True
        right = [first == labels for first in firsts]
        self.only_torch += int((right[0] & ~right[1]).sum())
        self.only_runtime += int((right[1] & ~right[0]).sum())
        for who, logits, top1 in zip(("torch", "runtime"), (ours, theirs), right, strict=True):
            best = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
            hits = (best == labels[:, None]).any(1)
            self.hits[f"{who}_top1"] = self.hits.get(f"{who}_top1", 0) + int(top1.sum())
            self.hits[f"{who}_top5"] = self.hits.get(f"{who}_top5", 0) + int(hits.sum())

    def accuracy(self, who: str, top: int = 1) -> float | None:
        """Top-1 or top-5 in percent of "torch" or "runtime"."""
        return 100 * self.hits[f"{who}_top{top}"] / self.images if self.labelled else None

    @property
    def p(self) -> float | None:
        """McNemar's exact two-sided p that both forms are equally often right."""
        if not self.labelled:
            return None
        discordant = self.only_torch + self.only_runtime
        if not discordant:
            return 1.0
        from scipy.stats import binomtest

        return float(binomtest(self.only_torch, discordant).pvalue)

    def failure(self, tolerance: float | None) -> str:
        """Why the export is not accepted, or "".

        `tolerance`: in points of top-1; None accepts any. Without labels the logits decide.
        """
        if tolerance is None:
            return ""
        if self.labelled:
            points = 100 * abs(self.only_torch - self.only_runtime) / self.images
            if points > tolerance:
                return f"top-1 differs by {points:.2f} points, more than tolerance={tolerance:g}"
        elif self.largest_difference > OUTPUT_TOLERANCE * self.largest_logit:
            return (
                f"logits differ by {self.largest_difference:.3g}, more than {OUTPUT_TOLERANCE:g} "
                f"of the largest ({self.largest_logit:.3g})"
            )
        return ""

    def facts(self) -> dict[str, object]:
        """The comparison as plain data, for a model card."""
        return {
            "images": self.images,
            "images_from": "test set" if self.labelled else "generated",
            "torch_top1": self.accuracy("torch"),
            "torch_top5": self.accuracy("torch", 5),
            "runtime_top1": self.accuracy("runtime"),
            "runtime_top5": self.accuracy("runtime", 5),
            "changed_answers": self.changed,
            "only_torch_right": self.only_torch if self.labelled else None,
            "only_runtime_right": self.only_runtime if self.labelled else None,
            "mcnemar_p": self.p,
            "largest_difference": self.largest_difference,
            "largest_logit": self.largest_logit,
        }


def compare(model: nn.Module, run: Runtime, cases: Iterable[Case]) -> Comparison:
    """Run a network in PyTorch and its export on the same images.

    Raises LwbenchError where the runtime fails, or where logits are not finite.
    """
    model.eval()
    found = Comparison()
    for given, images, labels in cases:
        with torch.inference_mode():
            ours = model(images).float().numpy()
        try:
            theirs = run(np.ascontiguousarray(given))
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0][:300]
            raise LwbenchError(f"the runtime fails on {len(given)} images: {reason}") from error
        found.add(ours, theirs, None if labels is None else labels.numpy())
    assert found.images, "a comparison needs images"
    return found
