"""`lwbench bench`: what is measured, what it shows, and that imported results stay apart."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lwbench.cli import main
from lwbench.commands import _bench_records
from lwbench.commands._bench_case import Case, serve
from lwbench.commands._benching import Measurement, measured
from lwbench.measure.latency import difference, drift, median_interval, relative, spread
from lwbench.report.build import Sources
from lwbench.report.build import write as write_report
from lwbench.runs.directory import Run
from lwbench.runs.latencies import Block, Latency, latencies, read, record_path, write
from lwbench.runs.records import Record

NETWORK = """
from torch import nn

def tiny(num_classes, *, width: int = 8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes),
    )
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder with a small network in a file; the overrides that name it."""
    (tmp_path / "tiny.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return ["model=file", "model.path=tiny.py", "model.function=tiny", "image_size=32"]


class Fake:
    """In place of the processes: every network has a time, blocks vary by a percent."""

    def __init__(self, times, reference=lambda index: 1.0):
        self.times, self.reference, self.calls = times, reference, []

    def __call__(self, cases, seconds, seed, processes, is_quiet):
        self.calls.append([case.name for case in cases])
        generator = np.random.default_rng(seed)
        found = []
        for case in cases:
            values = self.times[case.name] * (1 + 0.01 * generator.standard_normal(24))
            blocks = [
                Block(
                    median_ms=value,
                    calls=9,
                    reference_ms=self.reference(index),
                    process=index % processes,
                )
                for index, value in enumerate(values)
            ]
            found.append(Measurement(case, [0.5], 2**20, list(values), blocks))
        return found


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """`bench` with fake processes; call it with the times and the arguments."""
    monkeypatch.chdir(tmp_path)

    def bench(times, *arguments, reference=lambda index: 1.0):
        pretended = Fake(times, reference)
        monkeypatch.setattr(_bench_records, "measured", pretended)
        counts = {"params": 10**6, "macs": {"plain": 2 * 10**6}}  # counting takes a second
        monkeypatch.setattr(_bench_records, "counts_of", lambda *_, **__: counts)
        assert main(["bench", *arguments]) == 0
        return pretended.calls

    return bench


def rows(capsys):
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


# --- statistics ----------------------------------------------------------------------------------


def processes(generator, shift=0.0):
    """Six blocks of four processes of two cases, which differ by a percent from each other.

    The clock changes all blocks of a round, by much more.
    """
    clock = 0.3 * generator.standard_normal((4, 6))
    one, other = np.exp(0.01 * generator.standard_normal((2, 4, 1)) + clock)
    return one * (1 + shift), other


def compared(cases, alpha=0.01):
    values = relative(cases)
    return difference(*values, spread(values), alpha)


def test_equal_networks_show_no_difference_and_others_do():
    generator = np.random.default_rng(0)
    words = [compared(processes(generator)).word for _ in range(1000)]
    assert 980 <= words.count("no difference shown") <= 998  # 990 are expected
    slower = [compared(processes(generator, 0.1)) for _ in range(100)]
    assert {one.word for one in slower} == {"slower"}
    assert sum(one.low < 0.1 < one.high for one in slower) >= 96
    assert str(slower[0]).startswith("+") and str(slower[0]).endswith("] slower")


def test_an_interval_of_the_median_covers_it():
    generator = np.random.default_rng(0)
    intervals = [median_interval(5 + generator.standard_normal(24), 0.05) for _ in range(60)]
    assert 0.85 <= np.mean([low <= 5 <= high for low, high in intervals]) < 1


def test_a_clock_that_changes_is_seen_in_the_reference_and_one_outlier_is_not():
    assert drift([1.0] * 23 + [3.0]) == 0
    assert drift([1.0] * 18 + [1.2] * 6) == pytest.approx(0.2)


# --- the command ---------------------------------------------------------------------------------


def test_the_same_network_twice_has_two_names_and_shows_no_difference(fake, capsys):
    calls = fake({"mb0": 2.0, "mb0#2": 2.0, "ldc0": 2.4}, "model=mb0,mb0,ldc0", "image_size=32",
                 "format=csv")  # fmt: skip
    assert calls == [["mb0", "mb0#2", "ldc0"]]
    first, second, third = rows(capsys)
    assert [row["name"] for row in (first, second, third)] == ["mb0", "mb0#2", "ldc0"]
    assert (first["answer"], second["answer"]) == ("", "no difference shown")
    assert third["answer"] == "slower" and 0.17 < float(third["difference"]) < 0.23
    assert float(first["low_ms"]) < float(first["p50_ms"]) < float(first["high_ms"])
    assert first["macs"] == "2000000" and first["device"]


def test_cases_with_a_record_are_not_measured_again_unless_forced(fake, capsys):
    times = {"mb0": 2.0, "ldc0": 3.0}
    assert fake(times, "model=mb0", "image_size=32") == [["mb0"]]
    capsys.readouterr()
    assert fake(times, "model=mb0,ldc0", "image_size=32") == [["ldc0"]]
    shown = " ".join(capsys.readouterr().out.split())  # lines break where a terminal ends
    assert "force=true measures" in shown and "slower" not in shown
    assert fake(times, "model=mb0,ldc0", "image_size=32") == []
    assert fake(times, "model=mb0,ldc0", "image_size=32", "force=true") == [["mb0", "ldc0"]]
    assert "slower" in capsys.readouterr().out
    # one process of each says nothing of their spread
    words = ["model=mb0,ldc0", "image_size=32", "force=true", "processes=1"]
    fake(times, *words, "picture=new/latency.svg")
    assert "<svg" in Path("new/latency.svg").read_text()
    assert "slower" not in capsys.readouterr().out
    (record,) = [one for one in latencies(Path("outputs")) if one.name == "mb0"]
    assert record.start.cpu and record.start.command and record.seed == 0 and record.session


def test_a_record_while_the_clock_changed_is_marked(fake, capsys):
    fake({"mb0": 2.0}, "model=mb0", "image_size=32", reference=lambda index: 1 + index / 100)
    out = capsys.readouterr().out
    assert "(drifted)" in out and "varied by more than 5 %" in out


def test_a_damaged_record_is_a_message_and_is_measured_again(fake, capsys):
    fake({"mb0": 2.0}, "model=mb0", "image_size=32")
    (path,) = Path("outputs").rglob("latency.json")
    for content in ("{", "[]", '{"name": "mb0"}', path.read_text().replace("24", "-24")):
        path.write_text(content)
        assert fake({"mb0": 2.0}, "model=mb0", "image_size=32") == [["mb0"]]
        assert "is damaged and left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=mb00"], "no model 'mb00'"),
        (["threads=4096"], "threads"),
        (["seconds=1,2"], "seconds is of the whole command"),
        (["runtime=onnx", "device=cuda"], "runtime=onnx is measured on the CPU"),
        (["run=a", "model=mb0"], "'model' belongs to the run"),
        (["runtime=tflite"], "runtime"),
        (["picture=a.pdf"], "ends in .png or .svg"),
        (["import=missing.json", "model=mb0"], "cannot be combined with import="),
        (["import=missing.json"], "not a readable JSON file"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_measured(arguments, message, tmp_path,
                                                            monkeypatch, capsys):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("latency.json"))


# --- the process of a case -----------------------------------------------------------------------


def answers(case, *requests):
    """What the process of a case answers, in this process."""
    out = io.StringIO()
    lines = [case.line(), *(json.dumps({"seconds": seconds}) for seconds in requests)]
    serve(io.StringIO("\n".join(lines) + "\n"), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_process_of_a_case_answers_with_calls_memory_and_load_time():
    model = {"builder": "mobilenet_ldc"}
    loaded, first, second = answers(Case("mb0", "mb0", model, image_size=32), 0.0, 0.05)
    assert loaded["load_s"] > 0 and loaded["call_ms"] > 0
    assert len(first["calls_ms"]) == 2 and len(second["calls_ms"]) > 2
    assert all(value > 0 for value in second["calls_ms"])
    assert second["peak_bytes"] > 2**27  # with PyTorch


def test_a_network_that_cannot_be_built_is_an_answer():
    (answer,) = answers(Case("mb0", "mb0", {"builder": "mobilenet_ldc"}, weights="missing.pt"))
    assert answer == {"error": "no checkpoint at missing.pt"}


@pytest.mark.slow
def test_every_runtime_is_measured_in_turn(tiny, capsys):
    for name in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(name)
    words = [*tiny, "model.width=8,128", "runtime=eager,compile,onnx,openvino", "seconds=4"]
    assert main(["bench", *words, "batch_size=64", "format=json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 8 and {one["runtime"] for one in found} >= {"compile", "openvino"}
    by_runtime = {one["runtime"]: one for one in found if "128" in one["name"]}
    assert {one["answer"] for one in by_runtime.values()} == {"slower"}
    # a runtime's process has no PyTorch
    assert by_runtime["onnx"]["peak_bytes"] < by_runtime["eager"]["peak_bytes"]
    assert by_runtime["compile"]["load_s"] > by_runtime["eager"]["load_s"]


@pytest.mark.slow
def test_a_network_that_fails_leaves_the_others_and_the_exit_code_says_so(tiny, capsys):
    Path("tiny.py").write_text(NETWORK + "\ndef bad(num_classes):\n    raise OSError('no disk')\n")
    assert main(["bench", *tiny[:2], "model.function=bad,tiny", "image_size=32", "seconds=1"]) == 1
    shown = capsys.readouterr()
    assert "no disk" in shown.err and "1 of 2 cases" in shown.err and "tiny" in shown.out


@pytest.mark.slow
def test_a_process_that_dies_is_named(tiny):
    Path("tiny.py").write_text(
        NETWORK.replace("return nn", "import os; os._exit(3)\n    return nn")
    )
    model = {"builder": "file", "path": str(Path("tiny.py").absolute()), "function": "tiny"}
    assert measured([Case("dies", "file", model)], 1, 0, 2) == [None]


# --- imported results, tables, the report --------------------------------------------------------


def result(**changes):
    one = {"name": "ldc0", "image_size": 32, "num_classes": 10, "p50_ms": 4.0} | changes
    return {key: value for key, value in one.items() if value is not None}


def phone(*results, **changes):
    shared = {"device": "Pixel 8", "runtime": "tflite 2.17", "batch_size": 1,
              "measured": "2026-11-01T12:00:00Z"}  # fmt: skip
    Path("phone.json").write_text(json.dumps({**shared, "results": list(results), **changes}))
    return main(["bench", "import=phone.json"])


def test_imported_results_are_marked_and_kept_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert phone(result(), result(name="mb0", interval_ms=[3.9, 4.2], p95_ms=5.0)) == 0
    assert "4 ms (Pixel 8, tflite 2.17, batch 1, imported)" in capsys.readouterr().out
    found = latencies(Path("outputs"))
    assert {one.imported_from for one in found} == {"phone.json"}
    assert not list(tmp_path.rglob("latency.json"))
    # a file in the place of what was measured here is not taken for it
    path = next(tmp_path.rglob("imported.json"))
    path.rename(path.with_name("latency.json"))
    assert len(latencies(Path("outputs"))) == 1
    assert "is left out: it was imported" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (result(p50_ms=None), "p50_ms is needed and not given"),
        (result(p50_ms=-1), "p50_ms=-1"),
        (result(interval_ms=[1, 2]), "not within interval_ms"),
        (result(p95_ms=1.0), "p95_ms=1.0 is below p50_ms=4.0"),
        (result(latency=4.0), "unknown key 'latency'"),
        (result(session="a"), "session cannot be imported"),
        (result(network="model=ldc00"), "no model 'ldc00'"),
        ("ldc0", "expected a mapping"),
    ],
)
def test_a_wrong_entry_is_named(entry, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert phone(result(), entry) == 2
    error = capsys.readouterr().err
    assert "result 2" in error and message in error
    assert not (tmp_path / "outputs").exists()


TABLE = """
count: {rule: plain, num_classes: 10, image_size: 32}
columns:
  macs: {kind: macs}
  eager: {kind: latency_ms}
  phone: {kind: latency_ms, runtime: tflite 2.17, threads: null, device: Pixel 8}
rows:
  - {label: mb0, run: model=mb0}
  - {label: LDC0, run: model=ldc0}
"""


def test_a_table_has_latencies_with_the_device_in_the_header(fake, tmp_path, capsys):
    fake({"mb0": 2.0, "ldc0": 2.5}, "model=mb0,ldc0", "image_size=32", "num_classes=10")
    fake({"mb0": 1.0}, "model=mb0", "image_size=64", "num_classes=10")  # another cell's
    assert phone(result(network="model=ldc0")) == 0
    (tmp_path / "mine.yaml").write_text(TABLE)
    capsys.readouterr()
    assert main(["table", "table=mine.yaml", "format=markdown"]) == 0
    text = capsys.readouterr().out
    device = next(one.device for one in latencies(Path("outputs")) if not one.is_imported)
    assert f"eager ({device}, eager, batch 1, 1 thread)" in text
    assert "phone (Pixel 8, tflite 2.17, batch 1, imported)" in text
    assert main(["table", "table=mine.yaml", "format=json"]) == 0
    cells = {(c["row"], c["column"]): c for c in json.loads(capsys.readouterr().out)}
    assert cells["LDC0", "phone"]["measured"] == 4.0
    assert cells["mb0", "phone"]["verdict"] == "open"
    assert cells["mb0", "eager"]["measured"] == pytest.approx(2.0, rel=0.02)
    assert cells["mb0", "eager"]["interval_ms"]
    assert cells["mb0", "eager"]["command"].startswith("lwbench bench model=mb0")


def test_the_report_has_latencies_and_accuracy_over_them(tmp_path):
    archive = Path(__file__).parent.parent / "outputs" / "measured" / "cifar10"
    runs = [Record(one, one.read_result(), True) for name in ("mb0", "ldc0")
            for one in map(Run, sorted((archive / name).iterdir()))]  # fmt: skip
    found = []
    for record in (runs[0], runs[-1]):
        name, time = record.result.model, 2.0 if record is runs[0] else 2.6
        one = Latency(name=name, network=record.config.model.spec, num_classes=10, image_size=32,
                      runtime="eager", batch_size=1, threads=1, device="a CPU", p50_ms=time,
                      interval_ms=(time - 0.1, time + 0.1),
                      measured="2026-11-01T12:00:00Z")  # fmt: skip
        found.append(one)
        write(one, record_path(tmp_path, name, [name]))
    assert sorted(one.name for one in latencies(tmp_path)) == ["ldc0", "mb0"]
    elsewhere = found[0].model_copy(update={"device": "Pixel 8", "imported_from": "phone.json"})
    sources = Sources((), {}, {}, runs, latencies=[*found, elsewhere])
    page = write_report(sources, tmp_path / "report", lambda line: None).read_text()
    assert "latency on a CPU" in page and "2.600 [2.500, 2.700]" in page
    assert "latency on Pixel 8, imported" in page
    assert "top-1 accuracy on cifar10 over latency on a CPU" in page
    assert list((tmp_path / "report" / "pictures").glob("*over-latency*.png"))
    assert read(tmp_path / "missing.json") is None


def test_reading_records_loads_no_torch(fake, tmp_path):
    fake({"mb0": 2.0}, "model=mb0", "image_size=32")
    assert phone(result()) == 0
    commands = (["model=mb0", "image_size=32"], ["import=phone.json"], ["--help"])
    code = (
        "import sys; from lwbench.cli import main\n"
        f"code = sum(main(['bench', *words]) for words in {commands})\n"
        "sys.exit(3 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
