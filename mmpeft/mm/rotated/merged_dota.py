"""The score of rotated detection on whole images, of which the detector saw patches; it needs mmrotate."""

from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmrotate.evaluation.functional.mean_ap import print_map_summary

from mmpeft.mm.rotated.dota_files import read_labels, write_task1
from mmpeft.mm.rotated.patches import Detections, Truth, merge_detections, merge_truths, patch_of
from mmpeft.mm.rotated.rotated_ap import class_results, mean_ap
from mmpeft.mm.together import in_all
from mmpeft.registry import METRICS


@METRICS.register_module()
class MergedDOTAMetric(BaseMetric):
    """Mean average precision of rotated boxes on whole images, ``dota/mAP``, and a zip file for DOTA's server.

    What was found in patches is moved to the whole image and thinned by rotated NMS in each class. Images whose names
    are not those of patches are scored as they are.

    Args:
        ann_dir: Folder with the label files of the whole images, the exact truth. Without it the labels of the patches
            are put together, and objects that the splitter left in no patch are missing.
        iou_thrs: The IoU from which on a detection is right; of several, ``mAP`` is the mean.
        iou_thr: The IoU above which NMS takes two boxes of a class for one object.
        eval_mode: ``11points`` as in VOC 2007 and on the server, or ``area``.
        diff_thr: Objects of ``ann_dir`` that are more difficult are ignored: 100 counts all, as mmrotate does; 0 leaves
            out the difficult ones, as the server does. It is the data set's option where the labels come from patches.
        patch_scores: Score the patches by themselves too, as ``patch_mAP``. Objects in overlaps count several times
            there and cut ones as whole: it is not comparable with any published number.
        format_only: Write the zip file and score nothing, for images without labels.
        outfile_prefix: The zip file for Task 1 is ``<outfile_prefix>.zip``.
        collect_device: As mmengine's metrics have it.
        prefix: What stands before the names of the scores.

    Raises:
        ValueError: The options contradict each other, or labels are missing or wrong.
        FileExistsError: The zip file is there already.
    """

    default_prefix = 'dota'

    def __init__(
        self,
        ann_dir: str | None = None,
        iou_thrs: float | Sequence[float] = 0.5,
        iou_thr: float = 0.1,
        eval_mode: str = '11points',
        diff_thr: int = 100,
        patch_scores: bool = False,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if eval_mode not in ('11points', 'area'):
            raise ValueError(f"eval_mode is '11points' or 'area', not {eval_mode!r}.")
        if format_only and outfile_prefix is None:
            raise ValueError('format_only=True writes a zip file: say where with outfile_prefix.')
        if ann_dir is not None and not Path(ann_dir).is_dir():
            raise ValueError(
                f'No folder {ann_dir} with the labels of whole images. Set ann_dir, or None for those of patches.'
            )
        self.zip = None if outfile_prefix is None else Path(f'{outfile_prefix}.zip')
        if self.zip is not None and self.zip.exists():
            raise FileExistsError(f'{self.zip} exists; choose another outfile_prefix, nothing is overwritten.')
        self.ann_dir = None if ann_dir is None else Path(ann_dir)
        self.iou_thrs = [iou_thrs] if isinstance(iou_thrs, float | int) else list(iou_thrs)
        self.iou_thr = iou_thr
        self.eval_mode = eval_mode
        self.diff_thr = diff_thr
        self.patch_scores = patch_scores
        self.format_only = format_only

    def process(self, data_batch: object, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            predicted = sample['pred_instances']
            boxes = _boxes(predicted)
            found = Detections(boxes, predicted['scores'].cpu().float(), predicted['labels'].cpu().long())
            self.results.append((str(sample['img_id']), found, None if self.format_only else _truth(sample)))

    def evaluate(self, size: int) -> dict[str, float]:
        self._error = None
        scores = super().evaluate(size)
        in_all(self._fail)
        return scores

    def _fail(self) -> None:
        if self._error is not None:
            raise self._error

    def compute_metrics(self, results: list) -> dict[str, float]:
        # The first process computes and the others wait for what it found, so errors come after that.
        try:
            return self._metrics(results)
        except Exception as error:
            self._error = error
            return {}

    def _metrics(self, results: list[tuple[str, Detections, Truth | None]]) -> dict[str, float]:
        # mmengine hands back plain tuples, in an order that depends on the number of processes.
        results = [
            (name, Detections(*found), truth and Truth(*truth))
            for name, found, truth in sorted(results, key=lambda result: result[0])
        ]
        found = merge_detections([(name, found) for name, found, _ in results], self.iou_thr)
        logger = MMLogger.get_current_instance()
        if self.zip is not None:
            write_task1(self.zip, found, self.dataset_meta['classes'])
            logger.info(f'{self.zip} is what the server takes for Task 1: {len(found)} images.')
        if self.format_only:
            return {}
        truths = self._whole_truths(found, results)
        scores = self._scores([found[image] for image in found], [truths[image] for image in found], 'whole images')
        if self.patch_scores and any(patch_of(name) for name, *_ in results):
            _need_labels(results)
            _, found, truths = zip(*results, strict=True)
            patches = self._scores(found, truths, 'patches, not comparable with published numbers')
            scores |= {f'patch_{name}': value for name, value in patches.items()}
        return scores

    def _whole_truths(self, found: dict[str, Detections], results: list) -> dict[str, Truth]:
        if self.ann_dir is None:
            _need_labels(results)
            return merge_truths([(name, truth) for name, _, truth in results])
        files = {path.stem: path for path in self.ann_dir.glob('*.txt')}
        missing = sorted(found.keys() - files.keys())
        if missing:
            raise ValueError(
                f'{self.ann_dir} has no labels of {len(missing)} images, such as {missing[0]}.txt. '
                'Is it the folder of these images? Of an image without objects the file is empty.'
            )
        if len(files) > len(found):
            logger = MMLogger.get_current_instance()
            logger.warning(f'{self.ann_dir} has labels of {len(files)} images, and {len(found)} of them are scored.')
        return {image: read_labels(files[image], self.dataset_meta['classes'], self.diff_thr) for image in found}

    def _scores(self, found: Sequence[Detections], truths: Sequence[Truth], of: str) -> dict[str, float]:
        """``mAP``, the mean over the thresholds, and ``AP50`` and so on for each of them."""
        classes, logger = self.dataset_meta['classes'], MMLogger.get_current_instance()
        by_class = [class_results(found, truths, i, self.iou_thrs, self.eval_mode) for i in range(len(classes))]
        scores = {}
        for threshold, results in zip(self.iou_thrs, zip(*by_class, strict=True), strict=True):
            scores[f'AP{round(threshold * 100):02d}'] = mean = mean_ap(results)
            logger.info(f'IoU {threshold:.2f}, {len(found)} {of}:')
            print_map_summary(mean, results, dataset=classes, logger=logger)
        return {'mAP': sum(scores.values()) / len(scores), **scores}


def _boxes(instances: dict) -> torch.Tensor:
    boxes = getattr(instances['bboxes'], 'tensor', instances['bboxes']).cpu().float()
    if boxes.shape[-1] != 5:
        raise ValueError(f'Rotated boxes are five numbers (centre, size, angle), got boxes of {boxes.shape[-1]}.')
    return boxes


def _truth(sample: dict) -> Truth | None:
    """The labels of a sample; None if its pipeline loads none."""
    parts = [sample.get('gt_instances') or {}, sample.get('ignored_instances') or {}]
    parts = [(_boxes(part), part['labels'].cpu().long()) for part in parts if 'bboxes' in part]
    if not parts:
        return None
    ignored = [torch.full((len(labels),), bool(i)) for i, (_, labels) in enumerate(parts)]
    boxes, labels = map(torch.cat, zip(*parts, strict=True))
    return Truth(boxes, labels, torch.cat(ignored))


def _need_labels(results: list) -> None:
    bare = [name for name, _, truth in results if truth is None]
    if bare:
        raise ValueError(
            f'No labels came with {len(bare)} images, such as {bare[0]}. Load them in the pipeline '
            '(LoadAnnotations with box_type, then ConvertBoxType to rbox), name the folder of the whole images with '
            'ann_dir, or write the zip file only, with format_only=True and outfile_prefix.'
        )
