import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rbs.segmentation.sam import ARCHITECTURES


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Random base weights of vit_t."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("sam") / "sam_vit_t.safetensors"
    sam = ARCHITECTURES["vit_t"].build()
    torch.nn.init.normal_(sam.image_encoder.pos_embed, std=0.5)
    save_file({name: tensor.half() for name, tensor in sam.state_dict().items()}, path)
    return path


@pytest.fixture
def counts():
    """Two views of a small scan, counts (1, 2, 512, 128)."""
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.poisson(rng.uniform(0, 9, (1, 2, 512, 128))).astype(np.float32))
