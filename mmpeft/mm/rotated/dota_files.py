"""The files of DOTA: labels of an image, and what its evaluation server takes."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmrotate.structures.bbox import qbox2rbox, rbox2qbox

from mmpeft.data.quads import read_quads
from mmpeft.files import write_atomically
from mmpeft.mm.rotated.patches import Detections, Truth


def read_labels(path: Path, classes: Sequence[str], diff_thr: int) -> Truth:
    """The objects in a label file, each as the smallest rotated box around its corners.

    Args:
        path: The file.
        classes: The names of the classes in the order of their labels.
        diff_thr: Objects more difficult than that are ignored.

    Raises:
        ValueError: A line is no object, or one of another class.
    """
    quads, names, difficulties = read_quads(path)
    unknown = sorted(set(names) - set(classes))
    if unknown:
        raise ValueError(f'{path} names {", ".join(unknown)}; the classes are {", ".join(classes)}.')
    boxes = qbox2rbox(torch.from_numpy(quads)) if names else torch.zeros(0, 5)
    labels = torch.tensor([classes.index(name) for name in names], dtype=torch.long)
    return Truth(boxes, labels, torch.tensor(difficulties, dtype=torch.long) > diff_thr)


def write_task1(path: Path, found: Mapping[str, Detections], classes: Sequence[str]) -> None:
    """Write the zip file for Task 1 of the server: ``Task1_<class>.txt`` for each class, with a line a box.

    A line is the image, the score and the corners. Scores have six decimals: the two of mmrotate make ties, and with
    ties the server's average precision is another one.
    """
    lines = {name: [] for name in classes}
    for image, (boxes, scores, labels) in sorted(found.items()):
        for quad, score, label in zip(rbox2qbox(boxes).tolist(), scores.tolist(), labels.tolist(), strict=True):
            lines[classes[label]].append(f'{image} {score:.6f} {" ".join(f"{value:.2f}" for value in quad)}\n')

    def write(file) -> None:
        with zipfile.ZipFile(file, 'w', zipfile.ZIP_DEFLATED) as archive:
            for name in classes:
                archive.writestr(f'Task1_{name}.txt', ''.join(lines[name]))

    write_atomically(path, write)
