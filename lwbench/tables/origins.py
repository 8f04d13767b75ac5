"""Origins of published numbers, as the YAML files of tables state them."""

from typing import Annotated, Any

from pydantic import BeforeValidator, model_validator

from .table import COMPLEXITY, Agreement, Origin, OriginKind
from .yaml_files import Number, Strict


class _Origin(Strict):
    kind: OriginKind = "quoted"
    citation: str = ""
    value: Number | None = None  # None: that of the cell
    agrees: Agreement = "same"
    note: str = ""

    @model_validator(mode="after")
    def _complete(self) -> "_Origin":
        if (self.kind == "quoted") != bool(self.citation):
            raise ValueError("a quoted number, and no other one, has a citation")
        if self.agrees != "same" and self.value is None:
            raise ValueError(f"agrees: {self.agrees} needs the value that is printed there")
        return self


def _origin(content: Any) -> Any:
    """The mapping meant by a word alone: `origin: own`."""
    return {"kind": content} if isinstance(content, str) else content


OfOrigin = Annotated[_Origin | None, BeforeValidator(_origin)]


def origin_of(value: str | None, origin: _Origin | None, kind: str) -> Origin | None:
    """The origin of a cell's number; None of a count, or where none is stated or printed."""
    if origin is None or value is None or kind in COMPLEXITY:
        return None
    there = origin.value or (value if origin.kind == "quoted" else None)
    return Origin(origin.kind, origin.citation, there, origin.agrees, origin.note)
