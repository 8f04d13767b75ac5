"""Weights that `weights=` names, for `train` and `eval`: read as data, renamed, put into a network.

A file (`.pt`, `.pth`, `.safetensors`), a run directory, or public weights of torchvision or timm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError, plural
from ..registry import Spec
from ..runs.directory import Run
from ..runs.runconfig import RunConfig
from ..runs.schema import Images
from ..runs.weights_id import file_of, identity_of, tag_of

if TYPE_CHECKING:
    from torch import nn

    from ..engine.weights import Fit
    from ..models.public import PublicWeights


@dataclass(frozen=True)
class GivenWeights:
    """Weights that were read. `name`: for messages; `path`: their file, None for public ones."""

    name: str
    state: Mapping[str, Any]
    path: Path | None = None
    public: "PublicWeights | None" = None

    @property
    def trained(self) -> Images:
        """What the run was trained on whose weights these are; of other files nothing is known."""
        if self.path is None:
            return Images()
        return Run(self.path.absolute().parent.parent).environment().data

    def load(
        self, model: "nn.Module", spec: Spec, *, partial: bool = False, new_head: bool = False
    ) -> str:
        """Put the weights into `model`, which `spec` describes; return a remark on them.

        `partial`: load what fits. `new_head`: the last layer keeps its own weights where the file's
        network has another number of classes. Raises UsageError for weights that do not fit or are
        not finite.
        """
        from ..engine.weights import load_fitting

        given, fit, remarks = self._compared(model, spec)
        if not (fit.is_complete or (fit.head and new_head and not fit.missing + fit.unexpected)):
            if not (partial and fit.fitting):
                raise UsageError(self._refusal(model, fit))
            remarks.append(f"only {plural(len(fit.fitting), 'tensor')} loaded; {fit.text}")
        elif fit.head:
            remarks.append(
                f"{', '.join(fit.head)} new: the file's network has {fit.classes} classes"
            )
        load_fitting(model, given, fit, self.name)
        return "; ".join(remarks)

    def check(self, outline: "nn.Module", spec: Spec, *, partial: bool = False) -> int | None:
        """Compare the weights with a network without data; return its file's number of classes.

        None where the last layer fits. Raises UsageError where anything else does not, unless
        `partial`.
        """
        _, fit, _ = self._compared(outline, spec)
        is_head_only = bool(fit.head) and not fit.missing + fit.unexpected
        if not (fit.is_complete or is_head_only or partial):
            raise UsageError(self._refusal(outline, fit))
        return fit.classes if is_head_only else None

    def converts_input(self, model: "nn.Module", spec: Spec) -> bool | None:
        """Whether torchvision converts images to [-1, 1] for these weights, published by it.

        That is so for its GoogLeNet and Inception; None for other networks. A file is recognised by
        its digest.
        """
        if spec.builder.__name__ != "torchvision" or not hasattr(model, "transform_input"):
            return None
        if self.path is None:
            return self.public is not None
        from ..models.public import published_digests

        digest = identity_of(str(self.path)).removeprefix("sha256:")
        return digest.startswith(tuple(published_digests(spec.arguments["arch"])))

    def _compared(
        self, model: "nn.Module", spec: Spec
    ) -> tuple[Mapping[str, Any], "Fit", list[str]]:
        from ..engine.weights import fit, weights
        from ..models.peers import carried

        own = model.state_dict()
        found, remark = weights(self.state, own)
        try:
            given, renamed = carried(spec.builder.__name__, spec.arguments, own, found)
        except UsageError as error:
            raise UsageError(f"{self.name}: {error}") from None
        return given, fit(own, given), [text for text in (remark, renamed) if text]

    def _refusal(self, model: "nn.Module", fit: "Fit") -> str:
        if fit.head and not fit.missing + fit.unexpected:
            own = model.state_dict()[fit.head[0]]
            return (
                f"{self.name} is of a network with {fit.classes} classes or channels at "
                f"{fit.head[0]!r}, this one has {len(own)}; choose the model and data it was "
                "trained with"
            )
        hint = "\nweights_partial=true loads the rest" if fit.fitting else ""
        if self.public is not None:
            library = self.public.tag.partition(":")[0]
            hint = f"\nthey are of model={library} model.arch={self.public.arch}"
        return f"{self.name} is of another network: {fit.text}{hint}"


def read_weights(weights: str, identity: str | None = None) -> GivenWeights:
    """Read a file, the last weights of a run, or public weights.

    `identity`: what the configuration was made with, see `runs.weights_id`; a file that has changed
    since is refused. Raises UsageError for what cannot be found or read, LwbenchError where public
    weights cannot be downloaded.
    """
    from ..engine.averaging import delivered
    from ..engine.weights import read

    if identity is not None and (now := identity_of(weights)) != identity:
        raise UsageError(
            f"{weights} has changed since the run was configured: {identity} then, {now} now\n"
            "other weights are another run: start it with the same command"
        )
    if tag := tag_of(weights):
        from ..models.public import public_weights

        public = public_weights(*tag, read)
        return GivenWeights(public.tag, public.state, public=public)
    path = file_of(weights)
    state = read(path)
    # a run stands for the weights that it is judged by; a file for what a training continues from
    return GivenWeights(str(path), delivered(state) if Path(weights).is_dir() else state, path)


def initial_weights(
    model: "nn.Module", spec: Spec, config: RunConfig, num_classes: int
) -> list[str]:
    """Load and freeze as configured, before training; return what a user should know of it.

    Raises UsageError for weights, patterns and a last layer that the network does not have.
    """
    from ..engine.freezing import freeze, last_layer

    if config.head_lr_factor is not None:
        last_layer(model, num_classes)  # found here, before the first file is written
    notes = []
    if config.weights is not None:
        given = read_weights(config.weights, config.weights_id)
        remark = given.load(model, spec, partial=config.weights_partial, new_head=True)
        notes.append(f"weights   {given.name}" + f" ({remark})" * bool(remark))
        if given.converts_input(model, spec):
            # left off in training, and so in every evaluation of the run
            notes.append(
                "weights   they expect images scaled to [-1, 1]; here images are normalised by the "
                "data set's statistics, which the training has to make up for"
            )
    if config.frozen:
        names = freeze(model, config.frozen)
        count = sum(p.numel() for p in model.parameters() if not p.requires_grad)
        notes.append(
            f"frozen    {len(names)} tensors of {count:,} parameters, {names[0]} to {names[-1]}; "
            "batch norms among them keep their statistics"
        )
    return notes
