"""Networks, one file a family. Importing a module registers its builders in `registry.MODELS`."""
