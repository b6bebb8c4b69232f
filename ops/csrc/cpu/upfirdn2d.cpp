// Pad, upsample, filter, downsample. ops/upfirdn2d.py defines the operation, and fir.h the indices. This file handles
// any filter and any factors, row by row; short separable filters have separate files for each layout.
#include "fir.h"

#include <cmath>
#include <numeric>
#include <type_traits>

namespace stylegan {
namespace {

using torch::headeronly::MemoryFormat;
using Ints = std::vector<int64_t>;

// Rows of taps in the order of the samples; column and row as well if the filter is the product of the two.
struct Filter {
  int64_t height = 1, width = 1;
  std::vector<double> taps = {1}, column, row;
  bool separable() const { return !column.empty(); }
  double at(int64_t i, int64_t j) const { return taps[i * width + j]; }
};

std::vector<double> values(const Tensor& f) {
  std::vector<double> v(f.numel());
  const Tensor dense = torch::stable::contiguous(f);
  with_type(f.scalar_type(), [&](auto t) { std::copy_n(data<decltype(t)>(dense), v.size(), v.begin()); });
  return v;
}

// Sets column and row if their product is exactly the filter. Products of two floats are exact in double.
void split(Filter& f) {
  const auto smaller = [](double a, double b) { return std::abs(a) < std::abs(b); };
  const int64_t top = std::max_element(f.taps.begin(), f.taps.end(), smaller) - f.taps.begin();
  const int64_t i0 = top / f.width, j0 = top % f.width;
  if (f.taps[top] == 0) return;
  for (int64_t i = 0; i < f.height; ++i)
    for (int64_t j = 0; j < f.width; ++j)
      if (f.at(i, j) * f.taps[top] != f.at(i, j0) * f.at(i0, j)) return;
  for (int64_t i = 0; i < f.height; ++i) f.column.push_back(f.at(i, j0));
  for (int64_t j = 0; j < f.width; ++j) f.row.push_back(f.at(i0, j) / f.taps[top]);
}

// A convolution uses the taps in reverse order, a correlation (flip) as they are.
Filter filter_of(const std::optional<Tensor>& given, bool flip, double gain) {
  Filter f;
  if (given) {
    f.taps = values(*given);
    f.height = given->size(0), f.width = given->size(given->dim() - 1);
    if (!flip) std::reverse(f.taps.begin(), f.taps.end());
  }
  if (given && given->dim() == 1) f.column = f.row = f.taps;
  else split(f);
  for (double& tap : f.separable() ? f.column : f.taps) tap *= gain;
  return f;
}

// The outputs along x that use a given tap: `count` outputs, every so-th from o on, with every si-th input from i on.
struct Span {
  int64_t o = 0, i = 0, so, si, count = 0;
  Span(const Axis& x, int64_t tap) {
    const int64_t common = std::gcd(x.up, x.down);
    so = x.up / common, si = x.down / common;
    for (; o < so; ++o)
      if ((o * x.down - x.pad + tap) % x.up == 0) break;
    if (o == so) return;
    i = (o * x.down - x.pad + tap) / x.up;
    const int64_t skip = i < 0 ? (-i + si - 1) / si : 0;
    o += skip * so, i += skip * si;
    if (o < x.out && i < x.in) count = std::min((x.out - 1 - o) / so, (x.in - 1 - i) / si) + 1;
  }
};

// sum[n] += x[n] * weight.
template <class T, class A> void add(A* sum, const T* x, int64_t n, A weight) {
  constexpr int w = width<A>;
  int64_t i = 0;
  for (; i + w <= n; i += w) store(sum + i, load(sum + i) + load(x + i) * weight);
  for (; i < n; ++i) sum[i] += A(x[i]) * weight;
}

// Any filter, in any layout. A row consists of pixels of one feature map, or of all channels (channels_last).
template <class T> class General {
 public:
  using A = accumulate_t<T>;
  General(const Separable& s, const Filter& f, bool last)
      : s(s), f(f), reads(s.y), pixel(last ? s.c : 1), planes(last ? s.n : s.n * s.c) {
    for (int64_t j = 0; j < f.width; ++j) spans.emplace_back(s.x, j);
  }

  void run(const T* in, const Result<T>& out) const {
    const int64_t row_in = s.x.in * pixel, row_out = s.x.out * pixel;
    each_block_of_rows(planes, s.y, row_out, [&] {
      return [&, input = std::vector<A>(row_in), sum = std::vector<A>(row_out)](int64_t plane, int64_t first,
                                                                                int64_t end) mutable {
        for (int64_t o = first; o < end; ++o) {
          std::fill(sum.begin(), sum.end(), A(0));
          filter_rows(in + (plane * s.y.in + reads[o].index) * row_in, reads[o], input, sum);
          const int64_t to = (plane * s.y.out + o) * row_out;
          for (int64_t i = 0; i < row_out; i += width<A>) {
            const int count = int(std::min<int64_t>(width<A>, row_out - i));
            out.put(to + i, load(&sum[i], count), count);
          }
        }
      };
    });
  }

 private:
  void filter_rows(const T* x, const typename Reads<A>::Read& rows, std::vector<A>& input, std::vector<A>& sum) const {
    if (!rows.count) return;
    for (int k = 0; k < rows.count; ++k, x += input.size()) {
      if (k == 0 || !f.separable()) std::fill(input.begin(), input.end(), A(0));
      add(input.data(), x, input.size(), f.separable() ? rows.weight[k] : A(1));
      if (!f.separable()) spread(input, &f.taps[int64_t(rows.weight[k]) * f.width], sum);
    }
    if (f.separable()) spread(input, f.row.data(), sum);
  }

  void spread(const std::vector<A>& input, const double* taps, std::vector<A>& sum) const {
    for (int64_t j = 0; j < f.width; ++j) {
      const Span& span = spans[j];
      A* to = sum.data() + span.o * pixel;
      const A* from = input.data() + span.i * pixel;
      const A weight = A(taps[j]);
      if (span.so == 1 && span.si == 1)
        add(to, from, span.count * pixel, weight);
      else if (pixel == 1)
        for (int64_t k = 0; k < span.count; ++k) to[k * span.so] += from[k * span.si] * weight;
      else
        for (int64_t k = 0; k < span.count; ++k) add(to + k * span.so * pixel, from + k * span.si * pixel, pixel, weight);
    }
  }

  const Separable& s;
  const Filter& f;
  Reads<A> reads;
  int64_t pixel, planes;
  std::vector<Span> spans;
};

Tensor upfirdn2d(Tensor x, std::optional<Tensor> f, Ints up, Ints down, Ints padding, bool flip, double gain) {
  x = dense(x);
  const bool last = !x.is_contiguous();
  const Filter filter = filter_of(f, flip, gain);
  Separable s{x.size(0), x.size(1), {x.size(2), 0, up[1], down[1], padding[2], filter.column},
              {x.size(3), 0, up[0], down[0], padding[0], filter.row}};
  if (!filter.separable()) {  // then the weight of a row is its index in the filter
    s.y.taps.resize(filter.height), s.x.taps.resize(filter.width);
    std::iota(s.y.taps.begin(), s.y.taps.end(), 0.0);
  }
  s.y.out = (s.y.in * s.y.up + padding[2] + padding[3] - filter.height) / s.y.down + 1;
  s.x.out = (s.x.in * s.x.up + padding[0] + padding[1] - filter.width) / s.x.down + 1;
  const int64_t size[] = {s.n, s.c, s.y.out, s.x.out};
  const auto format = last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
  Tensor y = torch::stable::empty({size, 4}, x.scalar_type(), std::nullopt, x.device(), std::nullopt, format);
  if (!y.numel()) return y;
  with_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const T* from = data<T>(x);
    const Result<T> to(data_out<T>(y), y.numel());
    if constexpr (std::is_same_v<T, float> || std::is_same_v<T, bf16>)
      if (filter.separable() && (last ? filter_channels_last(s, from, to) : filter_planes(s, from, to))) return;
    General<T>(s, filter, last).run(from, to);
  });
  return y;
}

}  // namespace
}  // namespace stylegan

STABLE_TORCH_LIBRARY_IMPL(stylegan, CPU, m) { m.impl("upfirdn2d", TORCH_BOX(&stylegan::upfirdn2d)); }
