// Launches the kernels of bias_act.cuh for CUDA tensors.
#include "bias_act.cuh"

#include <tuple>

namespace stylegan {
namespace {

template <class T> void set_layout(BiasAct<T>& p, const Tensor& x, int64_t dim) {
  p.count = x.numel();
  p.channels = p.inner = 1;
  if (x.dim() == 0 || p.count == 0) return;
  p.channels = x.size(dim);
  for (int64_t d = 0; d < x.dim(); ++d)
    if (x.stride(d) < x.stride(dim) || (x.stride(d) == x.stride(dim) && d > dim)) p.inner *= x.size(d);
}

template <class T> BiasAct<T> operands(const Tensor& u, const T* g, const T* h, const Tensor& out,
                                       const std::optional<Tensor>& bias, const std::optional<Tensor>& db, int64_t dim,
                                       int64_t act, double slope, double gain, double clamp) {
  using A = accumulate_t<T>;
  BiasAct<T> p{data<T>(u), g, h, data_out<T>(out), data<A>(bias), data<A>(db)};
  p.formula = {Act(act), A(slope), A(gain), A(clamp)};
  p.aligned = is_aligned(p.u) && is_aligned(p.g) && is_aligned(p.h) && is_aligned(p.out);
  set_layout(p, u, dim);
  return p;
}

template <Order order, bool smooth, class T> void launch_elements(const Launcher& launch, const BiasAct<T>& p) {
  const int64_t vectors = ceil_div<int64_t>(p.count, vec<T>);
  launch(bias_act_kernel<order, smooth, T>, Launcher::striding(vectors, bias_act_threads), bias_act_threads, p);
}

// dx and its sums per channel, `total`. The division of the work, and with it the order of additions, depends only on
// the shape.
template <bool smooth, class T> void launch_reducing(const Launcher& launch, const BiasAct<T>& p, const Tensor& total) {
  using A = accumulate_t<T>;
  constexpr int64_t most_partials = 1024;
  const int64_t outer = p.count / (p.channels * p.inner);
  const bool columns = p.inner == 1;
  const int64_t along = columns ? outer : p.inner;  // the elements that are divided into chunks
  const int64_t wanted = columns ? most_partials : ceil_div<int64_t>(4 * most_partials, outer * p.channels);
  const int64_t smallest = columns ? 64 : bias_act_threads * vec<T> * 4;
  int64_t chunk = std::max<int64_t>(smallest, ceil_div<int64_t>(along, wanted));
  chunk = ceil_div<int64_t>(chunk, vec<T>) * vec<T>;
  const int64_t chunks = ceil_div<int64_t>(along, chunk), rows = columns ? chunks : outer * chunks;
  const int64_t size[] = {rows, p.channels};
  const Tensor partial = rows == 1 ? total : torch::stable::new_empty(total, {size, 2});
  if (columns) {
    const int lanes = power_of_2(ceil_div<int64_t>(p.channels, vec<T>), 32);
    launch(bias_act_grad_columns_kernel<smooth, T>, chunks * ceil_div<int64_t>(p.channels, lanes * vec<T>),
           bias_act_threads, p, lanes, chunk, data_out<A>(partial));
  } else {
    STD_TORCH_CHECK(rows * p.channels < 1LL << 31, "x is too large");
    const int lanes = power_of_2(ceil_div<int64_t>(p.inner, vec<T>), 64), group = lanes > 32 ? bias_act_threads : lanes;
    launch(bias_act_grad_rows_kernel<smooth, T>, ceil_div<int64_t>(rows * p.channels, bias_act_threads / group),
           bias_act_threads, p, group, chunks, chunk, data_out<A>(partial));
  }
  if (rows > 1)
    row_sums<A>(launch, {{data<A>(partial), nullptr}, {data_out<A>(total), nullptr}, 1, rows, p.channels, p.channels});
}

template <class F> void by_smoothness(int64_t act, F f) {
  if (piecewise_linear(Act(act))) f(std::false_type{});
  else f(std::true_type{});
}

Tensor bias_act(Tensor x, std::optional<Tensor> bias, int64_t dim, int64_t act, double slope, double gain, double clamp) {
  x = dense(x);
  Tensor y = torch::stable::empty_like(x);
  const Launcher launch(x);
  with_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const auto p = operands<T>(x, nullptr, nullptr, y, bias, std::nullopt, dim, act, slope, gain, clamp);
    by_smoothness(act, [&](auto smooth) { launch_elements<Order::value, decltype(smooth)::value>(launch, p); });
  });
  return y;
}

std::tuple<Tensor, Tensor> bias_act_grad(Tensor dy, std::optional<Tensor> db, Tensor seen, std::optional<Tensor> bias,
                                         int64_t dim, int64_t act, double slope, double gain, double clamp,
                                         bool reduce) {
  seen = dense(seen);
  dy = in_layout_of(dy, seen);
  Tensor dx = torch::stable::empty_like(seen);
  const int64_t size[] = {reduce ? dy.size(dim) : 0};
  Tensor total = torch::stable::new_empty(dy, {size, 1}, compute_type(dy));
  if (dx.numel() == 0) {
    torch::stable::zero_(total);
    return {dx, total};
  }
  const Launcher launch(dy);
  with_type(dy.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const auto p = operands<T>(seen, data<T>(dy), nullptr, dx, bias, db, dim, act, slope, gain, clamp);
    by_smoothness(act, [&](auto smooth) {
      if (reduce) launch_reducing<decltype(smooth)::value>(launch, p, total);
      else launch_elements<Order::gradient, decltype(smooth)::value>(launch, p);
    });
  });
  return {dx, total};
}

Tensor bias_act_grad2(Tensor dy, std::optional<Tensor> db, Tensor ddx, Tensor x, std::optional<Tensor> bias,
                      int64_t dim, int64_t act, double slope, double gain, double clamp) {
  x = dense(x);
  Tensor out = torch::stable::empty_like(x);
  if (piecewise_linear(Act(act))) return torch::stable::zero_(out);
  dy = in_layout_of(dy, x);
  ddx = in_layout_of(ddx, x);
  const Launcher launch(x);
  with_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    const auto p = operands<T>(x, data<T>(dy), data<T>(ddx), out, bias, db, dim, act, slope, gain, clamp);
    launch_elements<Order::curvature, true>(launch, p);
  });
  return out;
}

}  // namespace
}  // namespace stylegan

STYLEGAN_KERNELS(m) {
  m.impl("bias_act", TORCH_BOX(&stylegan::bias_act));
  m.impl("bias_act_grad", TORCH_BOX(&stylegan::bias_act_grad));
  m.impl("bias_act_grad2", TORCH_BOX(&stylegan::bias_act_grad2));
}
