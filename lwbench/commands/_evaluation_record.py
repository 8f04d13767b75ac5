"""Record what `eval weights=` found, where tables of published figures may show it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..logs import console
from ..runs.evaluations import Evaluated, write
from ..runs.images import PUBLISHED, unlike_published_tests
from ..runs.keys import Group
from ..runs.provenance import this_start, utc_now
from ..runs.weights_id import identity_of, tag_of
from ._building import device_name
from ._eval_images import Options, TestImages

if TYPE_CHECKING:
    import torch

    from ..engine.evaluate import Evaluation


def record(
    found: "Evaluation",
    values: Mapping[str, Any],
    choices: Mapping[str, str],
    options: Options,
    images: TestImages,
    device: "torch.device",
) -> None:
    """Write a record below `out` where all test images of a published data set were evaluated.

    Says where it is, or why there is none; silent for data sets that no document reports on. A
    run's weights are left out, since its result has their figures, and so are weights that were
    loaded in part. Raises LwbenchError where it cannot be written.
    """
    from ..engine.precision import resolved_precision

    data = str(values["data"].get("name") or choices["data"])
    if options.out is None or data not in PUBLISHED or Path(options.weights).is_dir():
        return
    how = unlike_published_tests(images.described, data)
    if how or options.partial:
        why = how or "the weights were loaded in part"
        console().print(f"record       none, so that no cell of a table shows it: {why}")
        return
    network = Group.model_validate(values["model"]).spec
    name = str(network["function"]) if choices["model"] == "file" else choices["model"]
    one = Evaluated(
        model=name,
        network=network,
        data=data,
        images=images.described,
        weights=identity_of(options.weights),
        file=None if tag_of(options.weights) else Path(options.weights).name,
        steps=images.steps,
        image_size=images.image_size,
        precision=resolved_precision(options.precision, device),
        test_loss=found.loss,
        test_top1=found.top1,
        test_top5=found.top5,
        start=this_start(device_name(device)),
        evaluated=utc_now(),
    )
    console().print(f"record       {write(one, options.out)}, shown by lwbench table")
