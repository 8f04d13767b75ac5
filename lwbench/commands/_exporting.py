"""The steps of an export: record, write, quantise, compare, and state it all in a model card."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..logs import console, log
from ..runs.files import write_atomically, write_json
from ..runs.provenance import cpu_model, git_state, installed_version, utc_now
from ._building import measured_cost
from ._export_options import Options
from ._export_subject import Subject

if TYPE_CHECKING:
    from torch import nn

    from ..deploy.verify import Comparison

RUNTIMES = ("lwbench", "torch", "onnx", "onnxscript", "onnxruntime", "openvino")


def export(subject: Subject, options: Options, folder: Path) -> str:
    """Write the network, its proof and its card into a folder; return why it fails, or "".

    Raises UsageError and LwbenchError where there is nothing to write.
    """
    from ..deploy.card import markdown
    from ..deploy.export import FILES, program, write
    from ..deploy.preprocess import Preprocessed
    from ..deploy.runtime import padded, runtime
    from ..deploy.verify import compare

    if options.is_int8 and not subject.train_size:
        raise UsageError(
            "quantize=int8 calibrates on training images: it needs run=, or data= with a set that "
            "has such images"
        )
    cost = measured_cost(
        subject.model, subject.spec.arguments | {"builder": subject.spec.builder.__name__},
        subject.num_classes, subject.image_size, subject.name,
    )  # fmt: skip
    network = _deployed(subject, options)
    if options.preprocess:
        network = Preprocessed(network, subject.pixels())
    example = _example(subject, options)
    write(
        program(network, example, batch=options.batch, deform=options.deform),
        options.format,
        folder,
    )
    run = padded(runtime(options.format, folder), options.batch)
    cases = subject.cases(is_bytes=options.preprocess)
    found = compare(subject.model, run, cases)
    show(found, "PyTorch", options.format)
    failure = found.failure(options.tolerance)
    card = _card(subject, options, cost.params, cost.macs, example.shape)
    card["comparison"] = found.facts()
    if options.is_int8:
        from ._quantising import quantise

        # the float file is what int8 is made from and compared with
        found, card["quantization"] = quantise(subject, options, folder, found)
        card["comparison"] = found.facts()
        failure = found.failure(options.tolerance)
    files = [folder / name for name in FILES[options.format]]
    card["files"] = [_file(path) for path in files]
    card["tolerance"] = options.tolerance
    card["verdict"] = _verdict(found, failure, options)
    size = sum(one["bytes"] for one in card["files"])
    console().print(f"file         {size / 1e6:.3f} MB, {card['verdict']}")
    write_json(folder / "card.json", card)
    write_atomically(folder / "card.md", markdown(card))
    return failure


def show(found: "Comparison", first: str, second: str) -> None:
    """Print a comparison in four lines."""
    screen = console()
    if found.labelled:
        for name, who in ((first, "torch"), (second, "runtime")):
            top1, top5 = found.accuracy(who), found.accuracy(who, 5)
            screen.print(f"{name:<12} top-1 {top1:.4f} %  top-5 {top5:.4f} %")
    screen.print(
        f"compared     {found.images:,} {'test' if found.labelled else 'generated'} images, "
        f"{found.changed:,} answers changed"
        + (f" (McNemar p = {found.p:.3g})" if found.labelled else "")
    )
    screen.print(
        f"logits       largest difference {found.largest_difference:.3g}, largest logit "
        f"{found.largest_logit:.3g}"
    )
    if not found.labelled:
        log.warning("the accuracy is unproven: no test images were compared")


def _deployed(subject: Subject, options: Options) -> "nn.Module":
    """The network itself, or its deploy form."""
    if not options.deploy:
        return subject.model
    from ..deploy.fuse import fuse

    return fuse(subject.model, image_size=subject.image_size)


def _example(subject: Subject, options: Options) -> Any:
    import torch

    if options.preprocess:
        side = subject.pixels().side
        return torch.zeros(side, side, 3, dtype=torch.uint8)
    return torch.zeros(3, subject.image_size, subject.image_size)


def _card(
    subject: Subject, options: Options, params: int, macs: dict[str, int], shape: Any
) -> dict[str, Any]:
    """What is known before the comparison."""
    revision, is_changed = git_state()
    batch = options.batch or "batch"
    arguments = {k: v for k, v in subject.spec.arguments.items() if v is not None}
    return {
        "name": subject.name,
        "network": {"builder": subject.spec.builder.__name__, "arguments": arguments},
        "license": options.license,
        "format": options.format,
        "deformable_convolution": options.deform,
        "deploy_form": options.deploy,
        "input": {
            "shape": [batch, *shape],
            "type": "uint8" if options.preprocess else "float32",
            "preprocessing": subject.preparation(is_in_graph=options.preprocess),
            "preprocessing_in_graph": options.preprocess,
        },
        "num_classes": subject.num_classes,
        "class_names": list(subject.class_names),
        "counts": {"params": params, "macs": macs},
        **subject.facts,
        "created": utc_now(),
        "made_with": {name: installed_version(name) for name in RUNTIMES},
        "git_revision": revision,
        "git_changed": is_changed,
        "cpu": cpu_model(),
    }


def _file(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return {"name": path.name, "bytes": len(content), "sha256": digest}


def _verdict(found: "Comparison", failure: str, options: Options) -> str:
    if failure:
        return f"refused: {failure}"
    if not found.labelled:
        return "accuracy unproven: only generated images were compared"
    if options.tolerance is None:
        return "top-1 is as stated; no tolerance was set"
    return f"top-1 is within {options.tolerance:g} points of PyTorch's"
