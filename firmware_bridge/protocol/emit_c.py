"""Definition -> ``mcu/core/ew_protocol.h``: constants, enumerations, one struct per message, its reader or writer."""

from __future__ import annotations

import re

from firmware_bridge.protocol.can_ids import ON_CAN, can_classes
from firmware_bridge.protocol.definition import (
    CAN_FD_LENGTHS,
    CONSTANTS,
    ENUMERATIONS,
    MESSAGES,
    SIZES,
    Constant,
    Field,
    Message,
    schema_hash,
)

_TYPES = {"u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t", "i32": "int32_t", "name": "uint8_t"}


def snake(name: str) -> str:
    """``LimitsSet`` -> ``limits_set``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _struct(message: Message) -> list[str]:
    """A message with the fields of an earlier one is that type: what was set is read back without a copy by field."""
    twin = next((other for other in MESSAGES if other.fields == message.fields), message)
    if twin is not message:
        return [f"typedef ew_{snake(twin.name)}_t ew_{snake(message.name)}_t;", ""]
    lines = ["typedef struct {"]
    for field in message.fields:
        kind = _TYPES[field.type]
        if field.count == "rest" and field.type == "u8":
            lines += [f"    const {kind} *{field.name}; /* {field.doc} */", f"    size_t {field.name}_count;"]
        elif field.count == "rest":
            lines += [f"    {kind} {field.name}[EW_MAX_AXES]; /* {field.doc} */", f"    uint8_t {field.name}_count;"]
        elif field.count:
            size = field.count if field.count.isdigit() else "EW_MAX_AXES"
            lines += [f"    {kind} {field.name}[{size}]; /* {field.doc} */"]
        elif field.type == "name":
            lines += [f"    {kind} {field.name}[EW_NAME_BYTES]; /* {field.doc} */"]
        else:
            lines += [f"    {kind} {field.name}; /* {field.doc} */"]
    return [*lines, f"}} ew_{snake(message.name)}_t;", ""]


def _fixed_size(message: Message) -> int:
    return sum(SIZES[f.type] for f in message.fields if not f.count)


def _reader(message: Message) -> list[str]:
    name = snake(message.name)
    size = _fixed_size(message)
    tail = [f for f in message.fields if f.count]
    lines = [f"static inline bool ew_unpack_{name}(const uint8_t *p, size_t n, ew_{name}_t *m)", "{"]
    if not tail:
        lines += [f"    if (n != {size}u) {{", "        return false;", "    }"]
    elif tail[0].count not in ("rest", "") and tail[0].type != "u8":
        # Arrays whose length an earlier field says: the payload must be exactly that long.
        at = sum(SIZES[f.type] for f in message.fields[: [f.name for f in message.fields].index(tail[0].count)])
        lines += [
            f"    if ((n < {size}u) || (p[{at}] > EW_MAX_AXES) ||",
            f"        (n != ({size}u + ({4 * len(tail)}u * (size_t)p[{at}])))) {{",
            "        return false;",
            "    }",
        ]
    elif tail[0].type == "u8":
        lines += [f"    if (n < {size}u) {{", "        return false;", "    }"]
    else:
        lines += [
            f"    if ((n < {size}u) || (((n - {size}u) % 4u) != 0u) || (((n - {size}u) / 4u) > EW_MAX_AXES)) {{",
            "        return false;",
            "    }",
        ]
    offset = 0
    for field in message.fields:
        if field.type == "name":
            lines += [
                "    for (uint8_t i = 0u; i < EW_NAME_BYTES; i++) {",
                f"        m->{field.name}[i] = p[{offset}u + i];",
                "    }",
            ]
            offset += SIZES[field.type]
        elif not field.count:
            lines += [f"    m->{field.name} = ew_get_{field.type}(&p[{offset}]);"]
            offset += SIZES[field.type]
        elif field.count != "rest":
            begin = f"{offset}u + (4u * ((size_t)m->{field.count} * {tail.index(field)}u))"
            lines += [
                f"    for (uint8_t i = 0u; i < m->{field.count}; i++) {{",
                f"        m->{field.name}[i] = ew_get_{field.type}(&p[{begin} + (4u * (size_t)i)]);",
                "    }",
            ]
        elif field.type == "u8":
            lines += [f"    m->{field.name} = &p[{offset}];", f"    m->{field.name}_count = n - {offset}u;"]
        else:
            lines += [
                f"    m->{field.name}_count = (uint8_t)((n - {offset}u) / 4u);",
                f"    for (uint8_t i = 0u; i < m->{field.name}_count; i++) {{",
                f"        m->{field.name}[i] = ew_get_{field.type}(&p[{offset}u + (4u * (size_t)i)]);",
                "    }",
            ]
    return [*lines, "    return true;", "}", ""]


def _loop_count(field: Field) -> str:
    if field.count == "rest":
        return f"m->{field.name}_count"
    return f"{field.count}u" if field.count.isdigit() else f"m->{field.count}"


def _writer(message: Message) -> list[str]:
    name = snake(message.name)
    lines = [f"static inline size_t ew_pack_{name}(const ew_{name}_t *m, uint8_t *p)", "{"]
    offset = 0
    tail = [f for f in message.fields if f.count]
    for field in message.fields:
        if field.type == "name":
            lines += [
                "    for (uint8_t i = 0u; i < EW_NAME_BYTES; i++) {",
                f"        p[{offset}u + i] = m->{field.name}[i];",
                "    }",
            ]
            offset += SIZES[field.type]
        elif not field.count:
            lines += [f"    ew_put_{field.type}(&p[{offset}], m->{field.name});"]
            offset += SIZES[field.type]
    if not tail:
        return [*lines, f"    return {offset}u;", "}", ""]
    lines += [f"    size_t at = {offset}u;"]
    for field in tail:
        lines += [
            f"    for (uint8_t i = 0u; i < {_loop_count(field)}; i++) {{",
            f"        ew_put_{field.type}(&p[at], m->{field.name}[i]);",
            f"        at += {SIZES[field.type]}u;",
            "    }",
        ]
    return [*lines, "    return at;", "}", ""]


def _can_class() -> list[str]:
    """The priority of a message by its type; the last class takes the rest."""
    classes = can_classes()
    lines = [
        f"#define EW_CAN_CLASSES {len(classes)}u",
        f"#define EW_CAN_FD_LENGTHS {', '.join(f'{length}u' for length in CAN_FD_LENGTHS)} /* by length code */",
        "",
        "/* Priority of a message on CAN, either direction. What nobody knows is answered that it is unknown. */",
        "static inline uint8_t ew_can_class(uint8_t type)",
        "{",
        f"    uint8_t class = EW_CAN_CLASS_{classes[-1].name};",
        "    switch (type) {",
    ]
    for value in classes[:-1]:
        lines += [f"    case EW_MSG_{snake(m.name).upper()}:" for m in ON_CAN if m.can_class == value.name]
        lines += [f"        class = EW_CAN_CLASS_{value.name};", "        break;"]
    return [*lines, "    default:", "        break;", "    }", "    return class;", "}", ""]


def unsigned(constant: Constant) -> bool:
    """Numbers of things and bit masks are unsigned in C; times and limits are compared with what may be negative."""
    name = constant.name
    counted = re.search(r"^CAN_|_(AXES|KNOTS|BYTES|TICKS|TICK|RESETS)$|_FLAG_|_ERR_", name)
    return counted is not None and not name.endswith("_US")


def emit_c() -> str:
    """The header's text."""
    lines = [
        "/* Generated by firmware_bridge/protocol/generate.py from definition.py. Do not edit. */",
        "#ifndef EW_PROTOCOL_H",
        "#define EW_PROTOCOL_H",
        '#include "ew_bytes.h"',
        "#include <stdbool.h>",
        "#include <stddef.h>",
        "#include <stdint.h>",
        "",
        f"#define EW_SCHEMA_HASH {schema_hash():#010x}u",
        "",
    ]
    lines += [f"#define EW_{c.name} {c.value}{'u' * unsigned(c)} /* {c.doc} */" for c in CONSTANTS]
    for enumeration in ENUMERATIONS:
        prefix = snake(enumeration.name).upper().removeprefix("MCU_")
        lines += ["", f"/* {enumeration.doc} */", "enum {"]
        lines += [f"    EW_{prefix}_{v.name} = {v.number}, /* {v.cause} */" for v in enumeration.values]
        lines += ["};"]
    lines += ["", "/* Message types. */", "enum {"]
    lines += [f"    EW_MSG_{snake(m.name).upper()} = {m.type:#04x}, /* {m.doc} */" for m in MESSAGES]
    lines += ["};", "", *_can_class()]
    for message in MESSAGES:
        if not message.fields:
            continue
        lines += _struct(message)
        lines += _reader(message) if message.direction in ("host", "plant") else _writer(message)
    return "\n".join([*lines, "#endif", ""])
