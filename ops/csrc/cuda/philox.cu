// Launches the kernel of philox.cuh for CUDA tensors.
#include "philox.cuh"

namespace stylegan {
namespace {

Tensor philox_numbers(Tensor places, int64_t stream, int64_t normals, int64_t uniforms) {
  places = torch::stable::contiguous(places);
  const int64_t size[] = {places.size(0), normals + uniforms};
  Tensor out = torch::stable::new_empty(places, {size, 2}, ScalarType::Float);
  philox(Launcher(places), places, data_out<float>(out), stream, normals, uniforms);
  return out;
}

}  // namespace
}  // namespace stylegan

STYLEGAN_KERNELS(m) { m.impl("philox", TORCH_BOX(&stylegan::philox_numbers)); }
