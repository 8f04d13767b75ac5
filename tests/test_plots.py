"""Pictures: what they show of the runs, what is left out with a reason, what no name breaks."""

import dataclasses
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from base64 import b64decode

import numpy as np
import pytest
from matplotlib.text import Text

from lwbench.report import maps, plots
from lwbench.report.canvas import COLOURS, DASHES, MARKERS, NoPicture, data_uri, plain, save
from lwbench.report.plots import Cost, Point
from lwbench.runs.records import records

FIGURES = {"epoch": 2, "test_loss": 1.0, "test_top1": 60.0, "test_top5": 90.0, "train_top1": 50.0}
NASTY = [
    "$x_1^{$", r"\frac{$a$}", "<script>&amp;", "a\nb\x00c", "網絡 🦎", "long " * 60, "\udcff",
    "-->", "",
]  # fmt: skip


@pytest.fixture
def finished(tmp_path):
    """Makes finished runs; returns the records of all."""

    def make(model="mb0", identity="abcd1234", seed=0, top1=(40.0, 60.0), **arrays):
        path = tmp_path / "cifar10" / model / f"{identity}-s{seed}"
        path.mkdir(parents=True)
        result = {
            "identity": identity, "model": model, "data": "cifar10", "seed": seed, "epochs": 2,
            "precision": "fp32", "device": "a processor", "params": 10, "seconds": 1.0,
            "images_per_s": 10.0, "final": FIGURES, "best": FIGURES,
        }  # fmt: skip
        (path / "result.json").write_text(json.dumps(result))
        rows = [f"{e + 1},2.0,{v},1.5,{v}\n" for e, v in enumerate(top1)]
        header = "epoch,train_loss,train_top1,test_loss,test_top1\n"
        (path / "metrics.csv").write_text(header + "".join(rows))
        for name, content in arrays.items():
            np.savez_compressed(path / f"{name}.npz", **content)
        return records(tmp_path)

    return make


def matrices(classes):
    draws = np.random.default_rng(0)
    counts = draws.poisson(1, (classes, classes)) + np.diag(draws.poisson(50, classes))
    return {"train": 5 * counts, "test": counts}


def sampling(size=8, stride=2, kernel=3, shift=(0.0, 0.0)):
    out = size // stride
    offset = np.tile(np.array(shift, np.float32)[:, None, None], (2, kernel**2, out, out))
    mask = np.full((2, kernel**2, out, out), 0.5, np.float32)
    images = np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32)
    return {"images": images, "stem.offset": offset, "stem.mask": mask}


def texts(figure):
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


# --- curves -------------------------------------------------------------------------------------


def test_a_curve_is_the_mean_over_seeds_and_its_band_reaches_from_smallest_to_largest(finished):
    finished(seed=0, top1=(40, 60))
    found = finished(seed=1, top1=(50, 64))
    train, test = plots.curves(plots.by_network(found), "top1").axes
    for ax in (train, test):
        assert ax.lines[0].get_xydata().tolist() == [[1, 45], [2, 62]]
        (band,) = ax.collections
        assert band.get_paths()[0].get_extents().extents.tolist() == [1, 40, 2, 64]


def test_runs_of_one_network_in_two_ways_are_two_lines(finished):
    finished()
    found = finished(identity="ffff0000")
    assert list(plots.by_network(found)) == ["mb0 (abcd1234)", "mb0 (ffff0000)"]


def test_runs_of_a_sample_and_of_all_images_share_no_band(finished, tmp_path):
    finished(seed=0)
    found = finished(seed=1)
    for record, digest in zip(found, ("aaaa", "bbbb"), strict=True):
        (record.run.path / "env.json").write_text(json.dumps({"data": {"digest": digest}}))
    networks = plots.by_network(records(tmp_path))
    assert {name: [r.result.seed for r in runs] for name, runs in networks.items()} == {
        "mb0 (aaaa)": [0],
        "mb0 (bbbb)": [1],
    }


def test_an_epoch_without_a_finite_value_is_left_out_of_its_curve(finished):
    found = finished(top1=(40, "nan", "inf", "", 60))
    ax = plots.curves(plots.by_network(found), "top1").axes[0]
    assert ax.lines[0].get_xydata().tolist() == [[1, 40], [5, 60]]


def test_a_network_without_metrics_is_left_out_with_a_warning(finished, caplog):
    finished("a", identity="aaaa0000")
    finished("b", identity="bbbb0000", top1=())
    found = finished("c", identity="cccc0000")
    (found[2].run.path / "metrics.csv").write_bytes(b"epoch,\xff\x00\n1,2\n")
    ax = plots.curves(plots.by_network(found), "loss").axes[0]
    assert [line.get_label() for line in ax.lines] == ["a (n = 1)"]
    assert "b has no loss" in caplog.text and "c has no loss" in caplog.text


def test_runs_without_metrics_give_no_curves_but_a_reason(finished):
    found = finished(top1=())
    with pytest.raises(NoPicture, match=r"metrics\.csv"):
        plots.curves(plots.by_network(found), "loss")
    with pytest.raises(NoPicture):
        plots.curves({}, "loss")


def test_two_networks_share_neither_colour_nor_dashes_nor_markers(finished):
    for model in ("a", "b", "c", "d"):
        found = finished(model, identity=f"{model}0000000")
    lines = plots.curves(plots.by_network(found), "loss").axes[1].lines
    for of in ("get_color", "get_linestyle", "get_marker"):
        assert len({getattr(line, of)() for line in lines}) == 4


def test_colour_dashes_and_marker_together_tell_many_networks_apart():
    looks = {(COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
             for i in range(60)}  # fmt: skip
    assert len(looks) == 60


# --- costs, accuracy over costs -----------------------------------------------------------------


def test_bars_are_as_long_as_the_counts_and_say_how_macs_were_counted():
    figure = plots.costs({"a": Cost(2.5e6, 54e6), "b": Cost(1e6, 60e6)}, "thop2020, 224 px")
    widths = [[bar.get_width() for bar in ax.patches] for ax in figure.axes]
    assert widths == [[2.5e6, 1e6], [54e6, 60e6]]
    assert "MACs (thop2020, 224 px)" in texts(figure) and "2.50 M" in texts(figure)


def test_the_pareto_front_has_what_nothing_cheaper_equals():
    points = [(3, 70), (1, 50), (2, 60), (2, 65), (4, 65), (5, 70), (6, 71)]
    assert plots.pareto(points) == [(1, 50), (2, 65), (3, 70), (6, 71)]
    assert plots.pareto([]) == []


def test_published_points_are_hollow_and_measured_ones_filled_with_their_deviation():
    figure = plots.accuracy_over_macs(
        [Point("A", 5e6, (90.0,))], [Point("A", 5e6, (88.0, 90.0))], accuracy="top-1", counted="x"
    )
    hollow, filled = (bars.lines[0] for bars in figure.axes[0].containers)
    assert hollow.get_markerfacecolor() == "white" != filled.get_markerfacecolor()
    assert hollow.get_color() == filled.get_color() and hollow.get_marker() == filled.get_marker()
    (segment,) = figure.axes[0].containers[1].lines[2][0].get_segments()
    assert segment[:, 1] == pytest.approx([89 - 2**0.5, 89 + 2**0.5])


def test_labels_of_points_close_together_do_not_overlap():
    points = [Point(f"network {i}", 5e6 + 1e4 * i, (90.0 + 0.02 * i,)) for i in range(6)]
    points.append(Point("far", 6e6, (80.0,)))
    figure = plots.accuracy_over_macs(points, [], accuracy="top-1", counted="x")
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(note) for note in figure.axes[0].texts]
    assert len(boxes) == 7
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_without_points_there_is_a_reason_and_no_picture():
    with pytest.raises(NoPicture):
        plots.accuracy_over_macs([], [], accuracy="top-1", counted="x")
    with pytest.raises(NoPicture):
        plots.costs({}, "x")


# --- confusion ----------------------------------------------------------------------------------


def test_ten_classes_have_their_share_of_the_true_class_in_each_cell(finished):
    counts = {"train": np.diag([4, 4]), "test": np.array([[3, 1], [0, 2]])}
    (record,) = finished(confusion=counts)
    figure = maps.confusion(record, ["cat", "dog"])
    test = figure.axes[1]
    assert [text.get_text() for text in test.texts] == ["75", "25", "100"]
    assert test.images[0].get_array().tolist() == [[75, 25], [0, 100]]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["cat", "dog"]


def test_a_sample_of_training_images_says_so_and_none_is_no_matrix(finished):
    (record,) = finished(confusion={"train": np.diag([1, 1]), "test": np.diag([1, 2])})
    (record.run.path / "env.json").write_text('{"data": {"train_size": 90}}')

    def titles(evaluated):
        result = record.result.model_copy(update={"train_evaluated": evaluated})
        figure = maps.confusion(dataclasses.replace(record, result=result))
        return [title for ax in figure.axes if (title := ax.get_title())]

    assert titles(2) == ["train (2 images, a sample of 90)", "test (3 images)"]
    assert titles(90) == titles(None) == ["train (2 images)", "test (3 images)"]
    assert titles(0) == ["test (3 images)"]


def test_a_hundred_classes_have_few_ticks_and_no_numbers(finished):
    (record,) = finished(confusion=matrices(100))
    ax = maps.confusion(record).axes[0]
    assert not ax.texts and len(ax.get_xticks()) == 20
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["0", "5"]


@pytest.mark.parametrize(
    "names, shown",
    [(["cat", "dog"], ["cat", "dog"]), (["cat"], ["0", "1"]), ("cat", ["0", "1"])],
)
def test_names_that_the_run_recorded_stand_at_the_ticks_where_they_are_as_many(
    finished, names, shown
):
    (record,) = finished(confusion=matrices(2) | {"class_names": np.array(names)})
    ticks = maps.confusion(record).axes[0].get_xticklabels()
    assert [label.get_text() for label in ticks] == shown


def test_a_class_without_images_has_no_shares(finished):
    (record,) = finished(confusion={"train": np.diag([1, 0]), "test": np.diag([1, 0])})
    shares = maps.confusion(record).axes[0].images[0].get_array()
    assert np.ma.getmaskarray(shares)[1].all() or np.isnan(shares[1]).all()


@pytest.mark.parametrize(
    "arrays",
    [
        {"train": np.eye(2)},
        {"train": np.eye(2), "test": np.ones((2, 3))},
        {"train": np.eye(2), "test": np.array([["a", "b"], ["c", "d"]])},
        {"train": np.eye(2), "test": np.array([[{}, 1], [2, 3]], object)},
        {"train": np.eye(2), "test": np.full((2, 2), np.nan)},
        {"train": np.eye(2), "test": np.ones((0, 0))},
        {"train": np.eye(3), "test": np.eye(2)},
        {"train": np.eye(2), "test": -np.eye(2)},
    ],
)
def test_a_confusion_that_is_none_gives_a_reason_and_no_picture(finished, arrays):
    (record,) = finished(confusion=arrays)
    with pytest.raises(NoPicture, match=r"confusion\.npz is damaged"):
        maps.confusion(record)


def test_files_missing_cut_short_or_overwritten_give_a_reason_and_no_picture(finished):
    (record,) = finished(confusion=matrices(10))
    path = record.run.path / "confusion.npz"
    content = path.read_bytes()
    for damaged in (b"", b"text", content[:-30], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(NoPicture, match="damaged"):
            maps.confusion(record)
    path.unlink()
    with pytest.raises(NoPicture, match="missing"):
        maps.confusion(record)


def test_any_changed_byte_is_either_noticed_or_harmless(finished):
    (record,) = finished(confusion=matrices(3), offsets=sampling())
    draws = np.random.default_rng(0)
    for name in ("confusion", "offsets"):
        path = record.run.path / f"{name}.npz"
        content, original = path.read_bytes(), maps._arrays(path)
        noticed = 0
        for place in draws.integers(len(content), size=60):
            flipped = content[place] ^ 0x55
            path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
            try:
                found = maps._arrays(path)
            except NoPicture:
                noticed += 1
                continue
            assert list(found) == list(original)
            assert all(np.array_equal(found[key], original[key]) for key in original)
        assert noticed > 30  # most bytes are data, under a checksum


# --- offsets ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel, stride, padding", [(3, 1, 1), (3, 2, 1), (7, 2, 0), (5, 1, 2)])
def test_regular_positions_follow_from_the_sizes(kernel, stride, padding):
    size = 32
    out = (size + 2 * padding - kernel) // stride + 1
    regular, moved = maps._positions(size, np.full((kernel**2, 2, out, out), 0.25))
    assert regular[0, :, 0, 0].tolist() == [-padding, -padding]
    assert regular[1, :, 2, 3].tolist() == [2 * stride - padding, 3 * stride - padding + 1]
    assert (moved - regular == 0.25).all()


def test_an_arrow_leads_down_by_dy_and_right_by_dx(finished):
    (record,) = finished(offsets=sampling(shift=(1.0, 2.0)))
    ax = maps.offsets(record, images=1).axes[0]
    assert len(ax.lines) == 4
    for line in ax.lines:
        x, y = (values.reshape(9, 3) for values in line.get_data())
        assert (x[:, 1] - x[:, 0] == 2).all() and (y[:, 1] - y[:, 0] == 1).all()


def test_a_network_without_offsets_gives_a_reason_and_no_picture(finished):
    (record,) = finished()
    with pytest.raises(NoPicture, match=r"offsets\.npz is missing"):
        maps.offsets(record)


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((2, 3))},
        {"images": np.zeros((2, 1, 8, 8))},
        {"images": np.full((2, 3, 8, 8), np.nan)},
        {"stem.mask": np.zeros(3)},
        {"stem.mask": np.full((2, 9, 4, 4), "x")},
        {"stem.offset": np.zeros((2, 18, 4, 5))},
        {"stem.offset": np.zeros((2, 18, 4, 5)), "stem.mask": np.zeros((2, 9, 4, 5))},
        {"stem.offset": np.zeros((2, 16, 4, 4)), "stem.mask": np.zeros((2, 8, 4, 4))},
        {"stem.offset": np.full((2, 18, 4, 4), np.inf)},
    ],
)
def test_offsets_that_are_none_give_a_reason_and_no_picture(finished, change):
    (record,) = finished(offsets=sampling() | change)
    with pytest.raises(NoPicture, match=r"offsets\.npz is damaged"):
        maps.offsets(record)


# --- how they are written -----------------------------------------------------------------------


def nasty_curves(record):
    return plots.curves({name: [record] for name in NASTY}, "loss")


def nasty_costs(record):
    return plots.costs({name: Cost(1e6, 2e6) for name in NASTY}, NASTY[0])


def nasty_points(record):
    points = [Point(name, 5e6 + 1e6 * i, (90.0, 91.0)) for i, name in enumerate(NASTY)]
    return plots.accuracy_over_macs(points, points, accuracy=NASTY[1], counted=NASTY[2])


def nasty_classes(record):
    return maps.confusion(record, NASTY)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("draw", [nasty_curves, nasty_costs, nasty_points, nasty_classes])
def test_no_name_breaks_a_picture_or_out_of_it(finished, draw):
    (record,) = finished(confusion=matrices(len(NASTY)))
    svg = b64decode(data_uri(draw(record)).removeprefix("data:image/svg+xml;base64,"))
    tags = {element.tag for element in ElementTree.fromstring(svg).iter()}
    assert tags and not any("script" in str(tag) for tag in tags)


@pytest.mark.filterwarnings("error")
def test_a_model_of_any_name_has_its_maps(finished):
    (record,) = finished("$a_{$<b>--", confusion=matrices(3), offsets=sampling())
    for figure in (maps.confusion(record), maps.offsets(record)):
        assert any("$a_{$<b>--" in text for text in texts(figure))
        ElementTree.fromstring(b64decode(data_uri(figure).partition(",")[2]))


def test_a_name_is_drawn_as_it_is_written():
    figure = plots.costs({"a_1$b$": Cost(1e6, 2e6)}, "x")
    (label,) = figure.axes[0].get_yticklabels()
    assert label.get_text() == "a_1$b$" and not label.get_parse_math()


def test_a_long_text_keeps_both_ends():
    assert plain("abc") == "abc"
    assert plain("a" * 30 + "b" * 30, 21) == "a" * 10 + "…" + "b" * 10


def test_the_same_picture_is_the_same_file_as_png_and_as_svg(finished, tmp_path):
    (record,) = finished(confusion=matrices(3))
    one, two = (save(maps.confusion(record), tmp_path / "new" / n) for n in ("v1.0", "v1.1"))
    assert [path.name for path in one] == ["v1.0.png", "v1.0.svg"]
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert b"<dc:date>" not in one[1].read_bytes()


def test_commands_that_draw_nothing_do_not_load_matplotlib(tmp_path):
    code = (
        "import sys; from lwbench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('matplotlib' in sys.modules)"
    )
    empty = ["report", f"out={tmp_path}", f"out_dir={tmp_path}/report"]
    for verb in (["--help"], ["list"], ["table", "table=ldc/4", "rows=LDC3"], empty):
        done = subprocess.run([sys.executable, "-c", code, *verb], capture_output=True, text=True)
        assert done.stdout.splitlines()[-1] == "False", done.stdout + done.stderr


def test_a_picture_is_drawn_once_for_each_format(finished, tmp_path, monkeypatch):
    (record,) = finished(confusion=matrices(3))
    figure = maps.confusion(record)
    drawn = []
    draw = figure.draw
    monkeypatch.setattr(figure, "draw", lambda to: drawn.append(type(to).__name__) or draw(to))
    source = data_uri(figure)
    _, svg = save(figure, tmp_path / "picture")
    assert drawn == ["MixedModeRenderer", "RendererAgg"]
    assert svg.read_bytes() == b64decode(source.partition(",")[2])
