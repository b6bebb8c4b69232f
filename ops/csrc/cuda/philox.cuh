// The kernel that makes normal and uniform numbers of places. ops/philox.py says which.
#pragma once

#include "../philox.h"
#include "device.h"

namespace stylegan {

constexpr int philox_threads = 256;

// Each thread makes four neighbouring numbers of a row.
template <class A> __global__ void __launch_bounds__(philox_threads)
    philox_kernel(const int64_t* places, A* out, int64_t rows, int64_t stream, int64_t normals, int64_t uniforms) {
  const int64_t of_normals = ceil_div<int64_t>(normals, 4), of_uniforms = ceil_div<int64_t>(uniforms, 4);
  const int64_t groups = of_normals + of_uniforms, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * groups; i += step) {
    const int64_t row = i / groups, group = i - row * groups, key = places[2 * row], position = places[2 * row + 1];
    A* to = out + row * (normals + uniforms);
    float four[4];
    int64_t first, left;
    if (group < of_normals) {
      first = 4 * group, left = normals - first;
      four_normals(four, key, position, uint32_t(stream), uint32_t(group));
    } else {
      first = 4 * (group - of_normals), left = uniforms - first, to += normals;
      const Words words = philox(key, position, uint32_t(stream + 1), uint32_t(group - of_normals));
#pragma unroll
      for (int k = 0; k < 4; ++k) four[k] = uniform(words.at[k]);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (k < left) to[first + k] = A(four[k]);
  }
}

// to: [N,normals+uniforms]
template <class A>
void philox(const Launcher& launch, const Tensor& places, A* to, int64_t stream, int64_t normals, int64_t uniforms) {
  const int64_t rows = places.size(0), items = rows * (ceil_div<int64_t>(normals, 4) + ceil_div<int64_t>(uniforms, 4));
  if (items)
    launch(philox_kernel<A>, Launcher::striding(items, philox_threads), philox_threads, data<int64_t>(places), to, rows,
           stream, normals, uniforms);
}

}  // namespace stylegan
