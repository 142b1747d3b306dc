"""COCO panoptic: one JSON file and one folder of PNGs for a split; every pixel has a segment, every segment a category.

Kirillov et al., "Panoptic Segmentation", CVPR 2019; format as in cocodataset/panopticapi.
"""

import posixpath
from collections.abc import Iterator

from data.errors import DataError
from data.files import inside
from data.layouts.annotations import field, whole
from data.layouts.base import PanopticFile, stem_of
from data.layouts.coco import AnnotationFile, CocoFiles, is_crowd


class CocoPanoptic(CocoFiles):
    """Things and stuff as semantic classes; crowds and unlabelled pixels are the ignore label (void)."""

    name = "coco_panoptic"
    pattern = r"panoptic_.*\.json"
    has_background = False

    def find(self) -> Iterator[str]:
        """Annotation files beside which there is a folder of masks with the same name."""
        return (path for path in super().find() if self.has(stem_of(path)))

    def mask_of(self, file: AnnotationFile, image: dict, annotations: list[dict]) -> PanopticFile | None:
        """The PNG of segment ids, with the category of each; None if the image has no annotation."""
        if not annotations:
            return None
        if len(annotations) > 1:
            raise DataError(f"malformed annotation: image id {image['id']!r} has {len(annotations)} panoptic masks")
        mask = posixpath.join(stem_of(file.path), field(annotations[0], "file_name", str))
        segments: dict[int, int | None] = {}
        for segment in field(annotations[0], "segments_info", list):
            category = whole(segment, "category_id")
            segments[whole(segment, "id")] = None if is_crowd(segment) else category
        return PanopticFile(inside(self.root, mask, self.files), segments)
