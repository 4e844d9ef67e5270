"""The four published layouts: what the converted models compute, beside models with the authors' own names."""

import pytest
import torch
from author_files import (
    CVPT,
    EXACT,
    LINEAR_HEAD,
    MMPRETRAIN_SWIN,
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
    stock_model,
    timm_vit,
)
from authors import MicrosoftSwin, PatchMerging, add_ssf, randomised
from mmdet.models.backbones.swin import swin_converter
from mmdet.models.layers import PatchMerging as UnfoldMerging
from test_merging import RETINANET, SEGMENTOR, UPER
from tiny import MONA, same

from mmpeft.hosts.swin import SwinBackbone
from mmpeft.layouts import find_layout, unfold_order


def test_patch_merging_of_the_swin_authors_equals_that_of_mm_with_the_channels_reordered():
    theirs, ours = randomised(PatchMerging(3)), UnfoldMerging(3, 6)
    ours.load_state_dict({name: unfold_order(tensor) for name, tensor in theirs.state_dict().items()})
    x = torch.randn(2, 4 * 6, 3)
    assert distance(ours(x, (4, 6))[0], theirs(x, 4, 6)) < 1e-6
    ours.load_state_dict(theirs.state_dict())
    assert distance(ours(x, (4, 6))[0], theirs(x, 4, 6)) > 0.1


def test_the_frozen_part_of_a_swin_gets_the_names_and_values_that_mmdet_s_own_converter_gives():
    state = {n: t for n, t in randomised(MicrosoftSwin('none')).state_dict().items() if 'attn_mask' not in n}
    layout = find_layout(['layers.0.blocks.0.my_module_1.gamma'])
    moves = [move for name, tensor in state.items() for move in layout.moves(SwinBackbone, name, tensor)]
    assert same({f'backbone.{move.target}': move.tensor for move in moves}, swin_converter(state))


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


def test_star_mmrotate_s_file_computes_the_same_after_conversion(tmp_path):
    theirs, config = mona_swin_of_star(), detector(tmp_path)
    files = converted(tmp_path, config, dict(state_dict=theirs.state_dict()))
    assert files.dropped == {} and not files.backbone_only
    x = image(60, 92)
    assert distance(loaded(config, files)(x, mode='tensor'), theirs.double()(x, mode='tensor')) < EXACT


def test_mona_s_classifier_computes_the_same_logits(tmp_path):
    theirs, config = randomised(MicrosoftSwin('Mona', 5)), classifier(tmp_path, MMPRETRAIN_SWIN, LINEAR_HEAD, MONA)
    state = {f'backbone.{n}'.replace('backbone.head.', 'head.fc.'): t for n, t in theirs.state_dict().items()}
    files, x = converted(tmp_path, config, dict(state_dict=state)), image(64, 64)
    assert distance(loaded(config, files)(x), theirs.double()(x)) < EXACT


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


@pytest.mark.parametrize('share', [True, False], ids=['equal cross-attention', 'own cross-attention'])
def test_cvpt_s_segmentor_computes_the_same(tmp_path, share):
    theirs = cvpt_segmentor(share)
    method = dict(CVPT, share=share)
    config = config_of(tmp_path, 'mmseg', MMSEG_VIT, method, VIT_SEGMENTOR)
    files = converted(tmp_path, config, dict(state_dict=theirs.state_dict()))
    assert [len(names) for names in files.dropped.values()] == ([3 * 8] if share else [])
    x = image(64, 64)
    assert distance(loaded(config, files)(x, mode='tensor'), theirs.double()(x, mode='tensor')) < EXACT
