"""tools/convert.py: what its files hold, what it says, and what it refuses."""

import argparse
import re
from pathlib import Path

import pytest
import torch
from author_files import (
    CVPT,
    EXACT,
    MMPRETRAIN_VIT,
    MMSEG_VIT,
    SSF,
    SWIN_2,
    VIT_HEAD,
    VIT_SEGMENTOR,
    classifier,
    config_of,
    converted,
    cvpt_segmentor,
    detector,
    distance,
    image,
    loaded,
    mona_swin_of_star,
    prefixed,
    rest_of,
    save,
    stock_model,
    timm_vit,
)
from authors import MicrosoftSwin, TimmViT, randomised
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint
from safetensors import safe_open
from test_merging import RETINANET
from tiny import MONA, same, wrapped
from tiny_data import tool

import mmpeft
from mmpeft.layouts import find_layout
from mmpeft.mm.running.converting import convert_checkpoint


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


def test_a_config_with_an_adapter_hook_serves_as_well(tmp_path):
    wrapper, state = detector(tmp_path), mona_swin_of_star().state_dict()
    hooked = dict(model=dict(RETINANET, backbone=SWIN_2), custom_hooks=[dict(type='mmpeft.MonaHook', bottleneck=4)])
    Config(dict(hooked, default_scope='mmdet')).dump(tmp_path / 'hook.py')
    files = converted(tmp_path, str(tmp_path / 'hook.py'), dict(state_dict=state))
    assert keys(files.adapters) <= loaded(wrapper, files).state_dict().keys()


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
    for part in ('my_module_1', 'mona1', 'ssf_scale_1', 'Prompt_Tokens', 'are of no known layout'):
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


def test_a_cross_attention_of_its_own_is_refused_where_it_would_be_shared(tmp_path):
    theirs = cvpt_segmentor(share=True)
    theirs.backbone.layers[1].cross.k.weight.data[0, 0] += 1e-6
    config = config_of(tmp_path, 'mmseg', MMSEG_VIT, CVPT, VIT_SEGMENTOR)
    text = error_of(tmp_path, config, dict(state_dict=theirs.state_dict()))
    assert 'backbone.layers.1.cross.k.weight differ' in text and 'set share=False in the method' in text


def test_learned_offsets_of_a_shared_cross_attention_are_refused(tmp_path):
    theirs = cvpt_segmentor(share=True)
    config = config_of(tmp_path, 'mmseg', MMSEG_VIT, dict(CVPT, learn=True), VIT_SEGMENTOR)
    assert 'set share=False' in error_of(tmp_path, config, dict(state_dict=theirs.state_dict()))


def test_a_tensor_of_a_shape_that_the_code_never_has_is_refused(tmp_path):
    state = timm_vit(CVPT).state_dict() | dict(Prompt_Tokens=torch.tensor(1.0))
    text = error_of(tmp_path, classifier(tmp_path, MMPRETRAIN_VIT, VIT_HEAD, CVPT), state)
    assert "Prompt_Tokens of shape (), which CVPT's code never has" in text
    state = prefixed(MicrosoftSwin('Mona').state_dict())
    name = 'backbone.layers.0.downsample.norm.weight'
    text = error_of(tmp_path, detector(tmp_path), dict(state_dict=state | {name: torch.ones(5)}))
    assert f"{name} of shape (5,), which Mona's code never has" in text


def test_ssf_s_convnext_is_refused(tmp_path):
    arch = dict(depths=(1, 1, 1, 1), channels=(8, 8, 16, 16))
    config = classifier(tmp_path, dict(type='ConvNeXt', arch=arch), VIT_HEAD, SSF)
    text = error_of(tmp_path, config, {'stem.0.weight': torch.ones(1), 'ssf_scale_1': torch.ones(8)})
    assert "SSF's layout is known for Swin, ViT, MMSegViT, and the backbone is a ConvNeXt." in text
