"""ResNet-20 for CIFAR-10, as its published weights want it: three stages of three blocks, shortcuts without weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from anacrusis.model.images import Preparation
from anacrusis.model.open_sight import wrap_sight
from anacrusis.model.sight import Sight

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Block(nn.Module):
    def __init__(self, before: int, width: int):
        super().__init__()
        stride = 1 if before == width else 2
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.more = width - before

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.more:  # every second pixel, and channels of zeros on both sides
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return F.relu(x + y)


class ResNet20(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        for i, (before, width) in enumerate([(16, 16), (16, 32), (32, 64)], 1):
            setattr(self, f"layer{i}", nn.Sequential(Block(before, width), Block(width, width), Block(width, width)))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def resnet20(folder: Path) -> Sight:
    """The published weights as a frozen classifier."""
    with torch.random.fork_rng(devices=[]):
        network = ResNet20()
    network.load_state_dict(
        {k: v for k, v in load_file(folder / "resnet20.safetensors").items() if "num_batches" not in k}, strict=False
    )
    prepare = Preparation(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return wrap_sight(network.eval().requires_grad_(False), name="resnet20", prepare=prepare, classes=CLASSES)
