"""The keys of `export` besides network and data set."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from ..errors import UsageError
from ..runs.keys import ImageSize
from .profile import NumClasses

TOLERANCE = 0.1  # points of top-1 that a float export may differ by


class Options:
    """The keys of an export; the signature is their schema."""

    def __init__(
        self,
        *,
        run: str | None = None,
        weights: str | None = None,
        out: str | None = None,
        format: Literal["onnx", "torch_export", "openvino"] = "onnx",
        batch: str | int = "dynamic",
        deform: Literal["operator", "decompose"] = "operator",
        deploy: bool = False,
        preprocess: bool = False,
        tolerance: NonNegativeFloat | None = None,
        quantize: Literal["none", "int8"] = "none",
        calibration_images: PositiveInt = 256,
        seed: NonNegativeInt = 0,
        sensitivity: bool = False,
        sensitivity_images: Annotated[int, Field(ge=10)] = 1000,
        license: str | None = None,
        batch_size: PositiveInt | None = None,
        image_size: ImageSize,
        num_classes: NumClasses | None = None,
        workers: NonNegativeInt | None = None,
        trust_code: bool = False,
    ) -> None:
        self.run, self.weights = Path(run) if run else None, weights
        self.out = Path(out) if out else None
        self.format, self.deform = format, deform
        if batch != "dynamic" and (isinstance(batch, str) or batch < 1):
            raise UsageError(f"batch={batch}: expected dynamic or a number of images")
        self.batch = None if batch == "dynamic" else int(batch)
        self.deploy, self.preprocess = deploy, preprocess
        self.is_int8 = quantize == "int8"
        self.tolerance = TOLERANCE if tolerance is None and not self.is_int8 else tolerance
        self.calibration_images, self.seed = calibration_images, seed
        self.sensitivity, self.sensitivity_images = sensitivity, sensitivity_images
        self.license, self.batch_size = license, batch_size
        self.image_size, self.num_classes, self.workers = image_size, num_classes, workers
        self.trust_code = trust_code
        if self.is_int8 and format != "onnx":
            raise UsageError(f"quantize=int8 is for format=onnx, not {format}")
        if sensitivity and not self.is_int8:
            raise UsageError("sensitivity=true needs quantize=int8")

    @property
    def data_batch(self) -> int:
        """How many images are compared at a time: those of the graph, where it fixes them."""
        return self.batch or self.batch_size or 64

    @property
    def folder_name(self) -> str:
        """`onnx`, `onnx-int8` ...: what another export of the same network does not overwrite."""
        return f"{self.format}{'-int8' * self.is_int8}"
