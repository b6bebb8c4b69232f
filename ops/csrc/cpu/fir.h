// Pad, upsample, filter, downsample along one axis: which inputs and taps an output uses.
//
// Output o starts at o * down - pad in the upsampled input, where only every up-th sample is not zero. It uses tap j if
// (o * down - pad + j) / up is an integer, which is then the index of the input.
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
  std::vector<double> taps;  // in the order of the samples, left to right

  int64_t phase(int64_t o) const { return ((pad - o * down) % up + up) % up; }  // the first tap that o uses
  int64_t first(int64_t o) const { return (o * down - pad + phase(o)) / up; }   // and its input
};

// For each output along an axis: the neighbouring inputs that it reads, within the edges, and their weights.
template <class A> class Reads {
 public:
  struct Read {
    int64_t index = 0;
    int count = 0;
    const A* weight = nullptr;
  };

  explicit Reads(const Axis& axis) : weights(axis.taps.size()), reads(axis.out) {
    const int64_t taps = axis.taps.size();
    std::vector<int64_t> start(axis.up + 1, 0);
    for (int64_t p = 0; p < axis.up; ++p) {
      start[p + 1] = start[p];
      for (int64_t j = p; j < taps; j += axis.up) weights[start[p + 1]++] = A(axis.taps[j]);
    }
    for (int64_t o = 0; o < axis.out; ++o) {
      const int64_t p = axis.phase(o), from = axis.first(o), skip = std::max<int64_t>(0, -from);
      const int64_t end = std::min(start[p + 1] - start[p], axis.in - from);
      if (skip < end) reads[o] = {from + skip, int(end - skip), &weights[start[p] + skip]};
    }
  }
  const Read& operator[](int64_t o) const { return reads[o]; }

 private:
  std::vector<A> weights;
  std::vector<Read> reads;
};

// A repeating pattern: group g of UP outputs reads the columns from m + g * DOWN on. P: the first tap of the first
// output.
template <int TAPS, int UP, int DOWN, int P> struct Pattern {
  static constexpr int up = UP, down = DOWN, window = (DOWN * (UP - 1) + TAPS - 1 - P) / UP + 1;
  static constexpr int taps = TAPS, phase = P;
  // Whether output q of a group uses tap j, and for which column of the window.
  static constexpr bool meets(int q, int j) { return (q * DOWN + j - P) % UP == 0; }
  static constexpr int column(int q, int j) { return (q * DOWN + j - P) / UP; }
  static int64_t start(const Axis& x) { return (P - x.pad) / UP; }
};

// Calls f with the pattern of an axis; returns false if that pattern is not compiled. Those of [1,2,1] and [1,3,3,1]
// with StyleGAN's padding are, and those of their gradients. Each one takes the compiler half a second.
template <class F> bool with_pattern(const Axis& x, F&& f) {
  const bool keeps = x.up == 1 && x.down == 1, halves = x.up == 1 && x.down == 2;
  const bool doubles = x.up == 2 && x.down == 1 && x.phase(0) == 0;
  if (x.taps.size() == 3 && keeps) return f(Pattern<3, 1, 1, 0>{}), true;
  if (x.taps.size() == 4 && keeps) return f(Pattern<4, 1, 1, 0>{}), true;
  if (x.taps.size() == 4 && halves) return f(Pattern<4, 1, 2, 0>{}), true;
  if (x.taps.size() == 4 && doubles) return f(Pattern<4, 2, 1, 0>{}), true;
  return false;
}

// The whole operation with a separable filter: y.taps, then x.taps, on n samples of c feature maps.
struct Separable {
  int64_t n, c;
  Axis y, x;
};

// Calls work(plane, first row, end row) for all rows of the output, in parallel; make() creates `work`, with the memory
// that it needs, for each thread. The computation of an output does not depend on the number of threads. The first row
// of a block is a multiple of 4.
template <class F> void each_block_of_rows(int64_t planes, const Axis& y, int64_t row_size, F make) {
  constexpr int64_t worthwhile = 16384;  // elements
  const int64_t rows = std::clamp<int64_t>(worthwhile / row_size, 8, std::max<int64_t>(8, y.out)) / 4 * 4;
  const int64_t blocks = (y.out + rows - 1) / rows;
  const int64_t grain = std::max<int64_t>(1, worthwhile / (row_size * std::min(rows, y.out)));
  in_parallel(planes * blocks, grain, [&](int64_t begin, int64_t end) {
    auto work = make();
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % blocks * rows;
      work(i / blocks, first, std::min(y.out, first + rows));
    }
  });
}

// One for each layout, in separate files; they return false, and do nothing, if there is no fast path.
template <class T> bool filter_planes(const Separable& s, const T* in, const Result<T>& out);
template <class T> bool filter_channels_last(const Separable& s, const T* in, const Result<T>& out);

}  // namespace stylegan
