"""Turn what `bench` measured of a case into its record."""

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..measure.latency import drift, median_interval
from ..runs import latencies, machine
from ..runs.latencies import Latency
from ..runs.provenance import cpu_model, installed_version, this_start, utc_now
from ..runs.sources import allow
from ._benching import Measurement, measured
from ._building import device_name, resolved_device
from ._counting import counts_of

if TYPE_CHECKING:
    from .bench import Options, Planned

LIBRARIES = ("onnxruntime", "openvino")  # whose versions are recorded besides those of a run


def measure(planned: "Sequence[Planned]", options: "Options") -> None:
    """Measure the cases in turn and write a record of each; failed ones have warnings."""
    is_quiet = options.format in ("csv", "json")  # which programs read
    cases = [one.case for one in planned]
    found = measured(cases, options.seconds, options.seed, options.processes, is_quiet)
    session = uuid.uuid4().hex
    for one, measurement in zip(planned, found, strict=True):
        if measurement is not None:
            latencies.write(_record(one, measurement, session, options.alpha), one.path)


def _record(planned: "Planned", found: Measurement, session: str, alpha: float) -> Latency:
    case = planned.case
    classes = case.num_classes or 0
    if case.trust_code or not case.run:
        allow(planned.network)  # a network in a file, which the process of the case has run
    counts = counts_of(planned.network, classes, case.image_size, is_deployed=case.deploy)
    medians = [block.median_ms for block in found.blocks]
    is_cpu = case.device == "cpu"
    device = cpu_model() if is_cpu else device_name(resolved_device(case.device))
    start = this_start(device, case.threads)
    versions = {name: installed_version(name) for name in LIBRARIES}
    return Latency(
        name=case.name,
        network=planned.network,
        weights=planned.weights,
        num_classes=classes,
        image_size=case.image_size,
        runtime=case.runtime,
        batch_size=case.batch_size,
        threads=case.threads,
        device=device,
        deploy=case.deploy,
        p50_ms=float(np.median(medians)),
        p95_ms=float(max(np.quantile(found.calls_ms, 0.95), np.median(medians))),
        interval_ms=median_interval(medians, alpha, case.seed),
        alpha=alpha,
        blocks=tuple(found.blocks),
        load_s=float(np.median(found.loads_s)),
        peak_bytes=found.peak_bytes,
        params=counts and counts["params"],
        macs=counts and counts["macs"]["plain"],
        drift=drift([block.reference_ms for block in found.blocks]),
        governor=machine.governor(),
        session=session,
        seed=case.seed,
        start=start.model_copy(update={"versions": {**start.versions, **versions}}),
        measured=utc_now(),
    )
