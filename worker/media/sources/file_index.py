"""Which file a name in a table means: by its path, or by its name alone if only one has it."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from worker.source_files.names import clean_name


class FileIndex:
    """The names of a dataset's files. Tables may leave out folders, suffix and case."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._by_base: dict[str, str | None] = {}  # None where several files have that name
        suffixes = set()
        for name in self._names:
            path = PurePosixPath(name)
            suffixes.add(path.suffix)
            key = path.name.casefold()
            self._by_base[key] = None if key in self._by_base else name
        self._suffixes = ["", *sorted(suffixes)]

    def resolve(self, folder: tuple[str, ...], value: str) -> str | None:
        """The file that `value` means in a table in `folder`; None if there is none, or several."""
        own = clean_name(value)
        if not own:
            return None
        for path in (str(PurePosixPath(*folder, own)), own):
            for suffix in self._suffixes:
                if path + suffix in self._names:
                    return path + suffix
        for short in (PurePosixPath(own).name, PurePosixPath(own).stem):
            for suffix in self._suffixes:
                if found := self._by_base.get((short + suffix).casefold()):
                    return found
        return None
