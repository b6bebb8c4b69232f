// The arithmetic of pad, upsample, filter, downsample along one axis: which inputs an output reads, with which taps.
//
// Output o stands at o * down - pad in the upsampled input, of which only every up-th sample is not zero. It reads tap j
// where (o * down - pad + j) / up is a whole number, which is then the index of the input.
#pragma once

#include "../tensors.h"
#include "lanes.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace stylegan {

struct Axis {
  int64_t in, out, up, down, pad;
  std::vector<double> taps;  // as they meet the samples, left to right

  int64_t phase(int64_t o) const { return ((pad - o * down) % up + up) % up; }  // the first tap that o reads
  int64_t first(int64_t o) const { return (o * down - pad + phase(o)) / up; }   // and the input it meets
};

// Rows of the input and their weights, whose sum a row of the output is made of.
template <class T> struct Rows {
  std::vector<const T*> row;
  std::vector<accumulate_t<T>> weight;
  int count = 0;

  explicit Rows(const Axis& y) : row(y.taps.size()), weight(y.taps.size()) {}
  // The rows that output row o reads, `stride` elements apart.
  void find(const Axis& y, int64_t o, const T* x, int64_t stride) {
    count = 0;
    int64_t index = y.first(o);
    for (int64_t j = y.phase(o); j < int64_t(y.taps.size()); j += y.up, ++index)
      if (index >= 0 && index < y.in) row[count] = x + index * stride, weight[count++] = accumulate_t<T>(y.taps[j]);
  }
};

// The pattern repeats: a group of UP outputs reads the columns from m + g * DOWN on. P is the first tap of the first output.
template <int TAPS, int UP, int DOWN, int P> struct Pattern {
  static constexpr int up = UP, down = DOWN, window = (DOWN * (UP - 1) + TAPS - 1 - P) / UP + 1;
  static constexpr int taps = TAPS;
  // Does output q of a group read tap j, and in which column of the window?
  static constexpr bool meets(int q, int j) { return (q * DOWN + j - P) % UP == 0; }
  static constexpr int column(int q, int j) { return (q * DOWN + j - P) / UP; }
  static int64_t start(const Axis& x) { return (P - x.pad) / UP; }
};

// Calls f with the pattern of an axis; returns false if it is none that is compiled.
template <class F> bool with_pattern(const Axis& x, F&& f) {
  auto with_taps = [&](auto taps) {
    constexpr int n = decltype(taps)::value;
    if (x.up == 1 && x.down == 1) return f(Pattern<n, 1, 1, 0>{}), true;
    if (x.up == 1 && x.down == 2) return f(Pattern<n, 1, 2, 0>{}), true;
    if (x.up == 2 && x.down == 1 && x.phase(0) == 0) return f(Pattern<n, 2, 1, 0>{}), true;
    if (x.up == 2 && x.down == 1) return f(Pattern<n, 2, 1, 1>{}), true;
    return false;
  };
  if (x.taps.size() == 3) return with_taps(std::integral_constant<int, 3>{});
  if (x.taps.size() == 4) return with_taps(std::integral_constant<int, 4>{});
  return false;
}

// The whole problem, with a separable filter: y.taps, then x.taps. N samples of C feature maps.
struct Separable {
  int64_t n, c;
  Axis y, x;
};

constexpr int64_t rows_per_task = 16;

// Calls f(sample or feature map, first row, end row) for all the rows of the output, in parallel. Every output is
// computed in the same way whoever computes it, so the result does not depend on the number of threads.
template <class F> void each_block_of_rows(int64_t planes, int64_t rows, F f) {
  const int64_t blocks = (rows + rows_per_task - 1) / rows_per_task;
  torch::stable::parallel_for(0, planes * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % blocks * rows_per_task;
      f(i / blocks, first, std::min(rows, first + rows_per_task));
    }
  });
}

// For the layouts, each in a file of its own: returns false, and does nothing, where there is no fast path.
template <class T> bool filter_planes(const Separable& s, const T* in, T* out);
template <class T> bool filter_channels_last(const Separable& s, const T* in, T* out);

}  // namespace stylegan
