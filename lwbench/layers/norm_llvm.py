"""Code generator for `norm_cpu`: batch norm and activation as LLVM assembly.

A channels_last tensor is a matrix of rows (pixels of all images) and columns (channels). The
generated functions walk through the rows of one part in blocks of channels, which fill a vector
register. With d = x - mean and y = d * scale + bias they compute:

    forward_sums      mean and sum of squared deviations, tile by tile, merged as Chan et al. do
    forward_rows      out = activation(y)
    backward_sums     the sums of g and of g * d, where g = gradient * activation'(y)
    backward_rows     d_x = g * factor_g + d * factor_d + constant

`forward_finish` and `backward_finish` merge the parts and compute what the second functions need.
Needs llvmlite.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from llvmlite import ir

from .assembly import INTEGER, POINTER, Index, emit_team, loop, read_fields
from .norm_values import FIELDS, Values

# Bytes of a tile: two tensors of it fit into the second-level cache of a processor.
TILE_BYTES = 1 << 16

SERIAL = ("forward_finish", "backward_finish")
COMMON = ("forward_sums", *SERIAL)  # to all activations
OWN = ("forward_rows", "backward_sums", "backward_rows")  # of an activation


def generate(
    names: Sequence[str],
    activation: str,
    type_name: str,
    register_bytes: int,
    openmp: tuple[int, int] | None,
) -> str:
    """LLVM assembly of functions `name(fields, part)`, for "float" or "double".

    `activation`: "identity", "relu", "relu6" or "hardswish". For each of the parallel functions
    there is also `team_<name>(fields)`, see `assembly.emit_team`.
    """
    module = ir.Module()
    for name in names:
        kind = ir.FunctionType(ir.VoidType(), [POINTER, INTEGER])
        function = ir.Function(module, kind, name)
        builder = ir.IRBuilder(function.append_basic_block())
        emitter = Emitter(builder, activation, type_name, register_bytes)
        getattr(emitter, name)()
        builder.ret_void()
        if name not in SERIAL:
            team = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), f"team_{name}")
            builder = ir.IRBuilder(team.append_basic_block())
            if openmp is not None:
                emit_team(builder, function, read_fields(builder, FIELDS)["parts"], *openmp)
            builder.ret_void()
    return str(module)


class Emitter(Values):
    """Emits the body of one function."""

    # the functions

    def forward_sums(self) -> None:
        """Mean and sum of squared deviations of the part's rows, per channel."""
        first, _ = self.rows_of(self.part)
        zero = Index(self.builder, 0)
        row = self.part * 2
        with loop(zero, self.fields["channels"]) as channel:
            for k in (0, 1):
                self.store(self.constant(0), "sums", row + k, channel)

        def tile(start: Index, stop: Index, channel: Index) -> None:
            before, count = start - first, stop - start
            # in two passes over a tile, of which the second finds it in the cache: nothing is
            # lost where the mean is large beside the deviation
            (total,) = self.total(start, stop, 1, lambda r: [self.load("x", r, channel)])
            own = self.multiply(total, self.splat(self.reciprocal(count)))

            def squared(row: Index) -> list[Any]:
                deviation = self.subtract(self.load("x", row, channel), own)
                return [self.multiply(deviation, deviation)]

            (squares,) = self.total(start, stop, 1, squared)
            share = self.builder.fmul(
                self.float(count), self.reciprocal(before + count)
            )  # of the tile in all rows so far
            mean, others = (self.load("sums", row + k, channel) for k in (0, 1))
            delta = self.subtract(own, mean)
            between = self.builder.fmul(self.float(before), share)
            squares = self.add(
                squares, self.multiply(self.multiply(delta, delta), self.splat(between))
            )
            self.store(
                self.add(mean, self.multiply(delta, self.splat(share))), "sums", row, channel
            )
            self.store(self.add(others, squares), "sums", row + 1, channel)

        self.tiles(tile)

    def forward_finish(self) -> None:
        """Merge the parts; update the running statistics; compute mean, deviation and scale."""
        f, b = self.fields, self.builder
        zero = Index(b, 0)
        momentum, eps = (self.double(name) for name in ("momentum", "eps"))
        keep = b.fsub(self.constant(1), momentum)
        rows, rows_but_one = self.float(f["rows"]), self.float(f["rows"] - 1)
        tracks = b.icmp_signed("!=", f["running_mean"].value, zero.value)
        mean, squares = b.alloca(self.scalar), b.alloca(self.scalar)
        with loop(zero, f["channels"]) as channel:
            b.store(self.constant(0), mean)
            b.store(self.constant(0), squares)
            with loop(zero, f["parts"]) as part:
                first, last = self.rows_of(part)
                before, count = self.float(first), self.float(last - first)
                share = b.fdiv(count, self.float(last))
                own, others = (self.load("sums", part * 2 + k, channel) for k in (0, 1))
                delta = b.fsub(own, b.load(mean, typ=self.scalar))
                between = b.fmul(b.fmul(delta, delta), b.fmul(before, share))
                b.store(b.fadd(b.load(squares, typ=self.scalar), b.fadd(others, between)), squares)
                b.store(b.fadd(b.load(mean, typ=self.scalar), b.fmul(delta, share)), mean)
            average, total = b.load(mean, typ=self.scalar), b.load(squares, typ=self.scalar)
            variance = b.fdiv(total, rows)
            root = b.call(
                b.module.declare_intrinsic("llvm.sqrt", [self.scalar]), [b.fadd(variance, eps)]
            )
            inverse = b.fdiv(self.constant(1), root)
            scale = b.fmul(inverse, self.load("weight", zero, channel))
            for k, value in enumerate((average, inverse, scale)):
                self.store(value, "statistics", zero + k, channel)
            with b.if_then(tracks):
                # running variances are those of the population, as PyTorch's are
                unbiased = b.fdiv(total, rows_but_one)
                for name, value in (("running_mean", average), ("running_var", unbiased)):
                    old = b.fmul(keep, self.load(name, zero, channel))
                    self.store(b.fadd(old, b.fmul(momentum, value)), name, zero, channel)

    def forward_rows(self) -> None:
        """The output of the part's rows."""

        def value(row: Index, channel: Index) -> None:
            mean, scale, bias = self.channel_values(channel)
            deviation = self.subtract(self.load("x", row, channel), mean)
            y = self.add(self.multiply(deviation, scale), bias)
            self.store(self.activated(y), "out", row, channel)

        self.each(value)

    def backward_sums(self) -> None:
        """The sums of g and of g * d over the part's rows."""
        row = self.part * 2
        zero = Index(self.builder, 0)
        with loop(zero, self.fields["channels"]) as channel:
            for k in (0, 1):
                self.store(self.constant(0), "sums", row + k, channel)

        def value(at: Index, channel: Index) -> None:
            values = self.channel_values(channel)
            gradient, deviation = self.inner_gradient(at, channel, *values)
            for k, term in enumerate((gradient, self.multiply(gradient, deviation))):
                before = self.load("sums", row + k, channel)
                self.store(self.add(before, term), "sums", row + k, channel)

        self.each(value)

    def backward_finish(self) -> None:
        """Merge the parts; the gradients of weight and bias; what `backward_rows` needs."""
        f, b = self.fields, self.builder
        zero = Index(b, 0)
        share = self.reciprocal(f["rows"])
        totals = [b.alloca(self.scalar) for _ in range(2)]
        with loop(zero, f["channels"]) as channel:
            for total in totals:
                b.store(self.constant(0), total)
            with loop(zero, f["parts"]) as part:
                for k, total in enumerate(totals):
                    value = self.load("sums", part * 2 + k, channel)
                    b.store(b.fadd(b.load(total, typ=self.scalar), value), total)
            plain, products = (b.load(total, typ=self.scalar) for total in totals)
            inverse, scale = (self.load("statistics", zero + k, channel) for k in (1, 2))
            normed = b.fmul(products, inverse)  # the sum of g * (x - mean) / deviation
            self.store(normed, "d_weight", zero, channel)
            self.store(plain, "d_bias", zero, channel)
            along = b.fmul(b.fmul(b.fmul(normed, share), inverse), scale)
            constant = b.fmul(b.fmul(plain, share), scale)
            for k, value in enumerate((scale, b.fneg(along), b.fneg(constant))):
                self.store(value, "factors", zero + k, channel)

    def backward_rows(self) -> None:
        """The gradient of the part's rows of x."""
        zero = Index(self.builder, 0)

        def value(row: Index, channel: Index) -> None:
            values = self.channel_values(channel)
            gradient, deviation = self.inner_gradient(row, channel, *values)
            factors = (self.load("factors", zero + k, channel) for k in range(3))
            by_gradient, by_deviation, constant = factors
            along = self.add(self.multiply(deviation, by_deviation), constant)
            d_x = self.add(self.multiply(gradient, by_gradient), along)
            self.store(d_x, "d_x", row, channel)

        self.each(value)

    # loops

    def rows_of(self, part: Index) -> tuple[Index, Index]:
        """First row of a part and the row behind its last."""
        rows, parts = self.fields["rows"], self.fields["parts"]
        return rows * part // parts, rows * (part + 1) // parts

    def tiles(self, emit: Callable[[Index, Index, Index], None]) -> None:
        """Emit `emit(start, stop, channel)` for every tile of the part's rows, by channels.

        In blocks of two registers first, which hides the latency of the addition; what is left of
        the channels is done in narrower ones.
        """
        b, channels = self.builder, self.fields["channels"]
        first, last = self.rows_of(self.part)
        size = Index(b, TILE_BYTES // self.itemsize) // channels + 1
        with loop(first, last, size) as start:
            end = start + size
            is_whole = b.icmp_signed("<", end.value, last.value)
            stop = Index(b, b.select(is_whole, end.value, last.value))
            begin = Index(b, 0)
            for width in (2 * self.register, self.register, self.register // 2, 1):
                begin = self.blocks(begin, width, partial(emit, start, stop))

    def each(self, emit: Callable[[Index, Index], None]) -> None:
        """Emit `emit(row, channel)` for all values of the part, in the order of memory.

        What belongs to a channel is read again in every row: it stays in the first-level cache, and
        the processor fetches large tensors ahead of time only if they are read in order.
        """
        with loop(*self.rows_of(self.part)) as row:
            begin = Index(self.builder, 0)
            for width in (self.register, self.register // 2, 1):
                begin = self.blocks(begin, width, partial(emit, row))

    def blocks(self, first: Index, width: int, emit: Callable[[Index], None]) -> Index:
        """Emit `emit(channel)` for whole blocks of channels; return the channel behind them."""
        behind = first + (self.fields["channels"] - first) // width * width
        self.vector = self.scalar if width == 1 else ir.VectorType(self.scalar, width)
        with loop(first, behind, width) as channel:
            emit(channel)
        self.vector = self.scalar
        return behind

    def total(
        self, start: Index, stop: Index, count: int, terms: Callable[[Index], list[Any]]
    ) -> list[Any]:
        """The sums of the `count` values of `terms(row)` over rows."""
        # memory in name only: LLVM keeps these in registers
        with self.builder.goto_entry_block():
            places = [self.builder.alloca(self.vector) for _ in range(count)]
        for place in places:
            self.builder.store(self.constant(0), place)
        with loop(start, stop) as row:
            for place, term in zip(places, terms(row), strict=True):
                before = self.builder.load(place, typ=self.vector)
                self.builder.store(self.add(before, term), place)
        return [self.builder.load(place, typ=self.vector) for place in places]

    # values of a block of channels

    def channel_values(self, channel: Index) -> tuple[Any, Any, Any]:
        """Mean, scale and bias of a block of channels."""
        zero = Index(self.builder, 0)
        mean, scale = (self.load("statistics", zero + k, channel) for k in (0, 2))
        return mean, scale, self.load("bias", zero, channel)

    def inner_gradient(
        self, row: Index, channel: Index, mean: Any, scale: Any, bias: Any
    ) -> tuple[Any, Any]:
        """The gradient behind the norm and before the activation, and x - mean."""
        deviation = self.subtract(self.load("x", row, channel), mean)
        gradient = self.load("gradient", row, channel)
        if self.activation == "identity":
            return gradient, deviation
        y = self.add(self.multiply(deviation, scale), bias)
        return self.through_activation(gradient, y), deviation
