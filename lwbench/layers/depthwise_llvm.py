"""Code generator for `depthwise_cpu`: the loops of the weight gradient as LLVM assembly.

For channels_last tensors the generated function computes::

    for image in the images of this part:
        for c in blocks of the channels of this part:     # one or two vector registers wide
            for oy in range(out_height):
                for i in range(kernel_height):
                    iy = oy * stride_y - padding_y + i * dilation_y, skipped outside the map
                    taps[:] = sums[i, :, c]               # kernel_width blocks, in registers
                    for ox in range(out_width):
                        for j in range(kernel_width):
                            ix = ox * stride_x - padding_x + j * dilation_x, skipped outside
                            taps[j] += gradient[image, oy, ox, c] * x[image, iy, ix, c]
                    sums[i, :, c] = taps[:]

The kernel's width is fixed when the code is generated, since every tap of a row has a register;
everything else is read from the arguments. Needs llvmlite.
"""

from typing import Any

from llvmlite import ir

from .assembly import INTEGER, POINTER, Index, emit_team, loop, read_fields

# The arguments, an array of 64-bit integers; the first three are addresses.
FIELDS = (
    *("x", "gradient", "sums"),
    *("images", "height", "width", "channels", "out_height", "out_width", "kernel_height"),
    *("stride_y", "stride_x", "padding_y", "padding_x", "dilation_y", "dilation_x"),
    *("image_parts", "channel_parts"),  # into which the work is divided; one of them is 1
)

# Channels are divided among parts in multiples of this, half a register of the widest kind.
CHANNELS = 8


def generate(
    kernel_width: int, type_name: str, register_bytes: int, openmp: tuple[int, int] | None
) -> str:
    """LLVM assembly of `part(fields, number)` and `team_part(fields)`, for "float" or "double".

    `part` computes the sums of one part of the images or of the channels. `team_part` is what each
    thread of an OpenMP team calls: it computes the parts that fall to the thread. `openmp`: the
    addresses of `omp_get_thread_num` and `omp_get_num_threads`; without them it does nothing.
    """
    module = ir.Module()
    part = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER, INTEGER]), "part")
    builder = ir.IRBuilder(part.append_basic_block())
    Part(builder, kernel_width, type_name).emit(register_bytes)
    builder.ret_void()
    team = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER]), "team_part")
    builder = ir.IRBuilder(team.append_basic_block())
    if openmp is not None:
        fields = read_fields(builder, FIELDS)
        emit_team(builder, part, fields["image_parts"] * fields["channel_parts"], *openmp)
    builder.ret_void()
    return str(module)


class Part:
    """Emits the function `part`."""

    def __init__(self, builder: Any, kernel_width: int, type_name: str) -> None:
        self.builder, self.kernel_width = builder, kernel_width
        self.scalar = ir.FloatType() if type_name == "float" else ir.DoubleType()
        self.itemsize = 4 if type_name == "float" else 8
        self.fields = f = read_fields(builder, FIELDS)
        number = Index(builder, builder.function.args[1])
        self.image_part, self.channel_part = number % f["image_parts"], number % f["channel_parts"]
        self.vector: Any = self.scalar  # a block of channels
        self.taps: list[Any] = []  # the address of a block each

    def emit(self, register_bytes: int) -> None:
        """Emit the loops once for every width of a block.

        Two registers a tap hide the latency of the multiply-add. What is left of the channels is
        done in blocks of one register, of half of one, and one by one.
        """
        f, register = self.fields, register_bytes // self.itemsize
        first, last = (f["images"] * (self.image_part + k) // f["image_parts"] for k in (0, 1))
        start, end = (self.channel(self.channel_part + k) for k in (0, 1))
        for width in (2 * register, register, register // 2, 1):
            stop = start + (end - start) // width * width
            self.vector = self.scalar if width == 1 else ir.VectorType(self.scalar, width)
            # memory in name only: LLVM keeps these in registers
            self.taps = [self.builder.alloca(self.vector) for _ in range(self.kernel_width)]
            with loop(first, last) as image, loop(start, stop, width) as channel:
                self.rows(image, channel)
            start = stop

    def channel(self, part: Index) -> Index:
        """The first channel of a part; behind the last part, the number of channels."""
        f, whole = self.fields, self.fields["channels"] // CHANNELS
        rest = f["channels"] - whole * CHANNELS
        return whole * part // f["channel_parts"] * CHANNELS + part // f["channel_parts"] * rest

    def rows(self, image: Index, channel: Index) -> None:
        """All rows of one image and one block of channels, and all rows of the kernel."""
        f, zero = self.fields, Index(self.builder, 0)
        with loop(zero, f["out_height"]) as oy, loop(zero, f["kernel_height"]) as i:
            iy = oy * f["stride_y"] - f["padding_y"] + i * f["dilation_y"]
            with self.builder.if_then(iy.is_in(f["height"])):
                gradient_row = (image * f["out_height"] + oy) * f["out_width"]
                x_row = (image * f["height"] + iy) * f["width"]
                first = (self.image_part * f["kernel_height"] + i) * self.kernel_width
                sums = [self.address("sums", first + j, channel) for j in range(self.kernel_width)]
                for tap, place in zip(self.taps, sums, strict=True):
                    self.builder.store(self.load(place), tap)
                self.columns(gradient_row, x_row, channel)
                for tap, place in zip(self.taps, sums, strict=True):
                    value = self.builder.load(tap, typ=self.vector)
                    self.builder.store(value, place, align=self.itemsize)

    def columns(self, gradient_row: Index, x_row: Index, channel: Index) -> None:
        """Add all pixels of one row of the output's gradient to the taps."""
        f, zero = self.fields, Index(self.builder, 0)
        with loop(zero, f["out_width"]) as ox:
            gradient = self.load(self.address("gradient", gradient_row + ox, channel))
            left = ox * f["stride_x"] - f["padding_x"]
            for j, tap in enumerate(self.taps):
                ix = left + f["dilation_x"] * j
                # false at the edges only, so that the processor predicts it: loops of their own
                # for the edges were no faster and twice the code
                with self.builder.if_then(ix.is_in(f["width"])):
                    self.add(tap, gradient, self.load(self.address("x", x_row + ix, channel)))

    def add(self, tap: Any, a: Any, b: Any) -> None:
        """tap += a * b"""
        fused = ("contract",)  # rounded once where the processor can multiply and add at once
        product = self.builder.fmul(a, b, flags=fused)
        total = self.builder.fadd(self.builder.load(tap, typ=self.vector), product, flags=fused)
        self.builder.store(total, tap)

    def address(self, tensor: str, pixel: Index, channel: Index) -> Any:
        base = self.builder.inttoptr(self.fields[tensor].value, POINTER)
        offset = pixel * self.fields["channels"] + channel
        return self.builder.gep(base, [offset.value], source_etype=self.scalar)

    def load(self, address: Any) -> Any:
        """A block of channels; tensors are aligned to their elements, not to vectors."""
        return self.builder.load(address, typ=self.vector, align=self.itemsize)
