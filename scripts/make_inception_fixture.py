"""Writes tests/fixtures/eval_inception.safetensors: torchvision's Inception-v3, with the poolings of the Frechet inception
distance, on two images. Its weights are hashes that tests/eval/inception.rs computes as well, so only their shapes are kept.

Needs torch, torchvision and safetensors. From the repository's root: python3 scripts/make_inception_fixture.py
"""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
import torchvision.models.inception as inception
from make_eval_fixtures import hashed
from safetensors.numpy import save_file


def set_hashed(network):
    """Values of every layer, in the order of names; returns the shapes of the kernels."""
    shapes = {}
    convs = sorted(name for name, m in network.named_modules() if isinstance(m, inception.BasicConv2d))
    for i, name in enumerate(convs):
        layer = network.get_submodule(name)
        weight, norm = layer.conv.weight, layer.bn
        shapes[name] = np.int64(weight.shape)
        scale = (6 / weight[0].numel()) ** 0.5
        near = [(norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)]
        with torch.no_grad():
            weight.copy_(torch.from_numpy(scale * hashed(weight.numel(), 5 * i)).view(weight.shape))
            for k, (values, centre) in enumerate(near):
                values.copy_(centre + 0.2 * torch.from_numpy(hashed(values.numel(), 5 * i + k + 1)))
    return shapes


def features(network, images):
    """The published changes: average pooling without the padding, and the maximum in the last block."""
    last, found = [], []
    network.Mixed_7c.register_forward_pre_hook(lambda *_: last.append(True))
    network.avgpool.register_forward_hook(lambda *arguments: found.append(arguments[-1].flatten(1)))

    def pool(x, kernel_size, stride, padding):
        if last:
            return F.max_pool2d(x, kernel_size, stride, padding)
        return F.avg_pool2d(x, kernel_size, stride, padding, count_include_pad=False)

    inception.F = SimpleNamespace(**{**vars(F), "avg_pool2d": pool})
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
    with torch.no_grad():
        network(2 * x - 1)
    return found[0].numpy()


def main():
    network = inception.Inception3(aux_logits=False, transform_input=False, init_weights=False).eval()
    tensors = set_hashed(network)
    tensors["images"] = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    tensors["features"] = features(network, tensors["images"])
    save_file(tensors, "tests/fixtures/eval_inception.safetensors")


if __name__ == "__main__":
    main()
