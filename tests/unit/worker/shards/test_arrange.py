import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from worker.data.dataset import Shape
from worker.families import find_family
from worker.networks.network import Draw, Row
from worker.shards.loaded_networks import arrange

CPU = torch.device("cpu")


@pytest.mark.parametrize("micro_batch", [64, 5])
@pytest.mark.parametrize(("size", "channels"), [(28, 1), (32, 3), (64, 3)])
@pytest.mark.parametrize("name", ["gan", "vae"])
def test_arranged_weights_give_the_same_pixels_and_numbers(
    name: str, size: int, channels: int, micro_batch: int
) -> None:
    family, shape = find_family(name), Shape("image", ("a", "b"), size, channels)
    torch.manual_seed(1)
    plain = family.network()(family.params(), shape).eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)  # type: ignore[union-attr, operator]
            module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    arranged = copy.deepcopy(plain)
    arrange(arranged, CPU)
    rows = [Row(index, index % 2) for index in range(micro_batch)]
    draw, numbers = Draw([row.key for row in rows]), []
    for network in (plain, arranged):
        decoder = network.average if name == "gan" else network.decoder
        decoder.register_forward_hook(lambda _, __, made: numbers.append(made))  # type: ignore[union-attr, operator]
    with torch.inference_mode():
        pixels = [
            np.stack(network.sample(rows, draw, family.sampling(micro_batch=micro_batch)))  # type: ignore[arg-type]
            for network in (plain, arranged)
        ]
    assert all((one == other).all() for one, other in pairwise(pixels))
    assert torch.equal(*numbers)
