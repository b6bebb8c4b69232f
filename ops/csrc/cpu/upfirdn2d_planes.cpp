// Short separable filters in contiguous memory: a few rows of the output at a time, from left to right. A vector of
// each input row is loaded once and added to all these rows. The sums stay in registers while they are filtered
// horizontally.
#include "fir.h"

#include <array>
#include <utility>

namespace stylegan {
namespace {

constexpr int w = width<float>;

// Every second lane of a and then b, from S on.
template <int S, int... I> FloatLanes every_other(FloatLanes a, FloatLanes b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (S + 2 * I)...);
}
// The lanes of a and b alternately, from lane S on.
template <int S, int... I> FloatLanes woven(FloatLanes a, FloatLanes b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (S + I / 2 + I % 2 * w)...);
}
constexpr std::make_integer_sequence<int, w> all{};

// Three neighbouring vectors of a row; at<D>() is the middle one, shifted by D lanes.
struct Around {
  FloatLanes before{}, here{}, after{};
  template <int D> FloatLanes at() const {
    if constexpr (D < 0) return slide<D + w>(before, here);
    else if constexpr (D > 0) return slide<D>(here, after);
    else return here;
  }
};

// Calls f with the constants 0, 1, ... N - 1, so that the arrays that it indexes can stay in registers.
#define STYLEGAN_INLINE __attribute__((always_inline))
template <int N, class F> STYLEGAN_INLINE inline void each(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) STYLEGAN_INLINE {
    (f(std::integral_constant<int, I>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

// P: the pattern of both axes. START: about the first column that the first output reads; `offset` is the difference.
// Vectors are loaded from `offset` plus multiples of their size.
template <class P, int START> struct Tile {
  static constexpr int rows = 4, groups = rows / P::up;
  static constexpr int reads = P::window + (groups - 1) * P::down;  // input rows
  using Sums = std::array<std::array<Around, P::down>, rows>;        // if down is 2: even columns, odd columns

  const float *column_taps, *row_taps;
  int64_t in, out, offset;

  // Advances to the next vectors: the sums over the input rows for the columns from i on.
  template <class T> STYLEGAN_INLINE void next(const T* const* row, int64_t i, Sums& s) const {
    FloatLanes sums[rows][P::down] = {};
    if (i < in)
      each<P::down>([&](auto d) STYLEGAN_INLINE {
        const Inside inside(i + d * w, in);
        each<reads>([&](auto k) STYLEGAN_INLINE {
          const FloatLanes x = load(row[k] + i + d * w, inside);
          if constexpr (k >= reads - groups * P::down)
            __builtin_prefetch(row[k] + groups * P::down * in + i + d * w);
          each<rows>([&](auto r) STYLEGAN_INLINE {
            each<P::taps>([&](auto j) STYLEGAN_INLINE {
              if constexpr (P::meets(r % P::up, j) && P::column(r % P::up, j) + r / P::up * P::down == k)
                sums[r][d] += x * column_taps[j];
            });
          });
        });
      });
    each<rows>([&](auto r) STYLEGAN_INLINE {
      each<P::down>([&](auto d) STYLEGAN_INLINE {
        Around& a = s[r][d];
        a.before = a.here, a.here = a.after;
        if constexpr (P::down == 1) a.after = sums[r][0];
        else a.after = every_other<d>(sums[r][0], sums[r][1], all);
      });
    });
  }

  // Output Q of each group.
  template <int Q> STYLEGAN_INLINE FloatLanes filtered(const std::array<Around, P::down>& s) const {
    FloatLanes y{};
    each<P::taps>([&](auto j) STYLEGAN_INLINE {
      if constexpr (P::meets(Q, j)) {
        constexpr int column = START + P::column(Q, j), odd = column & (P::down - 1);
        y += s[odd].template at<(column - odd) / P::down>() * row_taps[j];
      }
    });
    return y;
  }

  // Computes the first `count` rows of the output, from `to` on. row: the input rows, `in` elements each.
  template <class T> void run(const T* const* row, const Result<T>& y, int64_t to, int count) const {
    Sums s{};
    if (offset > 0) next(row, offset - w * P::down, s);
    next(row, offset, s);
    for (int64_t o = 0, i = offset + w * P::down; o < out; o += w * P::up, i += w * P::down) {
      next(row, i, s);
      const int64_t left = out - o;
      each<rows>([&](auto r) STYLEGAN_INLINE {
        if (r >= count) return;
        const int64_t at = to + r * out + o;
        const FloatLanes a = filtered<0>(s[r]);
        if constexpr (P::up == 1) {
          y.put(at, a, int(std::min<int64_t>(w, left)));
        } else {
          const FloatLanes b = filtered<1>(s[r]);
          y.put(at, woven<0>(a, b, all), int(std::min<int64_t>(w, left)));
          if (left > w) y.put(at + w, woven<w / 2>(a, b, all), int(std::min<int64_t>(w, left - w)));
        }
      });
    }
  }
};

template <class P, int START, class T> void filter(const Separable& s, const T* in, const Result<T>& out) {
  float column_taps[P::taps], row_taps[P::taps];
  std::copy_n(s.y.taps.begin(), P::taps, column_taps);
  std::copy_n(s.x.taps.begin(), P::taps, row_taps);
  using Rows = Tile<P, START>;
  const Rows tile{column_taps, row_taps, s.x.in, s.x.out, P::start(s.x) - START};
  each_block_of_rows(s.n * s.c, s.y, s.x.out, [&] {
    return [&, zeros = std::vector<T>(s.x.in, T(0))](int64_t plane, int64_t first, int64_t end) {
      for (int64_t o = first; o < end; o += Rows::rows) {
        const T* row[Rows::reads];
        for (int k = 0; k < Rows::reads; ++k) {
          const int64_t i = P::start(s.y) + o / P::up * P::down + k;
          row[k] = i < 0 || i >= s.y.in ? zeros.data() : in + (plane * s.y.in + i) * s.x.in;
        }
        tile.run(row, out, (plane * s.y.out + o) * s.x.out, int(std::min<int64_t>(Rows::rows, end - o)));
      }
    };
  });
}

}  // namespace

template <class T> bool filter_planes(const Separable& s, const T* in, const Result<T>& out) {
  if (s.y.taps.size() != s.x.taps.size() || s.y.up != s.x.up || s.y.down != s.x.down) return false;
  if (s.y.phase(0) != s.x.phase(0)) return false;
  return with_pattern(s.x, [&](auto pattern) {
    using P = decltype(pattern);
    if constexpr (P::taps == 4 && P::up == 1 && P::down == 1)
      if (P::start(s.x) == -2) return filter<P, -2>(s, in, out);
    filter<P, -1>(s, in, out);
  });
}

template bool filter_planes(const Separable&, const float*, const Result<float>&);
template bool filter_planes(const Separable&, const bf16*, const Result<bf16>&);

}  // namespace stylegan
