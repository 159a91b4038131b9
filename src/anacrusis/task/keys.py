"""The name of a picture that can be opened wherever the name goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .images import Images


class Key(str):
    """A picture's key (a path, or "#17"), with where it is found: models open it, everything else sees a text."""

    images: Images

    @classmethod
    def of(cls, key: str, images: Images) -> Key:
        made = cls(key)
        made.images = images
        return made

    def load(self) -> Any:
        """(H, W, 3) uint8. Raises DataError where it is broken."""
        return self.images.load(str(self))
