"""SegFormer, PVT and Twins: what is theirs alone, and the layouts of the files with their pretrained weights."""

import copy
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import mmseg
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from tiny import HOSTS, image, twins, weights

import mmpeft
from mmpeft.hosts import adapters_of, find_backbone

PYRAMIDS = [name for name in HOSTS if name.split()[-1] in ('MiT', 'PVT', 'PVTv2', 'PCPVT', 'SVT')]
REDUCED = ['mmseg MiT', 'mmdet PVT', 'mmseg PCPVT', 'mmpretrain PCPVT', 'mmpretrain SVT']


def injected(name: str, method: dict, **options) -> torch.nn.Module:
    backbone = HOSTS[name](**options)
    mmpeft.inject(backbone, method)
    mmpeft.freeze(backbone)
    return backbone.eval()


def spread(backbone: torch.nn.Module) -> torch.nn.Module:
    for name, parameter in backbone.named_parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter) * mmpeft.is_adapter(name))
    return backbone


def close(ours, theirs) -> bool:
    return all((a - b).norm() <= 1e-5 * b.norm() for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize('name', REDUCED)
def test_queries_and_keys_of_a_smaller_map_get_their_rows_of_an_adapter_that_does_not_fold(name):
    backbone, x = spread(injected(name, dict(type='SSF', sites=['qkv']))), image(64, 64)
    folded = backbone(x)
    for _, adapter in adapters_of(backbone):
        adapter.folds = False
    assert close(backbone(x), folded)
    assert all(adapter.scale.numel() % 3 == 0 for _, adapter in adapters_of(backbone))


@pytest.mark.parametrize('name', REDUCED)
def test_lora_of_keys_and_values_leaves_the_queries(name):
    backbone = spread(injected(name, dict(type='LoRA', rank=2, targets=('k', 'v'))))
    found = [adapter.delta().chunk(3) for _, adapter in adapters_of(backbone)]
    assert len(found) == len(backbone.blocks_of(backbone))
    assert all(not q.any() and k.any() and v.any() for q, k, v in found)


def test_a_position_embedding_among_the_blocks_is_no_block_and_an_identity_has_no_site():
    backbone = injected('mmdet PVT', dict(type='Mona', bottleneck=4))
    assert backbone.blocks_of(backbone)[0] == 'layers.0.1.1'
    assert backbone.layers[0][1][0].pos_embed is not None and len(backbone.blocks_of(backbone)) == 5
    without = injected('mmdet PVT', dict(type='Mona', bottleneck=4), use_abs_pos_embed=False)
    assert without.blocks_of(without)[0] == 'layers.0.1.0'
    mmpeft.inject(HOSTS['mmdet PVTv2'](), dict(type='SSF', sites=['output_norm']))
    with pytest.raises(ValueError, match="has no site 'output_norm'"):
        mmpeft.inject(HOSTS['mmdet PVT'](), dict(type='SSF', sites=['output_norm']))


@pytest.mark.parametrize('library', ['mmseg', 'mmpretrain'])
@pytest.mark.parametrize('cls', ['PCPVT', 'SVT'])
def test_projections_without_biases_get_those_of_the_option(library, cls):
    plain = twins(library, cls, qkv_bias=False)
    backbone = copy.deepcopy(plain)
    mmpeft.inject(backbone, dict(type='SSF', sites=['qkv', 'proj']))
    spread(backbone).eval()
    x = image(64, 64)
    expected = backbone(x)
    assert mmpeft.merge(backbone).options == ('qkv_bias',)
    assert close(backbone(x), expected)
    twins(library, cls, qkv_bias=True).load_state_dict(backbone.state_dict(), strict=True)


def test_cvpt_is_refused_where_a_part_of_its_projections_trains():
    tuned = dict(type='BitFit', blocks=r'stages\.0\.0\.attn\.q$')
    with pytest.raises(ValueError, match=r'CVPT at stages\.0\.0\.after_attn reads stages\.0\.0\.attn\.q, which'):
        mmpeft.inject(twins('mmpretrain', 'PCPVT', qkv_bias=True), [dict(type='CVPT'), tuned])


@pytest.mark.parametrize('part', ['norm2', 'attn', 'ffn'])
@pytest.mark.parametrize('name', PYRAMIDS)
def test_a_block_with_a_part_of_an_unknown_class_is_refused(name, part):
    backbone = HOSTS[name]()
    block = find_backbone(type(backbone)).blocks_of(backbone)[-1]
    owner = backbone.get_submodule(f'{block}.{part}')
    owner.__class__ = type('Own', (type(owner),), dict(forward=lambda self, x: x, __module__='own'))
    with pytest.raises(
        ValueError, match=rf'{block} takes no adapters: its {part} is a own\.Own, and its adapters were'
    ):
        mmpeft.inject(backbone, dict(type='Mona'))


def converter(library, name: str):
    """The script with which a library converts files of the authors."""
    path = Path(library.__file__).parent / f'.mim/tools/model_converters/{name}.py'
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def authors(state: dict) -> dict:
    """The weights of a PVT or MiT of mm under the names of their authors, with their layers apart."""
    positions = any(name.endswith('pos_embed') for name in state)
    renamed = {}
    for name, value in state.items():
        _, stage, part, *rest = name.split('.')
        stage, rest = int(stage) + 1, '.'.join(rest)
        if rest.endswith('pos_embed'):
            renamed[f'pos_embed{stage}'] = value
        elif part == '0':
            renamed[f'patch_embed{stage}.{rest.replace("projection", "proj")}'] = value
        elif part == '2':
            renamed[f'norm{stage}.{rest}'] = value
        else:
            block, rest = rest.split('.', 1)
            prefix = f'block{stage}.{int(block) - positions}.'
            if 'in_proj_' in rest:
                rows = len(value) // 3
                leaf = rest.rpartition('_')[2]
                renamed |= {f'{prefix}attn.q.{leaf}': value[:rows], f'{prefix}attn.kv.{leaf}': value[rows:]}
                continue
            rest = rest.replace('attn.out_proj', 'proj')
            if rest.startswith('ffn.layers.'):
                index, leaf = rest.removeprefix('ffn.layers.').split('.')
                layer = {'0': 'fc1', '1': 'dwconv.dwconv'}.get(index, 'fc2')
                value = value.flatten(1) if leaf == 'weight' and layer != 'dwconv.dwconv' else value
                rest = f'mlp.{layer}.{leaf}'
            renamed[prefix + rest] = value
    return renamed


@pytest.mark.parametrize('name', ['mmdet PVT', 'mmdet PVTv2'])
def test_a_pvt_takes_the_file_of_its_authors_which_its_config_names_without_a_type(name, tmp_path):
    torch.manual_seed(5)
    source = HOSTS[name]()
    torch.save(authors(source.state_dict()), tmp_path / 'pvt.pth')
    kind = HOSTS[name]().__class__.__name__
    sizes = dict(embed_dims=8, num_layers=(1, 2, 1, 1), num_heads=(1, 1, 2, 2), sr_ratios=(4, 2, 1, 1))
    if kind == 'PyramidVisionTransformer':
        sizes |= dict(pretrain_img_size=32, patch_sizes=(4, 2, 2, 1), strides=(4, 2, 2, 1))
    config = dict(type=f'mmdet.{kind}', init_cfg=ConfigDict(checkpoint=str(tmp_path / 'pvt.pth')), **sizes)
    method = dict(type='Mona', bottleneck=4)
    backbone = MODELS.build(dict(type='mmpeft.AdaptedBackbone', method=method, backbone=config))
    assert backbone.missing and backbone.pretrained_cfg['checkpoint'].endswith('pvt.pth')
    backbone.init_weights()
    assert not backbone.missing
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in weights(source).items())


def test_a_segformer_takes_what_mmsegs_converter_makes_of_the_authors_file():
    source = HOSTS['mmseg MiT']()
    converted = converter(mmseg, 'mit2mmseg').convert_mit(authors(source.state_dict()))
    backbone = injected('mmseg MiT', dict(type='Mona', bottleneck=4))
    backbone.expect_base()
    backbone.load_state_dict(converted, strict=False)
    assert not backbone.missing and converted.keys() == source.state_dict().keys()


@pytest.mark.parametrize('name', ['mmseg PCPVT', 'mmseg SVT'])
def test_a_twins_takes_what_mmsegs_converter_makes_of_the_authors_file(name):
    kind = name.split()[-1]
    source = HOSTS[f'mmpretrain {kind}']().state_dict()  # which has the layers of the authors
    names = {
        'stages': 'blocks',
        'position_encodings': 'pos_block',
        'ffn.layers.0.0': 'mlp.fc1',
        'ffn.layers.1': 'mlp.fc2',
    }
    file = {}
    for key, value in source.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        file[key.replace('projection.', 'proj.')] = value
    file = {key: value for key, value in file.items() if 'norm_after' not in key}
    converted = converter(mmseg, 'twins2mmseg').convert_twins(SimpleNamespace(model=kind.lower()), file)
    backbone = injected(name, dict(type='Mona', bottleneck=4))
    backbone.expect_base()
    backbone.load_state_dict(converted, strict=False)
    assert not backbone.missing and converted.keys() <= backbone.state_dict().keys()
