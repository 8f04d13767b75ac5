"""Show published tables, or a user's, with what was counted and measured beside them."""

import shutil

from ._keys import NO_YES, Key, help_of_keys, own_and_training, shared

FLAGS: tuple[str, ...] = ()
KEYS = {
    "table": Key("a name (listed above), all, or the path of a YAML file"),
    "runs": Key("a folder of finished runs, tabulated by the keys in which they differ"),
    **shared("rows", "columns", "baseline", "select"),
    "ci": Key("add the 95 % confidence interval of every mean", NO_YES),
    "layout": Key("wide is a line per row, long a line per cell", ("wide", "long")),
    "images": Key("compare rows image by image, beside the seed-wise test", NO_YES),
    "epochs_compared": Key("add what the choice of the epoch does to the result", NO_YES),
    **shared("format", "out", "archived", "trust_code"),
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
