// Normal numbers for the CPU kernels, 64 at a time.
#pragma once

#include "../philox.h"
#include "../tensors.h"

#include <algorithm>

namespace stylegan {

// The numbers [first, first + count) of a stream, where `first` is a multiple of 4.
template <class A> void fill_normals(A* to, const int64_t* place, uint32_t stream, int64_t first, int64_t count) {
  const int64_t key = place[0], position = place[1];
  constexpr int lanes = 16;
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    float made[4][lanes];
    // Without branches, so that the compiler turns it into vectors with a block in each lane.
    for (int lane = 0; lane < lanes; ++lane) {
      float four[4];
      four_normals(four, key, position, stream, uint32_t((first + i) / 4 + lane));
      for (int k = 0; k < 4; ++k) made[k][lane] = four[k];
    }
    for (int lane = 0; lane < lanes; ++lane)
      for (int k = 0; k < 4; ++k) to[i + 4 * lane + k] = A(made[k][lane]);
  }
  for (; i < count; i += 4) {
    float four[4];
    four_normals(four, key, position, stream, uint32_t((first + i) / 4));
    for (int k = 0; k < std::min<int64_t>(4, count - i); ++k) to[i + k] = A(four[k]);
  }
}

}  // namespace stylegan
