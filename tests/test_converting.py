"""tools/convert.py: files in the layouts of four published codes, and what the converted models compute."""

import argparse
import copy
import re
import types
from pathlib import Path

import pytest
import torch
from authors import Cross, MicrosoftSwin, Mona, PatchMerging, TimmViT, add_ssf, randomised
from mmdet.models.layers import PatchMerging as UnfoldMerging
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from safetensors import safe_open
from test_merging import FCN, RETINANET, SEGMENTOR, UPER
from tiny import MONA, SIZES, SWIN, same, wrapped
from tiny_data import tool
from torch import nn

import mmpeft
from mmpeft.layouts import find_layout, unfold_order
from mmpeft.mm.converting import Converted, convert_checkpoint

EXACT = 1e-10
SSF, CVPT = dict(type='SSF'), dict(type='CVPT', num_prompts=6)
SWIN_2 = dict(SWIN, window_size=2)
LN = dict(type='LN', eps=1e-6)
MMSEG_VIT = dict(
    type='VisionTransformer',
    embed_dims=16,
    num_layers=3,
    num_heads=2,
    img_size=64,
    patch_size=16,
    mlp_ratio=2,
    norm_cfg=LN,
    patch_bias=True,
    final_norm=True,
    out_indices=[2],
)
MMPRETRAIN_VIT = dict(
    type='VisionTransformer',
    arch=dict(embed_dims=16, num_layers=3, num_heads=2, feedforward_channels=32),
    img_size=64,
    patch_size=16,
)
MMPRETRAIN_SWIN = dict(type='SwinTransformer', arch=SIZES, window_size=2, img_size=64, drop_path_rate=0.0)
VIT_HEAD = dict(type='VisionTransformerClsHead', num_classes=5, in_channels=16)
LINEAR_HEAD = dict(type='LinearClsHead', num_classes=5, in_channels=64)
VIT_SEGMENTOR = dict(SEGMENTOR, decode_head=FCN)


def config_of(folder: Path, scope: str, backbone: dict, method: dict, rest: dict) -> str:
    model = dict(copy.deepcopy(rest), backbone=wrapped(backbone, method))
    Config(dict(default_scope=scope, model=model)).dump(folder / 'config.py')
    return str(folder / 'config.py')


def detector(folder: Path, method: dict = MONA, **changes) -> str:
    return config_of(folder, 'mmdet', dict(SWIN_2, **changes), method, RETINANET)


def classifier(folder: Path, backbone: dict, head: dict, method: dict) -> str:
    neck = dict(neck=dict(type='GlobalAveragePooling')) if head is LINEAR_HEAD else {}
    return config_of(folder, 'mmpretrain', backbone, method, dict(type='ImageClassifier', head=head, **neck))


def prefixed(state: dict, prefix: str = 'backbone.') -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def stock_model(scope: str, backbone: dict, rest: dict) -> nn.Module:
    init_default_scope(scope)
    model = MODELS.build(dict(copy.deepcopy(rest), backbone=copy.deepcopy(backbone)))
    for name, buffer in model.named_buffers():
        if name.endswith(('running_mean', 'running_var')):
            buffer.uniform_(0.5, 1.5)
    return randomised(model, 8)


def rest_of(model: nn.Module) -> dict:
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith('backbone.')}


def save(folder: Path, content: dict) -> str:
    torch.save(content, folder / 'theirs.pth')
    return str(folder / 'theirs.pth')


def converted(folder: Path, config: str, content: dict, **options) -> Converted:
    return convert_checkpoint(config, save(folder, content), str(folder / 'ours'), **options)


def loaded(config: str, files: Converted) -> nn.Module:
    """The model of the config with the adapter file, whose base is found beside it."""
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(99)
    model = MODELS.build(cfg.model)
    if files.backbone_only:
        mmpeft.load_adapters(model.backbone, files.adapters)
    else:
        load_checkpoint(model, str(files.adapters))
    return model.double().eval()


def image(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, dtype=torch.float64)


def flat(out) -> list[torch.Tensor]:
    return [out] if torch.is_tensor(out) else [tensor for part in out for tensor in flat(part)]


@torch.no_grad()
def distance(ours, theirs) -> float:
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(flat(ours), flat(theirs), strict=True))


def test_patch_merging_of_the_swin_authors_equals_that_of_mm_with_the_channels_reordered():
    theirs, ours = randomised(PatchMerging(3)), UnfoldMerging(3, 6)
    ours.load_state_dict({name: unfold_order(tensor) for name, tensor in theirs.state_dict().items()})
    x = torch.randn(2, 4 * 6, 3)
    assert distance(ours(x, (4, 6))[0], theirs(x, 4, 6)) < 1e-6
    ours.load_state_dict(theirs.state_dict())
    assert distance(ours(x, (4, 6))[0], theirs(x, 4, 6)) > 0.1


@pytest.mark.parametrize(
    'scope, rest', [('mmdet', RETINANET), ('mmseg', dict(SEGMENTOR, decode_head=UPER))], ids=['detector', 'segmentor']
)
def test_mona_s_file_computes_the_same_after_conversion(tmp_path, scope, rest):
    theirs, stock = randomised(MicrosoftSwin('Mona')), stock_model(scope, SWIN_2, rest)
    config = config_of(tmp_path, scope, SWIN_2, MONA, rest)
    state = prefixed(theirs.state_dict()) | rest_of(stock)
    meta = dict(CLASSES=('a', 'b'), PALETTE=[(1, 2, 3), (4, 5, 6)], mmdet_version='2.11.0')
    files = converted(tmp_path, config, dict(meta=meta, state_dict=state, optimizer={}))
    model, x = loaded(config, files), image(60, 92)
    maps = theirs.double().maps(x)
    assert distance(model.backbone(x), maps) < EXACT
    stock.double()
    head = stock.bbox_head(stock.neck(maps)) if scope == 'mmdet' else stock.decode_head(maps)
    assert distance(model(x, mode='tensor'), head) < EXACT


def mona_swin_of_star() -> nn.Module:
    """A stock detector in whose backbone each block has two Mona layers in the way of STAR-MMRotate."""

    def forward(block, x, hw_shape):
        x = block.mona1(x + block.attn(block.norm1(x), hw_shape), *hw_shape)
        return block.mona2(block.ffn(block.norm2(x), identity=x), *hw_shape)

    init_default_scope('mmdet')
    model = MODELS.build(dict(copy.deepcopy(RETINANET), backbone=SWIN_2))
    for stage in model.backbone.stages:
        for block in stage.blocks:
            dim = block.norm1.normalized_shape[0]
            block.mona1, block.mona2 = Mona(dim), Mona(dim)
            block.forward = types.MethodType(forward, block)
    return randomised(model)


def test_star_mmrotate_s_file_computes_the_same_after_conversion(tmp_path):
    theirs, config = mona_swin_of_star(), detector(tmp_path)
    files = converted(tmp_path, config, dict(state_dict=theirs.state_dict()))
    assert files.dropped == {} and not files.backbone_only
    x = image(60, 92)
    assert distance(loaded(config, files)(x, mode='tensor'), theirs.double()(x, mode='tensor')) < EXACT


def test_ssf_s_swin_computes_the_same_logits(tmp_path):
    theirs, config = randomised(MicrosoftSwin('SSF', 5)), classifier(tmp_path, MMPRETRAIN_SWIN, LINEAR_HEAD, SSF)
    files = converted(tmp_path, config, theirs.state_dict())
    assert not files.backbone_only and files.dropped.keys() == {'a mask that the model computes from the grid'}
    x = image(64, 64)
    assert distance(loaded(config, files)(x), theirs.double()(x)) < EXACT


def test_ssf_after_the_norms_of_patch_merging_is_reordered_too(tmp_path):
    theirs = MicrosoftSwin('SSF', 5)
    for layer, dim in zip(theirs.layers, (8, 16, 32), strict=False):
        add_ssf(layer.downsample, 4 * dim)
    sites = ['patch_embed', 'patch_norm', 'norm1', 'qkv', 'proj', 'norm2', 'fc1', 'fc2', 'merge_norm', 'output_norm']
    config = classifier(tmp_path, MMPRETRAIN_SWIN, LINEAR_HEAD, dict(SSF, sites=sites))
    files = converted(tmp_path, config, randomised(theirs).state_dict())
    x = image(64, 64)
    assert distance(loaded(config, files)(x), theirs.double()(x)) < EXACT


def test_a_classifier_s_swin_gives_a_detector_its_backbone_with_fresh_outputs_left_as_they_are(tmp_path):
    theirs, config = randomised(MicrosoftSwin('SSF', 5)), detector(tmp_path, SSF)
    files = converted(tmp_path, config, dict(model=theirs.state_dict()))
    assert files.backbone_only and len(files.started) == 3 * 4
    assert 'The adapter file is of the backbone alone' in str(files)
    assert 'Set to change nothing, as no classifier has them: backbone.norm0.adapters' in str(files)
    assert files.dropped['the head of a classifier, for which the config has no place'] == ['head.weight', 'head.bias']
    x = image(60, 92)
    assert distance(loaded(config, files).backbone(x), theirs.double().maps(x)) < EXACT


@pytest.mark.parametrize('method', [SSF, CVPT], ids=['SSF', 'CVPT'])
def test_a_vit_in_timm_s_layout_computes_the_same_logits(tmp_path, method):
    theirs, config = timm_vit(method), classifier(tmp_path, MMPRETRAIN_VIT, VIT_HEAD, method)
    files = converted(tmp_path, config, theirs.state_dict())
    assert not files.backbone_only and len(files.dropped) == (method is CVPT)
    x = image(64, 64)
    assert distance(loaded(config, files)(x), theirs.double()(x)) < EXACT


@pytest.mark.parametrize('method', [SSF, CVPT], ids=['SSF', 'CVPT'])
def test_a_vit_in_timm_s_layout_gives_mmseg_its_backbone(tmp_path, method):
    theirs, config = timm_vit(method), config_of(tmp_path, 'mmseg', MMSEG_VIT, method, VIT_SEGMENTOR)
    files = converted(tmp_path, config, theirs.state_dict())
    assert files.backbone_only
    x = image(64, 64)
    tokens = theirs.double().tokens(x)[:, 1:]
    assert distance(loaded(config, files).backbone(x), tokens.transpose(1, 2).unflatten(2, (4, 4))) < EXACT


def timm_vit(method: dict) -> TimmViT:
    theirs = randomised(TimmViT(method['type']))
    if method is CVPT:
        theirs.copy_attention()
    return theirs


def cvpt_segmentor(share: bool) -> nn.Module:
    """A stock segmentor whose blocks read prompts in the way of CVPT's segmentation code."""

    def forward(block, x):
        x = block.attn(block.ln1(x), identity=x)
        x = x + block.cross(x, prompts[block.number])
        return block.ffn(block.ln2(x), identity=x)

    init_default_scope('mmseg')
    model = MODELS.build(dict(copy.deepcopy(VIT_SEGMENTOR), backbone=copy.deepcopy(MMSEG_VIT)))
    model.backbone.Prompt_Tokens = nn.Parameter(torch.zeros(3, 6, 16))
    for number, block in enumerate(model.backbone.layers):
        block.cross, block.number = Cross(16, 2), number
        block.forward = types.MethodType(forward, block)
    randomised(model)
    prompts = model.backbone.Prompt_Tokens
    for block in model.backbone.layers if share else ():
        attn = block.attn.attn
        block.cross.copy(attn.in_proj_weight, attn.in_proj_bias, attn.out_proj)
    return model


@pytest.mark.parametrize('share', [True, False], ids=['equal cross-attention', 'own cross-attention'])
def test_cvpt_s_segmentor_computes_the_same(tmp_path, share):
    theirs = cvpt_segmentor(share)
    method = dict(CVPT, share=share)
    config = config_of(tmp_path, 'mmseg', MMSEG_VIT, method, VIT_SEGMENTOR)
    files = converted(tmp_path, config, dict(state_dict=theirs.state_dict()))
    assert [len(names) for names in files.dropped.values()] == ([3 * 8] if share else [])
    x = image(64, 64)
    assert distance(loaded(config, files)(x, mode='tensor'), theirs.double()(x, mode='tensor')) < EXACT


def test_a_cross_attention_of_its_own_is_refused_where_it_would_be_shared(tmp_path):
    theirs = cvpt_segmentor(share=True)
    theirs.backbone.layers[1].cross.k.weight.data[0, 0] += 1e-6
    config = config_of(tmp_path, 'mmseg', MMSEG_VIT, CVPT, VIT_SEGMENTOR)
    text = error_of(tmp_path, config, dict(state_dict=theirs.state_dict()))
    assert 'backbone.layers.1.cross.k.weight differ' in text and 'set share=False in the method' in text


def keys(path: Path) -> set[str]:
    with safe_open(path, framework='pt') as file:
        return set(file.keys())


def test_the_two_files_hold_the_model_and_every_tensor_of_the_source_has_its_place(tmp_path):
    theirs, stock = randomised(MicrosoftSwin('Mona')), stock_model('mmdet', SWIN_2, RETINANET)
    state = prefixed(theirs.state_dict()) | rest_of(stock)
    config = detector(tmp_path)
    files = converted(tmp_path, config, dict(state_dict=state))
    assert files.dropped == {
        'a mask that the model computes from the grid': ['backbone.layers.1.blocks.1.attn_mask'],
    }
    assert files.used == len(state) - 1 and files.started == ()
    base, adapters = keys(files.base), keys(files.adapters)
    assert base == {f'backbone.{name}' for name in stock.backbone.state_dict()}
    assert base | adapters == loaded(config, files).state_dict().keys()
    # A task may change the norms of its outputs and resize the tables of positions, so both files have them.
    both = {re.sub(r'backbone\.(norm\d|.*(?=relative))\.?', '', name) for name in base & adapters}
    assert both == {'weight', 'bias', 'relative_position_bias_table'}
    assert not any('adapters' in name for name in base)


def test_the_base_keeps_the_dtype_and_the_values_of_the_source(tmp_path):
    theirs, config = timm_vit(SSF).half(), classifier(tmp_path, MMPRETRAIN_VIT, VIT_HEAD, SSF)
    files = converted(tmp_path, config, theirs.state_dict())
    with safe_open(files.base, framework='pt') as file:
        weight = file.get_tensor('backbone.layers.1.ffn.layers.0.0.weight')
    assert weight.dtype == torch.float16 and torch.equal(weight, theirs.blocks[1].mlp.fc1.weight)
    loaded(config, files)


def test_a_stock_config_takes_the_base(tmp_path):
    theirs, stock = randomised(MicrosoftSwin('Mona')), stock_model('mmdet', SWIN_2, RETINANET)
    state = prefixed(theirs.state_dict()) | rest_of(stock)
    files = converted(tmp_path, detector(tmp_path), dict(state_dict=state))
    plain = MODELS.build(dict(SWIN_2, init_cfg=Config(dict(i=dict(type='Pretrained', checkpoint=str(files.base)))).i))
    plain.init_weights()
    with safe_open(files.base, framework='pt') as file:
        assert same(plain.state_dict(), {n.removeprefix('backbone.'): file.get_tensor(n) for n in file.keys()})


def test_the_adapter_file_tells_the_classes_and_its_base(tmp_path):
    theirs, config = mona_swin_of_star(), detector(tmp_path)
    meta = dict(CLASSES=('plane', 'ship'), PALETTE=[(1, 2, 3), (4, 5, 6)])
    files = converted(tmp_path, config, dict(meta=meta, state_dict=theirs.state_dict()))
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(config).model)
    load_checkpoint(model, str(files.base))
    info = mmpeft.load_adapters(model, files.adapters)
    assert info.classes == ['plane', 'ship'] and info.palette == [[1, 2, 3], [4, 5, 6]]
    assert info.base == 'ours_base.safetensors'


def test_the_norm_after_the_last_block_is_left_out_where_the_config_has_none(tmp_path):
    backbone = dict(MMSEG_VIT, final_norm=False)
    config = config_of(tmp_path, 'mmseg', backbone, SSF, VIT_SEGMENTOR)
    files = converted(tmp_path, config, timm_vit(SSF).state_dict())
    reason = "of the norm after the last block, which the config's backbone does not have"
    assert files.dropped[reason] == ['ssf_scale_1', 'ssf_shift_1', 'norm.weight', 'norm.bias']


def test_a_bare_backbone_is_converted_too(tmp_path):
    Config(dict(default_scope='mmseg', model=wrapped(MMSEG_VIT, SSF))).dump(tmp_path / 'config.py')
    theirs = timm_vit(SSF)
    files = converted(tmp_path, str(tmp_path / 'config.py'), theirs.state_dict())
    assert list(files.dropped) == ['outside the backbone, and the config is of a backbone alone']
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile(tmp_path / 'config.py').model)
    mmpeft.load_adapters(model, files.adapters)
    x = image(64, 64)
    expected = theirs.double().tokens(x)[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    assert distance(model.double().eval()(x), expected) < EXACT


def test_averaged_weights_are_taken_when_asked_for_and_told_of_otherwise(tmp_path):
    plain, averaged = timm_vit(SSF), randomised(TimmViT('SSF'), seed=6)
    content = dict(
        epoch=1,
        args=argparse.Namespace(model='vit_base_patch16_224_in21k', lr=1e-3),
        state_dict=prefixed(plain.state_dict(), 'module.'),
        state_dict_ema=averaged.state_dict(),
    )
    config, path = classifier(tmp_path, MMPRETRAIN_VIT, VIT_HEAD, SSF), save(tmp_path, content)
    x = image(64, 64)
    files = convert_checkpoint(config, path, str(tmp_path / 'plain'))
    assert str(files).endswith('The file holds averaged weights too; --ema takes those.')
    assert distance(loaded(config, files)(x), plain.double()(x)) < EXACT
    files = convert_checkpoint(config, path, str(tmp_path / 'averaged'), ema=True)
    assert '--ema' not in str(files)
    assert distance(loaded(config, files)(x), averaged.double()(x)) < EXACT
    assert 'holds no averaged weights' in error_of(tmp_path, config, plain.state_dict(), '--ema')


def test_the_tool_prints_one_line_and_a_folder_names_the_files_after_the_source(tmp_path, capsys):
    state = mona_swin_of_star().state_dict()
    config, path = detector(tmp_path), save(tmp_path, dict(state_dict=state))
    tool('convert').main([config, path, f'{tmp_path}/out/'])
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith(f"{len(state)} tensors in STAR-MMRotate's layout became {tmp_path}/out/theirs_base.safetens")
    assert line.endswith('/out/theirs_adapters.safetensors.')
    assert {file.name for file in (tmp_path / 'out').iterdir()} == {
        'theirs_base.safetensors',
        'theirs_adapters.safetensors',
    }


def error_of(folder: Path, config: str, content: dict, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        tool('convert').main([config, save(folder, content), f'{folder}/none', *arguments])
    assert '\n' not in ended.value.code and not list(folder.glob('none*'))
    return ended.value.code


def test_a_file_of_no_known_layout_is_refused_with_what_was_looked_for(tmp_path):
    state = stock_model('mmdet', SWIN_2, RETINANET).state_dict()
    text = error_of(tmp_path, detector(tmp_path), dict(state_dict=state))
    for part in ('my_module_1', 'mona1', 'ssf_scale_1', 'Prompt_Tokens', 'tensors are of no known layout'):
        assert part in text


def test_a_file_of_two_layouts_is_refused():
    with pytest.raises(ValueError, match="of SSF's and of CVPT's"):
        find_layout(['Prompt_Tokens', 'blocks.0.ssf_scale_1'])


def test_a_config_of_another_method_or_backbone_is_refused(tmp_path):
    state = mona_swin_of_star().state_dict()
    text = error_of(tmp_path, detector(tmp_path, SSF), dict(state_dict=state))
    assert "The file holds Mona in STAR-MMRotate's layout, and" in text and "has ['SSF']." in text
    config = config_of(tmp_path, 'mmseg', MMSEG_VIT, MONA, VIT_SEGMENTOR)
    text = error_of(tmp_path, config, dict(state_dict=state))
    assert "STAR-MMRotate's layout is known for Swin, and the backbone is a VisionTransformer." in text


def test_a_config_without_adapters_is_refused(tmp_path):
    Config(dict(default_scope='mmdet', model=dict(RETINANET, backbone=SWIN_2))).dump(tmp_path / 'config.py')
    text = error_of(tmp_path, str(tmp_path / 'config.py'), dict(state_dict=mona_swin_of_star().state_dict()))
    assert 'has 0 backbones with adapters' in text


def test_a_file_of_another_model_is_refused_with_the_names_that_differ(tmp_path):
    config, state = detector(tmp_path), mona_swin_of_star().state_dict()
    first = 'backbone.stages.0.blocks.0.mona1.'
    index = 'backbone.stages.0.blocks.0.attn.w_msa.relative_position_index'
    lacking = {name: tensor for name, tensor in state.items() if name != first + 'gamma'}
    cases = {
        'it lacks backbone.stages.0.blocks.0.adapters.after_attn.gamma.': lacking,
        'it has backbone.stages.0.blocks.0.mona1.more besides.': {**state, first + 'more': torch.ones(1)},
        'gamma of shape (3,), and the model one of (8,)': {**state, first + 'gamma': torch.ones(3)},
        'it lacks bbox_head.retina_cls.bias.': {n: t for n, t in state.items() if n != 'bbox_head.retina_cls.bias'},
        f'it has another {index} than the model': {**state, index: state[index].flip(0)},
    }
    for expected, changed in cases.items():
        assert expected in error_of(tmp_path, config, dict(state_dict=changed))


def test_an_absent_bias_of_the_config_is_named_with_its_option(tmp_path):
    config = config_of(tmp_path, 'mmseg', dict(MMSEG_VIT, patch_bias=False), SSF, VIT_SEGMENTOR)
    text = error_of(tmp_path, config, timm_vit(SSF).state_dict())
    assert 'has backbone.patch_embed.projection.bias besides' in text
    assert text.endswith('Set patch_bias to True in the backbone.')


@pytest.mark.parametrize('taken', ['ours_base.safetensors', 'ours_adapters.safetensors'])
def test_nothing_is_overwritten(tmp_path, taken):
    (tmp_path / taken).write_text('mine')
    with pytest.raises(ValueError, match=f'{taken} exists; name another place'):
        converted(tmp_path, detector(tmp_path), dict(state_dict=mona_swin_of_star().state_dict()))
    assert (tmp_path / taken).read_text() == 'mine' and len(list(tmp_path.glob('ours*'))) == 1


def test_no_code_is_run_from_a_checkpoint(tmp_path):
    text = error_of(tmp_path, detector(tmp_path), dict(state_dict={'a': torch.ones(1)}, hook=Path('x')))
    assert 'no code is run from a checkpoint' in text
