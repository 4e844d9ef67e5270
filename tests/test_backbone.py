import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS, DefaultScope, init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from tiny import MONA, SWIN, SWINS, ToyModel, image, pretrained, same, swin, weights, wrapped

import mmpeft


def build(backbone=SWIN, **options):
    return MODELS.build(wrapped(backbone, **options))


def base_of(module):
    return {name: value for name, value in weights(module).items() if not mmpeft.is_adapter(name)}


def adapters_of(module):
    return {name: value for name, value in weights(module).items() if mmpeft.is_adapter(name)}


def random_start(model):
    """The weights after init_weights, and what the global generator gives next."""
    torch.manual_seed(4)
    model.init_weights()
    return base_of(model), torch.rand(1)


@pytest.mark.parametrize('scope, library', [('mmdet', 'mmdet'), ('mmseg', 'mmseg'), ('mmpretrain', 'mmpretrain')])
def test_the_builder_returns_the_stock_backbone_of_the_scope_frozen(scope, library):
    init_default_scope(scope)
    backbone = dict(SWIN) if library != 'mmpretrain' else dict(type='SwinTransformer', arch='tiny')
    built = MODELS.build(wrapped(backbone))
    assert isinstance(built, SWINS[library])
    assert {name for name, p in built.named_parameters() if p.requires_grad} == mmpeft.trained_names(built) != set()


@pytest.mark.parametrize('scope, library', [('mmdet', 'mmdet'), ('mmseg', 'mmseg'), ('mmrotate', 'mmdet')])
def test_the_named_builder_takes_stock_keys_and_method_keys(scope, library):
    init_default_scope(scope)
    built = MODELS.build(dict(SWIN, type='mmpeft.MonaSwinTransformer', bottleneck=4, dropout=0.0))
    assert isinstance(built, SWINS[library])
    assert built.stages[0].blocks[0].adapters.after_attn.down.out_features == 4


def test_the_named_builder_without_a_scope_says_what_to_do():
    DefaultScope._instance_dict.clear()
    with pytest.raises(ValueError, match='takes the SwinTransformer of the default scope, and none is set'):
        MODELS.build(dict(SWIN, type='mmpeft.MonaSwinTransformer'))


def test_wrapper_and_name_start_from_the_same_values():
    torch.manual_seed(1)
    a = build()
    torch.manual_seed(1)
    b = MODELS.build(dict(SWIN, type='mmpeft.MonaSwinTransformer', bottleneck=4))
    assert same(weights(a), weights(b))


def test_adapting_changes_no_other_starting_value():
    torch.manual_seed(1)
    plain = ToyModel(SWIN)
    torch.manual_seed(1)
    ours = ToyModel(wrapped())
    assert same(weights(plain), base_of(ours))
    (start, drawn), (start_of_ours, drawn_by_ours) = random_start(plain), random_start(ours)
    assert same(start, start_of_ours) and torch.equal(drawn, drawn_by_ours)


def test_pretrained_weights_fill_the_base_and_leave_adapters_at_their_start(tmp_path):
    backbone = build(pretrained(tmp_path))
    before = adapters_of(backbone)
    backbone.init_weights()
    stored = torch.load(tmp_path / 'base.pth')['state_dict']
    assert all(torch.equal(value, backbone.state_dict()[name[9:]]) for name, value in stored.items())
    assert same(adapters_of(backbone), before) and not backbone.missing


def test_a_file_without_a_key_for_the_backbone_is_refused_with_the_reason(tmp_path):
    torch.save({'state_dict': swin().state_dict()}, tmp_path / 'bare.pth')
    backbone = build(dict(SWIN, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'bare.pth'))))
    with pytest.raises(ValueError, match='bare.pth.* holds no key that begins with "backbone."'):
        backbone.init_weights()


def test_a_file_in_the_layout_of_mm_is_refused_where_it_is_to_be_converted(tmp_path):
    backbone = build(pretrained(tmp_path, convert_weights=True))
    with pytest.raises(ValueError, match="base.pth.* is in mm's own layout, and .* Set convert_weights=False"):
        backbone.init_weights()


@pytest.mark.parametrize('key', ['pretrained', 'init_cfg'])
def test_pretrained_and_init_cfg_of_the_wrapper_go_inwards(tmp_path, key):
    path = pretrained(tmp_path)['init_cfg']['checkpoint']
    init_default_scope('mmseg')
    value = path if key == 'pretrained' else dict(type='Pretrained', checkpoint=path)
    backbone = MODELS.build(wrapped(SWIN, **{key: value}))
    backbone.init_weights()
    assert not backbone.missing


def test_init_weights_restores_base_and_adapters_whatever_ran_before_it(tmp_path):
    backbone = build(pretrained(tmp_path))
    backbone.init_weights()
    start = weights(backbone)
    for parameter in backbone.parameters():
        parameter.data.fill_(7)
    backbone.init_weights()
    restored = weights(backbone)
    assert all(torch.equal(restored[name], start[name]) for name in start if not name.startswith('norm0'))


def test_an_outer_init_cfg_redraws_neither_base_nor_adapters(tmp_path):
    outer = [dict(type='TruncNormal', layer='Linear', std=0.5), dict(type='Constant', layer='LayerNorm', val=3.0)]
    model = ToyModel(wrapped(pretrained(tmp_path)), init_cfg=outer)
    before = adapters_of(model)
    model.backbone.init_weights()
    model.init_weights()
    stored = torch.load(tmp_path / 'base.pth')['state_dict']
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in stored.items())
    assert same(adapters_of(model), before)
    assert model.head.weight.std() > 0.3


def test_a_base_that_only_lives_in_memory_is_not_redrawn():
    model = ToyModel(SWIN, init_cfg=dict(type='TruncNormal', layer='Linear', std=0.5))
    mmpeft.inject(model.backbone, MONA)
    before = weights(model.backbone)
    model.init_weights()
    assert same(weights(model.backbone), before)


def test_adapters_that_were_loaded_survive_init_weights(tmp_path):
    backbone, source = build(pretrained(tmp_path)), build()
    for parameter in source.parameters():
        parameter.data.add_(0.5)
    backbone.load_state_dict(source.state_dict())
    backbone.init_weights()
    assert same(adapters_of(backbone), adapters_of(source))


def test_training_on_a_base_without_weights_is_refused_with_the_ways_to_give_them():
    backbone = build()
    backbone.init_weights()
    with pytest.raises(RuntimeError) as error:
        backbone(image())
    for part in ('never given pretrained weights', 'init_cfg', 'load_from', '--resume', 'allow_random_base=True'):
        assert part in str(error.value)


def test_building_loading_and_testing_never_refuse():
    backbone = build()
    backbone.eval()
    backbone(image())
    backbone.load_state_dict(backbone.state_dict())


def test_a_random_base_trains_if_the_user_insists():
    backbone = build(allow_random_base=True)
    assert backbone(image())[0].requires_grad


def test_a_stock_checkpoint_gives_the_base():
    model = ToyModel(wrapped())
    load_state_dict(model, ToyModel(SWIN).state_dict())
    assert not model.backbone.missing
    model.backbone(image())


def test_a_tensor_that_the_file_does_not_fill_is_named():
    backbone, state = build(), swin().state_dict()
    state['patch_embed.projection.bias'] = torch.zeros(3)
    del state['stages.0.blocks.0.norm1.bias'], state['norm0.weight']
    load_state_dict(backbone, state)
    with pytest.raises(
        RuntimeError, match=r'2 tensors .* patch_embed\.projection\.bias, stages\.0\.blocks\.0\.norm1\.bias\.'
    ):
        backbone(image())


def test_mmpretrain_still_renames_the_keys_of_old_files():
    backbone = swin('mmpretrain')
    mmpeft.inject(backbone, MONA)
    old = {'norm.weight': torch.full((64,), 5.0), 'norm.bias': torch.zeros(64)}
    load_state_dict(backbone, old)
    assert backbone.norm3.weight.unique().tolist() == [5]


@pytest.mark.parametrize('library', SWINS)
def test_frozen_stages_freezes_no_adapter(library):
    backbone = swin(library, frozen_stages=2)
    mmpeft.inject(backbone, MONA)
    mmpeft.freeze(backbone)
    backbone.train()
    assert {name for name, p in backbone.named_parameters() if p.requires_grad} == mmpeft.trained_names(backbone)
    block = backbone.stages[0].blocks[0]
    assert not block.norm1.training and block.adapters.after_attn.training
    backbone.eval()
    assert not block.adapters.after_attn.training


def test_activation_checkpointing_inside_is_refused_with_the_alternative():
    from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing

    model = ToyModel(wrapped(allow_random_base=True))
    turn_on_activation_checkpointing(model, ['backbone.stages.0.blocks.0'])
    with pytest.raises(RuntimeError, match=r'wraps stages\.0\.blocks\.0 in a re-entrant checkpoint.*with_cp=True'):
        model.backbone(image())


def test_with_cp_gives_every_adapter_a_gradient_behind_the_frozen_stem():
    backbone = build(dict(SWIN, with_cp=True), allow_random_base=True)
    sum(out.mean() for out in backbone(image())).backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


def test_wrapping_a_model_config_without_a_backbone_is_an_error():
    from mmpeft.mm.backbone import wrap_backbone

    with pytest.raises(ValueError, match='no backbone in its config'):
        wrap_backbone(ConfigDict(type='X'), MONA)
