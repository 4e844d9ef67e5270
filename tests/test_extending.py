"""Methods and hosts from outside: the examples of docs/extending.md, and what registering refuses."""

import copy
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS, init_default_scope
from tiny import HOSTS, MONA, image, mmpretrain, mmseg_vit, pretrained, runner_config, swin, trained, weights, wrapped
from torch import nn

import mmpeft
from mmpeft.hosts import BACKBONES, BLOCKS, Backbone, Host
from mmpeft.methods import METHODS, Method, Tuning

EXAMPLES = re.findall(r'```python\n(.*?)```', Path('docs/extending.md').read_text(), re.DOTALL)


@pytest.fixture(autouse=True)
def _forgotten_afterwards():
    """What a test registers is unknown to the next one."""
    tables = [(table, dict(table)) for table in (METHODS, BLOCKS, BACKBONES)]
    yield
    for table, before in tables:
        table.clear()
        table.update(before)


@pytest.fixture
def documented() -> dict:
    """What the examples of the page define, by name."""
    names = {}
    for example in EXAMPLES:
        exec(example, names)
    return names


def davit(**options) -> nn.Module:
    arch = dict(embed_dims=4, depths=[1, 2, 1, 1], num_heads=[1, 1, 2, 2])
    sizes = dict(window_size=3, pad_small_map=True, drop_path_rate=0.0, out_indices=(0, 1, 2, 3))
    return mmpretrain.models.DaViT(arch=arch, **{**sizes, **options})


def adapted(backbone: nn.Module, **method) -> nn.Module:
    mmpeft.inject(backbone, method)
    mmpeft.freeze(backbone)
    return backbone


def step(backbone: nn.Module) -> set[str]:
    """Train once; the names of what changed."""
    before = weights(backbone)
    optimizer = torch.optim.Adam([p for p in backbone.parameters() if p.requires_grad], lr=0.05)
    sum(out.square().mean() for out in backbone(image(64, 64))).backward()
    optimizer.step()
    return {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}


def close(ours: list, theirs: list) -> bool:
    return all((a - b).norm() <= 1e-5 * b.norm() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize('method', ['IA3', 'DoRA'])
@pytest.mark.parametrize('host', ['mmdet Swin', 'mmseg ViT', 'mmpretrain ViT'])
def test_a_method_of_the_page_starts_at_the_base_trains_alone_and_merges_to_a_stock_model(documented, host, method):
    plain = HOSTS[host]()
    backbone = adapted(copy.deepcopy(plain), type=method)
    for model in (plain, backbone):
        model.eval()
    x = image(64, 64)
    assert close(backbone(x), plain(x))
    changed = step(backbone)
    assert changed and changed <= mmpeft.trained_names(backbone) and all(map(mmpeft.is_adapter, changed))
    expected = backbone(x)
    assert not close(expected, plain(x))
    assert mmpeft.merge(backbone).is_stock and close(backbone(x), expected)


def test_ia3_scales_keys_values_and_the_input_of_the_last_layer(documented):
    backbone = adapted(mmseg_vit(), type='IA3', blocks=r'layers\.0(\.|$)')
    qkv, fc2 = backbone.layers[0].attn.attn, backbone.layers[0].ffn.layers[1]
    qkv.adapters.qkv.scale.data[:16] = 2
    fc2.adapters.fc2.scale.data[0] = 3
    x = torch.randn(2, 5, 16)
    stock = F.linear(x, qkv.in_proj_weight, qkv.in_proj_bias).chunk(3, dim=2)
    q, k, v = qkv.adapters.qkv.after_linear(x, qkv.in_proj_weight, qkv.in_proj_bias).chunk(3, dim=2)
    torch.testing.assert_close((q, k, v), (stock[0], 2 * stock[1], stock[2]))
    hidden = torch.randn(2, 5, 32)
    scaled = torch.cat((3 * hidden[..., :1], hidden[..., 1:]), dim=-1)
    torch.testing.assert_close(fc2(hidden), F.linear(scaled, fc2.weight, fc2.bias))


def lengths(backbone: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For each DoRA its magnitude and the lengths of the rows of its layer."""
    linear = [m for m in backbone.modules() if isinstance(m, nn.Linear) and getattr(m, 'adapters', None)]
    return [(next(iter(m.adapters.values())).magnitude.detach(), m.weight.norm(dim=1).detach()) for m in linear]


def test_a_start_from_the_weight_follows_every_base_that_is_loaded_later(documented):
    backbone, other = adapted(swin(), type='DoRA'), swin()
    assert lengths(backbone) and all(torch.equal(*pair) for pair in lengths(backbone))
    before = lengths(backbone)[0][0].clone()
    backbone.load_state_dict(other.state_dict(), strict=False)
    assert not torch.equal(lengths(backbone)[0][0], before)
    assert all(torch.equal(*pair) for pair in lengths(backbone))


def test_adapters_that_come_with_the_base_keep_their_values(documented):
    source = adapted(swin(), type='DoRA')
    step(source)
    target = adapted(swin(), type='DoRA')
    target.load_state_dict(source.state_dict())
    assert all(torch.equal(value, target.state_dict()[name]) for name, value in source.state_dict().items())


def test_a_start_from_the_weight_follows_the_pretrained_file_of_a_config(documented, tmp_path):
    init_default_scope('mmdet')
    backbone = MODELS.build(wrapped(pretrained(tmp_path), dict(type='DoRA', rank=2)))
    drawn = lengths(backbone)[0][1].clone()
    backbone.init_weights()
    assert not torch.equal(lengths(backbone)[0][1], drawn)
    assert all(torch.equal(*pair) for pair in lengths(backbone))


def test_a_start_from_the_weight_is_refused_where_there_is_no_layer(documented):
    with pytest.raises(ValueError, match="DoRA starts from the weight of a layer, and 'after_attn' is"):
        mmpeft.inject(swin(), dict(type='DoRA', sites=['after_attn']))


def test_a_method_for_linear_layers_is_refused_elsewhere(documented):
    with pytest.raises(ValueError, match=r'IA3 computes with a linear layer, and .*\.norm1\.norm1 is not'):
        mmpeft.inject(swin(), dict(type='IA3', sites=['norm1']))


def test_a_config_trains_a_method_of_its_own_and_its_adapter_file_loads(documented, tmp_path):
    backbone = wrapped(pretrained(tmp_path), dict(type='DoRA', rank=2))
    hooks = [dict(type='mmpeft.AdapterReportHook'), dict(type='mmpeft.AdapterCheckpointHook')]
    runner = trained(runner_config(tmp_path / 'run', backbone, custom_hooks=hooks))
    model = copy.deepcopy(runner.model)
    for name, parameter in model.named_parameters():
        parameter.data += 1.0 * mmpeft.is_adapter(name)
    mmpeft.load_adapters(model, tmp_path / 'run' / 'adapters_last.safetensors')
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in runner.model.state_dict().items())


def test_an_unregistered_method_of_a_file_or_config_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"Unknown method 'IA3'; known .*custom_imports .* mmpeft\.register_method"):
        mmpeft.inject(swin(), dict(type='IA3'))


class Pair(nn.Module):
    """The two frozen matrices of VeRA."""

    def __init__(self, features: int, rank: int) -> None:
        super().__init__()
        self.register_buffer('down', torch.empty(rank, features))
        self.register_buffer('up', torch.empty(features, rank))


class VeRA(Method):
    """Kopiczko et al. 2023, arXiv:2310.11454: all blocks share two random matrices, and learn vectors between them."""

    sites = ('proj',)
    beside = True
    folds = True

    def __init__(self, in_features: int, out_features: int, rank: int = 4) -> None:
        super().__init__()
        self.middle = nn.Parameter(torch.empty(rank))
        self.outer = nn.Parameter(torch.empty(out_features))

    @classmethod
    def build(cls, place, options, parts):
        adapter = super().build(place, options, parts)
        if 'pair' not in parts:
            parts['pair'] = adapter.pair = Pair(place.sizes['in_features'], len(adapter.middle))
        adapter.shared = (parts['pair'],)
        return adapter

    def reset_parameters(self) -> None:
        nn.init.constant_(self.middle, 0.1)
        nn.init.zeros_(self.outer)
        for matrix in self.pair.buffers() if hasattr(self, 'pair') else ():
            nn.init.normal_(matrix)

    def forward(self, x):
        (pair,) = self.shared
        return F.linear(F.linear(x, pair.down) * self.middle, pair.up) * self.outer

    def fold(self, weight, bias):
        down, up = (matrix.to(weight.dtype) for matrix in self.shared[0].buffers())
        return weight + self.outer.unsqueeze(1) * (up * self.middle) @ down, bias


def test_blocks_can_share_a_part_that_is_kept_copied_saved_and_merged_once():
    mmpeft.register_method(VeRA)
    backbone = adapted(mmseg_vit(), type='VeRA')
    pairs = {id(m.shared[0]) for m in backbone.modules() if isinstance(m, VeRA)}
    kept = [name for name in backbone.state_dict() if '.pair.' in name]
    assert len(pairs) == 1 and kept == [f'layers.0.attn.attn.adapters.proj.pair.{leaf}' for leaf in ('down', 'up')]
    assert step(backbone) == mmpeft.trained_names(backbone) - {
        n for n in mmpeft.trained_names(backbone) if 'middle' in n
    }
    step(backbone)
    backbone.eval()
    x = image(32, 32)
    expected, twin = backbone(x), copy.deepcopy(backbone)
    copies = {id(m.shared[0]) for m in twin.modules() if isinstance(m, VeRA)}
    assert len(copies) == 1 and not copies & pairs
    other = adapted(mmseg_vit(), type='VeRA')
    other.load_state_dict(backbone.state_dict())
    other.eval()
    assert close(other(x), expected) and close(twin(x), expected)
    assert mmpeft.merge(twin).is_stock and close(twin(x), expected)


@pytest.mark.parametrize('with_cp', [False, True])
def test_the_host_of_the_page_computes_what_the_stock_backbone_does_bit_for_bit(documented, with_cp):
    plain = davit(with_cp=with_cp)
    host = copy.deepcopy(plain)
    mmpeft.inject(host, dict(type='Partial', k=1), recompute_ffn=True)
    x = image(64, 64)
    for ours, stock in zip(host(x), plain(x), strict=True):
        assert torch.equal(ours, stock)
    for model in (host, plain):
        sum(out.square().sum() for out in model(x)).backward()
    grads = dict(host.named_parameters())
    assert all(torch.equal(p.grad, grads[name].grad) for name, p in plain.named_parameters())


@pytest.mark.parametrize(
    'method',
    [
        dict(MONA, sites=[*mmpeft.sites.STREAM_SITES, *mmpeft.sites.BRANCH_SITES]),
        dict(type='SSF'),
        dict(type='LoRA', rank=2, targets=('q', 'v', 'fc2', 'patch_embed')),
        dict(type='Adapter', bottleneck=4),
    ],
    ids=lambda method: method['type'],
)
def test_methods_go_into_the_host_of_the_page(documented, method):
    plain = davit()
    backbone = adapted(copy.deepcopy(plain), **method)
    assert plain.state_dict().keys() <= backbone.state_dict().keys()
    backbone.eval()
    declared = mmpeft.trained_names(backbone)
    changed = step(backbone)
    assert changed <= declared and {n for n, p in backbone.named_parameters() if p.grad is not None} == declared
    expected = backbone(image(64, 64))
    report = mmpeft.merge(backbone)
    assert report.is_stock == (method['type'] in ('SSF', 'LoRA')) and len(expected) == 4


def test_a_site_that_the_host_leaves_out_is_refused_with_those_that_it_has(documented):
    with pytest.raises(ValueError, match="DaViT has no site 'input'; its sites: before_attn"):
        mmpeft.inject(davit(), dict(type='VPT'))


def test_cvpt_is_refused_in_a_block_that_does_not_tell_the_weights_of_its_attention(documented):
    with pytest.raises(ValueError, match=r'CVPT needs the attention of its block, .*\.spatial_block\.after_attn'):
        mmpeft.inject(davit(), dict(type='CVPT'))


class Well(Method):
    """Keeps the rules."""

    sites = ('after_ffn',)

    def __init__(self, dim: int, width: int = 4) -> None:
        super().__init__()

    def reset_parameters(self) -> None:
        pass

    def forward(self, x):
        return x


def like(base: type, **changes) -> type:
    """A class that differs from one that keeps the rules."""
    return type('Mine', (base,), changes)


def constructor(text: str) -> dict:
    names = {}
    exec(f'def __init__(self, {text}): pass', names)
    return dict(__init__=names['__init__'])


METHODS_REFUSED = {
    'no method': (nn.Linear, 'A method is a subclass of mmpeft.methods.Method or mmpeft.methods.Tuning'),
    'taken name': (type('Mona', (Well,), {}), 'There is a method Mona already, mmpeft.methods.mona.Mona; rename'),
    'options without names': (
        like(Well, **constructor('*args')),
        r'__init__ takes \*args: an option needs a name',
    ),
    'any options': (like(Well, **constructor('dim, **options')), r'takes \*\*options: an option needs a name'),
    'no default': (like(Well, **constructor('dim, width')), 'width is none of the sizes dim, .* needs a default'),
    'reserved': (like(Well, **constructor('dim, blocks=3')), "an option 'blocks', which every config of a method has"),
    'a size for tuning': (like(Tuning, **constructor('dim')), 'takes dim, which a method that inserts nothing'),
    'unknown site': (like(Well, sites=('qkw',)), r"Mine.sites names 'qkw'; known: before_attn"),
    'one site as text': (like(Well, sites='after_ffn'), r"Mine.sites is a tuple of names, .* got 'after_ffn'"),
    'no site': (like(Well, sites=()), 'Mine.sites is empty'),
    'unknown reads': (
        like(Well, reads=('grid',)),
        "reads names 'grid'; known: hw_shape, attention, together, call",
    ),
    'unknown place option': (like(Well, place_option='deep'), "Mine.place_option is 'deep'; its options: width"),
    'unknown execution': (like(Well, execution=('lean',)), "Mine.execution names 'lean'; known: width"),
    'no flag': (like(Well, folds='yes'), "Mine.folds is True or False, got 'yes'"),
    'no fold': (like(Well, folds=True), 'Mine needs a fold of its own'),
    'no start': (like(Method, sites=('fc1',), **constructor('dim')), 'Mine needs a reset_parameters of its own'),
    'no forward': (
        like(Method, sites=('fc1',), reset_parameters=lambda self: None, **constructor('dim')),
        'Mine needs a forward or an after_linear of its own',
    ),
}


@pytest.mark.parametrize('case', METHODS_REFUSED)
def test_a_class_that_breaks_the_rules_is_no_method(case):
    cls, message = METHODS_REFUSED[case]
    before = dict(METHODS)
    with pytest.raises(ValueError, match=message):
        mmpeft.register_method(cls)
    assert before == METHODS


def test_a_class_may_be_registered_twice_and_a_class_that_keeps_the_rules_is_returned():
    assert mmpeft.register_method(Well) is Well and mmpeft.register_method(Well) is Well
    assert METHODS['Well'] is Well


class WellPlaced(Backbone):
    """Keeps the rules."""

    places = {'output_norm': 'norm'}


class WellSized(Host):
    """Keeps the rules."""

    @staticmethod
    def sizes(module, site):
        return dict(dim=1)


HOSTS_REFUSED = {
    'no host': (nn.Linear, ['a.B'], 'A host is a subclass of mmpeft.hosts.Host'),
    'no stock class': (WellPlaced, [], 'Say of which stock classes WellPlaced is the host'),
    'name without module': (WellPlaced, ['Swin'], "named with its module, package.module.Class, got 'Swin'"),
    'taken': (WellPlaced, ['mmseg.models.backbones.vit.VisionTransformer'], 'has the host MMSegViTBackbone already'),
    'no places': (Backbone, ['a.B'], 'Backbone.places is empty'),
    'unknown site': (
        like(WellPlaced, places={'qkw': 'x'}),
        ['a.B'],
        "places names the site 'qkw'; known sites: ",
    ),
    'no pattern': (like(WellPlaced, block='('), ['a.B'], r"Mine has the pattern '\(', which is none: missing \)"),
    'no sizes': (Host, ['a.B'], r'Host needs sizes\(module, site\)'),
}


@pytest.mark.parametrize('case', HOSTS_REFUSED)
def test_a_class_that_breaks_the_rules_is_no_host(case):
    cls, stock, message = HOSTS_REFUSED[case]
    before = dict(BLOCKS), dict(BACKBONES)
    with pytest.raises(ValueError, match=message):
        mmpeft.register_host(*stock)(cls)
    assert before == (BLOCKS, BACKBONES)


def test_stock_classes_are_named_or_given():
    class Stock(nn.Module):
        pass

    assert mmpeft.register_host(Stock, 'package.module.Other')(WellSized) is WellSized
    assert BLOCKS[f'{Stock.__module__}.{Stock.__qualname__}'] is BLOCKS['package.module.Other'] is WellSized
