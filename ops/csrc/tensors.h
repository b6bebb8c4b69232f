// What all kernels need of PyTorch's tensors, through its stable ABI.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Exception.h>
#include <torch/headeronly/util/Half.h>

#include <cstdint>
#include <optional>

namespace stylegan {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline bool is_channels_last(const Tensor& x) {
  if (x.dim() != 4) return false;
  int64_t expected = 1;
  for (int d : {1, 3, 2, 0}) {
    if (x.size(d) != 1 && x.stride(d) != expected) return false;
    expected *= x.size(d);
  }
  return true;
}

// x itself if it is contiguous or channels_last, else a contiguous copy. ops/autograd.py applies the same rule.
inline Tensor dense(const Tensor& x) { return x.is_contiguous() || is_channels_last(x) ? x : torch::stable::contiguous(x); }

// `x` in the layout of `like`, copied only if it differs. Both have the same sizes, and `like` is dense.
inline Tensor in_layout_of(const Tensor& x, const Tensor& like) {
  if (like.is_contiguous() ? x.is_contiguous() : is_channels_last(x)) return x;
  Tensor y = torch::stable::empty_like(like);
  torch::stable::copy_(y, x);
  return y;
}

template <class T> const T* data(const Tensor& x) { return static_cast<const T*>(x.const_data_ptr()); }
template <class T> T* data_out(const Tensor& x) { return static_cast<T*>(x.mutable_data_ptr()); }
template <class T> const T* data(const std::optional<Tensor>& x) { return x ? data<T>(*x) : nullptr; }

// An empty tensor of x's device and dtype, returned where a schema requires a tensor and there is no result.
inline Tensor nothing(const Tensor& x) {
  int64_t size[] = {0};
  return torch::stable::new_empty(x, {size, 1});
}

// The type in which kernels compute on x: float64 for float64, else float32.
inline ScalarType compute_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Calls f with a value of the C++ type for `type`; f uses only the type of this value.
template <class F> void with_type(ScalarType type, F&& f) {
  switch (type) {
    case ScalarType::Float: return f(float{});
    case ScalarType::Double: return f(double{});
    case ScalarType::BFloat16: return f(c10::BFloat16{});
    case ScalarType::Half: return f(c10::Half{});
    default: STD_TORCH_CHECK(false, "x must be float32, float64, bfloat16 or float16");
  }
}

}  // namespace stylegan
