// Kernels of bias_act and its first two derivatives. ops/bias_act.py says what they compute.
//
// Memory traffic, in elements of x: 2 for the value (x, y), 3 for the gradient (dy, x or y, dx), 4 for the second
// derivative (x, dy, ddx, its result). The sums over the bias's channels add no traffic.
#pragma once

#include "../activation.h"
#include "row_sums.cuh"

namespace stylegan {

enum class Order : int { value, gradient, curvature };

// All parameters that do not depend on x's element type.
template <class A> struct Formula {
  Act act;
  A slope, gain, clamp;  // a negative clamp means none
};

// f(act) for a smooth or for a piecewise linear activation, in separate kernels so that the latter stay small.
template <bool smooth, class F> __device__ __forceinline__ void with_activation(Act act, F f) {
#define STYLEGAN_CASE(name) \
  case Act::name: return f(std::integral_constant<Act, Act::name>{})
  if constexpr (smooth) {
    switch (act) {
      STYLEGAN_CASE(tanh);
      STYLEGAN_CASE(sigmoid);
      STYLEGAN_CASE(elu);
      STYLEGAN_CASE(selu);
      STYLEGAN_CASE(softplus);
      default: return f(std::integral_constant<Act, Act::swish>{});
    }
  } else {
    switch (act) {
      STYLEGAN_CASE(relu);
      STYLEGAN_CASE(lrelu);
      default: return f(std::integral_constant<Act, Act::linear>{});
    }
  }
#undef STYLEGAN_CASE
}

// Computes one element. u: input plus bias, or for the gradient of a piecewise linear activation its result. g: the
// factor of the derivative.
template <Order order, Act act, class A> __device__ __forceinline__ A element(const Formula<A>& f, A u, A g) {
  if constexpr (order == Order::value) {
    A y = activate<act>(u, f.slope) * f.gain;
    if (f.clamp >= 0) y = y > f.clamp ? f.clamp : y < -f.clamp ? -f.clamp : y;
    return y;
  } else {
    // A piecewise linear result has the sign of the input, or the opposite sign if the gain is negative.
    const bool by_result = order == Order::gradient && piecewise_linear(act);
    const A at = by_result && f.gain < 0 ? -u : u;
    A d = g * f.gain * (order == Order::gradient ? slope_at<act>(at, f.slope) : curvature_at<act>(at, f.slope));
    if (f.clamp >= 0) {
      const A y = by_result ? u : activate<act>(u, f.slope) * f.gain;
      if (by_result ? y >= f.clamp || y <= -f.clamp : y > f.clamp || y < -f.clamp) d = 0;
    }
    return d;
  }
}

// The operands of all orders, in dense memory of outer x channels x inner elements.
template <class T> struct BiasAct {
  using A = accumulate_t<T>;
  const T *u, *g, *h;     // x or the result; dy; ddx
  T* out;
  const A *bias, *db;     // [channels], or null
  int64_t count, channels, inner;
  Formula<A> formula;
  bool aligned;           // u, g, h and out are multiples of 16
};

// The values of a vector's channels. c: the channel of the first element; r: its index among the channel's `inner`.
template <class T, class A> __device__ __forceinline__ void channel_values(
    A (&to)[vec<T>], const A* values, int64_t c, int64_t r, int64_t channels, int64_t inner) {
  constexpr int V = vec<T>;
  if (!values) {
#pragma unroll
    for (int i = 0; i < V; ++i) to[i] = 0;
  } else if (inner - r >= V) {
    const A value = values[c];
#pragma unroll
    for (int i = 0; i < V; ++i) to[i] = value;
  } else if (inner == 1 && channels - c >= V) {
    load(to, values + c, V, reinterpret_cast<uintptr_t>(values + c) % 16 == 0);
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) {
      to[i] = values[c];
      if (++r == inner) {
        r = 0;
        if (++c == channels) c = 0;
      }
    }
  }
}

// Computes the n <= V elements from `at` on, whose channels have these biases; also stores them in `result`.
template <Order order, bool smooth, class T, class A> __device__ __forceinline__ void vector(
    const BiasAct<T>& p, int64_t at, int n, bool aligned, const A (&bias)[vec<T>], const A (&db)[vec<T>],
    A (&result)[vec<T>]) {
  constexpr int V = vec<T>;
  A g[V];
  load(result, p.u + at, n, aligned);
  if constexpr (order != Order::value) load(g, p.g + at, n, aligned);
  if constexpr (order == Order::curvature) {
    A h[V];
    load(h, p.h + at, n, aligned);
#pragma unroll
    for (int i = 0; i < V; ++i) g[i] = (g[i] + db[i]) * h[i];
  } else if constexpr (order == Order::gradient) {
#pragma unroll
    for (int i = 0; i < V; ++i) g[i] += db[i];
  }
  with_activation<smooth>(p.formula.act, [&](auto act) {
#pragma unroll
    for (int i = 0; i < V; ++i)
      result[i] = element<order, decltype(act)::value>(p.formula, result[i] + bias[i], order == Order::value ? A(0) : g[i]);
  });
  store(p.out + at, result, n, aligned);
}

constexpr int bias_act_threads = 256;

template <Order order, bool smooth, class T> __global__ void __launch_bounds__(bias_act_threads)
    bias_act_kernel(BiasAct<T> p) {
  using A = accumulate_t<T>;
  constexpr int V = vec<T>;
  const int64_t step = int64_t(gridDim.x) * bias_act_threads * V;
  for (int64_t at = (int64_t(blockIdx.x) * bias_act_threads + threadIdx.x) * V; at < p.count; at += step) {
    A bias[V], db[V], result[V];
    const bool by_channel = p.bias || p.db;
    const int64_t row = by_channel ? at / p.inner : 0, r = at - row * p.inner, c = by_channel ? row % p.channels : 0;
    channel_values<T>(bias, p.bias, c, r, p.channels, p.inner);
    channel_values<T>(db, p.db, c, r, p.channels, p.inner);
    const int n = p.count - at < V ? int(p.count - at) : V;
    vector<order, smooth>(p, at, n, p.aligned, bias, db, result);
  }
}

// The gradient and its sums per channel, if a channel has many neighbouring elements. A group of threads processes one
// of `chunks` parts of a row of `inner` elements and stores partial[outer][chunk][channel].
template <bool smooth, class T> __global__ void __launch_bounds__(bias_act_threads, 3)
    bias_act_grad_rows_kernel(BiasAct<T> p, int group, int64_t chunks, int64_t chunk, accumulate_t<T>* partial) {
  using A = accumulate_t<T>;
  constexpr int V = vec<T>;
  const unsigned item = blockIdx.x * unsigned(bias_act_threads / group) + threadIdx.x / group;
  const int64_t row = item / unsigned(chunks), k = item - unsigned(row) * unsigned(chunks);
  const unsigned outer = unsigned(row) / unsigned(p.channels), c = unsigned(row) - outer * unsigned(p.channels);
  const bool active = row * p.inner < p.count;
  const int64_t begin = k * chunk, end = begin + chunk < p.inner ? begin + chunk : p.inner;
  A bias[V], db[V], result[V], sum[1] = {0};
#pragma unroll
  for (int i = 0; i < V; ++i) {
    bias[i] = active && p.bias ? p.bias[c] : A(0);
    db[i] = active && p.db ? p.db[c] : A(0);
  }
  if (active)
    for (int64_t r = begin + threadIdx.x % group * V; r < end; r += group * V) {
      const int n = end - r < V ? int(end - r) : V;
      vector<Order::gradient, smooth>(p, row * p.inner + r, n, p.aligned && p.inner % V == 0, bias, db, result);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[0] += i < n ? result[i] : A(0);
    }
  group_sum(sum, group);
  if (active && threadIdx.x % group == 0) partial[(outer * chunks + k) * p.channels + c] = sum[0];
}

// The same if neighbouring elements belong to neighbouring channels. A block processes `lanes` vectors of channels of
// `chunk` pixels and stores partial[chunk][channel].
template <bool smooth, class T> __global__ void __launch_bounds__(bias_act_threads, 3)
    bias_act_grad_columns_kernel(BiasAct<T> p, int lanes, int64_t chunk, accumulate_t<T>* partial) {
  using A = accumulate_t<T>;
  constexpr int V = vec<T>;
  const unsigned tiles = unsigned(ceil_div<int64_t>(p.channels, lanes * V));
  const int64_t k = blockIdx.x / tiles, pixels = p.count / p.channels;
  const int64_t c = (int64_t(blockIdx.x % tiles) * lanes + threadIdx.x % lanes) * V;
  const int64_t end = (k + 1) * chunk < pixels ? (k + 1) * chunk : pixels;
  const int n = c >= p.channels ? 0 : p.channels - c < V ? int(p.channels - c) : V;
  const int row = threadIdx.x / lanes, step = bias_act_threads / lanes;
  A bias[V], db[V], result[V], sum[V] = {};
#pragma unroll
  for (int i = 0; i < V; ++i) {
    bias[i] = i < n && p.bias ? p.bias[c + i] : A(0);
    db[i] = i < n && p.db ? p.db[c + i] : A(0);
  }
  if (n)
    for (int64_t pixel = k * chunk + row; pixel < end; pixel += step) {
      vector<Order::gradient, smooth>(p, pixel * p.channels + c, n, p.aligned && p.channels % V == 0, bias, db, result);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[i] += result[i];
    }
  column_sum<bias_act_threads>(sum, lanes);
  if (row == 0) store(partial + k * p.channels + c, sum, n, false);
}

}  // namespace stylegan
