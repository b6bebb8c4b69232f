// Launches the kernels of upfirdn2d.cuh for CUDA tensors.
#include "upfirdn2d.cuh"

#include <vector>

namespace stylegan {
namespace {

using torch::headeronly::MemoryFormat;
using Ints = std::vector<int64_t>;

// Taps along each axis; a size of 1 means that this axis is not filtered.
struct FirSize {
  int64_t height, width;
};

Tensor room_for_result(const Tensor& x, bool last, int64_t h, int64_t w) {
  const int64_t size[] = {x.size(0), x.size(1), h, w};
  return torch::stable::empty({size, 4}, x.scalar_type(), std::nullopt, x.device(), std::nullopt,
                              last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

FirAxis axis(int64_t in, int64_t up, int64_t down, int64_t before, int64_t after, int64_t taps) {
  const int64_t out = (in * up + before + after - taps) / down + 1;
  STD_TORCH_CHECK(in * up + std::abs(before) + std::abs(after) < 1LL << 31, "x is too large");
  return {int(in), int(out), int(up), int(down), int(before), int(taps)};
}

template <class T, int V> void launch_general(const Launcher& launch, const Fir<T>& p) {
  const int lanes = power_of_2(p.x_axis.out * int64_t(p.vectors), 32);
  const int64_t units = p.planes * p.y.out, rows = ceil_div<int64_t>(units, fir_threads / lanes);
  launch(fir_general_kernel<T, V>, rows * ceil_div<int64_t>(int64_t(p.x_axis.out) * p.vectors, lanes), fir_threads, p, lanes);
}

template <class P> bool fits(const FirAxis& a) { return a.taps == P::taps && a.up == P::up && a.down == P::down; }

// Launches the kernel of pattern P and returns true, or returns false if the arguments do not match the pattern.
template <class P, class T, int V> bool launch_pattern(const Launcher& launch, const Fir<T>& p) {
  if (!fits<P>(p.y) || !fits<P>(p.x_axis)) return false;
  const int lanes = power_of_2(p.x_axis.out * int64_t(p.vectors), 32);
  const int64_t units = p.planes * ceil_div(p.y.out + P::above(p.y), P::rows(V));
  launch(fir_kernel<T, V, P>, ceil_div<int64_t>(units, fir_threads / lanes) * ceil_div<int64_t>(int64_t(p.x_axis.out) * p.vectors, lanes),
         fir_threads, p, lanes);
  return true;
}

template <class T, int V> void launch_best(const Launcher& launch, const Fir<T>& p) {
  // float64 is only used for checking derivatives, and has no fast kernels.
  if constexpr (!std::is_same_v<T, double>)
    if (launch_pattern<FirPattern<4, 1, 1>, T, V>(launch, p) || launch_pattern<FirPattern<4, 2, 1>, T, V>(launch, p) ||
        launch_pattern<FirPattern<4, 1, 2>, T, V>(launch, p) || launch_pattern<FirPattern<3, 1, 1>, T, V>(launch, p) ||
        launch_pattern<FirPattern<3, 2, 1>, T, V>(launch, p) || launch_pattern<FirPattern<3, 1, 2>, T, V>(launch, p))
      return;
  launch_general<T, V>(launch, p);
}

// One pass. up, down: x, y. padding: left, right, top, bottom. f: as in Fir.
Tensor filtered(const Launcher& launch, const Tensor& x, const std::optional<Tensor>& f, FirSize size, bool outer, const Ints& up,
                const Ints& down, const Ints& padding, bool flip, double gain) {
  const bool last = !x.is_contiguous();
  const FirAxis along_y = axis(x.size(2), up[1], down[1], padding[2], padding[3], size.height);
  const FirAxis along_x = axis(x.size(3), up[0], down[0], padding[0], padding[1], size.width);
  Tensor y = room_for_result(x, last, along_y.out, along_x.out);
  if (y.numel() == 0) return y;
  with_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    using A = accumulate_t<T>;
    Fir<T> p{data<T>(x), data_out<T>(y), data<A>(f), outer, flip, A(gain), along_y, along_x, x.size(0), 1};
    if (last && x.size(1) % vec<T> == 0 && is_aligned(p.x) && is_aligned(p.out)) {
      p.vectors = int(x.size(1) / vec<T>);
      return launch_best<T, vec<T>>(launch, p);
    }
    if (last) p.vectors = int(x.size(1));
    else p.planes *= x.size(1);
    launch_best<T, 1>(launch, p);
  });
  return y;
}

Tensor upfirdn2d(Tensor x, std::optional<Tensor> f, Ints up, Ints down, Ints padding, bool flip, double gain) {
  x = dense(x);
  const Launcher launch(x);
  if (!f) return filtered(launch, x, f, {1, 1}, false, up, down, padding, flip, gain);
  f = torch::stable::contiguous(torch::stable::to(*f, compute_type(x)));
  const int64_t height = f->size(0), width = f->size(f->dim() - 1);
  constexpr int64_t few = 4;  // up to this number of taps, their products cost less than a second pass
  if (f->dim() == 2 || width <= few) return filtered(launch, x, f, {height, width}, f->dim() == 1, up, down, padding, flip, gain);
  const Tensor rows = filtered(launch, x, f, {1, width}, false, {up[0], 1}, {down[0], 1}, {padding[0], padding[1], 0, 0}, flip, gain);
  return filtered(launch, rows, f, {height, 1}, false, {1, up[1]}, {1, down[1]}, {0, 0, padding[2], padding[3]}, flip, 1);
}

}  // namespace
}  // namespace stylegan

STYLEGAN_KERNELS(m) { m.impl("upfirdn2d", TORCH_BOX(&stylegan::upfirdn2d)); }
