"""Shift-Tab: what a person asks about.

evcxr explains the name at the end of the text that it is given. The cursor of a person is anywhere
in a name, or within the parentheses of a call.
"""

# The library's name in the headers that rust-analyzer reads, and in a cell.
HEADERS, LIBRARY = "consistency_headers", "consistency"


def question(code, cursor):
    """The text at whose end evcxr is asked, or None where there is no name."""
    end = cursor
    while end < len(code) and is_name(code[end]):
        end += 1
    start = end
    while start > 0 and (is_name(code[start - 1]) or code[start - 1] in ":."):
        start -= 1
    name = code[start:end].strip(":.")
    if not name or name[0].isdigit():
        call = open_call(code[:cursor])
        return None if call is None else question(code, call)
    # evcxr knows a method only where it is called.
    return name + "(" if "." in name else name


def is_name(letter):
    return letter.isalnum() or letter == "_"


def open_call(before):
    """The end of the function's name in whose parentheses the cursor is, or None."""
    depth = 0
    for at in range(len(before) - 1, -1, -1):
        if before[at] in ")]}":
            depth += 1
        elif before[at] in "([{":
            if depth == 0:
                return at if before[at] == "(" and at and is_name(before[at - 1]) else open_call(before[:at])
            depth -= 1
    return None


def shown(answer):
    """evcxr's answer, with the library's own name."""
    data = answer.get("data") or {}
    return {**answer, "data": {k: v.replace(HEADERS, LIBRARY) for k, v in data.items()}}
