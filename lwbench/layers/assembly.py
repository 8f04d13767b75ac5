"""Loops, integers and arguments in LLVM assembly, for the code generators of this package.

Needs llvmlite.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

INTEGER = ir.IntType(64)
POINTER = ir.PointerType()


class Index:
    """A 64-bit integer of the generated code; arithmetic on it emits instructions."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder = builder
        self.value = ir.Constant(INTEGER, value) if isinstance(value, int) else value

    def _emit(self, instruction: str, other: "Index | int") -> "Index":
        operand = other if isinstance(other, Index) else Index(self.builder, other)
        return Index(self.builder, getattr(self.builder, instruction)(self.value, operand.value))

    def __add__(self, other: "Index | int") -> "Index":
        return self._emit("add", other)

    def __sub__(self, other: "Index | int") -> "Index":
        return self._emit("sub", other)

    def __mul__(self, other: "Index | int") -> "Index":
        return self._emit("mul", other)

    def __floordiv__(self, other: "Index | int") -> "Index":
        return self._emit("sdiv", other)

    def __mod__(self, other: "Index | int") -> "Index":
        return self._emit("srem", other)

    def is_in(self, size: "Index") -> Any:
        """0 <= self < size, in one comparison: as an unsigned number, a negative one is large."""
        return self.builder.icmp_unsigned("<", self.value, size.value)


@contextmanager
def loop(start: Index, stop: Index, step: Index | int = 1) -> Iterator[Index]:
    """Emit `for index in range(start, stop, step)` around what the `with` block emits."""
    builder = start.builder
    before = builder.block
    head, body, after = (builder.append_basic_block(name) for name in ("head", "body", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    counter = builder.phi(INTEGER)
    counter.add_incoming(start.value, before)
    builder.cbranch(builder.icmp_signed("<", counter, stop.value), body, after)
    builder.position_at_end(body)
    index = Index(builder, counter)
    yield index
    counter.add_incoming((index + step).value, builder.block)
    builder.branch(head)
    builder.position_at_end(after)


def read_fields(builder: Any, names: Sequence[str]) -> dict[str, Index]:
    """The arguments by name, read from the array of integers that the function is given."""
    array = builder.function.args[0]
    places = (
        builder.gep(array, [ir.Constant(INTEGER, k)], source_etype=INTEGER)
        for k in range(len(names))
    )
    values = [Index(builder, builder.load(place, typ=INTEGER)) for place in places]
    return dict(zip(names, values, strict=True))


def emit_team(builder: Any, part: Any, parts: Index, thread_number: int, team_size: int) -> None:
    """Emit what each thread of an OpenMP team runs: `part(fields, number)` for its parts.

    These are number, number + size, ...: a team may be smaller than was asked for. The last two
    arguments are the addresses of `omp_get_thread_num` and `omp_get_num_threads`.
    """
    function = ir.FunctionType(ir.IntType(32), []).as_pointer()

    def call(address: int) -> Index:
        pointer = builder.inttoptr(ir.Constant(INTEGER, address), function)
        return Index(builder, builder.sext(builder.call(pointer, []), INTEGER))

    with loop(call(thread_number), parts, call(team_size)) as index:
        builder.call(part, [builder.function.args[0], index.value])
