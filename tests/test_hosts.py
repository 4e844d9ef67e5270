import copy
import pickle

import pytest
import torch
from tiny import LIBRARIES, MONA, image, swin, weights

import mmpeft
from mmpeft.hosts import adapt, adapted, find_owner


def twins(library, **options):
    """Two stock backbones with the same weights."""
    backbone = swin(library, **options)
    return backbone, copy.deepcopy(backbone)


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('library', LIBRARIES)
def test_an_empty_host_computes_what_the_stock_block_does_bit_for_bit(library, with_cp):
    plain, host = twins(library, with_cp=with_cp)
    for module in list(host.modules()):
        if type(module).__name__ == 'SwinBlock':
            adapt(module)
    x = image()
    for a, b in zip(plain(x), host(x), strict=True):
        assert torch.equal(a, b)
    sum(out.square().sum() for out in plain(x)).backward()
    sum(out.square().sum() for out in host(x)).backward()
    grads = dict(host.named_parameters())
    assert all(torch.equal(p.grad, grads[name].grad) for name, p in plain.named_parameters())


@pytest.mark.parametrize('library', LIBRARIES)
def test_every_site_is_visited_with_the_channels_it_declares(library):
    backbone = swin(library)
    mmpeft.inject(backbone, dict(MONA, sites=['before_attn', 'after_attn', 'after_ffn']))
    mmpeft.freeze(backbone)
    backbone(image())[-1].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize('library', LIBRARIES)
def test_checkpointing_gives_the_same_gradients(library):
    backbone = swin(library)
    checkpointed = swin(library, with_cp=True)
    for model in (backbone, checkpointed):
        mmpeft.inject(model, dict(MONA, dropout=0.0))
        mmpeft.freeze(model)
    checkpointed.load_state_dict(backbone.state_dict())
    x = image()
    for model in (backbone, checkpointed):
        model.train()
        sum(out.square().mean() for out in model(x)).backward()
    grads = {name: p.grad for name, p in checkpointed.named_parameters()}
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is None) == (grads[name] is None) == (not mmpeft.is_adapter(name))
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, grads[name])


@pytest.mark.parametrize('library', LIBRARIES)
def test_an_adapted_object_is_of_its_stock_class_under_its_stock_name(library):
    backbone = swin(library)
    stock = type(backbone)
    mmpeft.inject(backbone, MONA)
    assert isinstance(backbone, stock) and type(backbone) is not stock
    assert type(backbone).__name__ == stock.__name__ and type(backbone).__module__ == stock.__module__
    assert adapted(stock) is type(backbone)


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize('library', LIBRARIES)
def test_a_copy_computes_with_its_own_adapters(library, duplicate):
    backbone = swin(library)
    backbone.eval()
    mmpeft.inject(backbone, MONA)
    before, x = weights(backbone), image()
    twin = duplicate(backbone)
    assert type(twin) is type(backbone) and twin.adapter_methods == backbone.adapter_methods
    expected = backbone(x)[-1]
    for name, parameter in backbone.named_parameters():
        parameter.data.add_(mmpeft.is_adapter(name) * 1.0)
    assert torch.equal(twin(x)[-1], expected)
    assert all(torch.equal(twin.state_dict()[name], before[name]) for name in before)


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
        ValueError, match=r'No host describes torch\.nn\.modules\.activation\.GELU; known: mmdet\..*swin\.py'
    ):
        adapted(torch.nn.GELU)
