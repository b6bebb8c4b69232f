// Normal and uniform numbers of places, as a tensor. ops/philox.py says which.
#include "lanes.h"
#include "normals.h"

namespace stylegan {
namespace {

Tensor philox_numbers(Tensor places, int64_t stream, int64_t normals, int64_t uniforms) {
  places = torch::stable::contiguous(places);
  const int64_t n = places.size(0), all = normals + uniforms, size[] = {n, all};
  Tensor out = torch::stable::new_empty(places, {size, 2}, ScalarType::Float);
  const int64_t* at = data<int64_t>(places);
  float* to = data_out<float>(out);
  in_parallel(n, std::max<int64_t>(1, 4096 / std::max<int64_t>(all, 1)), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t* place = at + 2 * row;
      fill_normals(to + row * all, place, uint32_t(stream), 0, normals);
      for (int64_t i = 0; i < uniforms; ++i)
        to[row * all + normals + i] =
            uniform(philox(place[0], place[1], uint32_t(stream + 1), uint32_t(i / 4)).at[i % 4]);
    }
  });
  return out;
}

}  // namespace
}  // namespace stylegan

STABLE_TORCH_LIBRARY_IMPL(stylegan, CPU, m) { m.impl("philox", TORCH_BOX(&stylegan::philox_numbers)); }
