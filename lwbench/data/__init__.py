"""Reading, batching and augmentation of images; `sets` has the data sets by name."""
