// Sums over the rows of matrices: how the partial sums of many blocks become one number per channel, always in the same
// order.
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

// The sum of x over all threads of a block with the same place among `lanes` neighbours, for all of them. All threads
// must call it; parts: room for one number per thread.
template <class A> __device__ __forceinline__ A column_sum(A x, A* parts, int lanes) {
  const int row = threadIdx.x / lanes;
  __syncthreads();  // until all have read what the last call left here
  parts[threadIdx.x] = x;
  for (int half = blockDim.x / lanes / 2; half; half /= 2) {
    __syncthreads();
    if (row < half) parts[threadIdx.x] += parts[threadIdx.x + half * lanes];
  }
  __syncthreads();
  return parts[threadIdx.x % lanes];
}

// A block takes `lanes` columns of a group; the other threads share the rows.
template <class A> __global__ void __launch_bounds__(row_sums_threads) row_sums_kernel(RowSums<A> p, int lanes) {
  __shared__ A parts[row_sums_threads];
  const unsigned tiles = unsigned(ceil_div<int64_t>(p.cols, lanes)), g = blockIdx.x / tiles;
  const int64_t c = int64_t(blockIdx.x - g * tiles) * lanes + threadIdx.x % lanes;
  const int row = threadIdx.x / lanes, step = row_sums_threads / lanes;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    if (!p.in[k]) break;
    A sum = 0;
    if (c < p.cols)
      for (int64_t r = row; r < p.rows; r += step) sum += p.in[k][(g * p.rows + r) * p.cols + c];
    sum = column_sum(sum, parts, lanes);
    if (row == 0 && c < p.cols) p.out[k][g * p.out_stride + c] = sum;
  }
}

template <class A> void row_sums(const Launcher& launch, const RowSums<A>& p) {
  const int lanes = power_of_2(p.cols, 32);
  launch(row_sums_kernel<A>, p.groups * ceil_div<int64_t>(p.cols, lanes), row_sums_threads, p, lanes);
}

}  // namespace stylegan
