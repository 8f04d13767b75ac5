"""Networks, one file per family. Importing a module registers its builders in `registry.MODELS`."""
