"""timm's backbones through TIMMBackbone: forms and names, given weights, rotations, and what is refused."""

import copy
import re

import mmpretrain.models
import mmseg.models
import pytest
import timm
import torch
from safetensors.torch import save_file
from test_onnx import check, exported
from tiny import HOSTS, MONA, image, timm_swin, timm_vit

import mmpeft
from mmpeft.mm.backbone import adapt_backbone

DINOV3 = 'vit_base_patch16_dinov3'
# A form that returns maps, and another form of the same backbone.
FORMS = {
    'ViT': (timm_vit, lambda: timm_vit(features_only=False, out_indices=None)),
    'DINOv3': (lambda: timm_vit(DINOV3), lambda: timm_vit(DINOV3, features_only=False, out_indices=None)),
    'Swin': (timm_swin, lambda: timm_swin(feature_cls='list')),
}


def adapted(backbone, method=MONA):
    adapt_backbone(backbone, method)
    return backbone


def timms_own(backbone) -> dict:
    """The tensors of a backbone as a file of timm holds them."""
    levels = r'^timm_model\.(model\.)?'
    return {re.sub('^layers_', 'layers.', re.sub(levels, '', n)): t for n, t in backbone.state_dict().items()}


@pytest.fixture(params=FORMS)
def file(request, tmp_path):
    """Both forms, and a file as timm's own model saves it."""
    form, other = FORMS[request.param]
    path = tmp_path / 'model.safetensors'
    # The other form has all that there is, the norm behind the last block too.
    save_file({name: torch.randn_like(tensor) for name, tensor in timms_own(other()).items()}, path)
    return form, other, str(path)


def loaded(build, file, method=MONA):
    backbone = build()
    backbone.init_cfg = dict(type='Pretrained', checkpoint=file)
    adapt_backbone(backbone, method)
    backbone.init_weights()
    return backbone


def test_a_file_of_timm_fills_every_tensor_of_the_base_in_each_form(file):
    form, other, path = file
    first, second = loaded(form, path), loaded(other, path)
    assert not first.missing and not second.missing
    theirs = timms_own(second)
    assert all(torch.equal(t, theirs[n]) for n, t in timms_own(first).items() if 'adapters' not in n)
    assert mmpeft.fingerprint(first) == mmpeft.fingerprint(second)


def test_a_checkpoint_of_one_form_fills_the_other(file):
    form, other, path = file
    source, target = loaded(other, path), adapted(form())
    state = {f'backbone.{name}': tensor for name, tensor in source.state_dict().items()}
    model = torch.nn.ModuleDict(dict(backbone=target))
    assert all('norm' in key for key in model.load_state_dict(state, strict=False).unexpected_keys)
    assert not target.missing and mmpeft.fingerprint(target) == mmpeft.fingerprint(source)


def test_an_adapter_file_of_one_form_loads_in_the_other(file, tmp_path):
    form, other, path = file
    trained, served = loaded(form, path), loaded(other, path)
    for name, parameter in trained.named_parameters():
        parameter.data.add_(0.1 * mmpeft.is_adapter(name))
    mmpeft.save_adapters(trained, tmp_path / 'task.safetensors')
    mmpeft.load_adapters(served, tmp_path / 'task.safetensors')
    theirs = timms_own(served)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in timms_own(trained).items())


def test_an_adapter_file_finds_the_file_of_timm_that_it_names(file, tmp_path):
    form, _, path = file
    trained, served = loaded(form, path), adapted(form())
    mmpeft.save_adapters(trained, tmp_path / 'task.safetensors')
    mmpeft.load_adapters(served, tmp_path / 'task.safetensors')
    trained.eval()
    served.eval()
    x = image(40, 48)
    assert all(torch.equal(a, b) for a, b in zip(trained(x), served(x), strict=True))


def test_a_file_that_leaves_a_tensor_of_the_base_is_refused_in_training(tmp_path):
    state = timms_own(timm_vit(DINOV3))
    del state['blocks.1.gamma_2']
    save_file(state, tmp_path / 'model.safetensors')
    backbone = loaded(lambda: timm_vit(DINOV3), str(tmp_path / 'model.safetensors'))
    with pytest.raises(RuntimeError, match=r'1 tensors of the frozen base .*: timm_model\.model\.blocks\.1\.gamma_2\.'):
        backbone.train()(image(40, 48))


@pytest.mark.parametrize('library', [mmpretrain, mmseg], ids=lambda library: library.__name__)
def test_weights_that_timm_itself_has_loaded_are_weights_given(tmp_path, library):
    arch = dict(embed_dim=16, depth=2, num_heads=2, img_size=32)
    save_file(timm.create_model('vit_tiny_patch16_224', **arch).state_dict(), tmp_path / 'vit.safetensors')
    overlay = dict(file=str(tmp_path / 'vit.safetensors'))
    options = dict(model_name='vit_tiny_patch16_224', features_only=True, out_indices=(0, 1), **arch)
    given = library.models.TIMMBackbone(pretrained=True, pretrained_cfg_overlay=overlay, **options)
    adapted(given).init_weights()
    given.train()(torch.randn(1, 3, 32, 32))
    with pytest.raises(RuntimeError, match='were never given pretrained weights'):
        adapted(library.models.TIMMBackbone(pretrained=False, **options)).train()(torch.randn(1, 3, 32, 32))


def test_the_maps_of_a_swin_are_channels_first_where_timm_gets_them():
    assert [out.shape[1] for out in timm_swin()(image(40, 48))] == [8, 16, 32, 64]
    assert [out.shape[3] for out in timm_swin(feature_cls='list')(image(40, 48))] == [8, 16, 32, 64]


@pytest.mark.parametrize('deep', [True, False])
@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', DINOV3])
def test_prompts_stand_behind_the_registers_and_do_not_rotate(name, deep):
    plain = timm_vit(name, out_indices=(2,))
    backbone, x = copy.deepcopy(plain), image(40, 48)
    mmpeft.inject(backbone, dict(type='VPT', num_prompts=3, dropout=0.0, deep=deep))
    prompts = [p for n, p in backbone.named_parameters() if n.endswith('.prompts')]
    for values in prompts:
        torch.nn.init.normal_(values)
    model, front, travelling = plain.timm_model.model, plain.timm_model.model.num_prefix_tokens, None
    tokens = model._pos_embed(model.patch_embed(x))
    tokens, given = (tokens[0], dict(rope=tokens[1])) if name == DINOV3 else (tokens, {})
    for index, block in enumerate(model.blocks):
        block.attn.num_prefix_tokens = front + 3
        own = prompts[index].expand(2, -1, -1) if deep or not index else travelling
        y = block(torch.cat((tokens[:, :front], own, tokens[:, front:]), dim=1), **given)
        travelling, tokens = y[:, front : front + 3], torch.cat((y[:, :front], y[:, front + 3 :]), dim=1)
    expected = tokens[:, front:].transpose(1, 2).unflatten(2, (5, 6))
    torch.testing.assert_close(backbone(x)[0], expected)


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', DINOV3])
def test_mona_sees_the_grid_and_neither_class_token_nor_registers(name):
    backbone, seen = timm_vit(name), []
    mmpeft.inject(backbone, MONA)
    for adapter in backbone.modules():
        if isinstance(adapter, mmpeft.methods.Mona):
            adapter.register_forward_pre_hook(lambda _, args: seen.append((args[0].shape[1], *map(int, args[1]))))
    backbone(image(40, 48))
    assert seen == [(30, 5, 6)] * 6


def test_a_shift_that_only_other_attention_has_a_bias_for_is_folded_and_said():
    backbone, x = timm_vit(DINOV3), image(40, 48)
    mmpeft.inject(backbone, dict(type='SSF', sites=['qkv']))
    expected, report = backbone(x), mmpeft.merge(backbone)
    assert report.settings == dict(qkv_bias=True, attn_type='rope')
    assert "a stock backbone has to be built with attn_type='rope' and qkv_bias=True" in str(report)
    stock = timm_vit(DINOV3, **report.settings)
    stock.load_state_dict(backbone.state_dict(), strict=True)
    for ours, theirs, before in zip(backbone(x), stock(x), expected, strict=True):
        torch.testing.assert_close(ours, before)
        torch.testing.assert_close(theirs, before)


REFUSED = {
    'a CNN': (
        dict(model_name='resnet18', out_indices=(1, 2)),
        r'its timm model is a timm\..*; known: timm\.models\.vi',
    ),
    'a ViT with a stem': (dict(model_name='vit_tiny_r_s16_p8_224'), r'its patch_embed is a .*HybridEmbed; known: '),
    'other blocks': (
        dict(model_name='vit_tiny_patch16_224', block_fn=timm.models.vision_transformer.ResPostBlock),
        r'No host describes timm_model\.model\.blocks\.0, a .*ResPostBlock\. docs/extending\.md',
    ),
    'other attention': (dict(model_name='vit_tiny_patch16_224', attn_layer='diff'), 'its attn is a .*DiffAttention'),
    'hooks on a Swin': (
        dict(model_name='swin_tiny_patch4_window7_224', feature_cls='hook', embed_dim=12),
        'its timm model is a .*HookNet',
    ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_no_host_was_written_for_is_refused_in_one_line(case):
    options, message = REFUSED[case]
    backbone = mmpretrain.models.TIMMBackbone(features_only=True, **options)
    with pytest.raises(ValueError, match=message) as refusal:
        mmpeft.inject(backbone, MONA)
    assert 'docs/extending.md' in str(refusal.value) and '\n' not in str(refusal.value)


def test_cvpt_is_refused_where_queries_and_keys_are_normalised():
    backbone = timm_vit(qk_norm=True)
    with pytest.raises(ValueError, match='its attention has a q_norm, which prompts do not go through'):
        mmpeft.inject(backbone, dict(type='CVPT'))
    mmpeft.inject(backbone, MONA)


def test_timms_own_checkpointing_is_refused_in_training():
    backbone = timm_vit()
    backbone.timm_model.model.set_grad_checkpointing()
    mmpeft.inject(backbone, MONA)
    backbone.eval()(image(40, 48))
    with pytest.raises(RuntimeError, match=r'set_grad_checkpointing of timm .* set recompute_ffn=True beside method'):
        backbone.train()(image(40, 48))


def test_lora_is_refused_where_keys_and_values_have_fewer_heads():
    grouped = dict(attn_type='rope', qkv_fused=False, num_kv_heads=1)
    with pytest.raises(ValueError, match='its keys and values have fewer heads than its queries'):
        mmpeft.inject(timm_vit(DINOV3, **grouped), dict(type='LoRA'))


@pytest.mark.parametrize('name', ['eva02_tiny_patch14_224', 'eva02_base_patch14_224'])
def test_lora_sees_queries_keys_and_values_however_they_lie(name):
    backbone, x = timm_vit(name), image(40, 48)
    plain = copy.deepcopy(backbone)
    mmpeft.inject(backbone, dict(type='LoRA', rank=2, targets=('k',)))
    for block, adapted_block in zip(plain.timm_model.model.blocks, backbone.timm_model.model.blocks, strict=True):
        lora, keys = adapted_block.attn.adapters['qkv'], slice(16, 32)
        torch.nn.init.normal_(lora.lora_B)
        own = slice(None) if block.attn.qkv is None else keys
        layer = block.attn.k_proj if block.attn.qkv is None else block.attn.qkv
        layer.weight.data[own] += lora.delta()[keys].detach()
    torch.testing.assert_close(backbone(x)[-1], plain(x)[-1])


def test_cvpt_in_a_swin_v2_scores_by_the_cosine_of_its_block():
    backbone, x = timm_swin('swinv2_tiny_window8_256'), torch.randn(2, 12, 8)
    mmpeft.inject(backbone, dict(type='CVPT', num_prompts=3, dropout=0.0))
    block = backbone.timm_model.model.layers[0].blocks[0]
    attn, prompts = block.attn, block.adapters['after_attn'].prompts
    q, _, _ = (x @ attn.qkv.weight.T + torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))).chunk(3, -1)
    _, k, v = (prompts @ attn.qkv.weight.T + torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))).chunk(3, -1)
    scores = torch.nn.functional.cosine_similarity(q.unsqueeze(2), k, dim=-1) * attn.logit_scale.exp().flatten()
    expected = x + attn.proj(scores.softmax(-1) @ v)
    torch.testing.assert_close(block.adapters['after_attn'](x, block.attention_weights()), expected)


ONE_BLOCK = dict(depth=1, out_indices=(0,))
TWO_STAGES = dict(depths=(2, 1), num_heads=(1, 2), out_indices=(0, 1))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ViT', 'DINOv3', 'EVA', 'Swin', 'SwinV2'])
def test_a_backbone_of_timm_exports_for_one_size(tmp_path, name):
    backbone, x = HOSTS[f'timm {name}'](**(TWO_STAGES if 'Swin' in name else ONE_BLOCK)), image(64, 64)
    mmpeft.inject(backbone, MONA)
    backbone.eval()
    check(backbone, exported(backbone, x, tmp_path), torch.randn_like(x))


def test_the_blocks_of_a_timm_model_are_parts_of_the_report():
    report = str(mmpeft.inject(timm_swin(feature_cls='list'), MONA))
    assert all(f'\nlayers.{index} ' in report for index in range(4))


@pytest.mark.parametrize('name, folds', [('swin_tiny_patch4_window7_224', True), ('swinv2_tiny_window8_256', False)])
def test_the_shift_of_a_reduction_folds_where_its_norm_comes_before_it(name, folds):
    backbone, x = timm_swin(name), image(40, 48)
    mmpeft.inject(backbone, dict(type='SSF', sites=['reduction']))
    backbone.eval()
    expected, report = backbone(x), mmpeft.merge(backbone)
    assert report.is_stock == folds and len(report.kept) == (0 if folds else 3)
    for merged, before in zip(backbone(x), expected, strict=True):
        torch.testing.assert_close(merged, before, rtol=1e-4, atol=1e-5)
