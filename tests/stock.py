"""What mmdet and mmseg make of a config and a checkpoint, without mmpeft: ``python stock.py jobs.json out.pth``."""

import json
import sys

import numpy as np
import torch
from mmdet.apis import inference_detector, init_detector
from mmseg.apis import inference_model, init_model

PICTURE = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)


@torch.no_grad()
def run(scope: str, config: str, checkpoint: str) -> dict:
    """What differs between the checkpoint's keys and the model's; raw outputs of the head; predictions."""
    if scope == 'mmdet':
        model = init_detector(config, checkpoint, palette='random', device='cpu')
        found = inference_detector(model, PICTURE).pred_instances
        predictions = [found.bboxes, found.scores, found.labels]
    else:
        model = init_model(config, checkpoint, device='cpu')
        found = inference_model(model, PICTURE)
        predictions = [found.seg_logits.data, found.pred_sem_seg.data]
    state, own = torch.load(checkpoint, weights_only=True)['state_dict'], model.state_dict()
    differences = [*(state.keys() ^ own.keys()), *(k for k in state if k in own and not torch.equal(state[k], own[k]))]
    raw = model(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), mode='tensor')
    raw = [raw] if torch.is_tensor(raw) else [tensor for level in raw for tensor in level]
    return dict(differences=differences, raw=raw, predictions=predictions)


if __name__ == '__main__':
    with open(sys.argv[1]) as file:
        results = {name: run(*job) for name, job in json.load(file).items()}
    traces = [name for name in sys.modules if name.split('.')[0] == 'mmpeft']
    torch.save(dict(results=results, traces=traces), sys.argv[2])
