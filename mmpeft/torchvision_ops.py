"""Let `import torchvision` work beside a torch that its compiled operators do not fit.

The torchvision of the package index is built for CUDA. Beside a CPU build of torch its operator library does not load,
and `import torchvision` dies with `operator torchvision::nms does not exist`, because torchvision registers shape
functions for two operators that nothing declared. mmdet, mmpretrain and mmrotate import torchvision and die with it,
although they compute with the operators of mmcv. Once the two are declared, without any implementation, the import
works, and calling one of torchvision's own operators still raises torchvision's own clear error.

torchvision says itself whether its library loaded, before it registers the shape functions: an import hook waits for
that point, so a torchvision that works is left alone, and nothing is imported before somebody asks for torchvision.

The file stands alone and needs only the standard library to start. `make` also copies it into `.venv`, where a `.pth`
file installs the hook in every interpreter, so that the stock tools of the mm libraries run there too.
"""

import sys

_SCHEMAS = {
    'nms': 'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms': 'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
}
_libraries = []  # an operator is declared only as long as its library object lives


def mend_torchvision() -> None:
    """Install the import hook; calling it again, or after torchvision was imported, changes nothing."""
    if _BeforeShapeFunctions not in sys.meta_path:
        sys.meta_path.insert(0, _BeforeShapeFunctions)


class _BeforeShapeFunctions:
    """A finder that finds nothing: it declares what is missing just before torchvision needs it."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        if fullname == 'torchvision._meta_registrations':
            has_ops = getattr(sys.modules.get('torchvision.extension'), '_has_ops', None)
            if has_ops is not None and not has_ops():
                _declare_missing()
        return None


def _declare_missing() -> None:
    import torch

    library = torch.library.Library('torchvision', 'FRAGMENT')
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _libraries.append(library)
