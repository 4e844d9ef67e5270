"""tools/merge.py, and what plain mmdet and mmseg make of the files that it writes."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import stock
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from tiny import MONA, SWIN, VIT, same, wrapped
from tiny_data import tool

import mmpeft
from mmpeft.fingerprint import base_names
from mmpeft.mm.running.merging import merge_checkpoint

METHODS = {
    'SSF': dict(type='SSF'),
    'LoRA': dict(type='LoRA', rank=2, targets=('q', 'v', 'fc1')),
    'BitFit': dict(type='BitFit'),
    'NormTuning': dict(type='NormTuning'),
    'Partial': dict(type='Partial'),
}
RETINANET = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, start_level=1, num_outs=3),
    bbox_head=dict(
        type='RetinaHead',
        num_classes=2,
        in_channels=8,
        stacked_convs=1,
        feat_channels=8,
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[1.0], strides=[8, 16, 32]
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
    ),
    test_cfg=dict(nms_pre=50, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=5),
)
SEGMENTOR = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(type='SegDataPreProcessor', size=(64, 64)),
    test_cfg=dict(mode='whole'),
    train_cfg=dict(),
)
VIT_16 = dict(VIT, type='VisionTransformer', img_size=64, patch_size=16, mlp_ratio=2, out_indices=[2])
HEAD = dict(channels=8, num_classes=3, norm_cfg=dict(type='BN'))
UPER = dict(HEAD, type='UPerHead', in_channels=[8, 16, 32, 64], in_index=[0, 1, 2, 3])
FCN = dict(HEAD, type='FCNHead', in_channels=16, in_index=0, num_convs=1)
MODEL = {
    'detector': ('mmdet', SWIN, RETINANET),
    'Swin segmentor': ('mmseg', SWIN, dict(SEGMENTOR, decode_head=UPER)),
    'ViT segmentor': ('mmseg', VIT_16, dict(SEGMENTOR, decode_head=FCN)),
}
CASES = {f'{kind}, {method}': (kind, METHODS[method]) for kind in MODEL for method in METHODS}
DINOV3 = dict(type='mmpretrain.TIMMBackbone', model_name='vit_base_patch16_dinov3', features_only=True, out_indices=[2])
DINOV3 |= dict(embed_dim=16, depth=3, num_heads=2, init_values=0.5)
MODEL['timm segmentor'] = ('mmseg', DINOV3, dict(SEGMENTOR, decode_head=FCN))
FP32, FP64 = 1e-5, 1e-11


def config_of(kind: str, method, form: str = 'wrapper', **changes) -> Config:
    """A small model whose config names mmpeft wherever a config may, and the mm libraries' way to test it."""
    scope, backbone, rest = MODEL[kind]
    backbone = dict(backbone, init_cfg=dict(type='Pretrained', checkpoint='base.pth'), **changes)
    pack = dict(type='PackDetInputs', meta_keys=('img_shape', 'ori_shape', 'scale_factor'))
    pack = pack if scope == 'mmdet' else dict(type='PackSegInputs')
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(64, 64)), pack]
    hooks = [dict(type='EMAHook')]
    hooks += [dict(type='mmpeft.AdapterHook' if form == 'hook' else 'mmpeft.AdapterReportHook', method=method)]
    if form != 'hook':
        backbone = wrapped(backbone, method)
        del hooks[1]['method']
    return Config(
        dict(
            default_scope=scope,
            model=copy.deepcopy(dict(rest, backbone=backbone)),
            default_hooks=dict(checkpoint=dict(type='mmpeft.CheckpointHook', interval=2)),
            custom_hooks=hooks,
            custom_imports=dict(imports=['mmpeft.mm'], allow_failed_imports=False),
            optim_wrapper=dict(
                optimizer=dict(type='AdamW', lr=1e-3), constructor='mmpeft.AdapterOptimWrapperConstructor'
            ),
            test_pipeline=pipeline,
            test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=pipeline)),
        )
    )


def trained_model(cfg: Config):
    """The model of a wrapper config with trained values far from their start, and statistics of its own."""
    init_default_scope(cfg.default_scope)
    torch.manual_seed(3)
    model = MODELS.build(copy.deepcopy(cfg.model))
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name.endswith('running_var'):
            tensor.data.uniform_(0.5, 1.5)
        elif tensor.is_floating_point() and (tensor.requires_grad or name.endswith('running_mean')):
            tensor.data.add_(0.2 * torch.randn_like(tensor))
    return model.eval()


def written(folder: Path, kind: str, method, form: str = 'wrapper', **changes) -> tuple[str, str]:
    """A config and a checkpoint of the trained model, as files."""
    folder.mkdir(parents=True, exist_ok=True)
    model = trained_model(config_of(kind, method, **changes))
    config_of(kind, method, form, **changes).dump(folder / 'config.py')
    meta = dict(dataset_meta=dict(classes=('a', 'b', 'c'), palette=[(0, 0, 0)] * 3), iter=7)
    checkpoint = dict(meta=meta, state_dict=model.state_dict(), optimizer={}, message_hub={})
    torch.save(checkpoint, folder / 'trained.pth')
    return str(folder / 'config.py'), str(folder / 'trained.pth')


def distance(ours, theirs) -> float:
    return max(((a.double() - b.double()).norm() / b.double().norm()).item() for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope='module')
def merged(tmp_path_factory):
    """Each case's results with mmpeft before merging, and without it after."""
    before, jobs = {}, {}
    folder = tmp_path_factory.mktemp('merged')
    for name, (kind, method) in CASES.items():
        config, checkpoint = written(folder / name, kind, method, 'hook' if kind == 'detector' else 'wrapper')
        out = f'{folder}/{name}/merged.pth'
        tool('merge').main([config, checkpoint, out])
        adapted = config_of(kind, method)
        adapted.dump(folder / 'adapted.py')
        before[name] = stock.run(adapted.default_scope, str(folder / 'adapted.py'), checkpoint)
        jobs[name] = (adapted.default_scope, out.replace('.pth', '.py'), out)
    (folder / 'jobs.json').write_text(json.dumps(jobs))
    subprocess.run([sys.executable, stock.__file__, 'jobs.json', 'out.pth'], cwd=folder, check=True)
    return dict(torch.load(folder / 'out.pth'), before=before, folder=folder)


def test_the_merged_files_are_used_without_mmpeft(merged):
    assert merged['traces'] == []
    for name in CASES:
        assert 'mmpeft' not in (merged['folder'] / name / 'merged.py').read_text()


@pytest.mark.parametrize('name', CASES)
def test_stock_libraries_load_every_key_and_predict_the_same(merged, name):
    before, after = merged['before'][name], merged['results'][name]
    assert after['differences'] == []
    assert distance(after['raw'], before['raw']) <= FP32
    assert distance(after['predictions'], before['predictions']) <= FP32


@pytest.mark.parametrize('name', CASES)
def test_raw_outputs_of_whole_models_agree_in_double(name):
    model = trained_model(config_of(*CASES[name])).double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x, mode='tensor')
        assert mmpeft.merge(model).kept == ()
        found = model(x, mode='tensor')
    pairs = [(found, expected)] if torch.is_tensor(found) else zip(found, expected, strict=True)
    assert max(distance(ours, theirs) for ours, theirs in pairs) <= FP64


def test_the_checkpoint_keeps_what_it_says_of_the_data_and_nothing_of_the_training(merged):
    folder = merged['folder'] / 'detector, SSF'
    checkpoint = torch.load(folder / 'merged.pth', weights_only=True)
    assert checkpoint.keys() == {'meta', 'state_dict'}
    assert checkpoint['meta']['dataset_meta']['classes'] == ('a', 'b', 'c') and checkpoint['meta']['iter'] == 7
    assert checkpoint['meta']['cfg'] == (folder / 'merged.py').read_text()
    assert checkpoint['state_dict']._metadata['']['version'] == 1


def test_the_written_config_is_the_stock_one_with_everything_else_as_it_was(merged):
    before = config_of('detector', METHODS['SSF'])
    after = Config.fromfile(merged['folder'] / 'detector, SSF' / 'merged.py')
    assert after.model.backbone == Config(SWIN)._cfg_dict
    assert after.custom_hooks == [dict(type='EMAHook')] and 'constructor' not in after.optim_wrapper
    assert after.default_hooks.checkpoint == dict(type='CheckpointHook', interval=2)
    assert before.keys() - after.keys() == {'custom_imports'}
    for key in ('default_scope', 'test_pipeline', 'test_dataloader'):
        assert after[key] == before[key]
    assert {**after.model, 'backbone': 0} == {**before.model, 'backbone': 0}


def test_a_bias_that_the_base_lacks_is_switched_on_in_the_config(tmp_path):
    method = dict(type='SSF', sites=['patch_embed', 'qkv'], blocks=r'patch_embed|layers\.1')
    config, checkpoint = written(tmp_path, 'ViT segmentor', method, qkv_bias=False)
    before = stock.run('mmseg', config, checkpoint)
    done = merge_checkpoint(config, checkpoint, str(tmp_path / 'merged.pth'))
    assert str(done).endswith('loads. The config sets patch_bias=True, qkv_bias=True, because the shifts need biases.')
    backbone = Config.fromfile(done.config).model.backbone
    assert backbone.patch_bias and backbone.qkv_bias
    after = stock.run('mmseg', str(done.config), str(done.checkpoint))
    assert after['differences'] == [] and distance(after['raw'], before['raw']) <= FP32
    state = torch.load(done.checkpoint)['state_dict']
    biases = [state[f'backbone.layers.{i}.attn.attn.in_proj_bias'].any().item() for i in range(3)]
    assert biases == [False, True, False]


def test_a_timm_model_is_built_anew_with_attention_that_has_the_biases(tmp_path):
    config, checkpoint = written(tmp_path, 'timm segmentor', METHODS['SSF'], pretrained=False, checkpoint_path='')
    before = stock.run('mmseg', config, checkpoint)
    done = merge_checkpoint(config, checkpoint, str(tmp_path / 'merged.pth'))
    backbone = Config.fromfile(done.config).model.backbone
    assert backbone.qkv_bias and backbone.attn_type == 'rope' and 'checkpoint_path' not in backbone
    after = stock.run('mmseg', str(done.config), str(done.checkpoint))
    assert after['differences'] == [] and distance(after['raw'], before['raw']) <= FP32


def test_what_stays_is_said_and_kept_in_the_config(tmp_path, capsys):
    method = [dict(type='SSF', sites=['fc1']), MONA]
    config, checkpoint = written(tmp_path, 'detector', method, 'hook')
    tool('merge').main([config, checkpoint, f'{tmp_path}/out/merged.pth'])
    line = capsys.readouterr().out.splitlines()[-1]
    assert '5 adapters were folded, 10 stay because no layer can take them' in line
    assert 'merged.py load where mmpeft is installed, not in mmdet alone.' in line
    cfg = Config.fromfile(tmp_path / 'out/merged.py')
    assert cfg.model.backbone.method == [MONA] and 'init_cfg' not in cfg.model.backbone.backbone
    config_of('detector', method).dump(tmp_path / 'adapted.py')
    before = stock.run('mmdet', str(tmp_path / 'adapted.py'), checkpoint)
    after = stock.run('mmdet', str(tmp_path / 'out/merged.py'), str(tmp_path / 'out/merged.pth'))
    assert after['differences'] == [] and distance(after['raw'], before['raw']) <= FP32


def test_a_backbone_named_by_its_method_becomes_its_stock_one(tmp_path):
    config, checkpoint = written(tmp_path, 'ViT segmentor', METHODS['SSF'])
    cfg = Config.fromfile(config)
    cfg.model.backbone = dict(cfg.model.backbone.backbone, type='mmpeft.SSFVisionTransformer', allow_random_base=True)
    cfg.dump(config)
    done = merge_checkpoint(config, checkpoint, str(tmp_path / 'merged.pth'))
    expected = dict(VIT_16, type='mmseg.VisionTransformer', patch_bias=True)
    assert Config.fromfile(done.config).model.backbone == expected
    assert 'mmpeft' not in done.config.read_text()


def test_options_of_the_command_line_reach_the_model_and_its_new_config(tmp_path):
    config, checkpoint = written(tmp_path, 'detector', METHODS['LoRA'])
    cfg = Config.fromfile(config)
    cfg.model.backbone.method.rank = 3
    cfg.dump(config)
    arguments = ['--cfg-options', 'model.backbone.method.rank=2', 'model.test_cfg.nms_pre=9']
    tool('merge').main([config, checkpoint, f'{tmp_path}/merged.pth', *arguments])
    assert Config.fromfile(tmp_path / 'merged.py').model.test_cfg.nms_pre == 9


def test_an_adapter_file_merges_as_its_whole_checkpoint_does(tmp_path):
    cfg = config_of('detector', dict(type='SSF'))
    cfg.model.backbone.backbone.init_cfg.checkpoint = str(tmp_path / 'base.pth')
    cfg.dump(tmp_path / 'config.py')
    model = trained_model(cfg)
    state = model.state_dict()
    torch.save(
        {f'backbone.{name}': state[f'backbone.{name}'] for name in base_names(model.backbone)}, tmp_path / 'base.pth'
    )
    torch.save(dict(state_dict=state), tmp_path / 'trained.pth')
    model.backbone.missing = frozenset()
    mmpeft.save_adapters(model, tmp_path / 'trained.safetensors')
    for name in ('pth', 'safetensors'):
        tool('merge').main([str(tmp_path / part) for part in ('config.py', f'trained.{name}', f'{name}.pth')])
    whole, small = (torch.load(tmp_path / f'{name}.pth')['state_dict'] for name in ('pth', 'safetensors'))
    assert same(whole, small)


def test_a_data_set_of_mmpeft_in_the_config_is_told(tmp_path):
    config, checkpoint = written(tmp_path, 'detector', METHODS['BitFit'])
    options = {'test_dataloader.dataset.type': 'mmpeft.DigitsDataset'}
    done = merge_checkpoint(config, checkpoint, str(tmp_path / 'merged.pth'), cfg_options=options)
    assert str(done).endswith('It still names mmpeft at test_dataloader.dataset.type.')


def error_of(*arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        tool('merge').main(list(arguments))
    assert '\n' not in ended.value.code
    return ended.value.code


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    return written(tmp_path_factory.mktemp('files'), 'detector', METHODS['SSF'])


@pytest.mark.parametrize('taken', ['merged.pth', 'merged.py'])
def test_nothing_is_overwritten(files, tmp_path, taken):
    (tmp_path / taken).write_text('mine')
    assert f'{taken} exists; name another place' in error_of(*files, f'{tmp_path}/merged.pth')
    assert (tmp_path / taken).read_text() == 'mine' and len(list(tmp_path.iterdir())) == 1


def test_the_merged_checkpoint_is_a_pth_file(files, tmp_path):
    assert 'is a .pth file, got' in error_of(*files, f'{tmp_path}/merged.py')


def test_a_checkpoint_of_another_model_is_refused(files, tmp_path):
    state = torch.load(files[1])['state_dict']
    lacking = {name: value for name, value in state.items() if 'adapters' not in name}
    wrong = state | {'neck.lateral_convs.0.conv.weight': torch.ones(2)}
    for number, (changed, reason) in enumerate(
        [
            (lacking, 'it lacks backbone.patch_embed.projection.adapters.patch_embed.scale and '),
            (dict(state, more=torch.ones(1)), 'it has more besides.'),
            (wrong, 'size mismatch for neck.lateral_convs.0.conv.weight'),
        ]
    ):
        path = f'{tmp_path}/{number}.pth'
        torch.save(dict(state_dict=changed), path)
        text = error_of(files[0], path, f'{tmp_path}/merged.pth')
        assert f'{path} is of another model' in text and reason in text
    assert not (tmp_path / 'merged.pth').exists()


def test_a_config_without_adapters_has_nothing_to_merge(files, tmp_path):
    text = Path(files[0]).read_text().replace('mmpeft.AdaptedBackbone', 'SwinTransformer')
    (tmp_path / 'plain.py').write_text(text)
    assert 'has no adapters' in error_of(f'{tmp_path}/plain.py', files[1], f'{tmp_path}/merged.pth')
