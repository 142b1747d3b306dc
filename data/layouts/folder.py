"""The simplest layout: images/ and masks/, matched by the stems of the file names.

Official splits are subfolders on either side: `images/train` and `masks/train`, or `train/images` and `train/masks`.
"""

from collections.abc import Iterator

from data.files import FileSystem
from data.labels import LabelMap
from data.layouts.base import (
    IMAGE_ENDINGS,
    SPLIT_FOLDERS,
    BadEntry,
    Layout,
    Sample,
    is_image,
    split_folders,
    stem_of,
)

#: Extensions of lossless formats; others cannot hold labels.
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff")

#: Folders of the images and of the masks of a split.
PATTERNS = (("images/{}", "masks/{}"), ("{}/images", "{}/masks"))


class Folder(Layout):
    """Indexed, gray or RGB-palette masks; the label map in the configuration says what they mean."""

    name = "folder"

    @classmethod
    def detect(cls, root: str, files: FileSystem) -> bool:
        """Whether images/ and masks/ are there, in the folder or in that of a split."""
        layout = cls(root, files)
        folders = ["", *(f"{name}/" for names in SPLIT_FOLDERS.values() for name in names)]
        return any(layout.has(f"{folder}images") and layout.has(f"{folder}masks") for folder in folders)

    def splits(self) -> tuple[str, ...]:
        """Splits that have a folder of images and one of masks."""
        return tuple(self._folders())

    def samples(self, split: str | None) -> Iterator[Sample | BadEntry]:
        """Streams the images, then the masks that have no image."""
        images, masks = ("images", "masks") if split is None else self._folders()[split]
        for name in self._names(images):
            if is_image(name):
                candidates = (f"{masks}/{stem_of(name)}{ending}" for ending in MASK_ENDINGS)
                yield self.listed(f"{images}/{name}", next(filter(self.has, candidates), None), split)
            else:
                endings = ", ".join(IMAGE_ENDINGS)
                yield BadEntry(f"{images}/{name}", f"no image: the name ends with none of {endings}")
        yield from self._without_image(images, masks)

    def label_map(self) -> LabelMap | None:
        """None, since the layout does not say what the masks mean."""
        return None

    def _folders(self) -> dict[str, tuple[str, str]]:
        for images, masks in PATTERNS:
            found = split_folders(lambda name: self.has(images.format(name)) and self.has(masks.format(name)))  # noqa: B023
            if found:
                return {split: (images.format(name), masks.format(name)) for split, name in found.items()}
        return {}

    def _names(self, folder: str) -> Iterator[str]:
        """Names of the files in a folder, without those that operating systems leave behind."""
        hidden = (".", "Thumbs.db", "desktop.ini")
        return (name for name in self.files.list(self.at(folder)) if not name.startswith(hidden))

    def _without_image(self, images: str, masks: str) -> Iterator[BadEntry]:
        for name in self._names(masks):
            stem = stem_of(name)
            if not name.endswith(MASK_ENDINGS):
                allowed = ", ".join(MASK_ENDINGS)
                yield BadEntry(f"{masks}/{name}", f"no mask: a mask's name must end with one of {allowed}")
            elif not any(self.has(f"{images}/{stem}{e}") for ending in IMAGE_ENDINGS for e in (ending, ending.upper())):
                yield BadEntry(f"{masks}/{name}", f"image missing: no {images}/{stem} with {', '.join(IMAGE_ENDINGS)}")
