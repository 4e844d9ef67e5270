# COCO test-dev, whose labels are the evaluation server's: testing writes json files for it and prints no score.
#
# Goes with any COCO config, in a file of three lines such as configs/test-dev.py:
#
#   _base_ = ['./mona_swin_coco.py', './_base_/datasets/coco_test-dev.py']
#   test_dataloader = _base_.test_dev_dataloader
#   test_evaluator = dict(_base_.test_dev_evaluator, outfile_prefix='work_dirs/{{ fileBasenameNoExtension }}/results')
#
# `python tools/test.py configs/test-dev.py CHECKPOINT` then writes work_dirs/test-dev/results.{bbox,segm}.json for
# https://cocodataset.org/#upload.
#
# Expected under data/coco/: annotations/image_info_test-dev2017.json and test2017/.
images = 'annotations/image_info_test-dev2017.json'

test_dev_dataloader = dict(dataset=dict(ann_file=images, data_prefix=dict(img='test2017/')))
test_dev_evaluator = dict(ann_file=f'data/coco/{images}', format_only=True)
