"""Public weights of torchvision and timm by their tags: downloaded by these libraries, verified.

`torchvision:MobileNet_V2_Weights.IMAGENET1K_V2` and `timm:mobilenetv3_small_100.lamb_in1k`. The
libraries name and download the files; lwbench compares the digest of the file that it reads, also
where it was in the library's cache before.
"""

import hashlib
import importlib
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DamagedError, LwbenchError, UsageError, nearest

Read = Callable[[Path], dict[str, Any]]  # a file of weights as data: engine.weights.read
CONNECT_S = 10.0  # to wait for the hub before a download


@dataclass(frozen=True)
class PublicWeights:
    """Weights of a library's network `arch`, as names and tensors.

    `transform`: the library's evaluation of one Pillow image, to a (3, H, W) float32 tensor;
    `size`: H and W; `text`: the transform in words; `steps`: the arguments of
    `data.preprocessing.Steps`, None where these cannot express it.
    """

    tag: str
    arch: str
    state: Mapping[str, Any]
    transform: Callable[[Any], Any]
    size: int
    text: str
    steps: dict[str, Any] | None

    @property
    def geometry(self) -> str:
        """The transform in words without its last step, the normalisation."""
        return self.text.partition(", mean ")[0]


def public_weights(library: str, name: str, read: Read) -> PublicWeights:
    """Load public weights. `read`: how files are read.

    Raises UsageError for an unknown name, LwbenchError where they cannot be downloaded,
    DamagedError where the file is not the published one.
    """
    return _torchvision(name, read) if library == "torchvision" else _timm(name, read)


# --- torchvision --------------------------------------------------------------------------------


def _torchvision(name: str, read: Read) -> PublicWeights:
    models = importlib.import_module("torchvision.models")
    hub = importlib.import_module("torch.hub")
    arches = models.list_models(module=models)
    groups = {models.get_model_weights(arch).__name__: arch for arch in arches}
    group, _, tag = name.partition(".")
    if group not in groups:
        whole = group if group.endswith("_Weights") else f"{group}_Weights"
        hint = nearest(whole, groups)
        raise UsageError(f"no weights {name!r} of torchvision's classifiers{hint}")
    known = models.get_model_weights(groups[group])
    if tag not in known.__members__:
        raise UsageError(f"no weights {name!r} of torchvision{nearest(tag, known.__members__)}")
    entry = known[tag]
    path = Path(hub.get_dir()) / "checkpoints" / os.path.basename(entry.url)
    if not path.exists():
        # compares the digest in the file's name before the file gets it
        fetch = lambda: entry.get_state_dict(progress=False, check_hash=True, weights_only=True)  # noqa: E731
        _downloaded(fetch, f"torchvision:{name}", entry.url, path)
    _verify(path, _digest_in_name(path))
    state = read(path)
    if groups[group].startswith("densenet"):
        # written before names of modules could contain no dots: norm.1 is norm1 today
        state = {re.sub(r"\.(norm|relu|conv)\.(\d)\.", r".\1\2.", key): state[key] for key in state}
    preset = entry.transforms()
    steps = {
        "resize": preset.resize_size[0],
        "crop": preset.crop_size[0],
        "interpolation": preset.interpolation.value,
        "antialias": preset.antialias is not False,
        "mean": tuple(preset.mean),
        "std": tuple(preset.std),
    }
    return PublicWeights(
        tag=f"torchvision:{name}",
        arch=groups[group],
        state=state,
        transform=preset,
        size=preset.crop_size[0],
        text=_text(steps),
        steps=steps,
    )


def published_digests(arch: str) -> set[str]:
    """The first digits of the sha256 of each file of weights that torchvision has for `arch`."""
    entries = importlib.import_module("torchvision.models").get_model_weights(arch)
    return {_digest_in_name(Path(entry.url)) for entry in entries}


def _digest_in_name(path: Path) -> str:
    """The first digits of a file's sha256, which PyTorch's file names end with."""
    found = re.search(r"-([0-9a-f]{8,})\.\w+$", path.name)
    return found[1] if found else ""


# --- timm ---------------------------------------------------------------------------------------


def _timm(name: str, read: Read) -> PublicWeights:
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError:
        raise UsageError(f"weights=timm:{name} needs timm: pip install lwbench[zoo]") from None
    arch = name.partition(".")[0]
    if arch not in timm.list_models():
        raise UsageError(f"timm has no network {arch!r}{nearest(arch, timm.list_models())}")
    known = timm.list_pretrained(f"{arch}.*") or timm.list_pretrained(arch)
    tags = [each for each in known if each.partition(".")[0] == arch]
    if name not in tags:
        listed = f"\nits weights: {', '.join(tags)}" if tags else "; timm has none for it"
        raise UsageError(f"no weights {name!r} of timm{nearest(name, tags)}{listed}")
    config = timm.get_pretrained_cfg(name)
    path = _timm_file(name, config)
    # timm's own conversion of weights that were written by other code: it takes them as data
    model = timm.create_model(
        name, pretrained=True, pretrained_cfg_overlay={"state_dict": read(path)}
    )
    data = importlib.import_module("timm.data")
    settings = data.resolve_data_config({}, pretrained_cfg=config.to_dict())
    size = settings["input_size"][-1]
    steps = {
        "resize": math.floor(size / settings["crop_pct"]),
        "crop": size,
        "interpolation": settings["interpolation"],
        "antialias": True,
        "mean": tuple(settings["mean"]),
        "std": tuple(settings["std"]),
    }
    is_center = settings["crop_mode"] == "center"
    return PublicWeights(
        tag=f"timm:{name}",
        arch=arch,
        state=model.state_dict(),
        transform=data.create_transform(**settings, is_training=False),
        size=size,
        text=_text(steps) + ("" if is_center else f", crop mode {settings['crop_mode']}"),
        steps=steps if is_center else None,
    )


def _timm_file(name: str, config: Any) -> Path:
    """Return the file of weights, from the cache of Hugging Face's hub or of PyTorch's."""
    tag = f"timm:{name}"
    hub = importlib.import_module("timm.models._hub")
    if not config.hf_hub_id:
        cached = Path(hub.get_cache_dir()) / os.path.basename(config.url)
        if not cached.exists():
            _downloaded(lambda: hub.download_cached_file(config.url), tag, config.url, cached)
        _verify(cached, _digest_in_name(cached))
        return cached
    repository = config.hf_hub_id
    filename = config.hf_hub_filename or "model.safetensors"
    if (found := _hub_file(repository, filename)) is None:
        _downloaded(
            lambda: _from_hub(hub, repository, filename),
            *(tag, f"https://huggingface.co/{repository}", f"{filename}, in the cache of the hub"),
        )
        found = _hub_file(repository, filename)
    if found is None:
        raise LwbenchError(f"{tag}: {repository} has no {filename}")
    # the hub's cache names files by their sha256; of small ones by another digest, of 40 digits
    blob = found.resolve().name
    _verify(found, blob if re.fullmatch(r"[0-9a-f]{64}", blob) else "")
    return found


def _hub_file(repository: str, filename: str) -> Path | None:
    hub = importlib.import_module("huggingface_hub")
    found = hub.try_to_load_from_cache(repository, filename)
    return Path(found) if isinstance(found, str) else None


def _from_hub(hub: Any, repository: str, filename: str) -> None:
    # asked first, since a download repeats its attempts for most of a minute without a network
    importlib.import_module("huggingface_hub").HfApi().model_info(repository, timeout=CONNECT_S)
    hub.load_state_dict_from_hf(repository, filename)


# --- both ---------------------------------------------------------------------------------------


def _text(steps: Mapping[str, Any]) -> str:
    return (
        f"resize {steps['resize']}, {steps['interpolation']}, crop {steps['crop']}, mean "
        f"{steps['mean']}, std {steps['std']}"
    )


def _downloaded(fetch: Callable[[], Any], tag: str, url: str, place: object) -> None:
    """Let a library download a file. Raises LwbenchError with the reason in one line."""
    try:
        fetch()
    except Exception as error:  # of urllib, httpx, the hub: no common type
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
        raise LwbenchError(
            f"{tag} cannot be downloaded from {url}: {reason}\n"
            f"without a network, put the file there before: {place}"
        ) from None


def _verify(path: Path, digest: str) -> None:
    """Raise DamagedError where a file's sha256 does not begin with `digest`."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(digest):
        raise DamagedError(
            f"{path} is not the published file: its sha256 begins with {found[:16]}, not with "
            f"{digest[:16]}\ndelete it, and it is downloaded again"
        )
