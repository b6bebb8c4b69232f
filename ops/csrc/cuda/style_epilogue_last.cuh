// The kernels of the epilogue for channels_last: neighbouring elements are neighbouring channels of one pixel.
#pragma once

#include "../philox.h"
#include "style_epilogue.cuh"

namespace stylegan {

constexpr int last_threads = 256;

// The pixels of one chunk and a tile of channels; this thread has one vector of the tile, in every step-th pixel.
template <class T> struct PixelChunk {
  using A = accumulate_t<T>;
  static constexpr int V = vec<T>;
  int64_t n, k, c, begin, end;
  int lanes, row, step, count;  // count: how many of this thread's V channels exist
  bool aligned;
  A bias[V], strength[V];

  __device__ __forceinline__ PixelChunk(const Epilogue<T>& p, int across) : lanes(across) {
    const unsigned tiles = unsigned(ceil_div<int64_t>(p.channels, lanes * V)), item = blockIdx.x / tiles;
    c = (int64_t(blockIdx.x - item * tiles) * lanes + threadIdx.x % lanes) * V;
    n = item / unsigned(p.chunks), k = item - unsigned(n * p.chunks);
    begin = k * p.chunk;
    end = begin + p.chunk < p.pixels ? begin + p.chunk : p.pixels;
    row = threadIdx.x / lanes, step = last_threads / lanes;
    count = c >= p.channels ? 0 : p.channels - c < V ? int(p.channels - c) : V;
    aligned = p.aligned && p.channels % V == 0;
    per_channel(bias, p.bias, 0), per_channel(strength, p.strength, 0);
  }
  // values[at + c ...], or `otherwise` for missing values.
  __device__ __forceinline__ void per_channel(A (&to)[V], const A* values, int64_t at, A otherwise = 0) const {
#pragma unroll
    for (int i = 0; i < V; ++i) to[i] = values && i < count ? values[at + c + i] : otherwise;
  }
  __device__ __forceinline__ int64_t at(const Epilogue<T>& p, int64_t pixel) const {
    return (n * p.pixels + pixel) * p.channels + c;
  }
  __device__ __forceinline__ A noise_of_map(const Epilogue<T>& p, int64_t pixel) const {
    return p.noise ? p.noise[n * p.noise_stride + pixel] : A(0);
  }
  __device__ __forceinline__ A noise(const Epilogue<T>& p, int64_t pixel) const {
    return p.places ? A(normal(p.places[2 * n], p.places[2 * n + 1], p.stream, pixel)) : noise_of_map(p, pixel);
  }
  // Calls f(pixel, noise) for this thread's pixels. Noise of places is made by all threads of the block for each other,
  // four numbers at a time, because many threads work on the channels of the same pixel.
  template <class F> __device__ __forceinline__ void each_pixel(const Epilogue<T>& p, F f) const {
    constexpr int tile = 4 * last_threads;
    __shared__ float made[tile];
    for (int64_t start = begin; start < end; start += tile) {
      const int64_t stop = end - start < tile ? end : start + tile;
      if (p.places) {
        __syncthreads();  // until all threads have read the numbers before
        if (start + 4 * threadIdx.x < stop) {
          float four[4];
          four_normals(four, p.places[2 * n], p.places[2 * n + 1], p.stream, uint32_t(start / 4) + threadIdx.x);
#pragma unroll
          for (int k = 0; k < 4; ++k) made[4 * threadIdx.x + k] = four[k];
        }
        __syncthreads();
      }
      if (count)
        for (int64_t i = start + row; i < stop; i += step) f(i, p.places ? A(made[i - start]) : noise_of_map(p, i));
    }
  }
  __device__ __forceinline__ void load_activations(A (&a)[V], const Epilogue<T>& p, int64_t pixel, A z) const {
    load(a, p.x + at(p, pixel), count, aligned);
#pragma unroll
    for (int i = 0; i < V; ++i) a[i] = leaky(a[i] + z * strength[i] + bias[i], p.slope);
  }
  __device__ __forceinline__ void store_part(A* partial, const A (&x)[V], const Epilogue<T>& p) const {
    if (row == 0) store(partial + (n * p.chunks + k) * p.channels + c, x, count, false);
  }
};

template <class T> __global__ void __launch_bounds__(last_threads)
    epilogue_last_kernel(Epilogue<T> p, Pass pass, int lanes) {
  using A = accumulate_t<T>;
  constexpr int V = vec<T>;
  const PixelChunk<T> m(p, lanes);
  A mean[V], rstd[V];
  if (pass != Pass::write) {
    // Sums of differences from the first pixel, so that the variance is accurate even if the mean is large.
    A sum[V] = {}, squares[V] = {};
    m.load_activations(mean, p, m.begin, m.noise(p, m.begin));
    m.each_pixel(p, [&](int64_t i, A z) {
      A a[V];
      m.load_activations(a, p, i, z);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        a[v] -= mean[v];
        sum[v] += a[v], squares[v] += a[v] * a[v];
      }
    });
    column_sum<last_threads>(sum, lanes), column_sum<last_threads>(squares, lanes);
    const A size = A(m.end - m.begin);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      squares[v] -= sum[v] * sum[v] / size;
      squares[v] = squares[v] > 0 ? squares[v] : A(0);
      mean[v] += sum[v] / size;
      rstd[v] = inverse_deviation(squares[v], p.pixels, p.eps);
    }
    if (pass == Pass::sums) {
      m.store_part(p.partial[0], mean, p), m.store_part(p.partial[1], squares, p);
      return;
    }
  } else {
    m.per_channel(mean, p.norm ? p.mean : nullptr, m.n * p.channels, 0);
    m.per_channel(rstd, p.norm ? p.rstd : nullptr, m.n * p.channels, 1);
  }
  if (m.row == 0 && (pass == Pass::whole || (!p.norm && m.k == 0))) {
    store(p.mean + m.n * p.channels + m.c, mean, m.count, false);
    store(p.rstd + m.n * p.channels + m.c, rstd, m.count, false);
  }
  A gain[V], shift[V];
  m.per_channel(gain, p.style, m.n * 2 * p.channels);
  m.per_channel(shift, p.style, (m.n * 2 + 1) * p.channels);
#pragma unroll
  for (int v = 0; v < V; ++v) gain[v] = (gain[v] + 1) * rstd[v];
  m.each_pixel(p, [&](int64_t i, A z) {
    A a[V];
    m.load_activations(a, p, i, z);
#pragma unroll
    for (int v = 0; v < V; ++v) a[v] = (a[v] - mean[v]) * gain[v] + shift[v];
    store(p.out + m.at(p, i), a, m.count, m.aligned);
  });
}

template <class T> __global__ void __launch_bounds__(last_threads)
    epilogue_last_grad_kernel(Epilogue<T> p, Pass pass, int lanes) {
  using A = accumulate_t<T>;
  constexpr int V = vec<T>;
  const PixelChunk<T> m(p, lanes);
  A mean[V], rstd[V], first[V] = {}, second[V] = {};
  m.per_channel(mean, p.mean, m.n * p.channels);
  m.per_channel(rstd, p.rstd, m.n * p.channels);
  const int64_t scales = m.n * 2 * p.channels, shifts = scales + p.channels;
  if (pass != Pass::write) {
    m.each_pixel(p, [&](int64_t i, A z) {
      A a[V], g[V];
      m.load_activations(a, p, i, z);
      load(g, p.dy + m.at(p, i), m.count, m.aligned);
#pragma unroll
      for (int v = 0; v < V; ++v) first[v] += g[v] * (a[v] - mean[v]), second[v] += g[v];
    });
    column_sum<last_threads>(first, lanes), column_sum<last_threads>(second, lanes);
#pragma unroll
    for (int v = 0; v < V; ++v) first[v] *= rstd[v];
    if (pass == Pass::sums) {
      m.store_part(p.partial[0], first, p), m.store_part(p.partial[1], second, p);
      return;
    }
    if (m.row == 0) {
      store(p.sums + scales + m.c, first, m.count, false);
      store(p.sums + shifts + m.c, second, m.count, false);
    }
  } else {
    m.per_channel(first, p.sums, scales);
    m.per_channel(second, p.sums, shifts);
  }
  A gain[V], m1[V], m2[V];
  m.per_channel(gain, p.style, scales);
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const Normed<A> norm = normed(p, gain[v] + 1, mean[v], rstd[v], first[v], second[v]);
    gain[v] = norm.gain, m1[v] = norm.m1, m2[v] = norm.m2;
    first[v] = second[v] = 0;
  }
  m.each_pixel(p, [&](int64_t i, A z) {
    A a[V], g[V];
    m.load_activations(a, p, i, z);
    load(g, p.dy + m.at(p, i), m.count, m.aligned);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      g[v] = (g[v] - m1[v] - (a[v] - mean[v]) * m2[v]) * gain[v];
      g[v] = a[v] > 0 ? g[v] : g[v] * p.slope;
      first[v] += g[v], second[v] += g[v] * z;
    }
    store(p.out + m.at(p, i), g, m.count, m.aligned);
  });
  column_sum<last_threads>(first, lanes), column_sum<last_threads>(second, lanes);
  m.store_part(p.channel_sums[0], first, p), m.store_part(p.channel_sums[1], second, p);
}

}  // namespace stylegan
