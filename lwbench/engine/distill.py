"""Knowledge distillation: a trained network's outputs as a second target of the training.

Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015,
https://arxiv.org/abs/1503.02531.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .precision import Autocast


class Teacher:
    """A trained network whose outputs a training learns to reproduce.

    `temperature`: both outputs are divided by it before the softmax. `weight`: share of the
    teacher in the loss, from 0 (none) to 1 (alone). The teacher sees the very images that the
    network is trained on, augmentation included, in eval mode.
    """

    def __init__(self, network: nn.Module, *, temperature: float, weight: float) -> None:
        self.network = network.eval().requires_grad_(False)
        self.temperature, self.weight = temperature, weight

    def blended(self, loss: Tensor, images: Tensor, logits: Tensor, autocast: Autocast) -> Tensor:
        """Return (1 - weight) * `loss` + weight * T**2 * KL(teacher || network), averaged.

        `logits`: the network's, (N, classes) float32. T**2 makes up for the gradients of softened
        outputs, which are smaller by 1 / T**2 (section 2 of the paper).
        """
        with torch.no_grad(), autocast():
            target = self.network(images)
        soft = self.temperature
        divergence = F.kl_div(
            F.log_softmax(logits / soft, 1),
            F.log_softmax(target.float() / soft, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.weight) * loss + self.weight * soft**2 * divergence
