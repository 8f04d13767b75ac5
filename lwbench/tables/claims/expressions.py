"""Arithmetic over counts in claims: `macs['LDC0'] - macs['mb0']`.

Numbers, + - * / **, parentheses, and a quantity of a network by the label of its row. Nothing else
is evaluated, so that a file of claims runs no code.
"""

import ast
import operator
from collections.abc import Callable, Iterator

QUANTITIES = ("macs", "params", "pointwise", "depthwise", "activations")
LARGEST_POWER = 64
Lookup = Callable[[str, str], float]  # of a quantity and a label

_OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def parsed(text: str) -> str:
    """The text, if it is an expression of this language. Raises ValueError."""
    for _ in references(text):
        pass
    return text


def references(text: str) -> Iterator[tuple[str, str]]:
    """The quantities and labels that an expression names. Raises ValueError."""
    found: list[tuple[str, str]] = []

    def note(quantity: str, label: str) -> float:
        found.append((quantity, label))
        return 1.0

    _walked(_tree(text), note, text)
    yield from found


def value(text: str, lookup: Lookup) -> float:
    """The number that an expression gives. Raises ValueError, also for a division by zero."""
    try:
        return _walked(_tree(text), lookup, text)
    except (ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"{text!r}: {error}") from None


def _tree(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"{text!r} is not an expression such as macs['LDC0'] / 2") from None


def _walked(node: ast.expr, lookup: Lookup, text: str) -> float:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_walked(node.operand, lookup, text)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _walked(node.left, lookup, text), _walked(node.right, lookup, text)
        if isinstance(node.op, ast.Pow) and abs(right) > LARGEST_POWER:
            raise ValueError(f"{text!r}: a power above {LARGEST_POWER}")
        return float(_OPERATORS[type(node.op)](left, right))
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        name, label = node.value.id, node.slice
        if name in QUANTITIES and isinstance(label, ast.Constant) and isinstance(label.value, str):
            return lookup(name, label.value)
    raise ValueError(
        f"{text!r}: only numbers, + - * / ** and {', '.join(QUANTITIES)} of a row, such as "
        "macs['LDC0']"
    )
