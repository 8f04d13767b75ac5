"""Data sets, their loading and augmentation. Importing a module registers its data sets."""
