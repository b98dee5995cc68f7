"""Two operations that numba cannot express, written in LLVM IR: a register tile of products, a compacting filter.

numba leaves a product loop at a third of the machine's speed, because it cannot know that its arrays do not
overlap and so keeps no sums in registers. Here vectors are 64 bytes: one AVX-512 register, two of AVX2,
four of NEON. LLVM compiles them for the user's own processor; no compiler has to be installed.

Arrays are flat; an argument `…_at` is the element to start from.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR_BYTES = 64

# As many running sums as the registers hold: 32 of 64 bytes, or 16 of 32 bytes.
TILE_ROWS, TILE_VECTORS = (4, 4) if binding.get_host_cpu_features().get("avx512f") else (6, 1)

_INT32 = ir.IntType(32)


class _Vectors:
    """Loads, stores and splats of 64-byte vectors of one array type, in the function being built."""

    def __init__(self, context: Any, builder: Any, array: Any) -> None:
        self.context, self.builder = context, builder
        scalar_bytes = array.dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // scalar_bytes
        self.type = ir.VectorType(context.get_data_type(array.dtype), self.lanes)
        self.suffix = f"v{self.lanes}f{array.dtype.bitwidth}"
        self.align = scalar_bytes

    def pointer(self, array_type: Any, array: Any, at: Any) -> Any:
        return self.builder.gep(
            self.context.make_array(array_type)(self.context, self.builder, array).data, [at]
        )

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.type.as_pointer()), align=self.align)

    def store(self, vector: Any, pointer: Any) -> None:
        address = self.builder.bitcast(pointer, vector.type.as_pointer())
        self.builder.store(vector, address, align=4)

    def splat(self, scalar: Any) -> Any:
        undefined = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
        lanes = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        signature = ir.FunctionType(result, [a.type for a in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, arguments)

    def compress(self, vector: Any, mask: Any) -> Any:
        """The lanes that the mask chooses, moved to the front."""
        suffix = self.suffix if vector.type == self.type else f"v{self.lanes}i32"
        undefined = ir.Constant(vector.type, ir.Undefined)
        name = f"llvm.experimental.vector.compress.{suffix}"
        return self.call(name, vector.type, vector, mask, undefined)


def _products(
    vectors: _Vectors, x_pointer: Any, y_pointer: Any, start_pointer: Any, num_channels: Any
) -> Any:
    """start[w] + Σ_c x[c, r] · y[c, w] as vectors, TILE_ROWS rows r of TILE_VECTORS vectors over w."""
    builder, intp = vectors.builder, num_channels.type

    def number(n: int) -> Any:
        return ir.Constant(intp, n)

    steps = [number(v * vectors.lanes) for v in range(TILE_VECTORS)]
    starts = [vectors.load(builder.gep(start_pointer, [step])) for step in steps]
    before, loop, after = builder.block, builder.append_basic_block(), builder.append_basic_block()
    builder.branch(loop)
    builder.position_at_end(loop)
    channel = builder.phi(intp)
    channel.add_incoming(number(0), before)
    sums = [[builder.phi(vectors.type) for _ in starts] for _ in range(TILE_ROWS)]
    y_row = builder.gep(y_pointer, [builder.mul(channel, number(TILE_VECTORS * vectors.lanes))])
    y_vectors = [vectors.load(builder.gep(y_row, [step])) for step in steps]
    x_row = builder.gep(x_pointer, [builder.mul(channel, number(TILE_ROWS))])
    next_channel = builder.add(channel, number(1))
    totals: list[list[Any]] = []
    for r, row in enumerate(sums):
        x_splat = vectors.splat(builder.load(builder.gep(x_row, [number(r)])))
        totals.append([])
        for running, y_vector, first in zip(row, y_vectors, starts, strict=True):
            total = vectors.call(f"llvm.fmuladd.{vectors.suffix}", vectors.type, x_splat, y_vector, running)
            running.add_incoming(first, before)
            running.add_incoming(total, loop)
            totals[r].append(total)
    channel.add_incoming(next_channel, loop)
    builder.cbranch(builder.icmp_signed("<", next_channel, num_channels), loop, after)
    builder.position_at_end(after)
    return totals


@intrinsic
def multiply_tile(
    typing: Any, out: Any, x: Any, x_at: Any, y: Any, y_at: Any, start: Any, start_at: Any, num_channels: Any
) -> Any:
    """out[r, w] = start[w] + Σ_c x[c, r] · y[c, w], TILE_ROWS rows r, TILE_VECTORS vectors of w."""
    signature = types.void(out, x, types.intp, y, types.intp, start, types.intp, types.intp)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, x, x_at, y, y_at, start, start_at, num_channels = arguments
        out_type, x_type, _, y_type, _, start_type, _, _ = signature.args
        vectors = _Vectors(context, builder, x_type)
        totals = _products(
            vectors,
            vectors.pointer(x_type, x, x_at),
            vectors.pointer(y_type, y, y_at),
            vectors.pointer(start_type, start, start_at),
            num_channels,
        )
        for r, row in enumerate(totals):
            for v, total in enumerate(row):
                at = ir.Constant(x_at.type, (r * TILE_VECTORS + v) * vectors.lanes)
                vectors.store(total, vectors.pointer(out_type, out, at))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def keep_below(
    typing: Any, x: Any, x_at: Any, y: Any, y_at: Any, start: Any, start_at: Any, num_channels: Any,
    column: Any, limits: Any, rows_at: Any, kept: Any, columns: Any, ends: Any, full: Any,
) -> Any:  # fmt: skip
    """`multiply_tile`, but of row r only what is below limits[rows_at + r] is written, in order.

    It goes to kept, and its column (the tile's first being `column`) to columns, from ends[rows_at + r] on,
    which moves along. A whole tile's row may be written, the rest of it rubbish. A row whose end passes
    full[rows_at + r] gets −inf as its limit. NaN and values at the limit are left out.
    """
    signature = types.void(
        x, types.intp, y, types.intp, start, types.intp, types.intp, types.intp, limits, types.intp, kept, columns,
        ends, full,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (
            x,
            x_at,
            y,
            y_at,
            start,
            start_at,
            num_channels,
            column,
            limits,
            rows_at,
            kept,
            columns,
            ends,
            full,
        ) = arguments
        (
            x_type,
            _,
            y_type,
            _,
            start_type,
            _,
            _,
            _,
            limits_type,
            _,
            kept_type,
            columns_type,
            ends_type,
            full_type,
        ) = signature.args
        vectors = _Vectors(context, builder, x_type)
        totals = _products(
            vectors,
            vectors.pointer(x_type, x, x_at),
            vectors.pointer(y_type, y, y_at),
            vectors.pointer(start_type, start, start_at),
            num_channels,
        )
        lanes = ir.Constant(ir.VectorType(_INT32, vectors.lanes), list(range(vectors.lanes)))
        first = vectors.splat(builder.trunc(column, _INT32))
        for r, row in enumerate(totals):
            at = builder.add(rows_at, ir.Constant(x_at.type, r))
            limit_pointer = vectors.pointer(limits_type, limits, at)
            limit = vectors.splat(builder.load(limit_pointer))
            masks = [builder.fcmp_ordered("<", total, limit) for total in row]
            below = [builder.bitcast(mask, ir.IntType(vectors.lanes)) for mask in masks]
            # One branch for the whole row: the processor predicts branches for single vectors badly.
            some = below[0]
            for bits in below[1:]:
                some = builder.or_(some, bits)
            with builder.if_then(builder.icmp_unsigned("!=", some, ir.Constant(some.type, 0))):
                end_pointer = vectors.pointer(ends_type, ends, at)
                end = builder.load(end_pointer)
                for v, (total, mask, bits) in enumerate(zip(row, masks, below, strict=True)):
                    shift = ir.Constant(lanes.type, [v * vectors.lanes] * vectors.lanes)
                    numbered = builder.add(first, builder.add(lanes, shift))
                    vectors.store(vectors.compress(total, mask), vectors.pointer(kept_type, kept, end))
                    vectors.store(
                        vectors.compress(numbered, mask), vectors.pointer(columns_type, columns, end)
                    )
                    count = vectors.call(f"llvm.ctpop.i{vectors.lanes}", bits.type, bits)
                    end = builder.add(end, builder.zext(count, end.type))
                builder.store(end, end_pointer)
                is_full = builder.icmp_signed(">", end, builder.load(vectors.pointer(full_type, full, at)))
                with builder.if_then(is_full, likely=False):
                    builder.store(ir.Constant(limit_pointer.type.pointee, float("-inf")), limit_pointer)
        return context.get_dummy_value()

    return signature, codegen
