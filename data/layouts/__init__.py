"""Readers of labelled images on disk, one module for each layout."""

from data.errors import DataError
from data.files import FileSystem
from data.layouts.ade20k import Ade20k
from data.layouts.base import Layout
from data.layouts.camvid import CamVid
from data.layouts.cityscapes import Cityscapes
from data.layouts.coco import Coco
from data.layouts.coco_panoptic import CocoPanoptic
from data.layouts.cvat import Cvat
from data.layouts.folder import Folder
from data.layouts.label_studio import LabelStudio
from data.layouts.labelme import Labelme
from data.layouts.pairing import NoPairs
from data.layouts.roboflow import Roboflow
from data.layouts.supervisely import Supervisely
from data.layouts.via import Via
from data.layouts.voc import Voc
from data.layouts.yolo import Yolo

#: The layouts by name, in the order in which `detect_layout` tries them: first those that names of folders identify.
LAYOUTS: dict[str, type[Layout]] = {
    layout.name: layout
    for layout in (
        *(Voc, CamVid, Cityscapes, Ade20k, Roboflow, Supervisely, Yolo, Folder),
        *(CocoPanoptic, Coco, Cvat, Via, LabelStudio, Labelme),
    )
}


def detect_layout(root: str, files: FileSystem) -> type[Layout]:
    """The first layout that recognises a folder; `Folder` for all others, which finds its pairs by their names.

    Raises:
        DataError: the folder is missing.
    """
    if not files.exists(root):
        raise DataError(f"dataset missing: no folder {root}")
    return next((layout for layout in LAYOUTS.values() if layout.detect(root, files)), Folder)


def open_layout(
    name: str,
    root: str,
    files: FileSystem,
    group_pattern: str | None = None,
    images: str | None = None,
    masks: str | None = None,
) -> Layout:
    """A layout by its name, or the one that recognises the folder if the name is 'auto'.

    Raises:
        DataError: the folder is missing, the name is unknown, or no layout recognises the folder.
    """
    if name not in ("auto", *LAYOUTS):
        raise DataError(f"unknown layout {name!r}; allowed: auto, {', '.join(LAYOUTS)}")
    if not files.exists(root):
        raise DataError(f"dataset missing: no folder {root}")
    if name != "auto" or images or masks:
        return LAYOUTS["folder" if name == "auto" else name](root, files, group_pattern, images, masks)
    layout = detect_layout(root, files)(root, files, group_pattern)
    if isinstance(layout, Folder):
        try:
            _ = layout.rule
        except NoPairs as error:
            others = ", ".join(other for other in LAYOUTS if other != Folder.name)
            raise DataError(
                f"unknown layout: {root} looks like none of {others}; name one in data.layout if it is. {error}"
            ) from None
    return layout
