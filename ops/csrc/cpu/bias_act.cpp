// Bias and activation, and their first two derivatives, in one pass over memory each. ops/bias_act.py defines them.
#include "lanes.h"  // first, because the activations use its exp and tanh
//
#include "../activation.h"
#include "../tensors.h"

#include <algorithm>
#include <tuple>
#include <vector>

namespace stylegan {
namespace {

constexpr int64_t chunk = 16384;  // elements that one thread processes at a time

// The position of the channels in dense memory: outer x channels x inner elements.
struct Layout {
  int64_t outer, channels, inner;
  int64_t count() const { return outer * channels * inner; }
};

Layout layout_of(const Tensor& x, int64_t dim) {
  if (x.dim() == 0) return {1, 1, 1};
  if (x.numel() == 0) return {0, x.size(dim), 1};
  int64_t inner = 1;
  for (int64_t d = 0; d < x.dim(); ++d)
    if (x.stride(d) < x.stride(dim) || (x.stride(d) == x.stride(dim) && d > dim)) inner *= x.size(d);
  return {x.numel() / (x.size(dim) * inner), x.size(dim), inner};
}

int64_t padded(int64_t channels) { return (channels + 15) / 16 * 16; }

// [C], padded with zeros so that whole vectors can be read; empty if there is no bias.
template <class A> std::vector<A> padded_copy(const std::optional<Tensor>& bias, int64_t channels) {
  std::vector<A> copy;
  if (bias) {
    copy.assign(padded(channels), A(0));
    const Tensor dense = torch::stable::contiguous(*bias);  // a gradient may be an expanded number
    std::copy_n(data<A>(dense), channels, copy.begin());
  }
  return copy;
}

// Up to two values to add to each channel of a vector: [C], or null.
template <class A> struct Biases {
  const A *first, *second = nullptr;
  struct Lane {
    Lanes<A> first, second;
  };
  Lane of_one(int64_t c) const { return {first ? splat(first[c]) : Lanes<A>{}, second ? splat(second[c]) : Lanes<A>{}}; }
  Lane from(int64_t c) const { return {first ? load(first + c) : Lanes<A>{}, second ? load(second + c) : Lanes<A>{}}; }
};

// Calls f(offset, count, biases) for every vector of up to `width` elements, in parallel, and adds its results to
// sums[C] (if Sums), in an order that does not depend on the number of threads. f captures by value, as for
// in_parallel.
template <class A, bool Sums, class F> void each_vector(const Layout& l, Biases<A> biases, A* sums, F f) {
  constexpr int64_t w = width<A>;
  const bool rows = l.inner == 1;
  const int64_t row = rows ? l.channels : l.inner, count = l.outer * (rows ? 1 : l.channels), channels = l.channels;
  const int64_t rows_per_part = std::max<int64_t>(1, chunk / std::max<int64_t>(row, 1));
  const int64_t parts = (count + rows_per_part - 1) / rows_per_part, stride = padded(channels);
  std::vector<A> partial(Sums ? (rows ? parts * stride : count) : 0, A(0));
  in_parallel(parts, 1, [=, partial = partial.data()](int64_t first, int64_t last) {
    for (int64_t part = first; part < last; ++part)
      for (int64_t r = part * rows_per_part; r < std::min(count, (part + 1) * rows_per_part); ++r) {
        const int64_t begin = r * row;
        if (rows) {
          auto at = [&](int64_t c, int n) __attribute__((always_inline)) {
            const Lanes<A> y = f(begin + c, n, biases.from(c));
            if constexpr (Sums) {
              A* sum = partial + part * stride + c;
              store(sum, load(sum, n) + y, n);
            }
          };
          int64_t c = 0;
          for (; c + w <= row; c += w) at(c, int(w));
          if (c < row) at(c, int(row - c));
        } else {
          const auto bias = biases.of_one(r % channels);
          Lanes<A> sum{};
          int64_t i = 0;
          for (; i + w <= row; i += w) {
            const Lanes<A> y = f(begin + i, int(w), bias);
            if constexpr (Sums) sum += y;
          }
          Lanes<A> rest{};
          if (i < row) rest = f(begin + i, int(row - i), bias);
          if constexpr (Sums) {
            for (int k = 0; k < row - i; ++k) sum[k] += rest[k];
            partial[r] = sum_lanes<A>(sum);
          }
        }
      }
  });
  if (!Sums) return;
  std::fill_n(sums, channels, A(0));
  const int64_t step = rows ? stride : channels;
  for (int64_t p = 0; p < (rows ? parts : l.outer); ++p)
    for (int64_t c = 0; c < channels; ++c) sums[c] += partial[p * step + c];
}

// If the channels do not matter, memory can be divided into rows of any length.
Layout flat(const Layout& l) {
  const int64_t n = l.count();
  return n % 1024 ? Layout{1, 1, n} : Layout{n / 1024, 1024, 1};
}

template <Act act> struct Constant {
  template <class A> static Lanes<A> value(Act, Lanes<A> x, A s) { return activate<act>(x, s); }
  template <class A> static Lanes<A> slope(Act, Lanes<A> x, A s) { return slope_at<act>(x, s); }
};

// Smooth activations are so expensive that a switch for each vector does not matter.
struct Chosen {
#define STYLEGAN_CHOOSE(f, x, s)                            \
  switch (act) {                                            \
    case Act::linear: return f<Act::linear>(x, s);          \
    case Act::relu: return f<Act::relu>(x, s);              \
    case Act::lrelu: return f<Act::lrelu>(x, s);            \
    case Act::tanh: return f<Act::tanh>(x, s);              \
    case Act::sigmoid: return f<Act::sigmoid>(x, s);        \
    case Act::elu: return f<Act::elu>(x, s);                \
    case Act::selu: return f<Act::selu>(x, s);              \
    case Act::softplus: return f<Act::softplus>(x, s);      \
    default: return f<Act::swish>(x, s);                    \
  }
  template <class A> static Lanes<A> value(Act act, Lanes<A> x, A s) { STYLEGAN_CHOOSE(activate, x, s) }
  template <class A> static Lanes<A> slope(Act act, Lanes<A> x, A s) { STYLEGAN_CHOOSE(slope_at, x, s) }
  template <class A> static Lanes<A> curvature(Act act, Lanes<A> x, A s) { STYLEGAN_CHOOSE(curvature_at, x, s) }
#undef STYLEGAN_CHOOSE
};

template <class T, class F> void with_activation(Act act, F&& f) {
  if constexpr (trained_in<T>) {
    if (act == Act::linear) return f(Constant<Act::linear>{});
    if (act == Act::relu) return f(Constant<Act::relu>{});
    if (act == Act::lrelu) return f(Constant<Act::lrelu>{});
  }
  f(Chosen{});
}

template <class A> struct Params {
  Act act;
  A slope, gain, clamp;
  bool clamped;
  Params(int64_t act, double slope, double gain, double clamp)
      : act(Act(act)), slope(A(slope)), gain(A(gain)), clamp(A(clamp)), clamped(clamp >= 0) {}
};

// Zero where the result was clamped. seen: the result of a piecewise linear activation, else the input plus bias.
template <class F, class A>
STYLEGAN_INLINE Lanes<A> mask_clamped(F f, Lanes<A> value, Lanes<A> seen, const Params<A>& p) {
  if (!p.clamped) return value;
  if (piecewise_linear(p.act)) return seen >= p.clamp || seen <= -p.clamp ? Lanes<A>{} : value;
  const Lanes<A> y = f.template value<A>(p.act, seen, p.slope) * p.gain;
  return y > p.clamp || y < -p.clamp ? Lanes<A>{} : value;
}

Tensor bias_act(Tensor x, std::optional<Tensor> bias, int64_t dim, int64_t act, double slope, double gain, double clamp) {
  x = dense(x);
  Tensor y = torch::stable::empty_like(x);
  Layout l = layout_of(x, dim);
  if (!bias) l = flat(l);
  with_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    using A = accumulate_t<T>;
    const std::vector<A> padded_bias = padded_copy<A>(bias, l.channels);
    const T* in = data<T>(x);
    const Result<T> out(data_out<T>(y), y.numel());
    const Params<A> p(act, slope, gain, clamp);
    with_activation<T>(p.act, [&](auto f) {
      each_vector<A, false>(l, {padded_bias.data()}, nullptr, [=](int64_t at, int n, auto bias) __attribute__((always_inline)) {
        Lanes<A> u = f.template value<A>(p.act, load(in + at, n) + bias.first, p.slope) * p.gain;
        if (p.clamped) u = u > p.clamp ? splat(p.clamp) : u < -p.clamp ? splat(-p.clamp) : u;
        out.put(at, u, n);
        return u;
      });
    });
  });
  return y;
}

std::tuple<Tensor, Tensor> bias_act_grad(Tensor dy, std::optional<Tensor> db, Tensor seen, std::optional<Tensor> bias,
                                         int64_t dim, int64_t act, double slope, double gain, double clamp,
                                         bool reduce) {
  seen = dense(seen);
  dy = in_layout_of(dy, seen);
  Tensor dx = torch::stable::empty_like(seen);
  const int64_t sums[] = {reduce ? dy.size(dim) : 0};
  Tensor total = torch::stable::new_empty(dy, {sums, 1}, compute_type(dy));
  Layout l = layout_of(seen, dim);
  if (!bias && !db && !reduce) l = flat(l);
  with_type(dy.scalar_type(), [&](auto t) {
    using T = decltype(t);
    using A = accumulate_t<T>;
    const std::vector<A> padded_bias = padded_copy<A>(bias, l.channels), padded_db = padded_copy<A>(db, l.channels);
    const Biases<A> biases{padded_bias.data(), padded_db.data()};
    const T *in = data<T>(dy), *sign = data<T>(seen);
    const Result<T> out(data_out<T>(dx), dx.numel());
    const Params<A> p(act, slope, gain, clamp);
    with_activation<T>(p.act, [&](auto f) {
      auto at_vector = [=](int64_t at, int n, auto bias) __attribute__((always_inline)) {
        Lanes<A> g = load(in + at, n) + bias.second;
        const Lanes<A> u = load(sign + at, n) + bias.first;
        // A piecewise linear result has the sign of the input, or the opposite sign if the gain is negative.
        const Lanes<A> at_u = piecewise_linear(p.act) && p.gain < 0 ? -u : u;
        g = mask_clamped<decltype(f), A>(f, g * p.gain * f.template slope<A>(p.act, at_u, p.slope), u, p);
        out.put(at, g, n);
        return g;
      };
      if (reduce) each_vector<A, true>(l, biases, data_out<A>(total), at_vector);
      else each_vector<A, false>(l, biases, nullptr, at_vector);
    });
  });
  return {dx, total};
}

Tensor bias_act_grad2(Tensor dy, std::optional<Tensor> db, Tensor ddx, Tensor x, std::optional<Tensor> bias,
                      int64_t dim, int64_t act, double slope, double gain, double clamp) {
  x = dense(x);
  dy = in_layout_of(dy, x);
  ddx = in_layout_of(ddx, x);
  Tensor out = torch::stable::empty_like(x);
  Layout l = layout_of(x, dim);
  if (!bias && !db) l = flat(l);
  with_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    using A = accumulate_t<T>;
    const std::vector<A> padded_bias = padded_copy<A>(bias, l.channels), padded_db = padded_copy<A>(db, l.channels);
    const Biases<A> biases{padded_bias.data(), padded_db.data()};
    const T *in = data<T>(x), *g1 = data<T>(dy), *g2 = data<T>(ddx);
    const Result<T> to(data_out<T>(out), out.numel());
    const Params<A> p(act, slope, gain, clamp);
    each_vector<A, false>(l, biases, nullptr, [=](int64_t at, int n, auto bias) __attribute__((always_inline)) {
      const Lanes<A> g = load(g1 + at, n) + bias.second, u = load(in + at, n) + bias.first;
      Lanes<A> curved = g * load(g2 + at, n) * p.gain;
      curved = piecewise_linear(p.act) ? Lanes<A>{} : curved * Chosen::curvature<A>(p.act, u, p.slope);
      curved = mask_clamped<Chosen, A>(Chosen{}, curved, u, p);
      to.put(at, curved, n);
      return curved;
    });
  });
  return out;
}

}  // namespace
}  // namespace stylegan

STABLE_TORCH_LIBRARY_IMPL(stylegan, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&stylegan::bias_act));
  m.impl("bias_act_grad", TORCH_BOX(&stylegan::bias_act_grad));
  m.impl("bias_act_grad2", TORCH_BOX(&stylegan::bias_act_grad2));
}
