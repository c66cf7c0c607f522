"""Which files of a shard make a sample: by their names, as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from corpora.captions import Problem
from corpora.reasons import Reason
from corpora.samples import Part, Sample, Suffixes, assemble, sample_name

__all__ = ["MemberName", "Members", "member_name"]

_SHOWN = 5


@dataclass(frozen=True)
class MemberName:
    """``stem``: up to the first dot, which is webdataset's key. ``sample``: what the file belongs to."""

    stem: str
    sample: str
    suffix: str


def member_name(path: str, suffixes: Suffixes) -> MemberName | None:
    """What a file's name says; None for hidden ones.

    webdataset's rule is that the name ends at the first dot. Where that leaves no suffix one knows
    (`IMG.0001.jpg`, `v1.2_x.jpg`), it ends at the last one.
    """
    while path.startswith(("./", "/")):
        path = path[path.index("/") + 1 :]
    folder, slash, base = path.rpartition("/")
    if not base or base.startswith("."):
        return None
    prefix = folder + slash
    stem, _, suffix = base.partition(".")
    for chosen in suffixes.chosen:
        if len(base) > len(chosen) + 1 and base.lower().endswith(f".{chosen}"):
            name = f"{prefix}{base[: -len(chosen) - 1]}"
            return MemberName(name, name, chosen)
    if suffix.lower() in suffixes.known or "." not in suffix:
        return MemberName(prefix + stem, prefix + stem, suffix.lower())
    name, _, suffix = base.rpartition(".")
    return MemberName(prefix + stem, prefix + name, suffix.lower())


@dataclass
class _Group:
    """Files of one sample so far."""

    name: str
    paths: list[str] = field(default_factory=list)
    parts: dict[str, Part] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def add(self, path: str, suffix: str, content: Part | None) -> None:
        self.paths.append(path)
        if content is None:
            self.others.append(suffix)
        else:
            self.parts[suffix] = content


class Members:
    """Puts the files of a shard together to samples, in the order in which they come.

    Files of a sample follow each other. Several samples may share what stands before the first dot; what is left
    over beside a whole sample of just that name (`0001.seg.png`, `0001.meta.json`) belongs to it. Of what waits
    for its other half, only the name is kept, so that halves that lie apart are told from halves alone.
    """

    def __init__(self, suffixes: Suffixes) -> None:
        self._suffixes = suffixes
        self._stem = ""
        self._plain = _Group("")  # named by the stem
        self._dotted: _Group | None = None  # named by more than the stem
        self._left: list[_Group] = []  # dotted ones that are not whole
        self._halves: dict[str, tuple[bool, Sample]] = {}  # (has an image, what is missing)
        self._apart: set[str] = set()
        self._strays: list[str] = []
        self._stray_count = 0

    def add(self, path: str, name: MemberName | None, content: Part | None) -> Iterator[Sample]:
        """Take a file in; gives the samples that it ends. ``content`` is None for what no sample needs."""
        if name is None:
            self._stray([path])
            return
        if name.stem != self._stem or (name.sample == name.stem and name.suffix in self._plain.parts):
            yield from self._close()
            self._stem, self._plain = name.stem, _Group(name.stem)
        if name.sample == name.stem:
            self._plain.add(path, name.suffix, content)
            return
        group = self._dotted
        if group is None or group.name != name.sample or name.suffix in group.parts:
            yield from self._close_dotted()
            group = self._dotted = _Group(name.sample)
        group.add(path, name.suffix, content)

    def finish(self, broken: bool = False) -> Iterator[Sample]:
        """The samples that were still open, and one for all files of no sample.

        ``broken``: the shard ends here before its time; what is not whole is its fault.
        """
        if broken:
            yield from (self._sample(group) for group in (self._plain, self._dotted) if self._whole(group))
        else:
            yield from self._close()
        yield from (sample for _, sample in self._halves.values())
        if self._stray_count:
            more = ", ..." if self._stray_count > len(self._strays) else ""
            text = f"{self._stray_count} files: {', '.join(self._strays)}{more}"
            yield Sample("", problem=Problem(Reason.NO_SAMPLE, text))

    def _whole(self, group: _Group | None) -> bool:
        return group is not None and self._has_image(group) and self._has_text(group)

    def _has_image(self, group: _Group) -> bool:
        return any(suffix in group.parts for suffix in self._suffixes.images)

    def _has_text(self, group: _Group) -> bool:
        return any(suffix in group.parts for suffix in (*self._suffixes.captions, "json"))

    def _sample(self, group: _Group) -> Sample:
        return assemble(group.name, group.parts, group.others, self._suffixes)

    def _close(self) -> Iterator[Sample]:
        yield from self._close_dotted()
        if self._whole(self._plain):
            yield self._sample(self._plain)
        else:
            for group in (self._plain, *self._left):
                yield from self._half(group)
        self._plain, self._left = _Group(""), []

    def _close_dotted(self) -> Iterator[Sample]:
        group, self._dotted = self._dotted, None
        if group is None:
            return
        if self._whole(group):
            yield self._sample(group)
        else:
            self._left.append(_Group(group.name, group.paths, dict.fromkeys(group.parts, b""), group.others))

    def _half(self, group: _Group) -> Iterator[Sample]:
        if not group.parts:
            self._stray(group.paths)
            return
        image = self._has_image(group)
        before = self._halves.get(group.name)
        if group.name in self._apart:
            return
        if before is None:
            self._halves[group.name] = image, self._sample(group)
        elif before[0] == image:
            yield self._sample(group)
        else:
            del self._halves[group.name]
            self._apart.add(group.name)
            yield Sample(
                sample_name(group.name),
                problem=Problem(Reason.SCATTERED_SAMPLE, "pack the shard again, sorted by name"),
            )

    def _stray(self, paths: list[str]) -> None:
        self._stray_count += len(paths)
        self._strays.extend(paths[: max(0, _SHOWN - len(self._strays))])
