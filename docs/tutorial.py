# %% [markdown]
# # lwbench from Python
#
# Every function here is what a command of lwbench uses. Read this file as a notebook (editors show
# `# %%` as cells) or run it: `python docs/tutorial.py`. It takes a few seconds on a CPU and writes
# to `outputs/` in the working folder.

# %%
import lwbench

print(lwbench.list_models("shuffle*"))

# %% [markdown]
# ## What a network costs
#
# `create_model` takes the network's arguments as the command does (`model.stem=ldc`). `count` takes
# any `torch.nn.Module`, and prints as a table.

# %%
network = lwbench.create_model("mb0", num_classes=10, stem="ldc")
cost = lwbench.count(network, image_size=32)
print(cost)
print(f"{cost.params:,} parameters, {cost.macs['plain']:,} MACs, {len(cost.layers)} layers")

# %%
from torch import nn

mine = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.Flatten(), nn.Linear(8 * 15 * 15, 10))
print(lwbench.count(mine, image_size=32).macs)

# %% [markdown]
# ## A network of your own, trained
#
# The keys are those of `lwbench train`. A network in a Python file needs no change of lwbench; its
# arguments are keys. A run is identified by its configuration: the same call again finds it
# finished. Four short runs show the tool and allow no conclusion about the width.

# %%
from pathlib import Path

Path("tiny_net.py").write_text("""
from torch import nn


def tiny_net(num_classes: int, *, width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=4), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * width, num_classes),
    )
""")
tiny = {"model": "file", "epochs": 3, "threads": 1}
tiny_file = ("model.path=tiny_net.py", "model.function=tiny_net")
for width in (4, 16):
    for seed in (0, 1):
        run = lwbench.train(*tiny_file, f"model.width={width}", seed=seed, **tiny)
        print(run.run.path, run.result.final.test_top1)

# %%
print([row["train_loss"] for row in run.metrics])

# %% [markdown]
# ## Comparing runs
#
# `load_runs` needs pandas (`pip install "lwbench[pandas]"`). The columns are the results and the
# keys of the configuration. `lwbench table runs=outputs` adds tests of significance.

# %%
runs = lwbench.load_runs("outputs")
print(runs.groupby("model.width")[["params", "test_top1"]].agg(["mean", "std"]))
