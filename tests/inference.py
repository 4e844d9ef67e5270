"""What mm's inference APIs make of a config and an adapter file: ``python inference.py jobs.json out.pth``."""

import json
import sys

import numpy as np
import torch
from mmdet.apis import DetInferencer, init_detector
from mmseg.apis import MMSegInferencer, init_model

PICTURE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
APIS = {
    'init_detector': lambda config, file: init_detector(config, file, palette='random', device='cpu'),
    'DetInferencer': lambda config, file: ran(DetInferencer(config, file, device='cpu', palette='random')),
    'init_model': lambda config, file: init_model(config, file, device='cpu'),
    'MMSegInferencer': lambda config, file: ran(MMSegInferencer(config, file, device='cpu')),
}


def ran(inferencer):
    """The model of an inferencer that has drawn its predictions on a picture."""
    inferencer.show_progress = False
    assert inferencer(PICTURE, return_vis=True)['visualization'] is not None
    return inferencer.model


@torch.no_grad()
def raw(model) -> list[torch.Tensor]:
    """The raw outputs of a model's head."""
    out = model.eval()(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), mode='tensor')
    return [out] if torch.is_tensor(out) else [tensor for level in out for tensor in level]


if __name__ == '__main__':
    with open(sys.argv[1]) as file:
        jobs = json.load(file)
    results = {}
    for name, (api, *arguments) in jobs.items():
        model = APIS[api](*arguments)
        results[name] = dict(raw=raw(model), classes=list(model.dataset_meta['classes']))
    torch.save(results, sys.argv[2])
