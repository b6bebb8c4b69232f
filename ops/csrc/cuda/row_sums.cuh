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

constexpr int row_sums_threads = 256;

// A block takes `lanes` columns of a group; the other threads share the rows.
template <class A> __global__ void __launch_bounds__(row_sums_threads) row_sums_kernel(RowSums<A> p, int lanes) {
  __shared__ A parts[row_sums_threads];
  const int64_t tiles = ceil_div<int64_t>(p.cols, lanes), g = blockIdx.x / tiles;
  const int64_t c = blockIdx.x % tiles * lanes + threadIdx.x % lanes;
  const int row = threadIdx.x / lanes, step = row_sums_threads / lanes;
  for (int k = 0; k < 2 && p.in[k]; ++k) {
    A sum = 0;
    if (c < p.cols)
      for (int64_t r = row; r < p.rows; r += step) sum += p.in[k][(g * p.rows + r) * p.cols + c];
    parts[threadIdx.x] = sum;
    for (int half = step / 2; half; half /= 2) {
      __syncthreads();
      if (row < half) parts[threadIdx.x] += parts[threadIdx.x + half * lanes];
    }
    if (row == 0 && c < p.cols) p.out[k][g * p.out_stride + c] = parts[threadIdx.x];
    __syncthreads();
  }
}

template <class A> void row_sums(const Launcher& launch, const RowSums<A>& p) {
  const int lanes = power_of_2(p.cols, 32);
  launch(row_sums_kernel<A>, p.groups * ceil_div<int64_t>(p.cols, lanes), row_sums_threads, p, lanes);
}

}  // namespace stylegan
