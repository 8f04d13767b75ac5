"""The YAML templates of docs/scale.md hold fields that Kubernetes and SkyPilot document.

The schemas are of the fields that the templates use, and refuse every other one. They are by the
API reference of Kubernetes (batch/v1 Job) and by SkyPilot's pages "SkyPilot YAML" and "Volumes".
"""

import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from lwbench.cli import main

PAGE = (Path(__file__).parent.parent / "docs" / "scale.md").read_text(encoding="utf-8")
KUBERNETES, SKYPILOT = (yaml.safe_load(t) for t in re.findall(r"```yaml\n(.*?)```", PAGE, re.S))

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|[KMGT]i?)?$")]
Folder = Annotated[str, Field(pattern=r"^/[^:]+$")]


class Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Metadata(Fields):
    name: Name
    labels: dict[str, Annotated[str, Field(pattern=r"^[\w.-]{0,63}$")]] = {}


class Resources(Fields):
    requests: dict[Literal["cpu", "memory"], Quantity]
    limits: dict[Literal["nvidia.com/gpu"], PositiveInt]


class Mount(Fields):
    name: Name
    mountPath: Folder


class Container(Fields):
    name: Name
    image: str
    workingDir: Folder
    command: list[str]
    resources: Resources
    volumeMounts: list[Mount]


class Claim(Fields):
    claimName: Name


class Volume(Fields):
    name: Name
    persistentVolumeClaim: Claim


class Pod(Fields):
    restartPolicy: Literal["Never", "OnFailure"]
    terminationGracePeriodSeconds: PositiveInt
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume]


class Template(Fields):
    spec: Pod


class JobSpec(Fields):
    suspend: bool
    completionMode: Literal["Indexed", "NonIndexed"]
    completions: PositiveInt
    parallelism: PositiveInt
    backoffLimitPerIndex: PositiveInt
    template: Template


class Job(Fields):
    apiVersion: Literal["batch/v1"]
    kind: Literal["Job"]
    metadata: Metadata
    spec: JobSpec


class SkyResources(Fields):
    infra: Annotated[str, Field(pattern=r"^(k8s(/[\w.-]+)?|(aws|gcp|azure)(/[\w*-]+){0,2})$")]
    accelerators: Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*(:\d+)?$")]


class SkyTask(Fields):
    name: Name
    num_nodes: PositiveInt
    resources: SkyResources
    volumes: dict[Folder, Name]
    setup: str
    run: str


def test_the_template_of_kubernetes_holds_fields_of_a_job():
    job = Job.model_validate(KUBERNETES).spec
    pod = job.template.spec
    # what the API reference asks of a limit per index
    assert (job.completionMode, pod.restartPolicy) == ("Indexed", "Never")
    (container,) = pod.containers
    assert {mount.name for mount in container.volumeMounts} == {one.name for one in pod.volumes}
    assert container.workingDir in {mount.mountPath for mount in container.volumeMounts}


def test_the_template_of_skypilot_holds_fields_of_a_task():
    task = SkyTask.model_validate(SKYPILOT)
    (folder,) = task.volumes
    assert task.run.splitlines()[0] == f"cd {folder}"


@pytest.mark.parametrize("form", [KUBERNETES, SKYPILOT], ids=["Kubernetes", "SkyPilot"])
def test_a_misspelt_field_is_found(form):
    schema = Job if "kind" in form else SkyTask
    key = list(form)[-1]
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        schema.model_validate({**form, f"{key}s": form[key]})


@pytest.mark.parametrize(
    "words",
    [KUBERNETES["spec"]["template"]["spec"]["containers"][0]["command"],
     SKYPILOT["run"].splitlines()[-1].split()],
    ids=["Kubernetes", "SkyPilot"],
)  # fmt: skip
def test_the_command_of_a_template_is_one_of_lwbench(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.txt").write_text("lwbench train no_such_key=1\n")
    assert words[:2] == ["lwbench", "worker"] and main(words[1:]) == 2
    assert "no_such_key" in capsys.readouterr().err
