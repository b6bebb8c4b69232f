// Short separable filters in contiguous memory, a few rows of the output at a time, in two steps: the sums over rows of
// the input, kept as floats in the nearest cache with zeros on both sides; then the sums along them.
#include "fir.h"

namespace stylegan {
namespace {

constexpr int w = width<float>, max_rows = 4;

int64_t whole(int64_t size) { return (size + w - 1) / w * w; }  // vectors

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

template <int N, class T>
void sum_rows_of(const T* x, int64_t stride, const float* weight, int64_t size, float* sum) {
  auto at = [&](int64_t i, int count) __attribute__((always_inline)) {
    FloatLanes total{};
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) total += load(x + k * stride + i, count) * weight[k];
    store(sum + i, total);
  };
  int64_t i = 0;
  for (; i + w <= size; i += w) at(i, w);
  if (i < size) at(i, int(size - i));
}

// sum: whole vectors are written.
template <class T>
void sum_rows(const T* x, int64_t stride, const Reads<float>::Read& rows, int64_t size, float* sum) {
  switch (rows.count) {
    case 0: std::fill_n(sum, size, 0.0f); break;
    case 1: sum_rows_of<1>(x, stride, rows.weight, size, sum); break;
    case 2: sum_rows_of<2>(x, stride, rows.weight, size, sum); break;
    case 3: sum_rows_of<3>(x, stride, rows.weight, size, sum); break;
    default: sum_rows_of<4>(x, stride, rows.weight, size, sum);
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
template <class P, class T>
void filter_row(const float* v, const float* taps, int64_t size, const Result<T>& out, int64_t at) {
  for (int64_t o = 0; o < size; o += P::up * w, v += P::down * w) {
    const int64_t left = size - o;
    if constexpr (P::up == 1) {
      out.put(at + o, outputs<P>(v, taps, 0), int(std::min<int64_t>(w, left)));
    } else {
      const FloatLanes a = outputs<P>(v, taps, 0), b = outputs<P>(v, taps, 1);
      out.put(at + o, woven_low(a, b), int(std::min<int64_t>(w, left)));
      if (left > w) out.put(at + o + w, woven_high(a, b), int(std::min<int64_t>(w, left - w)));
    }
  }
}

}  // namespace

template <class T> bool filter_planes(const Separable& s, const T* in, const Result<T>& out) {
  if ((int64_t(s.y.taps.size()) + s.y.up - 1) / s.y.up > max_rows) return false;
  const Reads<float> reads(s.y);
  return with_pattern(s.x, [&](auto pattern) {
    using P = decltype(pattern);
    float taps[P::taps];
    std::copy_n(s.x.taps.begin(), P::taps, taps);
    // Where a row of sums starts in its memory, how far it is read, and how many fit the nearest cache.
    const int64_t start = P::start(s.x), before = whole(std::max<int64_t>(0, -start));
    const int64_t read = start + whole(s.x.out / P::up + 1) * P::down + P::window + w;
    const int64_t size = before + whole(std::max(s.x.in, read)) + w;
    const int64_t batch = std::clamp<int64_t>(4096 / size, 1, 16);
    each_block_of_rows(s.n * s.c, s.y, s.x.out, [&] {
      return [&, sums = std::vector<float>(size * batch, 0.0f)](int64_t plane, int64_t first, int64_t end) mutable {
        const T* from = in + plane * s.y.in * s.x.in;
        for (int64_t o = first; o < end; o += batch) {
          const int64_t rows = std::min(batch, end - o);
          for (int64_t i = 0; i < rows; ++i)
            sum_rows(from + reads[o + i].index * s.x.in, s.x.in, reads[o + i], s.x.in, &sums[i * size + before]);
          for (int64_t i = 0; i < rows; ++i)
            filter_row<P>(&sums[i * size + before + start], taps, s.x.out, out, (plane * s.y.out + o + i) * s.x.out);
        }
      };
    });
  });
}

template bool filter_planes(const Separable&, const float*, const Result<float>&);
template bool filter_planes(const Separable&, const bf16*, const Result<bf16>&);

}  // namespace stylegan
