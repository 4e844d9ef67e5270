import copy
import math

import pytest
import torch
from test_contract import WITH_PROMPTS
from tiny import HOSTS, MONA, image, swin

import mmpeft
from mmpeft.methods import VPT

VITS = [name for name in WITH_PROMPTS if not name.startswith('timm ')]
DEEP = dict(type='VPT', num_prompts=3, dropout=0.0)
SHALLOW = dict(DEEP, deep=False)


def injected(name, *methods, **options):
    backbone = HOSTS[name](**options)
    mmpeft.inject(backbone, list(methods))
    mmpeft.freeze(backbone)
    return backbone


def prompts_of(backbone):
    return {name: p for name, p in backbone.named_parameters() if name.endswith('.prompts')}


def expected_maps(name, plain, prompts, x):
    """The last map of a stock ViT whose layers process prompts after the extra tokens; written as a plain loop."""
    inputs = []
    hook = plain.layers[0].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    height, width = plain(x)[-1].shape[2:]
    hook.remove()
    tokens = inputs[0]
    front = tokens.shape[1] - height * width
    deep = len(prompts) > 1
    travelling = None
    for i, layer in enumerate(plain.layers):
        own = prompts[i].expand(len(x), -1, -1) if deep or i == 0 else travelling
        y = layer(torch.cat((tokens[:, :front], own, tokens[:, front:]), dim=1))
        travelling = y[:, front : front + own.shape[1]]
        tokens = torch.cat((y[:, :front], y[:, front + own.shape[1] :]), dim=1)
    tokens = tokens if name == 'mmseg ViT' else plain.ln1(tokens)
    return tokens[:, front:].transpose(1, 2).unflatten(2, (height, width))


@pytest.mark.parametrize('method', [DEEP, SHALLOW], ids=['deep', 'shallow'])
@pytest.mark.parametrize('name', VITS)
def test_outputs_are_those_of_a_plain_loop_over_longer_sequences(name, method):
    plain = HOSTS[name]()
    backbone = copy.deepcopy(plain)
    mmpeft.inject(backbone, method)
    for prompts in prompts_of(backbone).values():
        torch.nn.init.normal_(prompts)
    x = image(40, 48)
    for model in (plain, backbone):
        model.eval()
    expected = expected_maps(name, plain, list(prompts_of(backbone).values()), x)
    torch.testing.assert_close(backbone(x)[-1], expected)
    assert not torch.allclose(plain(x)[-1], expected, atol=1e-3)


def test_deep_prompts_lie_in_every_block_and_shallow_ones_in_the_first_alone():
    assert list(prompts_of(injected('mmseg ViT', DEEP))) == [f'layers.{i}.adapters.input.prompts' for i in range(3)]
    assert list(prompts_of(injected('mmseg ViT', SHALLOW))) == ['layers.0.adapters.input.prompts']
    later = injected('mmseg ViT', dict(SHALLOW, blocks=r'layers\.[12]'))
    assert list(prompts_of(later)) == ['layers.1.adapters.input.prompts']


def test_starting_values_are_uniform_in_the_range_of_the_paper():
    layer = VPT(768, (16, 16), num_prompts=100)
    bound = math.sqrt(6 / (3 * 16 * 16 + 768))
    assert 0.99 * bound < layer.prompts.abs().max() <= bound
    torch.testing.assert_close(layer.prompts.std().item(), bound / math.sqrt(3), rtol=0.02, atol=0)
    in_host = prompts_of(injected('mmpretrain ViT', dict(DEEP, num_prompts=99)))['layers.0.adapters.input.prompts']
    bound = math.sqrt(6 / (3 * 8 * 8 + 16))
    assert 0.99 * bound < in_host.abs().max() <= bound


def test_dropout_is_drawn_anew_for_each_sample_and_only_in_training():
    layer = VPT(64, (8, 8), dropout=0.5)
    x = torch.zeros(2, 1, 64)
    first, second = layer(x)
    assert not torch.equal(first, second)
    layer.eval()
    assert torch.equal(layer(x), layer.prompts.expand(2, -1, -1))


@pytest.mark.parametrize('method', [DEEP, SHALLOW], ids=['deep', 'shallow'])
def test_a_forward_leaves_no_prompts_behind(method):
    backbone = injected('mmseg ViT', method)
    x = image(40, 48)
    first = backbone(x)[-1]
    backbone(image(32, 32, batch=1))
    assert torch.equal(backbone(x)[-1], first)
    assert torch.equal(copy.deepcopy(backbone)(x)[-1], first)


def test_a_forward_that_breaks_off_leaves_no_prompts_behind():
    backbone = injected('mmseg ViT', SHALLOW)
    x = image(40, 48)
    first = backbone(x)[-1]
    hook = backbone.layers[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backbone(x)
    hook.remove()
    assert torch.equal(backbone(x)[-1], first)


def test_a_block_alone_takes_no_prompts_because_it_does_not_know_where_they_go():
    backbone = injected('mmseg ViT', SHALLOW)
    with pytest.raises(ValueError, match='Got 31 tokens; .* A block alone knows no grid: call the backbone'):
        backbone.layers[0](torch.randn(2, 31, 16))


def test_shallow_prompts_get_the_same_gradient_through_checkpoints():
    plain, checkpointed = injected('mmseg ViT', SHALLOW), injected('mmseg ViT', SHALLOW, with_cp=True)
    checkpointed.load_state_dict(plain.state_dict())
    x = image(40, 48)
    for model in (plain, checkpointed):
        sum(out.square().mean() for out in model(x)).backward()
    (ours,), (expected,) = prompts_of(checkpointed).values(), prompts_of(plain).values()
    assert ours.grad.abs().max() > 0
    torch.testing.assert_close(ours.grad, expected.grad)


@pytest.mark.parametrize('method', [DEEP, SHALLOW], ids=['deep', 'shallow'])
@pytest.mark.parametrize('name', VITS)
def test_mona_sees_patch_tokens_alone_beside_prompts(name, method):
    both = injected(name, method, dict(MONA, dropout=0.0))
    seen = []
    for module in both.modules():
        if isinstance(module, mmpeft.methods.Mona):
            torch.nn.init.zeros_(module.up.weight)
            module.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    alone = injected(name, method)
    alone.load_state_dict(both.state_dict(), strict=False)
    x = image(40, 48)
    assert torch.equal(both(x)[-1], alone(x)[-1]) and seen == [30] * 6


def test_other_methods_take_prompts_for_tokens():
    backbone = injected(
        'mmseg ViT', SHALLOW, dict(type='CVPT'), dict(type='Adapter', sites=['attn_branch', 'ffn_branch'])
    )
    seen = []
    for module in backbone.modules():
        if isinstance(module, mmpeft.methods.CVPT | mmpeft.methods.Adapter):
            module.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
    backbone(image(40, 48))[-1].sum().backward()
    assert seen == [34] * 9
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


def test_swin_is_refused():
    with pytest.raises(ValueError, match="SwinTransformer has no site 'input'; its sites: before_attn, "):
        mmpeft.inject(swin(), DEEP)


REFUSED = {
    'sites': (dict(DEEP, sites=['norm1']), "VPT takes no sites: its option 'deep' says where it goes"),
    'no tokens': (dict(type='SSF', sites=['input']), "SSF has no tokens to give, and the site 'input' takes nothing"),
    'no prompts': (dict(DEEP, num_prompts=0), 'VPT needs .* at least 1, got dim=16, num_prompts=0, patch_size=.8, 8.'),
    'dropout': (dict(DEEP, dropout=1.0), r'VPT needs a dropout in \[0, 1\), got 1.0'),
    'two sets': ([DEEP, SHALLOW], r'VPT and VPT cannot share layers\.0\.input'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_does_not_fit_is_refused(case):
    method, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        mmpeft.inject(HOSTS['mmseg ViT'](), method)


def test_a_block_that_could_not_hand_prompts_on_is_refused_before_the_model_changes():
    backbone = HOSTS['mmseg ViT']()

    class Other(type(backbone.layers[2])):
        def forward(self, x):
            return x

    backbone.layers[2].__class__ = Other
    with pytest.raises(ValueError, match=r'No host describes layers\.2, a '):
        mmpeft.inject(backbone, SHALLOW)
    assert not isinstance(backbone.layers[0], mmpeft.hosts.Host)


def test_it_exports_with_any_number_of_images():
    layer, x = VPT(16, (8, 8)).eval(), torch.zeros(5, 1, 16)
    exported = torch.export.export(layer, (x[:2],), dynamic_shapes=({0: torch.export.Dim('images', max=64)},)).module()
    assert torch.equal(exported(x), layer(x))
