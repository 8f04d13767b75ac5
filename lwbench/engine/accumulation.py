"""Gradient accumulation: which batches of an epoch share an optimizer step."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """The batches of an epoch in groups of `length`, one optimizer step each.

    The gradient of a step is that of the mean loss over all images of its cycle. No cycle goes
    across the end of an epoch: the last one may have fewer batches. `batches` and `images`: of an
    epoch; every batch but the last has `batch_size` images.
    """

    length: int
    batches: int
    images: int
    batch_size: int

    def first(self, batch: int) -> int:
        """Return the first batch of the cycle that `batch` is in."""
        return batch - batch % self.length

    def ends_with(self, batch: int) -> bool:
        """Whether the optimizer takes its step after this batch."""
        return (batch + 1) % self.length == 0 or batch + 1 == self.batches

    def is_within(self, batches_done: int) -> bool:
        """Whether gradients of earlier batches wait for the rest of their cycle."""
        return batches_done % self.length > 0 and batches_done < self.batches

    def share(self, batch: int, images: int) -> float:
        """Return the share of a batch of `images` in the images of its cycle."""
        first = self.first(batch)
        behind = first + self.length
        # the last batch of an epoch may be smaller than the others, or one image larger
        last = self.images if behind >= self.batches else behind * self.batch_size
        return images / (last - first * self.batch_size)

    def size(self, batch: int) -> int:
        """Return the number of images in a batch, in all processes together."""
        is_last = batch + 1 >= self.batches
        return self.images - batch * self.batch_size if is_last else self.batch_size

    def steps(self, epochs_done: int, batches_done: int) -> int:
        """Return the optimizer steps in finished epochs and `batches_done` of the next one."""
        per_epoch = -(-self.batches // self.length)
        rest = per_epoch if batches_done >= self.batches else batches_done // self.length
        return epochs_done * per_epoch + rest
