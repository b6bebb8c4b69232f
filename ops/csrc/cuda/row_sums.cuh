// Sums over the rows of matrices: they add the partial sums of many blocks to one number per channel, always in the
// same order.
#pragma once

#include "device.h"

namespace stylegan {

// out[k][g * out_stride + c] = sum over r of in[k][g][r][c], for one or two arrays.
template <class A> struct RowSums {
  const A* in[2];
  A* out[2];
  int64_t groups, rows, cols, out_stride;
};

constexpr int row_sums_threads = 512;

// Replaces each x[k] by its sum over the threads of the block that have the same index among `lanes` neighbours, a
// power of 2 up to 32. All threads must call it.
template <int threads, class A, int K> __device__ __forceinline__ void column_sum(A (&x)[K], int lanes) {
  __shared__ A parts[K][threads];
  for (int distance = lanes; distance < 32; distance *= 2)
#pragma unroll
    for (int k = 0; k < K; ++k) x[k] += __shfl_xor_sync(0xffffffffu, x[k], distance);
  __syncthreads();  // until all threads have read the results of the last call
  if (int(threadIdx.x % 32) < lanes)
#pragma unroll
    for (int k = 0; k < K; ++k) parts[k][threadIdx.x / 32 * lanes + threadIdx.x % 32] = x[k];
  __syncthreads();
#pragma unroll
  for (int k = 0; k < K; ++k) x[k] = parts[k][threadIdx.x % lanes];
  for (int warp = 1; warp < threads / 32; ++warp)
#pragma unroll
    for (int k = 0; k < K; ++k) x[k] += parts[k][warp * lanes + threadIdx.x % lanes];
}

// A block processes `lanes` columns of a group; its threads share the rows.
template <class A> __global__ void __launch_bounds__(row_sums_threads) row_sums_kernel(RowSums<A> p, int lanes) {
  const unsigned tiles = unsigned(ceil_div<int64_t>(p.cols, lanes)), g = blockIdx.x / tiles;
  const int64_t c = int64_t(blockIdx.x - g * tiles) * lanes + threadIdx.x % lanes;
  const int row = threadIdx.x / lanes, step = row_sums_threads / lanes;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    if (!p.in[k]) break;
    A sum[1] = {0};
    if (c < p.cols)
      for (int64_t r = row; r < p.rows; r += step) sum[0] += p.in[k][(g * p.rows + r) * p.cols + c];
    column_sum<row_sums_threads>(sum, lanes);
    if (row == 0 && c < p.cols) p.out[k][g * p.out_stride + c] = sum[0];
  }
}

template <class A> void row_sums(const Launcher& launch, const RowSums<A>& p) {
  const int lanes = power_of_2(p.cols, 32);
  launch(row_sums_kernel<A>, p.groups * ceil_div<int64_t>(p.cols, lanes), row_sums_threads, p, lanes);
}

}  // namespace stylegan
