// Kernels of the epilogue of a StyleGAN layer, forward and backward. ops/style_epilogue.py says what they compute.
//
// Memory traffic, in elements of x. Forward: 2 if a block holds a whole feature map in its registers, else 3, where the
// second pass finds a part of x in the L2 cache. Backward: 3 (x, dy, dx), else 5.
//
// A block, or a part of it, works on a feature map or on a part of one (a chunk), in up to three passes. The chunks'
// partial sums are added in a fixed order, so the result does not depend on the order of the blocks.
#pragma once

#include "row_sums.cuh"

namespace stylegan {

enum class Pass : int {
  whole,  // there is only one chunk: sum, then write the result
  sums,   // store the chunk's sums in partial
  write   // write the result from the sums of all chunks
};

template <class T> struct Epilogue {
  using A = accumulate_t<T>;
  const T *x, *dy;
  T* out;                              // y, or dx
  const A *bias, *strength, *style;    // [C], [C], [N,2C], or null
  const A* noise;                      // [1 or N, pixels], or null
  const int64_t* places;               // [N,2], in place of noise, see ops/philox.py; or null; only in channels_last
  int64_t noise_stride;                // from the noise of one sample to that of the next
  A *mean, *rstd;                      // [N,C]; written forward, read backward
  A* sums;                             // [N,2C] of dy * normalised and of dy; only backward
  A* partial[2];                       // [N,chunks,C]: means and squared deviations, or the two sums
  A* channel_sums[2];                  // [N,chunks,C] of dx and of dx * noise; only backward
  int64_t samples, channels, pixels, chunks, chunk;
  A slope, eps;
  uint32_t stream;                     // of the numbers of the places
  bool norm, aligned;                  // aligned: x, dy, out and noise are multiples of 16
};

template <class A> struct ChannelSettings {
  A bias, strength, gain, shift;
};

template <class T, class A = accumulate_t<T>>
__device__ __forceinline__ ChannelSettings<A> channel_settings(const Epilogue<T>& p, int64_t n, int64_t c) {
  ChannelSettings<A> s{0, 0, 1, 0};
  if (p.bias) s.bias = p.bias[c];
  if (p.strength) s.strength = p.strength[c];
  if (p.style) {
    s.gain += p.style[n * 2 * p.channels + c];
    s.shift = p.style[n * 2 * p.channels + p.channels + c];
  }
  return s;
}

template <class A> __device__ __forceinline__ A leaky(A u, A slope) { return u > 0 ? u : u * slope; }

template <class A> __device__ __forceinline__ A inverse_deviation(A square_sum, int64_t count, A eps) {
  return A(1) / std::sqrt(square_sum / A(count) + eps);
}

// How much of a map a thread holds in its registers, and the maximum number of threads per block: the backward kernel
// needs two values per element, and a thread of a full SM has 64 registers, or 128 with half as many threads.
struct Small {
  static constexpr int threads = 1024, bytes = 32;
  static __host__ __device__ constexpr int group(int threads_to_a_map) { return threads_to_a_map; }
};
struct Large {
  static constexpr int threads = 512, bytes = 128;
  // Always the whole block, so that the distances between a thread's vectors are constants and need no registers.
  static __host__ __device__ constexpr int group(int) { return threads; }
};
// In elements; few for float64, which is only used for checking derivatives.
template <class T, class Held> constexpr int held = Held::bytes / (sizeof(accumulate_t<T>) == 8 ? 16 : 4);

// A chunk of a contiguous map, and this thread's part of it. Maps are counted in 32 bits, because registers are scarce.
template <class T> struct MapChunk {
  using A = accumulate_t<T>;
  static constexpr int V = vec<T>;
  int map, k, n, c, lane, group, size;  // size: elements, 0 for a thread that has nothing to do
  int64_t start;
  const A* noise;
  bool aligned;

  __device__ __forceinline__ MapChunk(const Epilogue<T>& p, int threads) : group(threads) {
    const unsigned item = group > 32 ? blockIdx.x : blockIdx.x * (blockDim.x / group) + threadIdx.x / group;
    map = int(item / unsigned(p.chunks)), k = int(item) - map * int(p.chunks);
    const bool active = map < int(p.samples * p.channels);
    if (!active) map = 0;
    n = map / int(p.channels), c = map - n * int(p.channels);
    const int64_t pixel = k * p.chunk;
    start = map * p.pixels + pixel;
    lane = group > 32 ? threadIdx.x : threadIdx.x % group;
    size = !active ? 0 : p.pixels - pixel < p.chunk ? int(p.pixels - pixel) : int(p.chunk);
    noise = p.noise ? p.noise + n * p.noise_stride + pixel : nullptr;
    aligned = p.aligned && p.pixels % V == 0;
  }
  __device__ __forceinline__ int at(int j) const { return (j * group + lane) * V; }
  __device__ __forceinline__ int left(int j) const { return size - at(j); }
  __device__ __forceinline__ bool first() const { return size && lane == 0; }
  // The index of the chunk's sums in [N,chunks,C].
  __device__ __forceinline__ int64_t part(const Epilogue<T>& p) const { return (n * p.chunks + k) * p.channels + c; }

  __device__ __forceinline__ void load_noise(A (&z)[V], int j) const {
    if (noise) {
      load(z, noise + at(j), left(j), aligned);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) z[i] = 0;
    }
  }
  // Vector j of lrelu(x + noise * strength + bias); zeros beyond the end.
  __device__ __forceinline__ void load_activations(A (&a)[V], const Epilogue<T>& p, const ChannelSettings<A>& s, int j) const {
#pragma unroll
    for (int i = 0; i < V; ++i) a[i] = 0;
    if (left(j) <= 0) return;
    A z[V];
    load_noise(z, j);
    load(a, p.x + start + at(j), left(j), aligned);
#pragma unroll
    for (int i = 0; i < V; ++i) a[i] = i < left(j) ? leaky(a[i] + z[i] * s.strength + s.bias, p.slope) : A(0);
  }
};

template <class T, class Held> __global__ void __launch_bounds__(Held::threads, 1)
    epilogue_maps_kernel(Epilogue<T> p, Pass pass, int threads_to_a_map) {
  using A = accumulate_t<T>;
  const int group = Held::group(threads_to_a_map);
  constexpr int V = vec<T>, K = held<T, Held> / V;
  const MapChunk<T> m(p, group);
  const ChannelSettings<A> s = channel_settings(p, m.n, m.c);
  A a[K][V], mean = 0, rstd = 1;
#pragma unroll
  for (int j = 0; j < K; ++j) m.load_activations(a[j], p, s, j);
  if (pass != Pass::write) {
    A sum[1] = {0};
#pragma unroll
    for (int j = 0; j < K; ++j)
#pragma unroll
      for (int i = 0; i < V; ++i) sum[0] += a[j][i];
    group_sum(sum, group);
    mean = sum[0] / A(m.size ? m.size : 1);
    sum[0] = 0;
#pragma unroll
    for (int j = 0; j < K; ++j)
#pragma unroll
      for (int i = 0; i < V; ++i)
        if (i < m.left(j)) sum[0] += (a[j][i] - mean) * (a[j][i] - mean);
    group_sum(sum, group);
    if (pass == Pass::sums) {
      if (m.first()) p.partial[0][m.part(p)] = mean, p.partial[1][m.part(p)] = sum[0];
      return;
    }
    rstd = inverse_deviation(sum[0], p.pixels, p.eps);
  } else if (p.norm) {
    mean = p.mean[m.map], rstd = p.rstd[m.map];
  }
  if (m.first() && (pass == Pass::whole || (!p.norm && m.k == 0))) p.mean[m.map] = mean, p.rstd[m.map] = rstd;
#pragma unroll
  for (int j = 0; j < K; ++j) {
    if (m.left(j) <= 0) break;
#pragma unroll
    for (int i = 0; i < V; ++i) a[j][i] = (a[j][i] - mean) * (s.gain * rstd) + s.shift;
    store(p.out + m.start + m.at(j), a[j], m.left(j), m.aligned);
  }
}

// The gradient of the norm: from the gradient g of its result. a: centred activation.
template <class A> struct Normed {
  A mean, rstd, gain, m1, m2;
  __device__ __forceinline__ A operator()(A g, A a) const { return (g - m1 - a * m2) * gain; }
};

// Computes Normed from the sums of dy * normalised and of dy over a map.
template <class T, class A = accumulate_t<T>>
__device__ __forceinline__ Normed<A> normed(const Epilogue<T>& p, A gain, A mean, A rstd, A dy_normed, A dy) {
  const A area = A(p.pixels);
  return {mean, rstd, gain * rstd, p.norm ? dy / area : A(0), p.norm ? dy_normed / area * rstd : A(0)};
}

template <class T, class Held> __global__ void __launch_bounds__(Held::threads, 1)
    epilogue_maps_grad_kernel(Epilogue<T> p, Pass pass, int threads_to_a_map) {
  using A = accumulate_t<T>;
  const int group = Held::group(threads_to_a_map);
  constexpr int V = vec<T>, K = held<T, Held> / V;
  const MapChunk<T> m(p, group);
  const ChannelSettings<A> s = channel_settings(p, m.n, m.c);
  const A mean = p.mean[m.map], rstd = p.rstd[m.map];
  A* total = p.sums ? p.sums + (2 * m.n * p.channels + m.c) : nullptr;
  A a[K][V], g[K][V], sum[2] = {0, 0};
#pragma unroll
  for (int j = 0; j < K; ++j) {
    m.load_activations(a[j], p, s, j);
    load(g[j], p.dy + m.start + m.at(j), m.left(j), m.aligned);
#pragma unroll
    for (int i = 0; i < V; ++i) sum[0] += g[j][i] * (a[j][i] - mean), sum[1] += g[j][i];
  }
  if (pass == Pass::write) {
    sum[0] = total ? total[0] : A(0), sum[1] = total ? total[p.channels] : A(0);
  } else {
    group_sum(sum, group);
    sum[0] *= rstd;
    if (pass == Pass::sums) {
      if (m.first()) p.partial[0][m.part(p)] = sum[0], p.partial[1][m.part(p)] = sum[1];
      return;
    }
    if (m.first()) total[0] = sum[0], total[p.channels] = sum[1];
  }
  // The gain is read again, because the registers are full.
  const Normed<A> norm = normed(p, channel_settings(p, m.n, m.c).gain, mean, rstd, sum[0], sum[1]);
  sum[0] = sum[1] = 0;
#pragma unroll
  for (int j = 0; j < K; ++j) {
    if (m.left(j) <= 0) break;
    A z[V];
    m.load_noise(z, j);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      // The activation has the sign of its input, or is 0 where the slope is 0.
      A d = norm(g[j][i], a[j][i] - mean);
      d = a[j][i] > 0 ? d : d * p.slope;
      g[j][i] = d;
      if (i < m.left(j)) sum[0] += d, sum[1] += d * z[i];
    }
    store(p.out + m.start + m.at(j), g[j], m.left(j), m.aligned);
  }
  group_sum(sum, group);
  if (m.first()) p.channel_sums[0][m.part(p)] = sum[0], p.channel_sums[1][m.part(p)] = sum[1];
}

// Means and deviations of whole maps from those of their chunks.
template <class T> __global__ void __launch_bounds__(row_sums_threads) epilogue_merge_kernel(Epilogue<T> p, int lanes) {
  using A = accumulate_t<T>;
  const unsigned tiles = unsigned(ceil_div<int64_t>(p.channels, lanes)), n = blockIdx.x / tiles;
  const int64_t c = int64_t(blockIdx.x - n * tiles) * lanes + threadIdx.x % lanes;
  const int row = threadIdx.x / lanes, step = row_sums_threads / lanes;
  const bool active = c < p.channels;
  auto size = [&](int64_t k) { return A(p.pixels - k * p.chunk < p.chunk ? p.pixels - k * p.chunk : p.chunk); };
  auto part = [&](int i, int64_t k) { return p.partial[i][(n * p.chunks + k) * p.channels + c]; };
  A sum[1] = {0};
  for (int64_t k = row; active && k < p.chunks; k += step) sum[0] += part(0, k) * (size(k) / A(p.pixels));
  column_sum<row_sums_threads>(sum, lanes);
  const A mean = sum[0];
  sum[0] = 0;
  for (int64_t k = row; active && k < p.chunks; k += step) {
    const A d = part(0, k) - mean;
    sum[0] += part(1, k) + d * d * size(k);
  }
  column_sum<row_sums_threads>(sum, lanes);
  if (row == 0 && active) {
    p.mean[n * p.channels + c] = mean;
    p.rstd[n * p.channels + c] = inverse_deviation(sum[0], p.pixels, p.eps);
  }
}

}  // namespace stylegan
