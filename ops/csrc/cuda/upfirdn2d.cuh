// Kernels of pad, upsample, filter, downsample. ops/upfirdn2d.py says what they compute.
//
// Output o starts at o * down - pad in the upsampled input, where only every up-th sample is not zero. It uses tap j if
// (o * down - pad + j) / up is an integer, which is then the index of the input.
//
// A plane consists of pixels with one number (contiguous) or with all channels (channels_last), which are read as
// vectors of 16 bytes if possible. Memory traffic: the input once (neighbouring outputs find it in the L1 cache), and
// the output.
#pragma once

#include "device.h"

namespace stylegan {

constexpr int fir_threads = 256;

struct FirAxis {
  int in, out, up, down, pad, taps;
};

template <class T> struct Fir {
  using A = accumulate_t<T>;
  const T* x;
  T* out;
  const A* f;     // [y.taps, x.taps], or the taps of one axis for both, or null for ones
  bool outer;     // the filter is the outer product of f with itself
  bool flip;      // the taps are used as they are, not in reverse order
  A gain;
  FirAxis y, x_axis;
  int64_t planes;
  int vectors;    // vectors per pixel

  // The tap for sample (jy, jx) of an output's window.
  __device__ __forceinline__ A tap(int jy, int jx) const {
    if (!f) return 1;
    const int ky = flip ? jy : y.taps - 1 - jy, kx = flip ? jx : x_axis.taps - 1 - jx;
    return outer ? f[ky] * f[kx] : f[ky * x_axis.taps + kx];
  }
};

// The position of a thread: a vector of an output column, and a tile of rows. A block has `lanes` vectors of a row.
struct FirPlace {
  int64_t plane;
  int column, vector, tile;
  bool inside;

  template <class T> __device__ __forceinline__ FirPlace(const Fir<T>& p, int lanes, int tiles) {
    const unsigned row = unsigned(p.x_axis.out * p.vectors), blocks = (row + lanes - 1) / lanes;
    const unsigned item = blockIdx.x / blocks, at = (blockIdx.x - item * blocks) * lanes + threadIdx.x % lanes;
    const unsigned unit = item * (fir_threads / lanes) + threadIdx.x / lanes;
    plane = unit / unsigned(tiles), tile = int(unit - unsigned(plane) * tiles);
    column = int(at / unsigned(p.vectors)), vector = int(at - unsigned(column) * p.vectors);
    inside = at < row && plane < p.planes;
  }
};

template <class T, int V> __device__ __forceinline__ int64_t fir_pixel(const Fir<T>& p, int64_t row, int width, int column, int vector) {
  return ((row * width + column) * p.vectors + vector) * V;
}

// Any filter and any factors; one output vector per thread.
template <class T, int V> __global__ void __launch_bounds__(fir_threads) fir_general_kernel(Fir<T> p, int lanes) {
  using A = accumulate_t<T>;
  const FirPlace at(p, lanes, p.y.out);
  if (!at.inside) return;
  // The first tap along an axis, and its input.
  const FirAxis &y = p.y, &x = p.x_axis;
  const int from_y = at.tile * y.down - y.pad, from_x = at.column * x.down - x.pad;
  const int phase_y = (y.up - from_y % y.up) % y.up, phase_x = (x.up - from_x % x.up) % x.up;
  const int first_y = (from_y + phase_y) / y.up, first_x = (from_x + phase_x) / x.up;
  A sum[V] = {}, value[V];
  for (int jy = phase_y, iy = first_y; jy < y.taps && iy < y.in; jy += y.up, ++iy) {
    if (iy < 0) continue;
    for (int jx = phase_x, ix = first_x; jx < x.taps && ix < x.in; jx += x.up, ++ix) {
      if (ix < 0) continue;
      load(value, p.x + fir_pixel<T, V>(p, at.plane * y.in + iy, x.in, ix, at.vector), V, true);
      const A weight = p.tap(jy, jx);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += weight * value[v];
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v) sum[v] *= p.gain;
  store(p.out + fir_pixel<T, V>(p, at.plane * y.out + at.tile, x.out, at.column, at.vector), sum, V, true);
}

// The filters and factors of StyleGAN, equal along both axes. A thread computes several outputs, one below the other,
// and reads the inputs that they share once.
template <int TAPS, int UP, int DOWN> struct FirPattern {
  static constexpr int taps = TAPS, up = UP, down = DOWN;
  static constexpr int reads = (TAPS - 1) / UP + 1;  // along x, for one output
  // With more rows, more inputs are shared, but more registers are needed.
  static __host__ __device__ constexpr int rows(int vector) { return vector > 1 ? 4 : (TAPS > 3 * UP ? 4 : 8) / DOWN; }
  // Tiles begin at an output that uses tap 0, which may be one above the first output.
  static __host__ __device__ int above(const FirAxis& y) { return UP == 1 ? 0 : y.pad & 1; }
  static_assert(UP <= 2);
};

template <class T, int V, class P> __global__ void __launch_bounds__(fir_threads) fir_kernel(Fir<T> p, int lanes) {
  using A = accumulate_t<T>;
  constexpr int ROWS = P::rows(V), reads = P::reads, window = ((ROWS - 1) * P::down + P::taps - 1) / P::up + 1;
  __shared__ A taps[P::taps][P::taps];
  if (threadIdx.x < P::taps * P::taps) {
    const int i = threadIdx.x / P::taps, j = threadIdx.x % P::taps;
    taps[i][j] = p.tap(i, j) * p.gain;
  }
  __syncthreads();
  const int above = P::above(p.y);
  const FirPlace at(p, lanes, (p.y.out + above + ROWS - 1) / ROWS);
  if (!at.inside) return;
  const int o = at.tile * ROWS - above, first_y = (o * P::down - p.y.pad) / P::up;
  const int from_x = at.column * P::down - p.x_axis.pad, phase = P::up == 1 ? 0 : from_x & 1;
  const int first_x = (from_x + phase) / P::up;
  A weight[P::taps][reads], sum[ROWS][V] = {};
  bool met[reads];
#pragma unroll
  for (int k = 0; k < reads; ++k) {
    const int j = phase + k * P::up, ix = first_x + k;
    met[k] = j < P::taps && ix >= 0 && ix < p.x_axis.in;
#pragma unroll
    for (int i = 0; i < P::taps; ++i) weight[i][k] = j < P::taps ? taps[i][j] : A(0);
  }
#pragma unroll
  for (int r = 0; r < window; ++r) {
    const int iy = first_y + r;
    const bool row_met = iy >= 0 && iy < p.y.in;
    const T* row = p.x + fir_pixel<T, V>(p, at.plane * p.y.in + iy, p.x_axis.in, first_x, at.vector);
#pragma unroll
    for (int k = 0; k < reads; ++k) {
      A value[V] = {};
      if (row_met && met[k]) load(value, row + k * p.vectors * V, V, true);
#pragma unroll
      for (int q = 0; q < ROWS; ++q) {
        const int i = r * P::up - q * P::down;
        if (i >= 0 && i < P::taps)
#pragma unroll
          for (int v = 0; v < V; ++v) sum[q][v] += weight[i][k] * value[v];
      }
    }
  }
#pragma unroll
  for (int q = 0; q < ROWS; ++q)
    if (o + q >= 0 && o + q < p.y.out)
      store(p.out + fir_pixel<T, V>(p, at.plane * p.y.out + o + q, p.x_axis.out, at.column, at.vector), sum[q], V, true);
}

}  // namespace stylegan
