// Random numbers as functions of where they are used: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, Parallel Random
// Numbers: As Easy as 1, 2, 3, 2011) and Box-Muller (1958). ops/philox.py says which number belongs where.
//
// CPU and GPU compile this source, and get the same numbers to the last bit: all arithmetic is that of integers or is
// rounded correctly, and products are added by fma only, so that no compiler is free to merge or to split them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define STYLEGAN_BOTH __host__ __device__ __forceinline__
#else
#define STYLEGAN_BOTH inline __attribute__((always_inline))
#endif

namespace stylegan {

struct Words {
  uint32_t at[4];
};

// 128 random bits: block `block` of stream `stream` of a place, which is a key and a position, 64 bits each.
STYLEGAN_BOTH Words philox(int64_t key, int64_t position, uint32_t stream, uint32_t block) {
  uint32_t k0 = uint32_t(key), k1 = uint32_t(uint64_t(key) >> 32);
  uint32_t a = block, b = stream, c = uint32_t(position), d = uint32_t(uint64_t(position) >> 32);
#ifdef __CUDACC__
#pragma unroll
#else
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    const uint64_t p = uint64_t(0xD2511F53u) * a, q = uint64_t(0xCD9E8D57u) * c;
    a = uint32_t(q >> 32) ^ b ^ k0, b = uint32_t(q);
    c = uint32_t(p >> 32) ^ d ^ k1, d = uint32_t(p);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return {{a, b, c, d}};
}

STYLEGAN_BOTH float multiply_add(float a, float b, float c) {
#ifdef __CUDACC__
  return fmaf(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

template <class To, class From> STYLEGAN_BOTH To same_bits(From from) {
  To to;
  static_assert(sizeof to == sizeof from);
  memcpy(&to, &from, sizeof to);
  return to;
}

// A number in [0, 1), from 24 bits.
STYLEGAN_BOTH float uniform(uint32_t bits) { return float(int32_t(bits >> 8)) * 0x1p-24f; }

// sqrt(-2 log u) for u in (0, 1] from 32 bits: the distance of a pair of normal numbers from 0, at most 6.8.
STYLEGAN_BOTH float radius(uint32_t bits) {
  const float u = multiply_add(float(bits), 0x1p-32f, 0x1p-33f);
  // u = 2^e (1 + f) with 1 + f from sqrt(1/2) to sqrt(2).
  const int32_t half = 0x3F3504F3, shifted = same_bits<int32_t>(u) - half, e = shifted >> 23;
  const float f = same_bits<float>((shifted & 0x007FFFFF) + half) - 1.0f, square = f * f;
  // (log(1 + f) - f + f^2 / 2) / f^3, of which the result has a relative error of at most 6e-9.
  float p = -0.0763450041f;
  p = multiply_add(p, f, 0.1276158243f);
  p = multiply_add(p, f, -0.1316018254f);
  p = multiply_add(p, f, 0.1420175731f);
  p = multiply_add(p, f, -0.1662335694f);
  p = multiply_add(p, f, 0.2000122666f);
  p = multiply_add(p, f, -0.2500081956f);
  p = multiply_add(p, f, 0.3333333135f);
  const float log1p = multiply_add(square, multiply_add(p, f, -0.5f), f);
  return sqrtf(-2.0f * multiply_add(float(e), 0.693147181f, log1p));
}

struct Pair {
  float first, second;
};

// Two independent normal numbers.
STYLEGAN_BOTH Pair normal_pair(uint32_t distance, uint32_t direction) {
  const float r = radius(distance);
  // The direction is a number of quarter turns and an angle from -pi/4 to pi/4.
  const uint32_t quarter = (direction + 0x20000000u) >> 30;
  const float t = float(int32_t(direction - (quarter << 30))) * 0x1.921fb6p-30f, square = t * t;
  float s = -0.0001951729937f, c = 2.443845187e-05f;
  s = multiply_add(s, square, 0.008332177997f);
  s = multiply_add(s, square, -0.1666665524f);
  s = multiply_add(s, square * t, t);
  c = multiply_add(c, square, -0.001388736768f);
  c = multiply_add(c, square, 0.04166664556f);
  c = multiply_add(multiply_add(c, square, -0.5f), square, 1.0f);
  const bool odd = quarter & 1;
  const float x = (odd ? s : c) * r, y = (odd ? c : s) * r;
  // Bits and not signs, of which a compiler might make branches.
  const uint32_t left = (quarter + 1) >> 1 << 31, below = quarter >> 1 << 31;
  return {same_bits<float>(same_bits<uint32_t>(x) ^ left), same_bits<float>(same_bits<uint32_t>(y) ^ below)};
}

// The normal numbers 4 * block to 4 * block + 3 of a stream.
STYLEGAN_BOTH void four_normals(float (&to)[4], int64_t key, int64_t position, uint32_t stream, uint32_t block) {
  const Words w = philox(key, position, stream, block);
  const Pair a = normal_pair(w.at[0], w.at[1]), b = normal_pair(w.at[2], w.at[3]);
  to[0] = a.first, to[1] = a.second, to[2] = b.first, to[3] = b.second;
}

// Number `index` of a stream.
STYLEGAN_BOTH float normal(int64_t key, int64_t position, uint32_t stream, int64_t index) {
  float four[4];
  four_normals(four, key, position, stream, uint32_t(index >> 2));
  const float low = index & 1 ? four[1] : four[0], high = index & 1 ? four[3] : four[2];
  return index & 2 ? high : low;
}

}  // namespace stylegan
