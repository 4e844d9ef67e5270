import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import BACKBONES, MONA, SWIN, ToyModel, image, pretrained, same, swin, weights

import mmpeft
from mmpeft.checkpoint import read_adapters
from mmpeft.fingerprint import base_names

METHODS = {
    'Mona': MONA,
    'SSF': dict(type='SSF'),
    'LoRA': dict(type='LoRA', rank=2),
    'BitFit': dict(type='BitFit'),
    'NormTuning': dict(type='NormTuning'),
    'Partial': dict(type='Partial'),
    'Full': dict(type='Full'),
    'Frozen': dict(type='Frozen'),
    'mixed': [dict(type='SSF', sites=['norm1'], blocks=r'stages\.0'), dict(type='Mona', bottleneck=2)],
}


def adapted(method=MONA, host='mmdet Swin', seed=0):
    """A backbone with ``method`` on the base of seed 0, its start drawn from ``seed``."""
    torch.manual_seed(0)
    backbone = BACKBONES[host]()
    torch.manual_seed(seed)
    mmpeft.inject(backbone, method)
    mmpeft.freeze(backbone)
    return backbone.eval()


def moved(model, seed=1):
    """``model`` with every trainable parameter and every buffer of a head somewhere else, as after training."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


class Detector(ToyModel):
    """ToyModel with a BatchNorm in its head."""

    def __init__(self, backbone, classes=3):
        super().__init__(dict(SWIN, type='mmdet.SwinTransformer'))
        self.backbone = backbone
        self.head = torch.nn.Sequential(torch.nn.Linear(64, classes), torch.nn.BatchNorm1d(classes))


def detector(method=MONA, seed=0, classes=3):
    torch.manual_seed(seed)
    return Detector(adapted(method, seed=seed), classes)


@pytest.mark.parametrize('method', METHODS)
def test_a_saved_task_loads_into_another_model_of_the_same_base(method, tmp_path):
    model = moved(detector(METHODS[method]))
    model.train()(torch.randn(4, 3, 30, 44))
    mmpeft.save_adapters(model.eval(), tmp_path / 'task.safetensors')
    other = detector(METHODS[method], seed=5).eval()
    mmpeft.load_adapters(other, tmp_path / 'task.safetensors')
    assert same(weights(other), weights(model))
    x = image()
    assert torch.equal(other(x), model(x))


@pytest.mark.parametrize('host', BACKBONES)
def test_a_backbone_alone_is_saved_on_every_host(host, tmp_path):
    method = dict(type='SSF')
    backbone = moved(adapted(method, host))
    mmpeft.save_adapters(backbone, tmp_path / 'task.safetensors')
    other = adapted(method, host, seed=5)
    mmpeft.load_adapters(other, tmp_path / 'task.safetensors')
    assert same(weights(other), weights(backbone))


def test_the_file_holds_what_training_changed_and_the_tables_and_nothing_else(tmp_path):
    model = detector()
    mmpeft.save_adapters(model, tmp_path / 'task.safetensors')
    names = set(load_file(tmp_path / 'task.safetensors'))
    base = {f'backbone.{name}' for name in base_names(model.backbone)}
    assert names == {n for n in model.state_dict() if n not in base and 'relative_position_index' not in n}
    assert {n for n in names if n.startswith('backbone.')} == {
        f'backbone.{name}'
        for name in model.backbone.state_dict()
        if 'adapters' in name or name.startswith('norm') or name.endswith('bias_table')
    }
    assert 'head.1.running_mean' in names and 'head.1.num_batches_tracked' in names


def test_statistics_of_batch_norms_in_a_backbone_are_saved(tmp_path):
    backbone = adapted()
    backbone.norm1 = torch.nn.BatchNorm2d(8)
    mmpeft.save_adapters(backbone, tmp_path / 'task.safetensors')
    assert 'norm1.running_var' in load_file(tmp_path / 'task.safetensors')


def test_heads_that_share_a_layer_are_saved(tmp_path):
    model = detector()
    model.second = model.head
    mmpeft.save_adapters(model, tmp_path / 'task.safetensors')
    tensors = load_file(tmp_path / 'task.safetensors')
    assert torch.equal(tensors['second.0.weight'], tensors['head.0.weight'])


def test_the_file_says_how_to_rebuild_the_task(tmp_path):
    model = detector()
    task = dict(classes=('cat', 'dog'), palette=[(1, 2, 3), (4, 5, 6)])
    mmpeft.save_adapters(model, tmp_path / 'task.safetensors', dataset_meta=task, base='https://x.org/swin.pth')
    info = read_adapters(tmp_path / 'task.safetensors').info
    sites = ['after_attn', 'after_ffn']
    mona = dict(type='Mona', bottleneck=4, dropout=0.1, init='trunc_normal', blocks='', sites=sites)
    assert info.methods == [mona]
    assert (info.backbone, info.host) == ('backbone', 'mmdet.models.backbones.swin.SwinTransformer')
    assert info.classes == ['cat', 'dog'] and info.palette == [[1, 2, 3], [4, 5, 6]]
    assert info.base == 'https://x.org/swin.pth' and info.version == mmpeft.__version__
    assert info.fingerprint == mmpeft.fingerprint(model.backbone)


@pytest.mark.parametrize(
    'base, written',
    [
        ('weights/swin.pth', 'weights/swin.pth'),
        ('/data/swin.pth', 'swin.pth'),
        ('../swin.pth', 'swin.pth'),
        ('timm:https://x.org/vit.pth', 'timm:https://x.org/vit.pth'),
        ('timm:/data/vit.pth', 'timm:vit.pth'),
        ('hf://owner/repo/swin.safetensors', 'hf://owner/repo/swin.safetensors'),
        ('s3://bucket/swin.pth', None),
    ],
)
def test_a_path_that_means_nothing_elsewhere_is_written_as_its_name(base, written, tmp_path):
    mmpeft.save_adapters(adapted(), tmp_path / 'task.safetensors', base=base)
    assert read_adapters(tmp_path / 'task.safetensors').info.base == written


def test_saving_overwrites_only_when_told(tmp_path):
    mmpeft.save_adapters(adapted(), tmp_path / 'task.safetensors')
    before = (tmp_path / 'task.safetensors').read_bytes()
    with pytest.raises(FileExistsError, match='overwrite=True'):
        mmpeft.save_adapters(moved(adapted()), tmp_path / 'task.safetensors')
    assert (tmp_path / 'task.safetensors').read_bytes() == before
    mmpeft.save_adapters(moved(adapted()), tmp_path / 'task.safetensors', overwrite=True)
    assert (tmp_path / 'task.safetensors').read_bytes() != before


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    with pytest.raises(mmpeft.DamagedFileError, match="start is 'abc'"):
        mmpeft.save_adapters(adapted(), tmp_path / 'task.safetensors', facts=dict(start='abc'))
    assert not list(tmp_path.iterdir())


def test_saving_refuses_another_ending_and_a_model_without_adapters(tmp_path):
    with pytest.raises(ValueError, match='.safetensors'):
        mmpeft.save_adapters(adapted(), tmp_path / 'task.pth')
    with pytest.raises(ValueError, match='has 0 adapted backbones; call mmpeft.inject'):
        mmpeft.save_adapters(swin(), tmp_path / 'task.safetensors')


def test_a_random_base_is_not_saved_because_no_file_could_bring_it_back(tmp_path):
    model = detector()
    model.backbone.expect_base()
    with pytest.raises(mmpeft.BaseNotFoundError, match='never given pretrained weights'):
        mmpeft.save_adapters(model, tmp_path / 'task.safetensors')
    assert not list(tmp_path.iterdir())


# The fingerprint


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_the_dtype_that_holds_a_base_does_not_change_its_fingerprint(dtype):
    low = adapted().to(dtype)
    high = copy.deepcopy(low).float()
    assert mmpeft.fingerprint(low) == mmpeft.fingerprint(high)
    assert mmpeft.fingerprint(low) != mmpeft.fingerprint(adapted())


def test_the_fingerprint_is_a_known_number_for_known_values():
    backbone = adapted()
    with torch.no_grad():
        for number, (_, parameter) in enumerate(sorted(backbone.named_parameters())):
            parameter.fill_(number / 64)
    assert mmpeft.fingerprint(backbone) == '1077430527e654ee9ec8d9b185694c3f42b80823b89bafdaa73bb2b5dd5af2d1'


@pytest.mark.parametrize('method', ['BitFit', 'NormTuning', 'Partial', 'Mona'])
def test_training_does_not_change_the_fingerprint(method):
    backbone = adapted(METHODS[method])
    before = mmpeft.fingerprint(backbone)
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    sum(out.square().mean() for out in backbone.train()(image())).backward()
    optimizer.step()
    assert mmpeft.fingerprint(backbone) == before == mmpeft.fingerprint(copy.deepcopy(backbone))


def by_assignment(backbone, state):
    backbone.load_state_dict(state, assign=True)
    mmpeft.freeze(backbone)


def by_data(backbone, state):
    for name, parameter in backbone.named_parameters():
        parameter.data = state[name].clone()


def by_swapping(backbone, state):
    """As mmengine's EMAHook."""
    for name, parameter in backbone.named_parameters():
        swapped = state[name].clone()
        parameter.data, swapped.data = swapped.data, parameter.data


@torch.no_grad()
def in_place(backbone, state):
    for name, parameter in backbone.named_parameters():
        parameter.copy_(state[name])


@pytest.mark.parametrize('write', [by_assignment, by_data, by_swapping, in_place])
def test_another_base_is_refused_however_it_came_into_the_model(write, task):
    model, other = detector(), weights(detector().backbone)
    mmpeft.load_adapters(model, task)
    other['stages.0.blocks.0.attn.w_msa.proj.weight'] += 0.01
    write(model.backbone, other)
    fresh = adapted()
    fresh.load_state_dict(other)
    assert mmpeft.fingerprint(model.backbone) == mmpeft.fingerprint(fresh)
    refused(model, task, mmpeft.WrongBaseError, 'stages.0.blocks.0.attn.w_msa.proj.weight', '1 of')


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_rounding_a_base_changes_its_fingerprint_at_once(dtype):
    backbone = adapted()
    before = mmpeft.fingerprint(backbone)
    assert mmpeft.fingerprint(backbone.to(dtype)) == mmpeft.fingerprint(adapted().to(dtype)) != before


# A base in half precision


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_base_is_known_when_it_is_held_in_half_precision(dtype, task):
    model = detector().to(dtype)
    mmpeft.load_adapters(model, task)
    with torch.no_grad():
        model.backbone.stages[0].blocks[0].attn.w_msa.proj.weight[0, 0] += 0.1
    name = str(dtype).removeprefix('torch.')
    refused(model, task, mmpeft.WrongBaseError, f'held in {name},', 'attn.w_msa.proj.weight', '1 of')


def test_a_base_that_is_held_in_two_dtypes_is_known(task):
    model = detector()
    model.backbone.stages[0].to(torch.bfloat16)
    mmpeft.load_adapters(model, task)
    with torch.no_grad():
        model.backbone.patch_embed.projection.bias += 1
    refused(model, task, mmpeft.WrongBaseError, 'held in bfloat16 and float32', '1 of')


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_a_task_that_was_trained_on_a_rounded_base_asks_for_it(dtype, tmp_path):
    path = tmp_path / 'task.safetensors'
    mmpeft.save_adapters(moved(detector().to(dtype)), path)
    refused(detector(), path, mmpeft.WrongBaseError, 'held in float32')
    mmpeft.load_adapters(detector().to(dtype), path)
    mmpeft.load_adapters(detector().to(dtype).float(), path)


def test_a_file_without_roundings_is_read_and_says_why_it_refuses_half_precision(task):
    old = rewritten(task, without=['roundings'])
    assert read_adapters(old).info.roundings is None
    mmpeft.load_adapters(detector(), old)
    words = 'held in bfloat16', 'too old to know its base rounded: load it in float32'
    refused(detector().bfloat16(), old, mmpeft.WrongBaseError, *words)


def test_roundings_of_other_tensors_than_the_digests_are_refused(task):
    other = dict.fromkeys(('bfloat16', 'float16'), dict(a='b'))
    refused(detector(), rewritten(task, info=dict(roundings=other)), mmpeft.DamagedFileError, 'roundings')


# What is refused


def refused(model, path, error, *words):
    """Loading raises ``error`` with ``words`` and leaves the model as it was."""
    before = weights(model)
    with pytest.raises(error) as caught:
        mmpeft.load_adapters(model, path)
    for word in (str(path), *words):
        assert word in str(caught.value)
    assert same(weights(model), before)


@pytest.fixture
def task(tmp_path):
    path = tmp_path / 'task.safetensors'
    mmpeft.save_adapters(moved(detector()), path)
    return path


def test_another_base_is_refused_with_both_fingerprints_and_the_tensors_that_differ(task):
    model = detector()
    before = mmpeft.fingerprint(model.backbone)
    with torch.no_grad():
        model.backbone.stages[0].blocks[0].attn.w_msa.proj.weight += 0.01
    words = before[:12], mmpeft.fingerprint(model.backbone)[:12], 'stages.0.blocks.0.attn.w_msa.proj.weight'
    refused(model, task, mmpeft.WrongBaseError, *words, '1 of')


@pytest.mark.parametrize(
    'method', [dict(MONA, bottleneck=2), dict(MONA, dropout=0.0), dict(MONA, blocks='stages'), dict(type='SSF')]
)
def test_other_methods_and_options_are_refused(method, task):
    refused(detector(method), task, mmpeft.WrongModelError, 'this backbone carries')


@pytest.mark.parametrize('written', [dict(dropout=0.1), dict(sites=('after_ffn', 'after_attn')), dict(blocks='')])
def test_an_option_written_out_is_the_same_as_its_default(written, task):
    mmpeft.load_adapters(detector(MONA | written), task)


@pytest.mark.parametrize('targets', [['v', 'q'], ('q', 'v'), ['q', 'q', 'v'], np.array(['v', 'q'])])
def test_options_that_are_sets_of_names_mean_the_same_in_any_order(targets, tmp_path):
    path = tmp_path / 'task.safetensors'
    lora = dict(type='LoRA', rank=2)
    mmpeft.save_adapters(detector(lora | dict(targets=targets)), path)
    info = read_adapters(path).info
    assert info.methods == [dict(lora, alpha=1, blocks='', targets=['q', 'v'])]
    for old in (['q', 'v'], ['v', 'q'], 'qv'):
        file = rewritten(path, info=dict(methods=[info.methods[0] | dict(targets=old)]))
        mmpeft.load_adapters(detector(lora | dict(targets=['q', 'v'])), file)
        mmpeft.load_adapters(detector(lora | dict(targets=targets)), file)


def test_methods_mean_the_same_in_any_order(tmp_path):
    mmpeft.save_adapters(moved(detector(METHODS['mixed'])), tmp_path / 'task.safetensors')
    mmpeft.load_adapters(detector(METHODS['mixed'][::-1]), tmp_path / 'task.safetensors')


def test_numbers_of_numpy_and_torch_are_options_as_pythons_own(tmp_path, task):
    mona = dict(MONA, bottleneck=np.int64(4), dropout=np.float64(0.1), init=np.str_('trunc_normal'))
    mmpeft.load_adapters(detector(mona), task)
    mmpeft.save_adapters(detector(mona), tmp_path / 'numpy.safetensors')
    mmpeft.save_adapters(detector(dict(MONA, bottleneck=torch.tensor(4))), tmp_path / 'torch.safetensors')
    infos = [read_adapters(path).info for path in (task, *tmp_path.glob('*.safetensors'))]
    assert all(info.methods == infos[0].methods for info in infos)
    mmpeft.save_adapters(detector(dict(type='CVPT', share=np.True_)), tmp_path / 'bool.safetensors')
    assert read_adapters(tmp_path / 'bool.safetensors').info.methods[0]['share'] is True


@pytest.mark.parametrize('value', [3, [['q']], [1, 'q'], {}])
def test_options_of_other_types_in_a_file_are_of_another_model(value, task):
    methods = [dict(read_adapters(task).info.methods[0], sites=value)]
    refused(detector(), rewritten(task, info=dict(methods=methods)), mmpeft.WrongModelError, 'this backbone carries')


def test_another_class_of_backbone_is_refused(task):
    refused(Detector(adapted(host='mmseg Swin')), task, mmpeft.WrongModelError, 'mmdet.models', 'mmseg.models')


def test_a_head_of_another_size_is_refused(task):
    refused(detector(classes=4), task, mmpeft.WrongModelError, 'head.0.weight', '(3, 64)', '(4, 64)')


def test_a_tensor_too_much_or_too_few_is_refused(task):
    wider, narrower = detector(), detector()
    wider.more = torch.nn.Linear(2, 2)
    refused(wider, task, mmpeft.WrongModelError, 'lacks more.bias')
    del narrower.head[1]
    refused(narrower, task, mmpeft.WrongModelError, 'has head.1.bias and 4 more besides')


def test_a_file_of_a_whole_model_is_refused_by_its_backbone_alone(task):
    refused(adapted(), task, mmpeft.WrongModelError, 'Pass the whole model')


def test_digests_of_other_tensors_than_those_of_the_base_are_refused(task):
    digests = read_adapters(task).info.digests
    digests.pop('patch_embed.projection.bias')
    path = rewritten(task, info=dict(digests=digests), without=['roundings'])
    refused(detector(), path, mmpeft.WrongBaseError, 'one of the two has no patch_embed.projection.bias')


def test_a_file_that_is_overwritten_after_it_was_checked_changes_nothing(task):
    file = read_adapters(task)
    before = {name: tensor.clone() for name, tensor in file.tensors.items()}
    size = task.stat().st_size
    with task.open('r+b') as raw:
        raw.seek(size // 2)
        raw.write(bytes(size - size // 2))
    assert same(file.tensors, before)


def test_a_base_that_was_never_given_is_refused(task):
    model = detector()
    model.backbone.expect_base()
    refused(model, task, mmpeft.BaseNotFoundError, 'have no pretrained values', 'at no known place')


def test_a_missing_file_and_files_of_other_kinds_are_refused(tmp_path, task):
    model = detector()
    refused(model, tmp_path / 'none.safetensors', mmpeft.DamagedFileError, 'No file')
    (tmp_path / 'text.safetensors').write_text('hello')
    refused(model, tmp_path / 'text.safetensors', mmpeft.DamagedFileError, 'not a whole safetensors file')
    from safetensors.torch import save_file

    save_file(load_file(task), tmp_path / 'plain.safetensors')
    refused(model, tmp_path / 'plain.safetensors', mmpeft.DamagedFileError, 'is no adapter file')


def test_a_file_cut_off_anywhere_is_refused(tmp_path, task):
    content = task.read_bytes()
    for length in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
        (tmp_path / 'cut.safetensors').write_bytes(content[:length])
        refused(detector(), tmp_path / 'cut.safetensors', mmpeft.DamagedFileError)


def test_one_bit_flipped_in_a_tensor_or_in_the_metadata_is_refused(tmp_path, task):
    content = task.read_bytes()
    for place in (len(content) - 5, content.index(b'trunc_normal') + 2):
        flipped = bytearray(content)
        flipped[place] ^= 1
        (tmp_path / 'flipped.safetensors').write_bytes(flipped)
        refused(detector(), tmp_path / 'flipped.safetensors', mmpeft.DamagedFileError, 'checksum')


def rewritten(task, without=(), **changes):
    """The file with other values in its metadata and a checksum that is right."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    from mmpeft.adapter_file import checksum

    with safe_open(task, framework='pt') as file:
        metadata = file.metadata()
    info = json.loads(metadata['mmpeft']) | changes.pop('info', {})
    text = json.dumps({name: value for name, value in info.items() if name not in without})
    tensors = load_file(task)
    path = task.with_name('rewritten.safetensors')
    checked = {**metadata, 'mmpeft': text, 'mmpeft_checksum': checksum(text, tensors), **changes}
    save_file(tensors, path, checked)
    return path


def test_an_unknown_version_is_refused(task):
    refused(detector(), rewritten(task, mmpeft_format='2'), mmpeft.UnknownVersionError, "'2'", 'reads format 1')


@pytest.mark.parametrize(
    'field, value',
    [
        ('methods', 'Mona'),
        ('methods', []),
        ('methods', [dict(bottleneck=4)]),
        ('host', None),
        ('backbone', 3),
        ('digests', []),
        ('digests', dict(a=1)),
        ('base', '/etc/passwd'),
        ('base', '../../secret.pth'),
        ('base', 'file:///etc/passwd'),
        ('base', 'a\0b'),
        ('base', 'timm:/etc/passwd'),
        ('base', 'timm:../secret.pth'),
        ('base', 3),
        ('classes', 'cat'),
        ('classes', [1]),
        ('palette', [[1, 2]]),
        ('palette', [[1, 2, 300]]),
        ('palette', [[True, 2, 3]]),
        ('version', None),
        ('start', 'abc'),
        ('heldout', 3),
        ('soup', ['a.safetensors']),
        ('soup', [['a.safetensors', 'good']]),
        ('soup', [['a.safetensors', float('nan')]]),
        ('roundings', dict(bfloat16={}, float32={})),
        ('more', 1),
    ],
)
def test_metadata_of_another_type_and_paths_that_escape_are_refused(field, value, task):
    refused(detector(), rewritten(task, info={field: value}), mmpeft.DamagedFileError, 'metadata')


def test_a_file_from_before_soups_is_read(task):
    read = read_adapters(rewritten(task, without=['start', 'heldout', 'soup'])).info
    assert (read.start, read.heldout, read.soup) == (None, None, None)


def test_metadata_nested_beyond_reason_is_refused(task):
    path = task.with_name('nested.safetensors')
    from safetensors.torch import save_file

    from mmpeft.adapter_file import checksum

    text, tensors = '[' * 200_000, load_file(task)
    save_file(tensors, path, dict(mmpeft=text, mmpeft_format='1', mmpeft_checksum=checksum(text, tensors)))
    refused(detector(), path, mmpeft.DamagedFileError, 'no JSON')


def test_a_header_of_absurd_size_is_refused(tmp_path):
    path = tmp_path / 'absurd.safetensors'
    path.write_bytes((2**62).to_bytes(8, 'little') + b'{}')
    refused(detector(), path, mmpeft.DamagedFileError, 'not a whole safetensors file')


def test_a_pickle_under_the_name_of_an_adapter_file_is_refused(tmp_path):
    path = tmp_path / 'pickle.safetensors'
    torch.save(dict(state_dict=detector().state_dict()), path)
    refused(detector(), path, mmpeft.DamagedFileError, 'not a whole safetensors file')


def test_a_model_that_loaded_a_file_merges_to_a_stock_model(tmp_path):
    mmpeft.save_adapters(moved(adapted(METHODS['SSF'])), tmp_path / 'task.safetensors')
    backbone = adapted(METHODS['SSF'])
    mmpeft.load_adapters(backbone, tmp_path / 'task.safetensors')
    before = backbone(image())
    assert mmpeft.merge(backbone).is_stock
    assert vars(backbone).keys() == vars(swin()).keys()
    for a, b in zip(before, backbone(image()), strict=True):
        assert a.shape == b.shape


def test_pretrained_weights_are_named_as_the_base(tmp_path):
    from mmengine.registry import MODELS

    import mmpeft.registry  # noqa: F401

    backbone = MODELS.build(
        dict(
            type='mmpeft.AdaptedBackbone',
            backbone=dict(pretrained(tmp_path), type='mmdet.SwinTransformer'),
            method=MONA,
        )
    )
    backbone.init_weights()
    mmpeft.save_adapters(backbone, tmp_path / 'task.safetensors')
    assert read_adapters(tmp_path / 'task.safetensors').info.base == 'base.pth'
