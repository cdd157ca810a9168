"""What a value may be, in words, from the JSON Schema that pydantic makes of a field."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]


def values(schema: Schema, definitions: Schema) -> str:
    """``integer from 1 to 65535``; what may be left out is not said here."""
    match schema:
        case {"$ref": reference}:
            said = values(definitions[reference.rpartition("/")[2]], definitions)
        case {"anyOf": kinds}:
            some = [values(each, definitions) for each in kinds if each.get("type") != "null"]
            said = ", or ".join(dict.fromkeys(some))
        case {"enum": words}:
            said = ", ".join(f"`{word}`" for word in words)
        case {"type": "array", "items": items}:
            said = f"list of {values(items, definitions)}{_count(schema, 'Items')}"
        case {"properties": properties}:
            said = f"object of {', '.join(f'`{name}`' for name in properties)}"
        case {"type": "boolean"}:
            said = "true or false"
        case {"type": "integer" | "number" as kind}:
            said = f"{kind}{_range(schema)}"
        case {"type": "string"}:
            said = _string(schema)
        case _:
            said = str(schema["type"])
    return said


def _string(schema: Schema) -> str:
    if "format" in schema:
        return {"path": "path", "password": "secret"}[schema["format"]]
    if "pattern" in schema:
        return f"text like `{schema['pattern'].strip('^$')}`"
    return f"text{_count(schema, 'Length', ' characters')}"


def _range(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']:.12g} to {schema['maximum']:.12g}"
    words = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    bounds = [f"{word} {schema[key]:.16g}" for key, word in words.items() if key in schema]
    return f" {', '.join(bounds)}" if bounds else ""


def _count(schema: Schema, what: str, unit: str = "") -> str:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}")
    if most is None:
        assert least in (0, 1), "a lower bound that no field has had yet"
        return " (not empty)" if least else ""
    return f" ({least} to {most}{unit})" if least else f" (at most {most}{unit})"
