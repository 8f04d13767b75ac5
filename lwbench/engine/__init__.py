"""Training and evaluation: knows tensors, not configs, models or data sets."""
