import copy
import pickle
import threading

import mmdet.models
import mmpretrain.models
import mmseg.models
import pytest
import torch
from tiny import HOSTS, MONA, image, load, mmpretrain_vit, swin, weights

import mmpeft
from mmpeft.costs import saved_bytes
from mmpeft.hosts import adapt, adapted, find_owner

EVERY_SITE = [
    'before_attn',
    'attn_branch',
    'beside_attn',
    'after_attn',
    'ffn_input',
    'ffn_branch',
    'beside_ffn',
    'after_ffn',
]
OF_MM = [name for name in HOSTS if not name.startswith('timm ')]
CHECKPOINTED = [name for name in OF_MM if name.endswith(('Swin', 'SwinV2')) or name in ('mmseg ViT', 'mmseg MiT')]


@pytest.mark.parametrize('name, with_cp', [(n, False) for n in HOSTS] + [(n, True) for n in CHECKPOINTED])
def test_an_empty_host_computes_what_the_stock_block_does_bit_for_bit(name, with_cp):
    plain = HOSTS[name](with_cp=True) if with_cp else HOSTS[name]()
    host = copy.deepcopy(plain)
    adapt(host)
    for block in host.blocks_of(host):
        adapt(host.get_submodule(block))
    host.wire()
    x = image()
    for a, b in zip(plain(x), host(x), strict=True):
        assert torch.equal(a, b)
    sum(out.square().sum() for out in plain(x)).backward()
    sum(out.square().sum() for out in host(x)).backward()
    ours = dict(host.named_parameters())
    for name, parameter in plain.named_parameters():
        assert parameter.grad is ours[name].grad is None or torch.equal(parameter.grad, ours[name].grad)


@pytest.mark.parametrize('name', HOSTS)
def test_every_site_of_a_block_is_visited_with_the_channels_it_declares(name):
    backbone = HOSTS[name]()
    mmpeft.inject(backbone, dict(MONA, sites=EVERY_SITE))
    mmpeft.freeze(backbone)
    backbone(image())[-1].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize('name', CHECKPOINTED)
def test_checkpointing_gives_the_same_gradients(name):
    backbone = HOSTS[name]()
    checkpointed = HOSTS[name](with_cp=True)
    for model in (backbone, checkpointed):
        mmpeft.inject(model, dict(MONA, dropout=0.0))
        mmpeft.freeze(model)
    load(checkpointed, backbone.state_dict())
    x = image()
    for model in (backbone, checkpointed):
        model.train()
        sum(out.square().mean() for out in model(x)).backward()
    grads = {name: p.grad for name, p in checkpointed.named_parameters()}
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is None) == (grads[name] is None) == (not mmpeft.is_adapter(name))
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, grads[name])


@pytest.mark.parametrize('name', HOSTS)
def test_an_adapted_object_is_of_its_stock_class_under_its_stock_name(name):
    backbone = HOSTS[name]()
    stock = type(backbone)
    mmpeft.inject(backbone, MONA)
    assert isinstance(backbone, stock) and type(backbone) is not stock
    assert type(backbone).__name__ == stock.__name__ and type(backbone).__module__ == stock.__module__
    assert adapted(stock) is type(backbone)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize('name', HOSTS)
def test_a_copy_computes_with_its_own_adapters(name, duplicate):
    backbone = HOSTS[name]()
    backbone.eval()
    mmpeft.inject(backbone, MONA)
    before, x = weights(backbone), image(40, 48)
    twin = duplicate(backbone)
    assert type(twin) is type(backbone) and twin.adapter_methods == backbone.adapter_methods
    expected = backbone(x)[-1]
    for name, parameter in backbone.named_parameters():
        parameter.data.add_(mmpeft.is_adapter(name) * 1.0)
    assert torch.equal(twin(x)[-1], expected)
    assert all(torch.equal(twin.state_dict()[name], before[name]) for name in before)


def test_frozen_attention_of_mmsegs_vit_computes_the_same_and_keeps_no_weights_of_pairs():
    plain = HOSTS['mmseg ViT']()
    frozen = copy.deepcopy(plain)
    mmpeft.inject(frozen, dict(type='Frozen'))
    mmpeft.freeze(frozen)
    x, grads = image(64, 64).requires_grad_(), []
    for model in (plain, frozen):
        out = model(x)[-1]
        grads.append((out, *torch.autograd.grad(out.square().sum(), x)))
    for stock, ours in zip(*grads, strict=True):
        torch.testing.assert_close(ours, stock, rtol=1e-4, atol=1e-5)
    plain.requires_grad_(False)
    pairs = 4 * 3 * 2 * (2 * 65**2)  # bytes, blocks, images, heads and tokens
    assert saved_bytes(plain, lambda: plain(x)) - saved_bytes(frozen, lambda: frozen(x)) > 0.8 * pairs


def test_a_block_with_a_forward_of_its_own_is_not_taken_for_the_stock_one():
    stock = type(swin().stages[0].blocks[0])

    class Same(stock):
        pass

    class Other(stock):
        def forward(self, x, hw_shape):
            return x

    assert find_owner(Same) is find_owner(stock) and find_owner(Other) is None


def test_an_unknown_class_is_refused_with_the_known_ones_and_what_to_do():
    with pytest.raises(
        ValueError, match=r'No host describes torch\.nn\.modules\.activation\.GELU; known: mmdet\..*docs/extending\.md'
    ):
        adapted(torch.nn.GELU)


NOT_KNOWN = {
    mmpretrain.models: 'XCiT PoolFormer RIFormer VAN MViT TinyViT HiViT LeViT Conformer ResNet MobileNetV3',
    mmseg.models: 'MSCAN ResNet HRNet UNet',
    mmdet.models: 'ResNet HRNet Darknet',
}


@pytest.mark.parametrize(
    'stock', [getattr(library, name) for library, names in NOT_KNOWN.items() for name in names.split()], ids=str
)
@pytest.mark.parametrize('method', [MONA, dict(type='SSF'), dict(type='Full')], ids=lambda m: m['type'])
def test_a_backbone_without_a_host_is_refused_in_one_line_that_says_what_to_do(stock, method):
    backbone = stock.__new__(stock)  # its class alone is looked at
    torch.nn.Module.__init__(backbone)
    with pytest.raises(
        ValueError, match=r'^No host describes .*; known backbones: .*docs/extending\.md .*\.$'
    ) as error:
        mmpeft.inject(backbone, method)
    assert '\n' not in str(error.value) and f'.{stock.__name__};' in str(error.value)


@pytest.mark.parametrize('name', ['mmseg ViT', 'mmpretrain ViT', 'mmpretrain DeiT', 'mmpretrain EVA02'])
def test_mona_on_vit_sees_the_grid_of_the_patch_tokens_and_no_other_token(name):
    backbone = HOSTS[name]()
    mmpeft.inject(backbone, MONA)
    seen = []
    for adapter in backbone.modules():
        if isinstance(adapter, mmpeft.methods.Mona):
            adapter.register_forward_pre_hook(lambda _, args: seen.append((args[0].shape[1], *map(int, args[1]))))
    backbone(image(40, 48))
    assert seen == [(30, 5, 6)] * 6


def test_tokens_that_do_not_fit_the_grid_are_refused():
    backbone = HOSTS['mmseg ViT']()
    mmpeft.inject(backbone, MONA)
    with pytest.raises(
        ValueError,
        match='Got 7 tokens; .* a grid of None. A block alone .* call the backbone',
    ):
        backbone.layers[0](torch.randn(1, 7, 16))


@pytest.mark.parametrize('method', [MONA, dict(type='SSF'), dict(type='LoRA', rank=2)], ids=lambda m: m['type'])
def test_a_relative_of_a_known_backbone_with_blocks_of_its_own_is_refused(method):
    backbone = mmpretrain_vit()
    stock = type(backbone.layers[0])
    backbone.layers[0].__class__ = type('OwnLayer', (stock,), dict(forward=lambda self, x: x, __module__='own'))
    with pytest.raises(ValueError, match=r'No host describes layers\.0, a own\.OwnLayer'):
        mmpeft.inject(backbone, method)


@pytest.mark.parametrize('method', [MONA, dict(type='VPT', num_prompts=3), dict(type='VPT', num_prompts=3, deep=False)])
@pytest.mark.parametrize('name', ['mmseg ViT', 'mmpretrain ViT'])
def test_threads_with_images_of_other_sizes_do_not_see_each_others_grids(name, method):
    backbone = HOSTS[name]()
    mmpeft.inject(backbone, method)
    backbone.eval()
    images = [image(8 * height, 8 * width, batch=1) for height, width in ((1, 4), (4, 1), (2, 3), (3, 2))]
    with torch.no_grad():
        expected = [backbone(x)[-1] for x in images]
    # Each thread stops between the patch embedding and the first block until all of them are there.
    barrier, inside = threading.Barrier(len(images), timeout=10), []

    def wait(*_):
        barrier.wait()

    backbone.patch_embed.register_forward_hook(wait)

    def run(number):
        with torch.no_grad():
            inside.append((number, backbone(images[number])[-1]))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in inside) == [0, 1, 2, 3]
    assert all(torch.allclose(out, expected[number], atol=1e-5) for number, out in inside)


def test_saving_in_one_thread_does_not_disturb_a_forward_in_another():
    backbone = HOSTS['mmseg ViT']()
    mmpeft.inject(backbone, [MONA, dict(type='NormTuning')])
    backbone.eval()
    x = image()
    expected, asked = backbone(x)[-1], []
    hook = backbone.layers[0].register_forward_hook(lambda *_: asked.append(mmpeft.trained_names(backbone)))
    seen = []
    tracer = backbone.layers[1].register_forward_pre_hook(lambda module, _: seen.append(set(module.adapters)))
    assert torch.equal(backbone(x)[-1], expected)
    hook.remove()
    tracer.remove()
    assert len(asked) == 1 and seen == [{'after_attn', 'after_ffn'}]


def test_a_compiler_sees_a_vit_as_one_graph():
    backbone = HOSTS['mmseg ViT']()
    mmpeft.inject(backbone, MONA)
    backbone.eval()
    x = image(40, 48)
    with torch.no_grad():
        expected = backbone(x)[-1]
        compiled = torch.compile(backbone, backend='eager', fullgraph=True)(x)[-1]
    torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)
