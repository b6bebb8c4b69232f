// Kernels with faults that the emulation must detect.
#include "emulate.h"

namespace {

using stylegan::emulated::launch;

// Each thread reads its neighbour's number, which may not have been written yet if there is no barrier.
__global__ void shift_kernel(int* out, bool wait) {
  __shared__ int numbers[64];
  numbers[threadIdx.x] = int(threadIdx.x + 64 * blockIdx.x);
  if (wait) __syncthreads();
  out[blockIdx.x * 64 + threadIdx.x] = numbers[(threadIdx.x + 1) % 64];
  if (wait) __syncthreads();
}

__global__ void half_kernel() {
  if (threadIdx.x < 32) __syncthreads();
}

__global__ void sum_kernel(float* out) {
  float x = float(threadIdx.x);
  for (int distance = 16; distance; distance /= 2) x += __shfl_xor_sync(0xffffffffu, x, distance);
  out[threadIdx.x] = x;
}

}  // namespace

extern "C" {
void shift(int* out, bool wait) { launch(shift_kernel, 4, 64, out, wait); }
void warp_sums(float* out) { launch(sum_kernel, 1, 64, out); }
bool half_of_a_barrier() {
  try {
    launch(half_kernel, 1, 64);
  } catch (const std::runtime_error&) {
    return true;
  }
  return false;
}
}
