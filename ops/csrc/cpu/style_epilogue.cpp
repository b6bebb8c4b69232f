// The epilogue of a StyleGAN layer, forward and backward: y = gain * normalise(lrelu(x + noise * strength + bias)) +
// shift.
//
// Both make two passes over memory: one for the sums over a feature map, one that writes the result. A feature map that
// is still in the cache after the first pass is not read from memory again. The work is divided into tiles, which are
// some channels of one sample (channels_last) or one feature map (contiguous), and tiles into chunks of pixels. The
// sums of chunks are added in a fixed order, so that the result does not depend on the number of threads.
#include "../tensors.h"
#include "lanes.h"
#include "normals.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <type_traits>
#include <vector>

namespace stylegan {
namespace {

using Maybe = const std::optional<Tensor>&;

// Pixels per chunk: few enough for each lane to sum in its own type; the sums of chunks are added in double. In
// contiguous memory the pixels are distributed over many lanes.
template <bool last> constexpr int64_t chunk_pixels = last ? 256 : 4096;

// The arguments per channel or per sample, as plain pointers, or null if they are missing.
template <class A> struct Settings {
  const A *bias, *strength, *style;  // [C], [C], [N,2C]
  const A* noise;                    // [1 or N, pixels]
  int64_t noise_stride;              // from the noise of one sample to that of the next
  A slope;
  bool norm;
};

struct Shape {
  int64_t n, c, pixels;
};

// A value for each channel of a tile: K vectors with neighbouring channels, or one vector with one channel in all
// lanes.
template <class A, int K> struct PerChannel {
  Lanes<A> at[K];
  const Lanes<A>& operator[](int k) const { return at[k]; }
};

// A tile, of which K x P vectors are processed at a time. In channels_last: K vectors with neighbouring channels of
// each of P pixels. Otherwise K is 1: P vectors with neighbouring pixels of a channel.
template <class T, bool last, int K, int P> struct Tile {
  using A = accumulate_t<T>;
  using Spread = PerChannel<A, K>;
  static constexpr int w = width<A>;
  int64_t n, c, offset;  // sample, first channel, first element
  int count;             // number of channels
  Shape shape;

  Spread spread(const A* values, A otherwise = 0) const {
    Spread s;
    for (int k = 0; k < K; ++k) {
      if (!values || count <= k * w * last) s.at[k] = splat(otherwise);
      else if (last) s.at[k] = load(values + c + k * w, std::min(w, count - k * w));
      else s.at[k] = splat(values[c]);
    }
    return s;
  }
  // The sum of K x P vectors for each channel; and `put` stores such values in an array of all channels.
  Spread together(const Lanes<A>* sums) const {
    Spread s;
    std::copy_n(sums, K, s.at);
    for (int i = K; i < K * P; ++i) s.at[i % K] += sums[i];
    if (!last) s.at[0] = splat(sum_lanes<A>(s.at[0]));
    return s;
  }
  void put(const Spread& s, A* out) const {
    for (int k = 0; k < K && k * w < count; ++k) store(out + c + k * w, s.at[k], std::min(w, count - k * w));
  }

  // While a feature map is written, the next one is loaded into the cache, so that reading and writing overlap.
  void fetch_next(const T* at) const {
    if (!last) __builtin_prefetch(at + shape.pixels);
  }

  // Calls f(k, i, element, lanes, noise) for each vector of the pixels [begin, end): the k-th of the channels, the i-th
  // of the K x P.
  template <class F>
  __attribute__((always_inline)) void each(int64_t begin, int64_t end, const A* noise, F f) const {
    constexpr std::integral_constant<int, w> whole;
    int64_t at = begin;
    if constexpr (last) {
      auto pixel = [&](int p, int vectors, auto lanes) __attribute__((always_inline)) {
        const Lanes<A> z = noise ? splat(noise[at + p]) : Lanes<A>{};
#pragma GCC unroll 4
        for (int k = 0; k < vectors; ++k) f(k, p * K + k, offset + (at + p) * shape.c + k * w, lanes(k), z);
      };
      if (count == K * w)
        for (; at + P <= end; at += P)
#pragma GCC unroll 4
          for (int p = 0; p < P; ++p) pixel(p, K, [&](int) { return whole; });
      for (; at < end; ++at) pixel(0, (count + w - 1) / w, [&](int k) { return std::min(w, count - k * w); });
    } else {
      auto noise_at = [&](int64_t i) __attribute__((always_inline)) { return noise ? load(noise + i) : Lanes<A>{}; };
      for (; at + P * w <= end; at += P * w) {
#pragma GCC unroll 4
        for (int p = 0; p < P; ++p) f(0, p, offset + at + p * w, whole, noise_at(at + p * w));
      }
      for (; at + w <= end; at += w) f(0, 0, offset + at, whole, noise_at(at));
      if (at < end) f(0, 0, offset + at, int(end - at), noise ? load(noise + at, int(end - at)) : Lanes<A>{});
    }
  }
};

// Lanes beyond the end of a feature map must not contribute to its sums.
template <class A> Lanes<A> first_lanes(Lanes<A> x, int count) {
  for (int i = count; i < width<A>; ++i) x[i] = 0;
  return x;
}
template <bool last, class A> Lanes<A> counted(Lanes<A> x, int count) {
  return last || count == width<A> ? x : first_lanes<A>(x, count);
}

// Calls sum(tile, chunk), then finish(tile), then write(tile, chunk) for all, in parallel over tiles if there are
// enough of them, else over chunks. The three functions are copied, see in_parallel.
template <class S, class F, class W>
void two_passes(int64_t tiles, int64_t chunks, bool sums, S sum, F finish, W write) {
  if (tiles >= torch::stable::get_num_threads() || chunks == 1) {
    in_parallel(tiles, 1, [=](int64_t first, int64_t end) {
      for (int64_t t = first; t < end; ++t) {
        for (int64_t k = 0; sums && k < chunks; ++k) sum(t, k);
        finish(t);
        for (int64_t k = 0; k < chunks; ++k) write(t, k);
      }
    });
    return;
  }
  auto over_all = [&](auto pass) {
    in_parallel(tiles * chunks, 1, [=](int64_t first, int64_t end) {
      for (int64_t i = first; i < end; ++i) pass(i / chunks, i % chunks);
    });
  };
  if (sums) over_all(sum);
  for (int64_t t = 0; t < tiles; ++t) finish(t);
  over_all(write);
}

template <class T, bool last, int K, int P> struct Epilogue {
  using A = accumulate_t<T>;
  using Piece = Tile<T, last, K, P>;
  static constexpr int w = width<A>;

  Shape shape;
  Settings<A> set;
  int64_t tiles_per_sample = last ? (shape.c + K * w - 1) / (K * w) : shape.c;
  int64_t tiles = shape.n * tiles_per_sample;
  int64_t chunks = (shape.pixels + chunk_pixels<last> - 1) / chunk_pixels<last>;

  // Two sums for each sample, chunk and channel, of which there are `places`.
  int64_t places = shape.n * chunks * shape.c;
  A *first = nullptr, *second = nullptr;

  Piece tile(int64_t t) const {
    const int64_t n = t / tiles_per_sample, c = t % tiles_per_sample * (last ? K * w : 1);
    const int64_t offset = last ? n * shape.pixels * shape.c + c : t * shape.pixels;
    return {n, c, offset, last ? int(std::min<int64_t>(K * w, shape.c - c)) : 1, shape};
  }
  const A* noise(const Piece& p) const { return set.noise ? set.noise + p.n * set.noise_stride : nullptr; }
  A* part(A* sums, const Piece& p, int64_t chunk) const { return sums + (p.n * chunks + chunk) * shape.c; }
  static int64_t begin(int64_t chunk) { return chunk * chunk_pixels<last>; }
  int64_t end(int64_t chunk) const { return std::min(shape.pixels, (chunk + 1) * chunk_pixels<last>); }

  double total(A* sums, const Piece& p, int64_t c) const {
    double sum = 0;
    for (int64_t k = 0; k < chunks; ++k) sum += part(sums, p, k)[c];
    return sum;
  }

  // The operations before the norm. Captured by value, see in_parallel.
  struct Layer {
    typename Piece::Spread bias, strength;
    Lanes<A> slope;
    Lanes<A> input(int k, Lanes<A> x, Lanes<A> noise) const { return x + noise * strength[k] + bias[k]; }
    Lanes<A> activate(Lanes<A> u) const { return larger(u * slope, u); }  // the slope is at most 1
    Lanes<A> operator()(int k, Lanes<A> x, Lanes<A> noise) const { return activate(input(k, x, noise)); }
  };
  Layer layer(const Piece& p) const { return {p.spread(set.bias), p.spread(set.strength), splat(set.slope)}; }

  // (1 + scale) / deviation.
  typename Piece::Spread gain(const Piece& p, const A* rstd) const {
    auto gain = p.spread(set.style ? set.style + p.n * 2 * shape.c : nullptr);
    const auto over = p.spread(rstd + p.n * shape.c);
    for (int k = 0; k < K; ++k) gain.at[k] = (gain.at[k] + 1) * over.at[k];
    return gain;
  }

  void forward(const T* x, Result<T> y, A* mean, A* rstd, A eps) {
    std::vector<A> sums(2 * places);
    first = sums.data(), second = first + places;
    two_passes(
        tiles, chunks, set.norm,
        [=, *this](int64_t t, int64_t chunk) {
          // Sums of differences from the mean of the first pixels, so that the variance is accurate even if the mean
          // is large.
          const Piece p = tile(t);
          const Layer a = layer(p);
          const int64_t some = std::min<int64_t>(shape.pixels, w);
          Lanes<A> s1[K * P] = {}, s2[K * P] = {};
          p.each(0, some, noise(p), [&](int k, int i, int64_t e, int n, Lanes<A> z) __attribute__((always_inline)) {
            s1[i] += counted<last, A>(a(k, load(x + e, n), z), n) / A(some);
          });
          const auto origin = p.together(s1);
          if (chunk == 0) p.put(origin, mean + p.n * shape.c);
          std::fill_n(s1, K * P, Lanes<A>{});
          p.each(begin(chunk), end(chunk), noise(p), [&](int k, int i, int64_t e, int n, Lanes<A> z) __attribute__((always_inline)) {
            const Lanes<A> d = counted<last, A>(a(k, load(x + e, n), z) - origin[k], n);
            s1[i] += d;
            s2[i] += d * d;
          });
          p.put(p.together(s1), part(first, p, chunk));
          p.put(p.together(s2), part(second, p, chunk));
        },
        [=, *this](int64_t t) {
          const Piece p = tile(t);
          for (int64_t c = p.c; c < p.c + p.count; ++c) {
            A &m = mean[p.n * shape.c + c], &r = rstd[p.n * shape.c + c];
            if (set.norm) {
              const double d = total(first, p, c) / shape.pixels;
              m += A(d);
              r = A(1 / std::sqrt(std::max(0.0, total(second, p, c) / shape.pixels - d * d) + double(eps)));
            } else {
              m = 0, r = 1;
            }
          }
        },
        [=, *this](int64_t t, int64_t chunk) {
          const Piece p = tile(t);
          const Layer a = layer(p);
          const Result<T> out = y;
          const auto centre = p.spread(mean + p.n * shape.c), scale = gain(p, rstd);
          const auto shift = p.spread(set.style ? set.style + (p.n * 2 + 1) * shape.c : nullptr);
          p.each(begin(chunk), end(chunk), noise(p), [&](int k, int i, int64_t e, int n, Lanes<A> z) __attribute__((always_inline)) {
            p.fetch_next(x + e);
            out.put(e, (a(k, load(x + e, n), z) - centre[k]) * scale[k] + shift[k], n);
          });
        });
  }

  // d_bias, d_strength: [C]  d_style: [N,2C] or null.
  void backward(const T* dy, const T* x, const A* mean, const A* rstd, Result<T> dx, A* d_bias, A* d_strength,
                A* d_style) {
    std::vector<A> sums(4 * places);
    first = sums.data(), second = first + places;
    A *bias_sums = second + places, *strength_sums = bias_sums + places;
    two_passes(
        tiles, chunks, set.norm || d_style,
        [=, *this](int64_t t, int64_t chunk) {
          const Piece p = tile(t);
          const Layer a = layer(p);
          const auto centre = p.spread(mean + p.n * shape.c);
          Lanes<A> s1[K * P] = {}, s2[K * P] = {};
          p.each(begin(chunk), end(chunk), noise(p), [&](int k, int i, int64_t e, int n, Lanes<A> z) __attribute__((always_inline)) {
            const Lanes<A> g = load(dy + e, n);
            s1[i] += g;
            s2[i] += g * (a(k, load(x + e, n), z) - centre[k]);
          });
          p.put(p.together(s1), part(first, p, chunk));
          p.put(p.together(s2), part(second, p, chunk));
        },
        [=, *this](int64_t t) {
          // From here on, the place of chunk 0 holds the total: of dy, and of dy times the normalised input.
          const Piece p = tile(t);
          for (int64_t c = p.c; c < p.c + p.count; ++c) {
            const A s1 = A(total(first, p, c)), s2 = A(total(second, p, c) * rstd[p.n * shape.c + c]);
            if (d_style) {
              d_style[p.n * 2 * shape.c + c] = s2;
              d_style[p.n * 2 * shape.c + shape.c + c] = s1;
            }
            part(first, p, 0)[c] = set.norm ? s1 / shape.pixels : 0;
            part(second, p, 0)[c] = set.norm ? s2 / shape.pixels * rstd[p.n * shape.c + c] : 0;
          }
        },
        [=, *this](int64_t t, int64_t chunk) {
          const Piece p = tile(t);
          const Layer a = layer(p);
          const Result<T> out = dx;
          const auto centre = p.spread(mean + p.n * shape.c), scale = gain(p, rstd);
          const auto m1 = p.spread(part(first, p, 0)), m2 = p.spread(part(second, p, 0));
          Lanes<A> sb[K * P] = {}, ss[K * P] = {};
          p.each(begin(chunk), end(chunk), noise(p), [&](int k, int i, int64_t e, int n, Lanes<A> z) __attribute__((always_inline)) {
            p.fetch_next(x + e);
            p.fetch_next(dy + e);
            const Lanes<A> u = a.input(k, load(x + e, n), z);
            Lanes<A> g = (load(dy + e, n) - m1[k] - (a.activate(u) - centre[k]) * m2[k]) * scale[k];
            g = u > 0 ? g : g * a.slope;
            out.put(e, g, n);
            g = counted<last, A>(g, n);
            sb[i] += g;
            ss[i] += g * z;
          });
          p.put(p.together(sb), part(bias_sums, p, chunk));
          p.put(p.together(ss), part(strength_sums, p, chunk));
        });
    for (int64_t c = 0; c < shape.c; ++c) d_bias[c] = d_strength[c] = 0;
    for (int64_t i = 0; i < shape.n * chunks; ++i)
      for (int64_t c = 0; c < shape.c; ++c) {
        d_bias[c] += bias_sums[i * shape.c + c];
        d_strength[c] += strength_sums[i * shape.c + c];
      }
  }
};

// Noise maps [N,pixels] for the time of one op: as given, or made of places. With C channels a map is 1/C of x, and in
// no place for longer than it is used.
std::optional<Tensor> noise_maps(const Tensor& x, Maybe noise, int64_t stream) {
  if (!noise || noise->scalar_type() != ScalarType::Long) return noise;
  const Tensor places = torch::stable::contiguous(*noise);
  const int64_t pixels = x.size(2) * x.size(3), size[] = {x.size(0), pixels};
  Tensor maps = torch::stable::new_empty(x, {size, 2}, compute_type(x));
  constexpr int64_t piece = 4096;
  const int64_t pieces = (pixels + piece - 1) / piece;
  auto fill = [&](auto* to) {
    in_parallel(size[0] * pieces, 1, [=, at = data<int64_t>(places)](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / pieces, first = i % pieces * piece;
        fill_normals(to + n * pixels + first, at + 2 * n, uint32_t(stream), first, std::min(piece, pixels - first));
      }
    });
  };
  if (compute_type(x) == ScalarType::Double) fill(data_out<double>(maps));
  else fill(data_out<float>(maps));
  return maps;
}

// Calls f with an Epilogue for the type, the layout and the number of channels of x.
template <class F>
void with_epilogue(const Tensor& x, Maybe bias, Maybe given, Maybe strength, Maybe style, int64_t stream, double slope,
                   bool norm, F f) {
  const Shape shape{x.size(0), x.size(1), x.size(2) * x.size(3)};
  const std::optional<Tensor> noise = noise_maps(x, given, stream);
  const int64_t noise_stride = noise && noise->size(0) > 1 ? shape.pixels : 0;
  with_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    using A = accumulate_t<T>;
    const bool noisy = noise && strength;
    const Settings<A> set{data<A>(bias), noisy ? data<A>(strength) : nullptr, data<A>(style),
                          noisy ? data<A>(noise) : nullptr, noise_stride, A(slope), norm};
    if (x.is_contiguous()) return f(t, Epilogue<T, false, 1, 4>{shape, set});
    // Few channels: their sums stay in registers. Many: whole pixels, because jumps between them prevent prefetching.
    if constexpr (trained_in<T>) {
      if (shape.c > 8 * width<A>) return f(t, Epilogue<T, true, 32, 1>{shape, set});
      if (shape.c <= width<A>) return f(t, Epilogue<T, true, 1, 4>{shape, set});
      if (shape.c <= 2 * width<A>) return f(t, Epilogue<T, true, 2, 2>{shape, set});
    }
    f(t, Epilogue<T, true, 4, 1>{shape, set});
  });
}

std::tuple<Tensor, Tensor, Tensor> style_epilogue(Tensor x, std::optional<Tensor> bias, std::optional<Tensor> noise,
                                                  std::optional<Tensor> strength, std::optional<Tensor> style,
                                                  int64_t stream, double slope, bool norm, double eps) {
  x = dense(x);
  Tensor y = torch::stable::empty_like(x);
  const int64_t size[] = {x.size(0), x.size(1)};
  Tensor mean = torch::stable::new_empty(x, {size, 2}, compute_type(x)), rstd = torch::stable::empty_like(mean);
  if (x.numel())
    with_epilogue(x, bias, noise, strength, style, stream, slope, norm, [&](auto t, auto epilogue) {
      using T = decltype(t);
      using A = accumulate_t<T>;
      epilogue.forward(data<T>(x), Result<T>(data_out<T>(y), y.numel()), data_out<A>(mean), data_out<A>(rstd), A(eps));
    });
  return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> style_epilogue_grad(Tensor dy, Tensor x, std::optional<Tensor> bias,
                                                               std::optional<Tensor> noise,
                                                               std::optional<Tensor> strength,
                                                               std::optional<Tensor> style, Tensor mean, Tensor rstd,
                                                               int64_t stream, double slope, bool norm) {
  x = dense(x);
  dy = in_layout_of(dy, x);
  Tensor dx = torch::stable::empty_like(x);
  const int64_t channels[] = {x.size(1)}, both[] = {style ? x.size(0) : 0, 2 * x.size(1)};
  const ScalarType type = compute_type(x);
  Tensor d_bias = torch::stable::new_zeros(x, {channels, 1}, type), d_strength = torch::stable::new_zeros(x, {channels, 1}, type);
  Tensor d_style = torch::stable::new_zeros(x, {both, 2}, type);
  if (x.numel())
    with_epilogue(x, bias, noise, strength, style, stream, slope, norm, [&](auto t, auto epilogue) {
      using T = decltype(t);
      using A = accumulate_t<T>;
      epilogue.backward(data<T>(dy), data<T>(x), data<A>(mean), data<A>(rstd), Result<T>(data_out<T>(dx), dx.numel()),
                        data_out<A>(d_bias), data_out<A>(d_strength), style ? data_out<A>(d_style) : nullptr);
    });
  return {dx, d_bias, d_strength, d_style};
}

}  // namespace
}  // namespace stylegan

STABLE_TORCH_LIBRARY_IMPL(stylegan, CPU, m) {
  m.impl("style_epilogue", TORCH_BOX(&stylegan::style_epilogue));
  m.impl("style_epilogue_grad", TORCH_BOX(&stylegan::style_epilogue_grad));
}
