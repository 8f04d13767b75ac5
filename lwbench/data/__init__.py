"""Data sets, one file a set. Importing a module registers its builder in `registry.DATASETS`."""
