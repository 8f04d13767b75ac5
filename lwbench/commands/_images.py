"""Whether finished runs are of the images that their configurations name now."""

import json
from collections.abc import Iterable

from ..errors import UsageError
from ..logs import log
from ..registry import DATASETS
from ..runs.directory import Run
from ..runs.resume import check_same_images
from ..runs.runconfig import RunConfig
from ..runs.schema import Images


def check_finished(runs: Iterable[tuple[Run, RunConfig]]) -> None:
    """Compare the images of finished runs with those that are there now.

    `data.root` is not part of a run's identity, since data may move. Paths, sizes and times of the
    files are compared first, which takes no time; images are read only where these differ. Images
    that are no longer where they were are not compared, with a warning. Raises UsageError, with
    what differs, for the first run of other images.
    """
    fingerprints: dict[str, str | None] = {}
    read: dict[tuple[str, int], Images] = {}
    for run, config in runs:
        recorded = run.environment().data
        if recorded.digest is None:
            continue
        key = json.dumps(config.data.spec, sort_keys=True, default=str)
        if key not in fingerprints:
            fingerprints[key] = _fingerprint(config, recorded)
        if fingerprints[key] in (None, recorded.fingerprint):
            continue
        size = key, config.image_size
        if size not in read:
            source = DATASETS.build(config.data.spec).load(config.image_size)
            read[size] = source.images(config.data_root)
        check_same_images(run, read[size])


def _fingerprint(config: RunConfig, recorded: Images) -> str | None:
    """The fingerprint of the images, None where they are gone.

    Raises UsageError where the user names another folder than the run's, and nothing is there.
    """
    found = None
    try:
        found = DATASETS.build(config.data.spec).fingerprint()
    except UsageError:
        if config.data_root not in (None, recorded.root):
            raise
    if found is None:
        where = config.data_root or "in the default folder"
        log.warning(
            "data %s: not found %s, so not compared with the images of finished runs",
            *(config.data_name, where),
        )
    return found
