// The basis of all CUDA kernels: vectors of 16 bytes, sums over threads, and launching a kernel.
//
// Kernels are launched on one-dimensional grids of one-dimensional blocks. Without nvcc, emulate.h replaces CUDA, and
// the same kernels and launchers work on CPU tensors, as ops of the library stylegan_emulated.
#pragma once

#include "../tensors.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>
#define STYLEGAN_KERNELS(m) STABLE_TORCH_LIBRARY_IMPL(stylegan, CUDA, m)
#else
#include "emulate.h"
#define STYLEGAN_KERNELS(m) STABLE_TORCH_LIBRARY_IMPL(stylegan_emulated, CPU, m)
#endif

namespace stylegan {

// The type in which a stored type is computed.
template <class T> struct accumulate { using type = float; };
template <> struct accumulate<double> { using type = double; };
template <class T> using accumulate_t = typename accumulate<T>::type;

// Elements in 16 bytes, which is the most that a thread can load or store at once.
template <class T> constexpr int vec = 16 / sizeof(T);

template <class T> constexpr T ceil_div(T a, T b) { return (a + b - 1) / b; }

inline bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Loads n elements from p and widens them; the others become 0. aligned: p is a multiple of 16 bytes.
template <class T, class A, int V> __device__ __forceinline__ void load(A (&to)[V], const T* p, int n, bool aligned) {
  if constexpr (V * sizeof(T) % 16 == 0)
    if (aligned && n >= V) {
      constexpr int words = V * sizeof(T) / 16;
      uint4 raw[words];
      T values[V];
#pragma unroll
      for (int i = 0; i < words; ++i) raw[i] = __ldg(reinterpret_cast<const uint4*>(p) + i);
      memcpy(static_cast<void*>(values), raw, sizeof values);
#pragma unroll
      for (int i = 0; i < V; ++i) to[i] = static_cast<A>(values[i]);
      return;
    }
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = i < n ? static_cast<A>(p[i]) : A(0);
}

template <class T, class A, int V> __device__ __forceinline__ void store(T* p, const A (&from)[V], int n, bool aligned) {
  if constexpr (V * sizeof(T) % 16 == 0)
    if (aligned && n >= V) {
      constexpr int words = V * sizeof(T) / 16;
      uint4 raw[words];
      T values[V];
#pragma unroll
      for (int i = 0; i < V; ++i) values[i] = static_cast<T>(from[i]);
      memcpy(raw, static_cast<const void*>(values), sizeof values);
      // Not a plain assignment, because compilers split it and merge it with those below.
#pragma unroll
      for (int i = 0; i < words; ++i) __stwb(reinterpret_cast<uint4*>(p) + i, raw[i]);
      return;
    }
#pragma unroll
  for (int i = 0; i < V; ++i)
    if (i < n) p[i] = static_cast<T>(from[i]);
}

// Replaces each x[k] by its sum over the thread's group: `group` neighbouring threads, a power of 2 up to 32, or the
// whole block. All threads of the block must call it. The order of the additions is fixed.
template <class A, int K> __device__ __forceinline__ void group_sum(A (&x)[K], int group) {
  const int lanes = group < 32 ? group : 32;
  for (int distance = lanes / 2; distance; distance /= 2)
#pragma unroll
    for (int k = 0; k < K; ++k) x[k] += __shfl_xor_sync(0xffffffffu, x[k], distance);
  if (group <= 32) return;
  __shared__ A parts[K][32];
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  __syncthreads();  // until all threads have read the results of the last call
  if (lane == 0)
#pragma unroll
    for (int k = 0; k < K; ++k) parts[k][threadIdx.x / 32] = x[k];
  __syncthreads();
#pragma unroll
  for (int k = 0; k < K; ++k) x[k] = lane < warps ? parts[k][lane] : A(0);
  for (int distance = 16; distance; distance /= 2)
#pragma unroll
    for (int k = 0; k < K; ++k) x[k] += __shfl_xor_sync(0xffffffffu, x[k], distance);
}

// The smallest power of 2 that is at least n, between 1 and most.
inline int power_of_2(int64_t n, int most) {
  int p = 1;
  while (p < n && p < most) p *= 2;
  return p;
}

// Launches kernels on x's device, in PyTorch's current stream, without allocating memory or waiting.
class Launcher {
 public:
#ifdef __CUDACC__
  explicit Launcher(const Tensor& x) : guard_(x.get_device()) {
    void* stream = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  template <class... P>
  void operator()(void (*kernel)(P...), int64_t blocks, int threads, const std::type_identity_t<P>&... args) const {
    if (blocks == 0) return;
    STD_TORCH_CHECK(blocks <= most_blocks_, "x is too large for one launch");
    kernel<<<dim3(unsigned(blocks)), dim3(unsigned(threads)), 0, stream_>>>(args...);
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  }

  // Blocks for kernels whose threads step through the whole grid.
  static int64_t striding(int64_t items, int threads) { return std::min<int64_t>(ceil_div<int64_t>(items, threads), 1 << 16); }

 private:
  static constexpr int64_t most_blocks_ = 2147483647;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
#else
  explicit Launcher(const Tensor&) {}

  template <class... P>
  void operator()(void (*kernel)(P...), int64_t blocks, int threads, const std::type_identity_t<P>&... args) const {
    emulated::launch(kernel, blocks, threads, args...);
  }

  // So few blocks that their threads have to step.
  static int64_t striding(int64_t items, int threads) { return std::min<int64_t>(ceil_div<int64_t>(items, threads), 3); }
#endif
};

}  // namespace stylegan
