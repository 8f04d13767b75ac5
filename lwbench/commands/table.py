"""Show published tables, or a user's, with what was counted and measured beside them."""

import shutil

from ._keys import NO_YES, YES_NO, Key, help_of_keys, own_and_training

FLAGS: tuple[str, ...] = ()
KEYS = {
    "table": Key("a name (listed above), all, or the path of a YAML file"),
    "runs": Key("a folder of finished runs, tabulated by the keys in which they differ"),
    "rows": Key("labels, separated by commas"),
    "columns": Key("keys, data sets or kinds, separated by commas"),
    "baseline": Key("label of the row that the others are compared with"),
    "select": Key(
        "the epoch of accuracies; best on the test images is optimistic", ("final", "best")
    ),
    "ci": Key("add the 95 % confidence interval of every mean", NO_YES),
    "layout": Key("wide is a line per row, long a line per cell", ("wide", "long")),
    "images": Key("compare rows image by image, beside the seed-wise test", NO_YES),
    "epochs_compared": Key("add what the choice of the epoch does to the result", NO_YES),
    "format": Key("output format", ("terminal", "markdown", "latex", "html", "csv", "json")),
    "out": Key("the folder of runs (outputs)"),
    "archived": Key("whether archived runs under <out>/measured count", YES_NO),
    "trust_code": Key("run the code of network files that the tables name", NO_YES),
}


def help() -> str:
    from ..tables import published

    return help_of_keys(
        "lwbench table [table=<name> | runs=<folder>] [key=value ...]",
        f"tables: {' '.join(['all', *published.names()])}\n"
        "without a name: all tables, a line each\n\n"
        "Any other key is an override of every training run behind the cells, such as\n"
        "epochs=10 image_size=32, and shows that reduced study; without one, only full runs fill\n"
        "cells.",
        KEYS,
    )


def run(arguments: list[str], flags: set[str]) -> int:
    """Print the tables."""
    from ..config import train_configs
    from ._counting import counter
    from ._tables import tabulate

    values, overrides = own_and_training(arguments, KEYS)
    print(tabulate(values, overrides, train_configs, counter(values), terminal_width()))
    return 0


def terminal_width() -> int:
    """Characters per line of the terminal; wide where there is none."""
    return shutil.get_terminal_size((160, 24)).columns
