# As dota_server.py, with the labels of training cut down to horizontal boxes.
_base_ = './dota_server.py'

convert, *augment = _base_.train_pipeline[2:]
horizontal = dict(type='ConvertBoxType', box_type_mapping=dict(gt_bboxes='hbox'))
train_pipeline = [*_base_.train_pipeline[:2], horizontal, convert, *augment]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
