"""Whether runs are of the images that their configurations name now."""

import json
from collections.abc import Iterable
from pathlib import Path

from ..errors import UsageError
from ..logs import log
from ..registry import DATASETS
from ..runs.directory import Run
from ..runs.images import differences, is_same
from ..runs.resume import check_same_images
from ..runs.runconfig import RunConfig
from ..runs.schema import Images


class _Sets:
    """The data sets of many configurations, each looked at once."""

    def __init__(self) -> None:
        self._fingerprints: dict[str, str | None] = {}
        self._images: dict[tuple[str, int], Images] = {}

    def fingerprint(self, config: RunConfig) -> str | None:
        """The fingerprint of the files, see `data.sets.Dataset`; found without reading images."""
        key = _key(config)
        if key not in self._fingerprints:
            self._fingerprints[key] = DATASETS.build(config.data.spec).fingerprint()
        return self._fingerprints[key]

    def images(self, config: RunConfig) -> Images:
        """What a run of this configuration would record. Raises UsageError for faulty images."""
        key = (_key(config), config.image_size)
        if key not in self._images:
            source = DATASETS.build(config.data.spec).load(config.image_size)
            self._images[key] = source.images(config.data_root)
        return self._images[key]


def check_finished(runs: Iterable[tuple[Run, RunConfig]]) -> None:
    """Compare the images of finished runs with those that are there now.

    `data.root` is not part of a run's identity, since data may move. Paths, sizes and times of the
    files are compared first, which takes no time; images are read only where these differ. Images
    that are no longer where they were are not compared, with a warning. Raises UsageError, with
    what differs, for the first run of other images.
    """
    sets = _Sets()
    missing: dict[str, None] = {}
    for run, config in runs:
        recorded = run.environment().data
        if recorded.digest is None:
            continue
        found = None
        try:
            found = sets.fingerprint(config)
        except UsageError:
            # a folder that the user names now, other than the run's, must exist
            if config.data_root not in (None, recorded.root):
                raise
        if found is None:
            where = config.data_root or "in the default folder"
            missing[f"data {config.data_name}: not found {where}"] = None
        elif found != recorded.fingerprint:
            check_same_images(run, sets.images(config))
    for what in missing:
        log.warning("%s, so not compared with the images of finished runs", what)


def check_distinct(configs: Iterable[RunConfig]) -> None:
    """Raise UsageError where runs of different images would share a directory.

    That is so for data.root=a/moss and b/moss: the name of both is moss.
    """
    sets = _Sets()
    firsts: dict[Path, RunConfig] = {}
    for config in configs:
        path = Run.first(config).path
        first = firsts.setdefault(path, config)
        if first.data_root == config.data_root:
            continue
        if sets.fingerprint(first) == sets.fingerprint(config):
            continue
        one, other = sets.images(first), sets.images(config)
        if not is_same(one, other):
            raise UsageError(
                f"{path} would be of two sets of images, data.root={first.data_root} and "
                f"{config.data_root}: "
                f"{differences(one, other, ('in the first', 'in the second'))}\n"
                "data.name=<name> tells them apart, in a command for each"
            )


def _key(config: RunConfig) -> str:
    return json.dumps(config.data.spec, sort_keys=True, default=str)
