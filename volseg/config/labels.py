"""Labels in a recipe: values, names, colours, codes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from volseg.config.section import Byte, Section
from volseg.volume import ANATOMICAL_STRUCTURE, Code, Label


class CodeConfig(Section):
    """A coded concept, such as SNOMED CT's."""

    value: str
    """Code value."""
    scheme: str = "SCT"
    """Coding scheme designator; SCT is SNOMED CT."""
    meaning: str
    """Code meaning, at most 64 characters."""

    def code(self) -> Code:
        """Return the concept as the rest of volseg takes it."""
        return Code(value=self.value, scheme=self.scheme, meaning=self.meaning)


class LabelConfig(Section):
    """One label: its value in a mask, its name, and how viewers should call and paint it."""

    value: Annotated[int, Field(ge=1, le=65535)]
    """Value in the mask; 0 is the background and isn't listed."""
    name: str
    """Name for people."""
    colour: tuple[Byte, Byte, Byte]
    """Red, green, blue."""
    code: CodeConfig | None = None
    """Coded property type for DICOM."""
    category: CodeConfig | None = None
    """Coded property category for DICOM; an anatomical structure unless given."""
    modifier: CodeConfig | None = None
    """Coded modifier of the property type, such as "Anterior"."""
    members: tuple[int, ...] = ()
    """Values in the training labels that make up this region, with a sigmoid output, where regions overlap; its own
    value unless given.
    """

    def label(self) -> Label:
        """Return the label as the rest of volseg takes it."""
        return Label(
            value=self.value,
            name=self.name,
            colour=self.colour,
            code=self.code.code() if self.code else None,
            category=self.category.code() if self.category else ANATOMICAL_STRUCTURE,
            modifier=self.modifier.code() if self.modifier else None,
        )
