"""Values of the generated batch norms: arithmetic, activations, and where tensors lie in memory.

The part of `norm_llvm` that knows neither loops nor functions. Needs llvmlite.
"""

from typing import Any

from llvmlite import ir

from .assembly import POINTER, Index, read_fields

# The arguments, an array of 64-bit integers: addresses, sizes, and the bits of two doubles.
FIELDS = (
    *("x", "out", "gradient", "d_x"),  # (rows, channels)
    *("weight", "bias", "running_mean", "running_var", "d_weight", "d_bias"),  # (channels,)
    "statistics",  # (3, channels): mean, 1 / standard deviation, scale
    "sums",  # (parts, 2, channels)
    "factors",  # (3, channels), of the backward pass
    *("rows", "channels", "parts"),
    *("momentum", "eps"),
)

FUSED = ("contract",)  # rounded once where the processor can multiply and add at once


class Values:
    """Emits what is computed of a block of channels: a vector, or one value where it is 1 wide."""

    def __init__(self, builder: Any, activation: str, type_name: str, register_bytes: int) -> None:
        self.builder, self.activation = builder, activation
        self.scalar = ir.FloatType() if type_name == "float" else ir.DoubleType()
        self.itemsize = 4 if type_name == "float" else 8
        self.register = register_bytes // self.itemsize
        self.fields = read_fields(builder, FIELDS)
        self.part = Index(builder, builder.function.args[1])
        self.vector: Any = self.scalar  # a block of channels

    def activated(self, y: Any) -> Any:
        """The activation of y; a value that is not a number stays one, as in PyTorch."""
        if self.activation == "identity":
            return y
        if self.activation == "relu":
            return self.where("<=", y, 0, self.constant(0), y)
        shift = 3 if self.activation == "hardswish" else 0
        inner = self.add(y, self.constant(shift)) if shift else y
        inner = self.where("<=", inner, 0, self.constant(0), inner)
        inner = self.where(">=", inner, 6, self.constant(6), inner)
        if self.activation == "relu6":
            return inner
        return self.multiply(self.multiply(y, inner), self.constant(1 / 6))

    def through_activation(self, gradient: Any, y: Any) -> Any:
        """gradient * activation'(y), with PyTorch's choice at the kinks."""
        zero = self.constant(0)
        if self.activation == "relu":
            return self.where("<=", y, 0, zero, gradient)
        if self.activation == "relu6":
            return self.where("<=", y, 0, zero, self.where(">=", y, 6, zero, gradient))
        slope = self.add(self.multiply(y, self.constant(1 / 3)), self.constant(0.5))
        inside = self.multiply(gradient, slope)
        return self.where("<=", y, -3, zero, self.where(">=", y, 3, gradient, inside))

    def where(self, comparison: str, y: Any, limit: float, value: Any, other: Any) -> Any:
        condition = self.builder.fcmp_ordered(comparison, y, self.constant(limit))
        return self.builder.select(condition, value, other)

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b, flags=FUSED)

    def subtract(self, a: Any, b: Any) -> Any:
        return self.builder.fsub(a, b, flags=FUSED)

    def multiply(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b, flags=FUSED)

    def constant(self, value: float) -> Any:
        if self.vector is self.scalar:
            return ir.Constant(self.scalar, float(value))
        return ir.Constant(self.vector, [float(value)] * self.vector.count)

    def splat(self, value: Any) -> Any:
        """A scalar in every element of a block."""
        if self.vector is self.scalar:
            return value
        b, none = self.builder, ir.Constant(self.vector, ir.Undefined)
        single = b.insert_element(none, value, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.vector.count), None)
        return b.shuffle_vector(single, none, mask)

    def float(self, value: Index) -> Any:
        return self.builder.sitofp(value.value, self.scalar)

    def reciprocal(self, value: Index) -> Any:
        return self.builder.fdiv(ir.Constant(self.scalar, 1.0), self.float(value))

    def double(self, name: str) -> Any:
        """A field that holds the bits of a double, in the type of the tensors."""
        value = self.builder.bitcast(self.fields[name].value, ir.DoubleType())
        return value if self.itemsize == 8 else self.builder.fptrunc(value, self.scalar)

    def address(self, tensor: str, row: Index, channel: Index) -> Any:
        base = self.builder.inttoptr(self.fields[tensor].value, POINTER)
        offset = row * self.fields["channels"] + channel
        return self.builder.gep(base, [offset.value], source_etype=self.scalar)

    def load(self, tensor: str, row: Index, channel: Index) -> Any:
        """A block of channels; tensors are aligned to their elements, not to vectors."""
        place = self.address(tensor, row, channel)
        return self.builder.load(place, typ=self.vector, align=self.itemsize)

    def store(self, value: Any, tensor: str, row: Index, channel: Index) -> None:
        self.builder.store(value, self.address(tensor, row, channel), align=self.itemsize)
