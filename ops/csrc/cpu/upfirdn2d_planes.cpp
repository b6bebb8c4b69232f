// Short separable filters in contiguous memory. Each row of the output is made in two steps through one row of floats
// that stays in the nearest cache: the sum over rows of the input, with zeros on both sides, then the sum along it.
#include "fir.h"

namespace stylegan {
namespace {

constexpr int w = width<float>;

FloatLanes even(FloatLanes a, FloatLanes b) {
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
}
FloatLanes odd(FloatLanes a, FloatLanes b) {
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
}
FloatLanes woven_low(FloatLanes a, FloatLanes b) {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
FloatLanes woven_high(FloatLanes a, FloatLanes b) {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

template <class T> void sum_rows(const Rows<T>& rows, int64_t size, float* sum) {
  for (int64_t i = 0; i < size; i += w) {
    const int count = int(std::min<int64_t>(w, size - i));
    FloatLanes total{};
    for (int k = 0; k < rows.count; ++k) total += load(rows.row[k] + i, count) * rows.weight[k];
    store(sum + i, total);
  }
}

// Output q of the w groups whose columns start at v.
template <class P> FloatLanes outputs(const float* v, const float* taps, int q) {
  FloatLanes y{};
#pragma GCC unroll 4
  for (int j = 0; j < P::taps; ++j) {
    if (!P::meets(q, j)) continue;
    const int column = P::column(q, j);
    if (P::down == 1) y += load(v + column) * taps[j];
    else if (column % 2 == 0) y += even(load(v + column), load(v + column + w)) * taps[j];
    else y += odd(load(v + column - 1), load(v + column - 1 + w)) * taps[j];
  }
  return y;
}

// v: where the columns of the first group start.
template <class P, class T> void filter_row(const float* v, const float* taps, int64_t size, T* out) {
  for (int64_t o = 0; o < size; o += P::up * w, v += P::down * w) {
    const int64_t left = size - o;
    if constexpr (P::up == 1) {
      store(out + o, outputs<P>(v, taps, 0), int(std::min<int64_t>(w, left)));
    } else {
      const FloatLanes a = outputs<P>(v, taps, 0), b = outputs<P>(v, taps, 1);
      store(out + o, woven_low(a, b), int(std::min<int64_t>(w, left)));
      if (left > w) store(out + o + w, woven_high(a, b), int(std::min<int64_t>(w, left - w)));
    }
  }
}

}  // namespace

template <class T> bool filter_planes(const Separable& s, const T* in, T* out) {
  return with_pattern(s.x, [&](auto pattern) {
    using P = decltype(pattern);
    float taps[P::taps];
    std::copy_n(s.x.taps.begin(), P::taps, taps);
    const int64_t before = std::max<int64_t>(0, -P::start(s.x));
    const int64_t read = P::start(s.x) + (s.x.out / P::up + w) * P::down + P::window;
    const int64_t size = before + std::max(s.x.in, read) + 2 * w;
    each_block_of_rows(s.n * s.c, s.y.out, [&](int64_t plane, int64_t first, int64_t end) {
      Rows<T> rows(s.y);
      std::vector<float> sum(size, 0.0f);
      for (int64_t o = first; o < end; ++o) {
        rows.find(s.y, o, in + plane * s.y.in * s.x.in, s.x.in);
        sum_rows(rows, s.x.in, &sum[before]);
        filter_row<P>(&sum[before + P::start(s.x)], taps, s.x.out, out + (plane * s.y.out + o) * s.x.out);
      }
    });
  });
}

template bool filter_planes(const Separable&, const float*, float*);
template bool filter_planes(const Separable&, const bf16*, bf16*);

}  // namespace stylegan
