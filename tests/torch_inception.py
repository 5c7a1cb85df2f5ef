"""The FID Inception as `pytorch-fid` builds it, with random weights: an implementation that is independent of ours."""

import functools
import sys

import numpy as np
import torch


def _import_torchvision() -> None:
    """torchvision's compiled operators may not load beside a CPU build of PyTorch. None of them is used here, but its
    Python code refers to two, so these are declared."""
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _import_torchvision.library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            _import_torchvision.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision  # noqa: F401


_import_torchvision()
from pytorch_fid import fid_score, inception  # noqa: E402

__all__ = ["fid_score", "published_features", "random_network", "state_of"]


@functools.cache
def random_network() -> torch.nn.Module:
    """The network in inference mode. Its weights keep activations of every layer of a size, so that no layer's error
    hides behind another's."""
    torch.manual_seed(0)
    built = []
    load, fetch = torch.nn.Module.load_state_dict, inception.load_state_dict_from_url
    try:
        # The package would download the published weights here and load them.
        inception.load_state_dict_from_url = lambda *_, **__: {}
        torch.nn.Module.load_state_dict = lambda self, *_, **__: built.append(self)
        network = inception.fid_inception_v3()
    finally:
        torch.nn.Module.load_state_dict, inception.load_state_dict_from_url = load, fetch
    assert built == [network]
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


def published_features(images: np.ndarray) -> np.ndarray:
    """What `pytorch-fid`'s own wrapper, which scales and resizes, makes of uint8 images [B, H, W, 3]: [B, 2048]."""
    build = inception.fid_inception_v3
    try:
        inception.fid_inception_v3 = random_network
        wrapper = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    finally:
        inception.fid_inception_v3 = build
    with torch.no_grad():
        # As its script does: torchvision's ToTensor divides by 255.
        [features] = wrapper(torch.tensor(images.transpose(0, 3, 1, 2) / np.float32(255)))
    return features[:, :, 0, 0].numpy()


def state_of(network: torch.nn.Module) -> dict:
    """Its entries as numpy arrays."""
    return {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
