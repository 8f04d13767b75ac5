"""What the commands are called, and what they say of themselves: help, and words to complete."""

from ..paths import conf_folder

VERBS = {
    "train": "train a network on a data set; -m sweeps",
    "eval": "evaluate a run, or a checkpoint, again",
    "profile": "what a network costs: parameters, MACs under each rule; -m for several",
    "table": "published tables, with what was counted and measured beside them",
    "reproduce": "run what a table's cells still need, and show the table",
    "check": "look at every image of a data set: bad files, duplicates, class balance",
    "report": "one page of published tables, studies and runs, for a browser",
    "list": "models, data sets, optimizers, schedulers, experiments",
}
# what completion offers behind the verbs whose keys are not Hydra's
# fmt: off
PLAIN_KEYS = {
    "list": ("model", "data", "optimizer", "scheduler", "experiment"),
    "table": (
        "table=", "runs=", "rows=", "columns=", "baseline=", "select=best", "ci=true", "format=",
        "out=", "kept=false",
    ),
    "reproduce": ("table=", "rows=", "columns=", "seeds=", "jobs=", "dry_run=true", "kept=false"),
    "report": ("out=", "out_dir=", "kept=false", "select=best"),
}
# fmt: on
GROUPS = ("model", "data", "optimizer", "scheduler", "experiment")


def overview() -> str:
    """`lwbench --help`."""
    verbs = "\n".join(f"  {verb:<10} {text}" for verb, text in VERBS.items())
    return f"""lwbench: what a small network costs, how well it does, and whether it is real

usage: lwbench <command> [key=value ...]

{verbs}

  lwbench train                                   the default: LDC3 on real digits, in minutes
  lwbench train model=ldc3 data=cifar100          a paper's network with its recipe
  lwbench train -m model=mb0,ldc3 seed=0,1,2      a sweep, each run in a process of its own
  lwbench eval run=outputs/digits/ldc3/...        the same figures again
  lwbench profile model=ldc0                      its cost
  lwbench table table=ldc/4                       a published table, checked
  lwbench report                                  all of it on a page: outputs/report/index.html
  lwbench reproduce table=ldc/4 columns=cifar10   its missing runs, then the table
  lwbench <command> --help                        its keys and groups

completion: eval "$(lwbench -sc install=bash)\""""


def help_of(verb: str) -> str:
    """`lwbench <verb> --help`."""
    if verb == "list":
        return f"usage: lwbench list [{' | '.join(GROUPS)}]\n\nlist model adds each one's cost"
    if verb == "table":
        from ..tables import published

        names = " ".join(["all", *published.names()])
        return (
            "usage: lwbench table [table=<name> | runs=<folder>] [key=value ...]\n\n"
            "without a name: all tables, a line each\n\n"
            f"table: {names} or the path of a YAML file\n"
            "runs: a folder of finished runs, tabulated by the keys in which they differ\n"
            "rows: labels; columns: keys, data sets or kinds; comma lists\n"
            "baseline: label of the row that the others are compared with\n"
            "select: final | best (best on the test images flatters)\n"
            "ci: true adds the 95 % confidence interval of every mean\n"
            "format: terminal markdown latex html csv json\n"
            "out: where the runs lie (outputs)\n"
            "kept: whether runs under <out>/measured count (true)\n"
            "any other key is an override of every run, as in epochs=10 image_size=32: shows that\n"
            "reduced study; without one, full runs alone fill cells"
        )
    if verb == "reproduce":
        return (
            "usage: lwbench reproduce table=<name> [rows=...] [columns=...] [seeds=3] [jobs=1] "
            "[dry_run=true] [kept=false] [key=value ...]\n\nruns what the cells still need, then "
            "shows the table\n\n"
            "rows: labels; columns: keys, data sets or kinds; comma lists\n"
            "seeds: how many (3 is 0, 1, 2), or a list\n"
            "jobs: runs at once, sharing cores and GPUs\n"
            "dry_run: print the plan and a line a run, for a shell\n"
            "kept: whether runs under <out>/measured count as finished (true)\n"
            "any other key is an override of every run, as in epochs=10 image_size=32: a reduced "
            "study,\nwhich lwbench table shows with the same overrides"
        )
    if verb == "report":
        return (
            "usage: lwbench report [out=outputs] [out_dir=<out>/report] [kept=true] "
            "[select=final]\n\nwrites <out_dir>/index.html, a page that needs no other file and no "
            "network\n\n"
            "out: the folder of runs\n"
            "kept: whether runs under <out>/measured are shown, too\n"
            "select: final or best, the epoch of the accuracies; best flatters"
        )
    flags = {"train": "[-m] [--cfg] ", "profile": "[-m] "}.get(verb, "")
    keys = (conf_folder() / f"{verb}.yaml").read_text(encoding="utf-8")
    lines = [f"usage: lwbench {verb} {flags}[key=value ...]", "", keys]
    for group in GROUPS:
        names = sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))
        if names and f"- {group}:" in keys:
            lines.append(f"{group}: {' '.join(names)}")
    return "\n".join(lines)
