// Vectors for the CPU kernels: 64 bytes of float or double, in the compiler's own vector type, so that the same source
// becomes AVX-512, AVX2, SSE or NEON. 16-bit types are widened when loaded and rounded to nearest even when stored.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

namespace stylegan {

using bf16 = c10::BFloat16;
using fp16 = c10::Half;

// The type in which a stored type is computed.
template <class T> struct accumulate { using type = float; };
template <> struct accumulate<double> { using type = double; };
template <class T> using accumulate_t = typename accumulate<T>::type;

// The types used for training on CPUs, which have a kernel for each special case. The others use the general kernels,
// because every kernel costs the user compile time.
template <class T> constexpr bool trained_in = std::is_same_v<T, float> || std::is_same_v<T, bf16>;

typedef float FloatLanes __attribute__((vector_size(64)));
typedef double DoubleLanes __attribute__((vector_size(64)));
template <class A> struct lanes_of;
template <> struct lanes_of<float> { using type = FloatLanes; };
template <> struct lanes_of<double> { using type = DoubleLanes; };
template <class A> using Lanes = typename lanes_of<A>::type;
template <class A> constexpr int width = 64 / sizeof(A);

typedef uint16_t U16Lanes __attribute__((vector_size(32)));
typedef uint32_t U32Lanes __attribute__((vector_size(64)));

#define STYLEGAN_EACH_LANE(f)                                     \
  inline FloatLanes f(FloatLanes x) {                             \
    for (int i = 0; i < width<float>; ++i) x[i] = std::f(x[i]);   \
    return x;                                                     \
  }                                                               \
  inline DoubleLanes f(DoubleLanes x) {                           \
    for (int i = 0; i < width<double>; ++i) x[i] = std::f(x[i]);  \
    return x;                                                     \
  }
STYLEGAN_EACH_LANE(exp)
STYLEGAN_EACH_LANE(expm1)
STYLEGAN_EACH_LANE(log1p)
STYLEGAN_EACH_LANE(tanh)
#undef STYLEGAN_EACH_LANE

template <class A> inline Lanes<A> splat(A value) { return Lanes<A>{} + value; }

// The maximum, in one instruction; b if one of them is NaN.
inline FloatLanes larger(FloatLanes a, FloatLanes b) {
#ifdef __AVX512F__
  return reinterpret_cast<FloatLanes>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#else
  return a > b ? a : b;
#endif
}
inline DoubleLanes larger(DoubleLanes a, DoubleLanes b) { return a > b ? a : b; }

// Lanes S, S + 1, ... of a, followed by those of b.
template <int S, class V> inline V slide(V a, V b) {
  return [&]<int... I>(std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (S + I)...);
  }(std::make_integer_sequence<int, sizeof(V) / sizeof(a[0])>{});
}

// Adds the second half to the first, and so on.
template <class A, int half = width<A> / 2> inline A sum_lanes(Lanes<A> x) {
  if constexpr (half == 0) return x[0];
  else return sum_lanes<A, half / 2>(x + slide<half>(x, x));
}

inline FloatLanes load(const float* p) { FloatLanes x; std::memcpy(&x, p, sizeof x); return x; }
inline DoubleLanes load(const double* p) { DoubleLanes x; std::memcpy(&x, p, sizeof x); return x; }
inline void store(float* p, FloatLanes x) { std::memcpy(p, &x, sizeof x); }
inline void store(double* p, DoubleLanes x) { std::memcpy(p, &x, sizeof x); }

inline FloatLanes load(const bf16* p) {
  U16Lanes half;
  std::memcpy(&half, p, sizeof half);
  U32Lanes bits = __builtin_convertvector(half, U32Lanes) << 16;
  FloatLanes x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline void store(bf16* p, FloatLanes x) {
#ifdef __AVX512BF16__
  __m256bh half = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(x));
#else
  U32Lanes bits;
  std::memcpy(&bits, &x, sizeof bits);
  U32Lanes rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  U16Lanes half = __builtin_convertvector(x != x ? (bits >> 16) | 0x40 : rounded, U16Lanes);
#endif
  std::memcpy(p, &half, sizeof half);
}

inline FloatLanes load(const fp16* p) {
#ifdef __AVX512F__
  return reinterpret_cast<FloatLanes>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#else
  FloatLanes x;
  for (int i = 0; i < width<float>; ++i) x[i] = float(p[i]);
  return x;
#endif
}
inline void store(fp16* p, FloatLanes x) {
#ifdef __AVX512F__
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(reinterpret_cast<__m512>(x), 0));
#else
  for (int i = 0; i < width<float>; ++i) p[i] = fp16(x[i]);
#endif
}

// The lanes [begin, end) of a float vector at element i that are inside a row of `size` elements.
struct Inside {
  int begin, end;
  Inside(int64_t i, int64_t size)
      : begin(int(std::clamp<int64_t>(-i, 0, width<float>))), end(int(std::clamp<int64_t>(size - i, 0, width<float>))) {}
  uint32_t mask() const { return (1u << end) - 1 & ~0u << begin; }
};
// Loads only those lanes; the others become 0, and their memory is not accessed.
template <class T> inline FloatLanes load(const T* p, Inside inside) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  if constexpr (std::is_same_v<T, float>) {
    return reinterpret_cast<FloatLanes>(_mm512_maskz_loadu_ps(inside.mask(), p));
  } else {
    alignas(32) T half[width<float>];
    _mm256_store_si256(reinterpret_cast<__m256i*>(half), _mm256_maskz_loadu_epi16(inside.mask(), p));
    return load(half);
  }
#else
  if (inside.begin == 0 && inside.end == width<float>) return load(p);
  T some[width<float>] = {};
  for (int i = inside.begin; i < inside.end; ++i) some[i] = p[i];
  return load(some);
#endif
}

// Loads only the first `count` lanes; the others become 0.
template <class T> inline Lanes<accumulate_t<T>> load(const T* p, int count) {
  if (count >= width<accumulate_t<T>>) return load(p);
  if constexpr (trained_in<T>) return load(p, Inside(0, count));
  T whole[width<accumulate_t<T>>] = {};
  std::memcpy(static_cast<void*>(whole), p, count * sizeof(T));
  return load(whole);
}
template <class T> inline void store(T* p, Lanes<accumulate_t<T>> x, int count) {
  if (count >= width<accumulate_t<T>>) return store(p, x);
  alignas(32) T whole[width<accumulate_t<T>>];
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  const uint32_t mask = Inside(0, count).mask();
  if constexpr (std::is_same_v<T, float>) return _mm512_mask_storeu_ps(p, mask, reinterpret_cast<__m512>(x));
  store(whole, x);
  if constexpr (std::is_same_v<T, bf16>)
    return _mm256_mask_storeu_epi16(p, mask, _mm256_load_si256(reinterpret_cast<const __m256i*>(whole)));
#else
  store(whole, x);
#endif
  std::memcpy(static_cast<void*>(p), whole, count * sizeof(T));
}

#ifdef __AVX512F__
// Stores that bypass the cache; p is aligned to the number of bytes.
inline void stream(float* p, FloatLanes x) { _mm512_stream_ps(p, reinterpret_cast<__m512>(x)); }
inline void stream(double* p, DoubleLanes x) { _mm512_stream_pd(p, reinterpret_cast<__m512d>(x)); }
template <class T> void stream(T* p, FloatLanes x) {
  alignas(32) T half[width<float>];
  store(half, x);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), *reinterpret_cast<const __m256i*>(half));
}
#endif

// The size of the last-level cache in bytes; 0 if it is unknown. sysconf is wrong for some AMD processors.
inline int64_t cache_size() {
  long long kib = 0;
  if (std::FILE* file = std::fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r")) {
    if (std::fscanf(file, "%lldK", &kib) != 1) kib = 0;
    std::fclose(file);
  }
  return int64_t(kib) << 10;
}

// From this number of bytes on, a result and its inputs would leave little room in the cache for anything else.
inline int64_t beyond_cache() {
  static const int64_t size = cache_size(), least = 8 << 20, most = 32 << 20;
  return size ? std::clamp(size / 4, least, most) : most;
}

// The output of a kernel. If it is large, it bypasses the cache: its lines are then not read first, and do not evict
// others. If it is small, it stays in the cache for the next op.
template <class T> class Result {
 public:
  using A = accumulate_t<T>;
  Result(T* p, int64_t count) : p(p), past_cache(count * int64_t(sizeof(T)) >= beyond_cache()) {}
  void put(int64_t at, Lanes<A> x, int count) const {
#ifdef __AVX512F__
    constexpr uintptr_t line = width<A> * sizeof(T);
    if (past_cache && count == width<A> && reinterpret_cast<uintptr_t>(p + at) % line == 0) return stream(p + at, x);
#endif
    store(p + at, x, count);
  }

 private:
  T* p;
  bool past_cache;
};

// Calls f(begin, end) for parts of [0, n), in parallel. Each thread has its own copy of f, so that values in f can stay
// in registers, because no store to memory can change them.
template <class F> void in_parallel(int64_t n, int64_t grain, const F& f) {
  torch::stable::parallel_for(0, n, grain, [&f](int64_t begin, int64_t end) {
    F mine = f;
    mine(begin, end);
#ifdef __AVX512F__
    _mm_sfence();  // makes stores that bypass the cache visible to other threads
#endif
  });
}

}  // namespace stylegan
