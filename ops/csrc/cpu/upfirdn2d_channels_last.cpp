// Short separable filters in channels_last. A vector holds neighbouring channels. One pass along a row adds the rows of
// the input to columns, which stay in registers as long as outputs need them. No intermediate result is stored.
#include "fir.h"

namespace stylegan {
namespace {

constexpr int max_rows = 4;

// One row of the output, K vectors of channels; only the first `count` lanes if K is 1. x: the first input row.
template <class P, int K, class T>
void strip(const T* x, const Reads<float>::Read& rows, const Separable& s, const float* taps, int64_t c, int count,
           const Result<T>& out, int64_t to) {
  constexpr int w = width<float>;
  const int64_t stride = s.x.in * s.c;
  const T* row[max_rows];
  float weight[max_rows];
  for (int i = 0; i < max_rows; ++i) row[i] = x + i * stride + c, weight[i] = i < rows.count ? rows.weight[i] : 0;
  const int n = rows.count;
  const T* ahead = x + n * stride + c;  // the next input row of the next output row
  FloatLanes window[P::window][K];
  auto column = [&](int64_t at, FloatLanes* sum) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) sum[k] = FloatLanes{};
    if (at < 0 || at >= s.x.in) return;
#pragma GCC unroll 4
    for (int k = 0; k < K; ++k) __builtin_prefetch(ahead + at * s.c + k * w);
#pragma GCC unroll 4
    for (int i = 0; i < max_rows; ++i)
      if (i < n) {
        const T* p = row[i] + at * s.c;
        if (K == 1) sum[0] += load(p, count) * weight[i];
        else
#pragma GCC unroll 4
          for (int k = 0; k < K; ++k) sum[k] += load(p + k * w) * weight[i];
      }
  };
  int64_t next = P::start(s.x);
#pragma GCC unroll 4
  for (int i = 0; i < P::window; ++i) column(next++, window[i]);
  for (int64_t o = 0; o < s.x.out; o += P::up) {
#pragma GCC unroll 2
    for (int q = 0; q < P::up; ++q) {
      if (o + q >= s.x.out) break;
      const int64_t at = to + (o + q) * s.c + c;
#pragma GCC unroll 4
      for (int k = 0; k < K; ++k) {
        FloatLanes y{};
#pragma GCC unroll 4
        for (int j = 0; j < P::taps; ++j)
          if (P::meets(q, j)) y += window[P::column(q, j)][k] * taps[j];
        out.put(at + k * w, y, K == 1 ? count : w);
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i + P::down < P::window; ++i)
#pragma GCC unroll 4
      for (int k = 0; k < K; ++k) window[i][k] = window[i + P::down][k];
#pragma GCC unroll 2
    for (int i = P::window - P::down; i < P::window; ++i) column(next++, window[i]);
  }
}

}  // namespace

template <class T> bool filter_channels_last(const Separable& s, const T* in, const Result<T>& out) {
  constexpr int w = width<float>, wide = 4 * w;
  if (s.c < w || (int64_t(s.y.taps.size()) + s.y.up - 1) / s.y.up > max_rows) return false;
  const Reads<float> reads(s.y);
  const int64_t row_in = s.x.in * s.c, row_out = s.x.out * s.c;
  return with_pattern(s.x, [&](auto pattern) {
    using P = decltype(pattern);
    float taps[P::taps];
    std::copy_n(s.x.taps.begin(), P::taps, taps);
    each_block_of_rows(s.n, s.y, row_out, [&] {
      return [&](int64_t n, int64_t first, int64_t end) {
        for (int64_t o = first; o < end; ++o) {
          const T* from = in + (n * s.y.in + reads[o].index) * row_in;
          const int64_t to = (n * s.y.out + o) * row_out;
          int64_t c = 0;
          for (; c + wide <= s.c; c += wide) strip<P, 4>(from, reads[o], s, taps, c, wide, out, to);
          for (; c < s.c; c += w) strip<P, 1>(from, reads[o], s, taps, c, int(std::min<int64_t>(w, s.c - c)), out, to);
        }
      };
    });
  });
}

template bool filter_channels_last(const Separable&, const float*, const Result<float>&);
template bool filter_channels_last(const Separable&, const bf16*, const Result<bf16>&);

}  // namespace stylegan
