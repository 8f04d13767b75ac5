"""Launchers and workers: study files, SLURM's job arrays with stand-ins for its commands."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import Future

import pytest

from lwbench import config
from lwbench.cli import main
from lwbench.commands._launching import divided, maker, planned_runs
from lwbench.errors import LwbenchError, UsageError
from lwbench.runs.directory import Run
from lwbench.sweeps import ray_tasks, slurm, slurm_jobs, study_file
from lwbench.sweeps.launchers import LOCAL

BASH = shutil.which("bash")
TINY = ("model=mb0", "epochs=1", "batch_size=512")
FIGURES = {"epoch": 1, "test_loss": 1.0, "test_top1": 50.0, "test_top5": 90.0, "train_top1": 50.0}
RESULT = {
    "model": "mb0", "data": "digits", "seed": 0, "epochs": 1, "precision": "fp32", "device": "cpu",
    "params": 1, "seconds": 1.0, "images_per_s": 1.0, "identity": "x",
    "final": FIGURES, "best": FIGURES,
}  # fmt: skip


def keys(*arguments):
    return divided(["launcher=slurm", *arguments])[0]


def jobs(count=3):
    return planned_runs([(*TINY, f"seed={seed}") for seed in range(count)])


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Stand-ins for SLURM's commands; `queue` is what squeue prints."""
    for name, script in {
        "sbatch": 'echo "$@" >> calls; echo $((100 + $(wc -l < calls)))',
        "squeue": "cat queue",
        "scontrol": 'echo "MaxArraySize            = 2"',
    }.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "queue").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# the group


def test_the_launcher_is_no_part_of_a_run():
    launcher, rest = divided(["model=mb0", "launcher=slurm", "launcher.time=2-00", "seed=0,1"])
    assert rest == ["model=mb0", "seed=0,1"] and launcher.time == "2-00"
    assert divided(["model=mb0"]) == (LOCAL, ["model=mb0"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["launcher=pbs"], "no launcher 'pbs'"),
        (["launcher=slurm", "launcher.cpu=1"], "nearest: launcher.cpus"),
        (["launcher=slurm", "launcher.time=long"], "a time as sbatch takes it"),
        (["launcher=slurm", "launcher.cpus=0"], "launcher.cpus=0"),
        (["launcher=slurm", "launcher.partition='a b'"], "the name of a partition"),
        (["launcher=slurm", "launcher.extra=['--a=b\nrm']"], "options of sbatch"),
        (["launcher.cpus=2"], "no key of launcher=local"),
    ],
)
def test_a_wrong_launcher_is_explained(arguments, said):
    with pytest.raises(UsageError, match=said):
        divided(arguments)


def test_a_launcher_has_no_effect_on_a_single_run(capsys):
    assert main(["train", "launcher=slurm"]) == 2
    assert "-m makes a sweep" in capsys.readouterr().err


def test_seeds_and_folders_are_composed_once_and_named_as_before(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def composed(verb, overrides):
        calls.append(overrides)
        return compose(verb, overrides)

    compose = config.composed_values
    monkeypatch.setattr(config, "composed_values", composed)
    found = planned_runs([(*TINY, f"seed={n}", f"out=o{n}") for n in range(3)])
    assert [(job.config.seed, job.config.out) for job in found] == [(0, "o0"), (1, "o1"), (2, "o2")]
    assert calls == [TINY]
    whole = config.train_config([*TINY, "seed=2", "out=o2"])
    assert found[2].config.values == whole.values
    assert {job.config.identity for job in found} == {whole.identity}
    with pytest.raises(UsageError, match="seed"):
        planned_runs([(*TINY, "seed=-1")])


def test_runs_share_each_gpu_as_configured(monkeypatch):
    seen = []
    monkeypatch.setattr("lwbench.sweeps.local.gpus", lambda: ["0", "1"])
    monkeypatch.setattr("lwbench.sweeps.local.run_all", lambda jobs, at_once: seen.append(at_once))
    maker(divided(["launcher=local", "launcher.per_device=4"])[0], 1)([])
    maker(LOCAL, 3)([])
    assert seen == [8, 3]


# SLURM


def test_a_dry_run_needs_no_slurm_and_prints_what_a_person_submits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    chosen = ("launcher.dry_run=true", "launcher.gpus=1", "launcher.extra=['--account=x']")
    assert main(["train", "-m", *TINY, "seed=0,1,2", "launcher=slurm", *chosen]) == 0
    text = capsys.readouterr().out
    for line in (
        "--signal=USR1@300",
        "--gres=gpu:1",
        "--account=x",
        "--requeue",
        "--time=04:00:00",
    ):
        assert f"#SBATCH {line}\n" in text
    (study,) = tmp_path.glob("outputs/.slurm/*/runs.txt")
    assert f"sbatch --parsable --array=0-2 --output={study.parent}/%A_%a.log" in text
    assert study_file.commands(study)[1] == (*TINY, "seed=1")
    assert subprocess.run([BASH, "-n", study.with_name("job.sh")]).returncode == 0
    with pytest.raises(LwbenchError, match="dry_run=true prints the script"):
        slurm.run_all(jobs(), keys())


@pytest.mark.parametrize(
    ("runs", "per_job", "found"),
    [(5, 1, [(1, 2), (3, 2), (5, 1)]), (5, 2, [(1, 2), (5, 1)]), (2, 4, [(1, 1)])],
)
def test_arrays_are_divided_by_the_clusters_limit(runs, per_job, found):
    assert slurm.arrays(runs, keys(f"launcher.runs_per_job={per_job}"), largest=2) == found


def test_what_is_queued_or_finished_is_not_submitted_again(cluster, capsys):
    chosen = keys("launcher.wait=false")
    slurm.run_all(jobs(), chosen)
    calls = (cluster / "calls").read_text().splitlines()
    assert ["--array=0-1" in calls[0], "--array=0-0" in calls[1]] == [True, True]
    assert [call.split()[-1] for call in calls] == ["1", "3"]
    (cluster / "queue").write_text(
        "101_0 PartitionTimeLimit\n102_0 None\n"
    )  # the second run's task has ended
    (log,) = cluster.glob("outputs/.slurm/*/job-101.json")
    (log.parent / "101_1.log").write_text("lwbench: a broken network\nsrun: error: exit code 1\n")
    states = slurm_jobs.states(jobs(), cluster / "outputs" / ".slurm")
    assert [one.state for one in states.values()] == ["queued", "failed", "queued"]
    capsys.readouterr()
    slurm.run_all(jobs(), chosen)
    said = capsys.readouterr().out
    assert (
        "3 runs: 2 queued, 1 failed; SLURM: PartitionTimeLimit" in said
        and "seed=1: a broken network" in said
    )
    assert len((cluster / "calls").read_text().splitlines()) == 3
    run = jobs()[0].run
    with run.locked():
        states = slurm_jobs.states(jobs(), cluster / "outputs" / ".slurm")
        assert states[run.path].state == "running"
        run.write_result(RESULT)
    states = slurm_jobs.states(jobs(), cluster / "outputs" / ".slurm")
    assert states[run.path].state == "finished"


def batch(cluster, code, **variables):
    """The exit code of the batch script whose step ends with `code`, and the commands it ran."""
    for name, ending in (("srun", code), ("scontrol", 0)):
        path = cluster / "bin" / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> ran\nexit {ending}\n')
        path.chmod(0o755)
    chosen = keys("launcher.runs_per_job=2", "launcher.per_device=2", "launcher.cpus=4")
    (cluster / "job.sh").write_text(slurm.script(chosen, cluster / "runs.txt"))
    given = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", **variables}
    done = subprocess.run(["bash", "job.sh", "11"], env={**os.environ, **given}, cwd=cluster)
    return done.returncode, (cluster / "ran").read_text().splitlines()


def test_the_script_makes_its_lines_and_requeues_after_75_within_a_bound(cluster):
    code, (first, then) = batch(cluster, 75)
    assert code == 75 and then == "scontrol requeue 7"
    assert first.endswith(f"study={cluster}/runs.txt lines=17-18 jobs=2")
    (cluster / "ran").unlink()
    assert len(batch(cluster, 75, SLURM_RESTART_COUNT="50")[1]) == 1
    (cluster / "ran").unlink()
    assert batch(cluster, 1)[0] == 1


# Ray


def test_what_became_of_rays_tasks_is_said_as_they_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made, lost, failed, silent = jobs(4)
    made.run.path.mkdir(parents=True)
    made.run.write_result(RESULT)
    tasks = {Future(): job for job in (made, lost, failed, silent)}
    for task, end in zip(
        tasks, (None, OSError("a node died\nand more"), "no data", ""), strict=True
    ):
        task.set_exception(end) if isinstance(end, OSError) else task.set_result(end)
    failures = ray_tasks._watched(tasks)
    assert {failure.job: failure.reason for failure in failures} == {
        lost: "a node died", failed: "no data", silent: "ended without a result",
    }  # fmt: skip
    said = capsys.readouterr().out
    assert f"finished: {made.command}" in said and "[4/4]" in said


def test_a_dump_of_rays_is_one_line(caplog):
    caplog.set_level("WARNING", "lwbench")
    ray_tasks._shortened({"lines": ["Raylet is terminated. " * 20 + "\n[state-dump]\n"]})
    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith("Ray: Raylet is terminated.") and len(said) < 170
    assert "dump" not in said


# workers


@pytest.mark.parametrize(
    "line",
    ["rm -rf /", "lwbench train; rm x", "lwbench reproduce", "lwbench train 'x", "$(x)", "python"],
)
def test_a_study_holds_training_commands_only(tmp_path, line, capsys):
    (tmp_path / "study").write_text(f"# plan\n{line}\n")
    assert main(["worker", f"study={tmp_path / 'study'}"]) == 2
    assert capsys.readouterr().err.startswith("lwbench: ")


def test_a_study_line_cannot_hold_a_flag(tmp_path, capsys):
    (tmp_path / "study").write_text("lwbench train -m seed=0,1\n")
    assert main(["worker", f"study={tmp_path / 'study'}"]) == 2
    assert "a line is one run" in capsys.readouterr().err


@pytest.mark.slow
def test_two_workers_share_a_study_and_make_every_run_once(tmp_path):
    (tmp_path / "study.txt").write_text(study_file.written(jobs(3)))
    command = [sys.executable, "-m", "lwbench", "worker", "study=study.txt"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(200) for process in both] == [0, 0]
    runs = [Run(path.parent) for path in tmp_path.glob("outputs/digits/mb0/*/result.json")]
    assert len(runs) == 3
    assert all(sum(s.has_trained for s in run.environment().starts) == 1 for run in runs)


def test_one_line_becomes_the_training_itself(tmp_path, monkeypatch):
    def become(program, words, environment):
        raise SystemExit(" ".join(words[1:]))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.execve", become)
    (tmp_path / "study.txt").write_text("# a comment\n" + study_file.written(jobs(2)))
    with pytest.raises(SystemExit, match=f"-m lwbench train {' '.join(TINY)} seed=1$"):
        main(["worker", "study=study.txt", "lines=2"])
    assert main(["worker", "study=study.txt", "lines=3"]) == 2
