"""Two things numba has no words for, written down for LLVM: a register tile of products, a compacting filter.

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
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
        lanes = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        signature = ir.FunctionType(result, [a.type for a in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, signature, name)
        return self.builder.call(function, arguments)


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
        intp = x_at.type

        def number(n: int) -> Any:
            return ir.Constant(intp, n)

        out_pointer = vectors.pointer(out_type, out, number(0))
        x_pointer, y_pointer = vectors.pointer(x_type, x, x_at), vectors.pointer(y_type, y, y_at)
        start_pointer = vectors.pointer(start_type, start, start_at)
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
        for r, row in enumerate(sums):
            x_splat = vectors.splat(builder.load(builder.gep(x_row, [number(r)])))
            for running, y_vector, first in zip(row, y_vectors, starts, strict=True):
                added = vectors.call(
                    f"llvm.fmuladd.{vectors.suffix}", vectors.type, x_splat, y_vector, running
                )
                running.add_incoming(first, before)
                running.add_incoming(added, loop)
        channel.add_incoming(next_channel, loop)
        builder.cbranch(builder.icmp_signed("<", next_channel, num_channels), loop, after)

        builder.position_at_end(after)
        for r, row in enumerate(sums):
            for v, running in enumerate(row):
                at = number((r * TILE_VECTORS + v) * vectors.lanes)
                total = next(value for value, block in running.incomings if block is loop)
                vectors.store(total, builder.gep(out_pointer, [at]))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def keep_below(
    typing: Any, values: Any, at: Any, limit: Any, column: Any, kept: Any, columns: Any, kept_at: Any
) -> Any:
    """Of one vector of `values`, whose first stands for `column`, write those below `limit`, in order.

    Writes a whole vector to kept and columns from kept_at on (the rest of it is rubbish); returns the new
    kept_at. NaN and values at `limit` are left out.
    """
    signature = types.intp(values, types.intp, values.dtype, types.intp, kept, columns, types.intp)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        values, at, limit, column, kept, columns, kept_at = arguments
        values_type, _, _, _, kept_type, columns_type, _ = signature.args
        vectors = _Vectors(context, builder, values_type)
        vector = vectors.load(vectors.pointer(values_type, values, at))
        mask = builder.fcmp_ordered("<", vector, vectors.splat(limit))
        bits = builder.bitcast(mask, ir.IntType(vectors.lanes))
        before = builder.block
        with builder.if_then(builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))):
            columns_vector = ir.VectorType(_INT32, vectors.lanes)
            first = builder.trunc(column, _INT32)
            numbered = ir.Constant(columns_vector, ir.Undefined)
            for lane in range(vectors.lanes):
                lane_column = builder.add(first, ir.Constant(_INT32, lane))
                numbered = builder.insert_element(numbered, lane_column, ir.Constant(_INT32, lane))
            for source, suffix, target_type, target in (
                (vector, vectors.suffix, kept_type, kept),
                (numbered, f"v{vectors.lanes}i32", columns_type, columns),
            ):
                packed = vectors.call(
                    f"llvm.experimental.vector.compress.{suffix}",
                    source.type,
                    source,
                    mask,
                    ir.Constant(source.type, ir.Undefined),
                )
                vectors.store(packed, vectors.pointer(target_type, target, kept_at))
            count = vectors.call(f"llvm.ctpop.i{vectors.lanes}", bits.type, bits)
            grown = builder.add(kept_at, builder.zext(count, kept_at.type))
            inside = builder.block
        result = builder.phi(kept_at.type)
        result.add_incoming(kept_at, before)
        result.add_incoming(grown, inside)
        return result

    return signature, codegen
