"""Which mask belongs to which image: patterns of paths with placeholders, and how they are found from names alone.

`images/{stem}.jpg` beside `labels/{stem}_gt.png` is a rule: a mask belongs to the image whose path has the same values
of the placeholders. `{stem}` is a part of a file's name, `{dir}` and `{subdir}` are any number of folders, `{split}` is
the name of an official split, such as `train` or `valid`, and `{ext}` is the ending of an image, or of a mask.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations

from data.errors import DataError
from data.layouts.base import IMAGE_ENDINGS, MASK_ENDINGS, SPLIT_FOLDERS

PLACEHOLDERS = ("split", "dir", "subdir", "stem", "ext")

#: Spelling of a split in a path, in lower case -> official split. The short ones are those of imagesTr and labelsTs.
SPLIT_NAMES = {name: split for split, names in SPLIT_FOLDERS.items() for name in names} | {"tr": "train", "ts": "test"}

#: Words in the names of folders and files that say what the files are.
IMAGE_WORD = re.compile(
    r"images?|imgs?|jpegimages|originals?|orig|photos?|pictures?|rgb|inputs?|raw|frames?|scans?|color|img8bit|leftimg"
)
MASK_WORD = re.compile(
    r"masks?|labels?|lab|l|gts?|groundtruth|ground|truth|annotations?|annots?|annos?|ann|segs?|segmentations?|"
    r"segmentationclass|semantic|targets?|matte|parsing|pixel"
)
#: Words of files that somebody's program has made from others.
DERIVED_WORD = re.compile(
    r"pred(?:s|ict|icted|ictions?)?|results?|outputs?|overlays?|vis|visual|visuali[sz]ations?|aug|augmented|augmentations?|"
    r"previews?|thumbs?|thumbnails?"
)

#: Endings of formats that lose nothing, and hence can hold labels without a word that says so; text can be anything.
LOSSLESS = tuple(ending for ending in MASK_ENDINGS if ending not in (".jpg", ".jpeg", ".webp", ".txt"))

#: Words at the ends of names, without which files are compared: `image_`, `_mask`, the `img` of `img001`.
_PREFIX = re.compile(r"[a-zA-Z]+(?:[_\-. ]|(?=\d))")
_SUFFIX = re.compile(r"[_\-. ][a-zA-Z]+")
_SPLIT = "|".join(sorted((name for names in SPLIT_FOLDERS.values() for name in names), key=len, reverse=True))
_SPLIT_IN_NAME = re.compile(
    rf"(?i:^(?:{_SPLIT})(?=$|[_\-. ]|annot|mask|label|im(?:g|age)|gt|seg))"
    rf"|(?i:(?<=[_\-. ])(?:{_SPLIT})$)|(?<=[a-z])T[rs]$"
)
#: So many files decide about the rule; of more, a sample by names.
_DECIDING = 20_000
#: A folder has at most so many kinds of files; of what has more, such as frames that count from 1 in each of many
#: folders, nothing can be learned.
_MOST_KINDS = 32


class NoPairs(DataError):
    """No two kinds of files correspond."""


@dataclass(frozen=True)
class PathPattern:
    """A pattern of the paths of images or masks, relative to the dataset's folder."""

    text: str
    endings: tuple[str, ...]
    """What `{ext}` stands for, each with its dot, in lower case."""

    def __post_init__(self) -> None:
        found = re.findall(r"\{(\w*)\}", self.text)
        unknown = [name for name in found if name not in PLACEHOLDERS]
        if (
            unknown
            or len(set(found)) < len(found)
            or "stem" not in found
            or re.search(r"^/|\\|(^|/)\.\.(/|$)", self.text)
        ):
            raise ValueError(
                f"{self.text!r} is no pattern of paths: it needs {{stem}}, and may have "
                f"{', '.join(f'{{{name}}}' for name in PLACEHOLDERS if name != 'stem')}, each once; it is relative to "
                "data.path, as in images/{stem}.jpg"
            )
        if any(f"{{{name}}}" in part and part != f"{{{name}}}" for name in ("dir", "subdir") for part in self.parts):
            raise ValueError(
                f"{self.text!r} is no pattern of paths: {{dir}} and {{subdir}} are whole folders, as in a/{{dir}}/b"
            )

    @property
    def parts(self) -> list[str]:
        """The folders and the name."""
        return self.text.split("/")

    @property
    def has_split(self) -> bool:
        """Whether the paths name the official split."""
        return "{split}" in self.text

    @property
    def head(self) -> str:
        """The folder, without placeholders, that all paths are below; empty for the dataset's own."""
        fixed = next(number for number, part in enumerate(self.parts) if "{" in part)
        return "/".join(self.parts[:fixed])

    @cached_property
    def _regexes(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        *folders, name = self.parts
        folder = "".join(
            rf"(?P<{part[1:-1]}>(?:[^/]+/)*)" if part in ("{dir}", "{subdir}") else self._regex(part) + "/"
            for part in folders
        )
        stem, dot, ending = name.rpartition(".")
        if "{" in ending:
            stem, dot, ending = name, "", ""
        file = self._regex(stem) + re.escape(dot) + (f"(?i:{re.escape(ending)})" if ending else "")
        if name.endswith(".{ext}"):
            allowed = "|".join(re.escape(one[1:]) for one in self.endings)
            file = self._regex(name.removesuffix(".{ext}")) + rf"\.(?P<ext>(?i:{allowed}))"
        return re.compile(folder + file), re.compile(folder)

    def _regex(self, part: str) -> str:
        pieces = re.split(r"(\{\w+\})", part)
        names = "|".join(sorted(SPLIT_NAMES, key=len, reverse=True))
        known = {"{split}": f"(?P<split>(?i:{names}))", "{stem}": "(?P<stem>[^/]+)"}
        return "".join(known.get(piece) or re.escape(piece) for piece in pieces)

    def match(self, path: str) -> dict[str, str] | None:
        """The values of the placeholders in a path; None if the path does not fit."""
        match = self._regexes[0].fullmatch(path)
        return match.groupdict() if match else None

    def split_folder(self, name: str) -> str:
        """The folder of a split of this name, as far as no other placeholder says where it is."""
        folders = [part.replace("{split}", name) for part in self.parts[:-1]]
        known = next((number for number, part in enumerate(folders) if "{" in part), len(folders))
        return "/".join(folders[:known])

    def in_folder(self, path: str) -> bool:
        """Whether a file is in a folder of this pattern, whatever its name."""
        return self._regexes[1].fullmatch(path.rpartition("/")[0] + "/" if "/" in path else "") is not None

    def paths(self, values: dict[str, str]) -> Iterator[str]:
        """The paths that have these values: one, or one for each ending."""
        text = re.sub(r"\{(dir|subdir)\}/", lambda found: values.get(found[1], ""), self.text)
        text = re.sub(r"\{(split|stem)\}", lambda found: values.get(found[1], ""), text)
        yield from (text.replace(".{ext}", ending) for ending in self.endings) if ".{ext}" in text else (text,)


def images_pattern(text: str) -> PathPattern:
    """The pattern of the images, `data.images`; raises ValueError."""
    return PathPattern(text, IMAGE_ENDINGS)


def masks_pattern(text: str) -> PathPattern:
    """The pattern of the masks, `data.masks`; raises ValueError."""
    return PathPattern(text, MASK_ENDINGS)


@dataclass(frozen=True)
class PairingRule:
    """The patterns of images and of masks, and the pairs from which they were found."""

    images: PathPattern
    masks: PathPattern
    examples: tuple[tuple[str, str], ...] = ()
    """(image, mask), the first three."""
    pairs: int = 0

    def __str__(self) -> str:
        shown = "".join(f"\n    {image}  +  {mask}" for image, mask in self.examples)
        return f"images {self.images.text}, masks {self.masks.text} ({self.pairs} pairs){shown}"


def only_rule(rules: Sequence[PairingRule], root: str, paths: Sequence[str]) -> PairingRule:
    """The one rule that there is.

    Raises:
        DataError: there is none, or there are several, and what to do.
    """
    if not rules:
        kinds: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            if path.lower().endswith((*IMAGE_ENDINGS, *MASK_ENDINGS)):
                kinds[path.rpartition("/")[0] or "."].append(path.rpartition("/")[2])
        if not kinds:
            raise NoPairs(f"no images: no file below {root} ends with one of {', '.join(IMAGE_ENDINGS)}")
        largest = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))[:6]
        found = "; ".join(f"{folder} has {len(names)}, such as {min(names)}" for folder, names in largest)
        found = found.encode(errors="backslashreplace").decode()  # Names on a disk need not be UTF-8.
        raise NoPairs(
            f"no pairs of images and masks: the names of no two folders in {root} correspond ({found}); say which "
            "belong together by data.images and data.masks, patterns such as images/{stem}.jpg and labels/{stem}_gt.png"
        )
    if len(rules) > 1:
        shown = "\n".join(f"  {number}. {rule}" for number, rule in enumerate(rules, start=1))
        raise DataError(
            f"pairs of images and masks are ambiguous: {root} can be read in {len(rules)} ways; choose one by "
            f"data.masks or data.images (options --masks and --images of inspect):\n{shown}"
        )
    return rules[0]


@dataclass
class _Candidate:
    """What speaks for a rule while names are compared."""

    pairs: dict[str, str] = field(default_factory=dict)
    befores: set[tuple[str, ...]] = field(default_factory=set)
    afters: set[tuple[str, ...]] = field(default_factory=set)
    endings: tuple[set[str], set[str]] = field(default_factory=lambda: (set(), set()))


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of files: the folders that only these have, and what surrounds the common part of their names."""

    folders: tuple[str, ...]
    prefix: str
    suffix: str
    ending: str

    @property
    def words(self) -> set[str]:
        """The words in its folders' and files' names, in lower case."""
        text = "/".join((*self.folders, self.prefix, self.suffix))
        parts = re.findall(r"[A-Z]?[a-z]+(?:8bit)?|[A-Z]+(?![a-z])|[a-z]+", text)
        return {word.lower() for word in (*parts, *re.findall(r"[a-z]+", text.lower()))}

    @property
    def affixes(self) -> set[str]:
        """The words at the ends of the files' names, in lower case."""
        return set(re.findall(r"[a-z]+", f"{self.prefix}/{self.suffix}".lower()))


def find_rules(
    paths: Iterable[str], images: PathPattern | None = None, masks: PathPattern | None = None
) -> list[PairingRule]:
    """The rules by which images and masks may correspond, judged by their paths alone.

    Two files correspond if their paths are equal but for one place in the folders, for words at the ends of their names
    and for the ending. Which of the two is the mask is said by words such as `labels` or `_gt`, or else by the ending.

    Args:
        paths: relative paths of the dataset's files, without litter.
        images: what the images' pattern must be; None if it is to be found.
        masks: likewise for the masks.

    Returns:
        The best rule, and those that pair other files, or the same images with other masks, and are as plausible; empty
        if nothing corresponds.
    """
    deciding = _sample([path for path in paths if path.lower().endswith((*IMAGE_ENDINGS, *MASK_ENDINGS))])
    groups: defaultdict[tuple, dict[_Kind, str]] = defaultdict(dict)
    for path in deciding:
        for key, kind in _readings(path):
            groups[key][kind] = path
    candidates: defaultdict[tuple, _Candidate] = defaultdict(_Candidate)
    for (before, after, split, _), kinds in groups.items():
        if len(kinds) > _MOST_KINDS:
            continue
        for image, mask in permutations(kinds, 2):
            one_folder = not image.folders and not mask.folders
            if not _may_pair(image, mask, split) or (one_folder and after):  # That was seen with all folders before.
                continue
            if (images and not images.match(kinds[image])) or (masks and not masks.match(kinds[mask])):
                continue
            alike = (image.folders, image.prefix, image.suffix) == (mask.folders, mask.prefix, mask.suffix)
            ends = (image.ending, mask.ending) if alike else ("", "")
            derived = _say(_Kind((*before, *after), "", "", "").words, DERIVED_WORD)
            kind_of_pair = image.folders, image.prefix, image.suffix, mask.folders, mask.prefix, mask.suffix, ends
            found = candidates[*kind_of_pair, derived]
            found.pairs[kinds[image]] = kinds[mask]
            found.befores.add(before)
            found.afters.add(after)
            found.endings[0].add(image.ending)
            found.endings[1].add(mask.ending)
    return _best(
        {
            PairingRule(
                images or images_pattern(_pattern(key[0], key[1], key[2], found, found.endings[0])),
                masks or masks_pattern(_pattern(key[3], key[4], key[5], found, found.endings[1])),
                tuple(sorted(found.pairs.items())[:3]),
                len(found.pairs),
            ): (_tier(key, found), found.pairs)
            for key, found in candidates.items()
        }
    )


def _sample(paths: list[str]) -> list[str]:
    """All paths, or those of some names: by the digits of a name, so that an image and its mask are both among them."""
    if len(paths) <= _DECIDING:
        return paths
    share = len(paths) // _DECIDING + 1

    def number(path: str) -> int:
        return sum(int(digits) for digits in re.findall(r"\d{1,9}", path.rpartition("/")[2]))

    chosen = [path for path in paths if number(path) % share == 0]
    return chosen if len(chosen) >= _DECIDING // 10 else paths


def _readings(path: str) -> Iterator[tuple[tuple, _Kind]]:
    """(What a file shares with its counterpart, what it does not share), for each way to divide its path."""
    *folders, name = path.split("/")
    folders, split = _without_split(folders)
    stem, _, ending = name.rpartition(".")
    starts, ends = [0], [len(stem)]
    while match := _PREFIX.match(stem, starts[-1]):
        starts.append(match.end())
    for match in reversed(list(_SUFFIX.finditer(stem))):
        if match.end() != ends[-1]:
            break
        ends.append(match.start())
    names = [(stem[:start], stem[start:end], stem[end:]) for start in starts for end in ends if start < end]
    for first in range(len(folders) + 1):
        for last in range(first, min(first + 3, len(folders)) + 1):
            before, own, after = tuple(folders[:first]), tuple(folders[first:last]), tuple(folders[last:])
            for prefix, core, suffix in names:
                kind = _Kind(own, prefix, suffix, "." + ending.lower())
                yield (before, after, split, core), kind
                if any("{split}" in folder for folder in own):  # The masks need not be divided as the images are.
                    yield (before, after, None, core), kind


def _without_split(folders: list[str]) -> tuple[list[str], str | None]:
    """The folders with a placeholder for the split, and the split's name as it is spelled there."""
    for number, folder in enumerate(folders):
        match = _SPLIT_IN_NAME.search(folder)
        if match:
            named = folder[: match.start()] + "{split}" + folder[match.end() :]
            return [*folders[:number], named, *folders[number + 1 :]], match[0]
    return folders, None


def _may_pair(image: _Kind, mask: _Kind, split: str | None) -> bool:
    """Whether files of two kinds may be image and mask: nothing shared counts as different, and both can be."""
    if image.ending not in IMAGE_ENDINGS or mask.ending not in MASK_ENDINGS:
        return False
    if (
        image.folders
        and mask.folders
        and (image.folders[0] == mask.folders[0] or image.folders[-1] == mask.folders[-1])
    ):
        return False
    divided = ["{split}" in "".join(kind.folders) for kind in (image, mask)]
    if divided[1] and (split is None or not divided[0]):
        return False
    if image.prefix == mask.prefix != "" or image.suffix == mask.suffix != "":
        return False
    if image.affixes and mask.affixes and not _say(image.affixes | mask.affixes, IMAGE_WORD, MASK_WORD):
        return False  # cat_001 and dog_001 are two images.
    own, others = image.words - mask.words, mask.words - image.words
    if _say(own, MASK_WORD) or (_say(others, IMAGE_WORD) and not _say(others, MASK_WORD)):
        return False
    return _say(others, MASK_WORD) or mask.ending in LOSSLESS


def _tier(key: tuple, found: _Candidate) -> int:
    """How much the names say: 0 is 'this is a mask', 3 is 'made from others'."""
    image, mask = _Kind(key[0], key[1], key[2], "").words, _Kind(key[3], key[4], key[5], "").words
    if key[-1] or _say(image | mask, DERIVED_WORD):
        return 3
    if _say(mask - image, MASK_WORD):
        return 0
    return 1 if _say(image - mask, IMAGE_WORD) or not found.endings[0] & set(LOSSLESS) else 2


def _say(words: set[str], *patterns: re.Pattern[str]) -> bool:
    """Whether one of the words is one of these."""
    return any(pattern.fullmatch(word) for word in words for pattern in patterns)


def _best(rules: dict[PairingRule, tuple[int, dict[str, str]]]) -> list[PairingRule]:
    if not rules:
        return []
    most = max(len(pairs) for _, pairs in rules.values())
    ranked = sorted(
        (rule for rule, (_, pairs) in rules.items() if len(pairs) * 5 >= most),
        key=lambda rule: (rules[rule][0], -rule.pairs, len(rule.masks.text), rule.images.text, rule.masks.text),
    )
    first = ranked[0]
    tier, pairs = rules[first]
    rivals, known_images, known_masks = [], {*pairs}, {*pairs.values()}
    for rule in ranked[1:]:
        others = rules[rule][1]
        # The same images with the same masks, in another order or farther apart, are no reading of their own.
        again = len(known_images & {*others}) * 2 >= len(others) <= len(known_masks & {*others.values()}) * 2
        if rules[rule][0] == tier and len(others) * 4 >= len(pairs) and not again:
            rivals.append(rule)
            known_images |= {*others}
            known_masks |= {*others.values()}
    return [first, *rivals]


def _pattern(folders: tuple[str, ...], prefix: str, suffix: str, found: _Candidate, endings: set[str]) -> str:
    ending = next(iter(endings)) if len(endings) == 1 else ".{ext}"
    parts = [*_common(found.befores, "{dir}"), *folders, *_common(found.afters, "{subdir}")]
    return "/".join([*parts, f"{prefix}{{stem}}{suffix}{ending}"])


def _common(folders: set[tuple[str, ...]], placeholder: str) -> list[str]:
    """The folders that all begin with, a placeholder if they differ, and those that all end with."""
    first, *others = sorted(folders)
    if not others:
        return list(first)
    shortest = min(map(len, folders))
    head = next((n for n in range(shortest) if any(one[n] != first[n] for one in others)), shortest)
    tail = next(
        (n for n in range(shortest - head) if any(one[-1 - n] != first[-1 - n] for one in others)), shortest - head
    )
    return [*first[:head], placeholder, *first[len(first) - tail :]]
