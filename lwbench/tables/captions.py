"""Captions: how a table's numbers were counted and measured, and what its words mean."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress

from ..errors import UsageError, plural
from ..runs.images import unlike_published
from ..runs.latencies import DRIFT_LIMIT, Latency
from ..runs.provenance import revision_text
from ..runs.records import Record, devices, revisions
from .cells import BESIDE, VERDICTS, WORDS, Cell, FilledTable
from .claims import planner
from .recipe import ours
from .statistics import ALPHA
from .table import ACCURACY

FLATTERS = "best epoch, chosen on the test images, which flatters"
DOCUMENTS = {
    "unstated": "The document does not say whether accuracies are of the best or the last epoch.",
    "final": "The document's accuracies are of the last epoch.",
    "best": f"The document's accuracies are of the {FLATTERS}.",
}
TESTS = {
    "paired": "paired t-test over the shared seeds",
    "welch": "Welch's t-test",
    "sequential": "sequential test of a study that was grown seed by seed (always-valid p)",
    "permutation": "exact permutation test where values have no spread",
}
# whose versions are stated beside latencies
RUNTIMES = ("lwbench", "torch", "onnxruntime", "openvino")
MOST_SEEDS = 10  # that a caption lists


def source(filled: FilledTable) -> str:
    """The table's source, and the overrides of a reduced study."""
    overrides = next((cell.overrides for cell in filled.cells if cell.overrides), ())
    study = f"; a reduced study: {' '.join(overrides)}" if overrides else ""
    return f"{filled.table.source}{study}"


def legend(words: Iterable[str], signs: bool = False) -> list[str]:
    """The meaning of each verdict and origin that occurs.

    `signs`: with the signs that stand for them, and for the outcomes of comparisons.
    """
    known = WORDS if signs else VERDICTS | BESIDE
    found = [(word, known[word]) for word in words if word in known]
    return [f"{shown.sign} " * signs + f"{word}: {shown.meaning}" for word, shown in found]


def remarks(filled: FilledTable) -> list[str]:
    """The caption's sentences: how it was counted, measured and compared; notes."""
    table, cells = filled
    lines = []
    if any(cell.rule for cell in cells):
        lines.append(_counting(cells))
    if any(cell.kind in ACCURACY and cell.published for cell in cells):
        lines.append(DOCUMENTS[table.select])
    lines += _origins(cells)
    if runs := list({record.run.path: record for c in cells for record in c.runs}.values()):
        lines += [*_measuring(cells, runs), *_comparing(cells, table.baseline)]
        lines += [*planner.remarks(filled), *_recipe(cells), _provenance(runs)]
    lines += of_latencies([cell.latency for cell in cells if cell.latency])
    lines += [f"{c.row}, {c.column}: {one.text(c.kind)}." for c in cells for one in c.evaluated]
    lines += table.notes
    return lines + [f"{cell.row}, {cell.column}: {cell.note}." for cell in cells if cell.note]


def of_latencies(found: Sequence[Latency]) -> list[str]:
    """What the figures are, and which machines and versions they belong to."""
    lines = []
    levels = dict.fromkeys(f"{100 * (1 - one.alpha):g} %" for one in found if one.alpha)
    if levels:
        lines.append(
            f"Intervals of the median are at {', '.join(levels)}, by resampling blocks of calls. "
            "Memory is the peak of the case's process, libraries included."
        )
    if any(one.has_drifted for one in found):
        limit = f"{100 * DRIFT_LIMIT:g} %"
        lines.append(
            f"drifted: a fixed computation between the blocks varied by more than {limit}, so the "
            "clock changed or other processes ran; measure again with force=true."
        )
    lines += dict.fromkeys(_machine(one) for one in found)
    return lines


def _machine(one: Latency) -> str:
    if one.is_imported:
        return f"Imported from {one.imported_from}, not measured here: {one.device}."
    start = one.start
    versions = [f"{name} {start.versions[name]}" for name in RUNTIMES if start.versions.get(name)]
    cores = f"{start.cores} cores" if start.cores else ""
    words = [cores, f"governor {one.governor or 'unknown'}", start.system, *versions]
    revision = f"revision {revision_text(start) or 'unknown'}"
    return f"Measured on {one.device}: {', '.join(filter(None, [*words, revision]))}."


def _counting(cells: Sequence[Cell]) -> str:
    """The usual way of counting, and for which rows or cells another one holds."""
    ways = {
        (cell.row, cell.column): (
            str(cell.rule), f"{cell.request.num_classes} classes", f"{cell.request.image_size} px"
        )
        for cell in cells
        if cell.request is not None
    }  # fmt: skip
    ((usual, _),) = Counter(ways.values()).most_common(1)
    others: dict[str, dict[str, None]] = {}
    for (row, column), way in ways.items():
        if way != usual:
            is_whole_row = all(w == way for (label, _), w in ways.items() if label == row)
            differing = [part for part, same in zip(way, usual, strict=True) if part != same]
            name = row if is_whole_row else f"{row} {column}"
            others.setdefault(", ".join(differing), {})[name] = None
    exceptions = [f"{way} for {', '.join(where)}" for way, where in others.items()]
    return f"Counted under rule {'; '.join([', '.join(usual), *exceptions])}."


def _origins(cells: Sequence[Cell]) -> list[str]:
    """Where quoted numbers come from, and why one differs from its origin."""
    quoted: dict[str, dict[str, list[str]]] = {}
    reasons: dict[str, None] = {}
    for cell in cells:
        if (origin := cell.origin) is None:
            continue
        if origin.kind == "quoted":
            quoted.setdefault(origin.citation, {}).setdefault(cell.row, []).append(cell.column)
        how = f"{origin.value} there" if origin.agrees != "same" else ""
        if text := ": ".join(filter(None, [how, origin.note])):
            reasons[f"{cell.row}, {cell.column}: {text}."] = None
    lines = []
    for citation, rows in quoted.items():
        places = (f"{row} {', '.join(columns)}" for row, columns in rows.items())
        lines.append(f"Quoted from {citation}: {'; '.join(places)}.")
    return [*lines, *reasons]


def _measuring(cells: Sequence[Cell], runs: Sequence[Record]) -> list[str]:
    epoch = FLATTERS if any(cell.select == "best" for cell in cells) else "last epoch"
    seeds = sorted({record.result.seed for record in runs})
    listed = ", ".join(map(str, seeds[:MOST_SEEDS]))
    more = f" and {len(seeds) - MOST_SEEDS} more" if len(seeds) > MOST_SEEDS else ""
    lines = [
        f"Measured accuracies are of the {epoch}: mean ± standard deviation over seeds "
        f"{listed}{more} (number of runs)."
    ]
    tested = [c for c in cells if c.sample and c.verdict in ("reproduced", "differs")]
    wide = [c for c in tested if c.sample and 2 * (c.sample.prediction or 0.0) > 1.0]
    if wide:
        names = ", ".join(f"{cell.row} {cell.column}" for cell in wide)
        where = names if len(wide) <= 3 else f"{len(wide)} cells"
        lines.append(f"{where}: an interval wider than one point shows little.")
    if averaged := sum(run.result.raw is not None for run in runs):
        which = "All" if averaged == len(runs) else f"{averaged} of {len(runs)}"
        lines.append(
            f"{which} runs are measured with the moving average of their weights (ema), not with "
            "the weights of the last step."
        )
    searched = Counter(cell.search.text for cell in cells if cell.search)
    lines += [
        f"Trials of a search, which chose {text}: {plural(count, 'cell')}. Accuracies to report "
        "are those of new runs with the chosen values and all training images."
        for text, count in searched.items()
    ]
    others = {(r.result.data, unlike_published(r.data, r.result.data)): None for r in runs}
    return lines + [f"Not {data} as published: {how}." for data, how in others if how]


def _comparing(cells: Sequence[Cell], baseline: str) -> list[str]:
    lines = []
    if compared := [cell.comparison for cell in cells if cell.comparison]:
        used = "; ".join(TESTS[test] for test in TESTS if any(c.test == test for c in compared))
        tested = f", two-sided: {used}; p corrected for the rows of a column (Holm), alpha {ALPHA}"
        lines.append(f"Differences are to {baseline}, in percent points{tested if used else ''}.")
    bases = {cell.column: cell for cell in cells if cell.row == baseline and cell.runs}
    for cell in cells:
        base = bases.get(cell.column, cell)
        if cell.runs and not cell.is_comparable(base):
            how = "on other images" if cell.images != base.images else f"in {cell.precision}"
            lines.append(f"{cell.row}, {cell.column}: run {how}, so not compared with {baseline}.")
    return lines


def _recipe(cells: Sequence[Cell]) -> list[str]:
    """The values of the recipe that the document does not state."""
    configs = []
    for cell in cells:
        if cell.published and cell.runs:
            first = cell.runs[0]
            with suppress(UsageError):  # a damaged configuration leaves the cell's result valid
                configs.append((first.result.data, cell.experiment, first.config))
    found = ours(configs)
    said = f"The document does not state these values, they are ours: {', '.join(found)}."
    return [said] if found else []


def _provenance(runs: Sequence[Record]) -> str:
    precisions = ", ".join(dict.fromkeys(record.result.precision for record in runs))
    archived = sum(record.is_archived for record in runs)
    aside = f"; {archived} of {len(runs)} runs are archived" if archived else ""
    return (
        f"Run in {precisions} on {', '.join(devices(runs))}, with lwbench at "
        f"{', '.join(revisions(runs))}{aside}."
    )
