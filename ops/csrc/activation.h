// Activations and their first two derivatives: the arithmetic of one element, shared by the CPU and the CUDA kernels.
//
// A is float or double, or on the CPU a vector of them (lanes.h): comparisons then give masks, and ?: selects per lane.
#pragma once

#include <cmath>

#ifdef __CUDACC__
#define STYLEGAN_INLINE __host__ __device__ __forceinline__
#else
#define STYLEGAN_INLINE inline __attribute__((always_inline))
#endif

namespace stylegan {

using std::exp;
using std::expm1;
using std::log1p;
using std::tanh;

// In the order of ops/bias_act.py.
enum class Act : int { linear, relu, lrelu, tanh, sigmoid, elu, selu, softplus, swish };

// The slope of piecewise linear activations follows from the sign of the result; that of the others needs the input.
constexpr bool piecewise_linear(Act act) { return act == Act::linear || act == Act::relu || act == Act::lrelu; }

constexpr double selu_scale = 1.0507009873554804934193349852946;
constexpr double selu_alpha = 1.6732632423543772848170429916717;

template <class A>
STYLEGAN_INLINE A sigmoid(A x) {
  // exp of a negative number cannot overflow.
  A e = exp(x > 0 ? -x : x);
  return (x > 0 ? A{} + 1 : e) / (1 + e);
}

// act(x). slope: of lrelu for negative x.
template <Act act, class A, class S>
STYLEGAN_INLINE A activate(A x, S slope) {
  if constexpr (act == Act::linear) return x;
  if constexpr (act == Act::relu) return x <= 0 ? A{} : x;  // in this order a NaN remains a NaN
  if constexpr (act == Act::lrelu) return x > 0 ? x : x * slope;
  if constexpr (act == Act::tanh) return tanh(x);
  if constexpr (act == Act::sigmoid) return sigmoid(x);
  if constexpr (act == Act::elu) return x > 0 ? x : expm1(x);
  if constexpr (act == Act::selu) return S(selu_scale) * (x > 0 ? x : S(selu_alpha) * expm1(x));
  if constexpr (act == Act::softplus) return (x > 0 ? x : A{}) + log1p(exp(x > 0 ? -x : x));
  if constexpr (act == Act::swish) return x * sigmoid(x);
}

// act'(x). For piecewise linear activations, x may also be the result.
template <Act act, class A, class S>
STYLEGAN_INLINE A slope_at(A x, S slope) {
  const A one = A{} + 1;
  if constexpr (act == Act::linear) return one;
  if constexpr (act == Act::relu) return x > 0 ? one : A{};
  if constexpr (act == Act::lrelu) return x > 0 ? one : one * slope;
  if constexpr (act == Act::tanh) {
    A y = tanh(x);
    return 1 - y * y;
  }
  if constexpr (act == Act::sigmoid) {
    A y = sigmoid(x);
    return y * (1 - y);
  }
  if constexpr (act == Act::elu) return x > 0 ? one : exp(x);
  if constexpr (act == Act::selu) return S(selu_scale) * (x > 0 ? one : S(selu_alpha) * exp(x));
  if constexpr (act == Act::softplus) return sigmoid(x);
  if constexpr (act == Act::swish) {
    A s = sigmoid(x);
    return s * (1 + x * (1 - s));
  }
}

// act''(x); 0 for piecewise linear activations.
template <Act act, class A, class S>
STYLEGAN_INLINE A curvature_at(A x, S) {
  const A zero = A{};
  if constexpr (act == Act::tanh) {
    A y = tanh(x);
    return -2 * y * (1 - y * y);
  }
  if constexpr (act == Act::sigmoid) {
    A y = sigmoid(x);
    return y * (1 - y) * (1 - 2 * y);
  }
  if constexpr (act == Act::elu) return x > 0 ? zero : exp(x);
  if constexpr (act == Act::selu) return S(selu_scale) * S(selu_alpha) * (x > 0 ? zero : exp(x));
  if constexpr (act == Act::softplus) {
    A s = sigmoid(x);
    return s * (1 - s);
  }
  if constexpr (act == Act::swish) {
    A s = sigmoid(x);
    return s * (1 - s) * (2 + x * (1 - 2 * s));
  }
  return zero;
}

}  // namespace stylegan
