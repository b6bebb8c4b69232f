// Launches the kernels of style_epilogue.cuh and style_epilogue_last.cuh for CUDA tensors.
#include "philox.cuh"
#include "style_epilogue.cuh"
#include "style_epilogue_last.cuh"

#include <tuple>

namespace stylegan {
namespace {

using Maybe = const std::optional<Tensor>&;

template <class T> Epilogue<T> operands(const Tensor& x, const T* dy, const Tensor& out, Maybe bias, Maybe noise,
                                        Maybe strength, Maybe style, const Tensor& mean, const Tensor& rstd,
                                        int64_t stream, double slope, bool norm, double eps) {
  using A = accumulate_t<T>;
  Epilogue<T> p{};
  p.x = data<T>(x), p.dy = dy, p.out = data_out<T>(out);
  p.bias = data<A>(bias), p.style = data<A>(style);
  const bool places = noise && noise->scalar_type() == ScalarType::Long;
  if (noise && strength) {
    p.strength = data<A>(strength);
    if (places) p.places = data<int64_t>(noise), p.stream = uint32_t(stream);
    else p.noise = data<A>(noise);
  }
  p.mean = data_out<A>(mean), p.rstd = data_out<A>(rstd);
  p.samples = x.size(0), p.channels = x.size(1), p.pixels = x.size(2) * x.size(3);
  p.noise_stride = noise && noise->size(0) > 1 ? p.pixels : 0;
  p.slope = A(slope), p.eps = A(eps), p.norm = norm;
  p.aligned = is_aligned(p.x) && is_aligned(p.dy) && is_aligned(p.out) && is_aligned(p.noise);
  return p;
}

// In contiguous memory every feature map would make the noise again, so there it is made once, for the time of one op:
// 1/C of x. In channels_last a block makes what it needs itself.
std::optional<Tensor> made(const Launcher& launch, const Tensor& x, Maybe noise, int64_t stream) {
  if (!noise || noise->scalar_type() != ScalarType::Long) return noise;
  const Tensor places = torch::stable::contiguous(*noise);
  if (!x.is_contiguous()) return places;
  const int64_t size[] = {x.size(0), x.size(2) * x.size(3)};
  Tensor maps = torch::stable::new_empty(x, {size, 2}, compute_type(x));
  if (compute_type(x) == ScalarType::Double) philox(launch, places, data_out<double>(maps), stream, size[1], 0);
  else philox(launch, places, data_out<float>(maps), stream, size[1], 0);
  return maps;
}

// How the work is divided, and with it the order in which partial sums are added. It depends only on the shape.
template <class T> struct Plan {
  bool last, small = true;
  int threads, across;  // across: threads per map, or per pixel
  int64_t blocks;

  Plan(Epilogue<T>& p, bool channels_last) : last(channels_last) {
    if (last) divide_pixels(p);
    else divide_maps(p);
  }

  void divide_pixels(Epilogue<T>& p) {
    // 8 vectors are a cache line. Few large chunks would not occupy a GPU; merging many small ones is expensive.
    across = power_of_2(ceil_div<int64_t>(p.channels, vec<T>), 8);
    threads = last_threads;
    p.chunk = std::max<int64_t>(256, ceil_div<int64_t>(p.pixels, 1024) * 4);  // a multiple of 4, as numbers are made
    p.chunks = ceil_div(p.pixels, p.chunk);
    blocks = p.samples * p.chunks * ceil_div<int64_t>(p.channels, across * vec<T>);
  }

  void divide_maps(Epilogue<T>& p) {
    constexpr int64_t few = Small::threads * held<T, Small>, many = Large::threads * held<T, Large>;
    p.chunk = p.pixels <= many ? p.pixels : few / 2;
    p.chunks = ceil_div(p.pixels, p.chunk);
    small = p.chunk <= few;
    STD_TORCH_CHECK(p.samples * p.channels * p.chunks < 1LL << 31, "x is too large");
    const int64_t vectors = ceil_div<int64_t>(p.chunk, vec<T>), per_thread = held<T, Small> / vec<T>;
    if (!small) {
      across = threads = Large::threads;
    } else if (vectors <= 32 * per_thread) {
      across = power_of_2(vectors, 32);
      threads = 256;
    } else {
      across = threads = int(ceil_div<int64_t>(vectors, 32 * per_thread) * 32);
    }
    blocks = ceil_div<int64_t>(p.samples * p.channels * p.chunks, threads / across);
  }

  void forward(const Launcher& launch, const Epilogue<T>& p, Pass pass) const {
    const auto maps = small ? epilogue_maps_kernel<T, Small> : epilogue_maps_kernel<T, Large>;
    launch(last ? epilogue_last_kernel<T> : maps, blocks, threads, p, pass, across);
  }
  void backward(const Launcher& launch, const Epilogue<T>& p, Pass pass) const {
    const auto maps = small ? epilogue_maps_grad_kernel<T, Small> : epilogue_maps_grad_kernel<T, Large>;
    launch(last ? epilogue_last_grad_kernel<T> : maps, blocks, threads, p, pass, across);
  }
};

// Two arrays of [N,chunks,C], as one tensor that must live until the kernels are launched.
template <class T> Tensor room(const Tensor& like, const Epilogue<T>& p, accumulate_t<T>* (&to)[2]) {
  const int64_t size[] = {2, p.samples * p.chunks, p.channels};
  Tensor both = torch::stable::new_empty(like, {size, 3});
  to[0] = data_out<accumulate_t<T>>(both);
  to[1] = to[0] + size[1] * size[2];
  return both;
}

std::tuple<Tensor, Tensor, Tensor> style_epilogue(Tensor x, std::optional<Tensor> bias, std::optional<Tensor> noise,
                                                  std::optional<Tensor> strength, std::optional<Tensor> style,
                                                  int64_t stream, double slope, bool norm, double eps) {
  x = dense(x);
  Tensor y = torch::stable::empty_like(x);
  const int64_t size[] = {x.size(0), x.size(1)};
  Tensor mean = torch::stable::new_empty(x, {size, 2}, compute_type(x)), rstd = torch::stable::empty_like(mean);
  if (x.numel() == 0) return {y, mean, rstd};
  const Launcher launch(x);
  noise = made(launch, x, noise, stream);
  with_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    auto p = operands<T>(x, nullptr, y, bias, noise, strength, style, mean, rstd, stream, slope, norm, eps);
    const Plan<T> plan(p, !x.is_contiguous());
    if (!norm) return plan.forward(launch, p, Pass::write);
    if (p.chunks == 1) return plan.forward(launch, p, Pass::whole);
    const Tensor scratch = room(mean, p, p.partial);
    plan.forward(launch, p, Pass::sums);
    const int lanes = power_of_2(p.channels, 32);
    launch(epilogue_merge_kernel<T>, p.samples * ceil_div<int64_t>(p.channels, lanes), row_sums_threads, p, lanes);
    plan.forward(launch, p, Pass::write);
  });
  return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> style_epilogue_grad(Tensor dy, Tensor x, std::optional<Tensor> bias,
                                                               std::optional<Tensor> noise,
                                                               std::optional<Tensor> strength,
                                                               std::optional<Tensor> style, Tensor mean, Tensor rstd,
                                                               int64_t stream, double slope, bool norm) {
  x = dense(x);
  dy = in_layout_of(dy, x);
  Tensor dx = torch::stable::empty_like(x);
  const int64_t channels[] = {x.size(1)}, both[] = {x.size(0), 2 * x.size(1)}, none[] = {0, both[1]};
  const ScalarType type = compute_type(x);
  Tensor d_bias = torch::stable::new_empty(x, {channels, 1}, type), d_strength = torch::stable::empty_like(d_bias);
  Tensor d_style = torch::stable::new_empty(x, {style ? both : none, 2}, type);
  if (x.numel() == 0) {
    torch::stable::zero_(d_bias), torch::stable::zero_(d_strength), torch::stable::zero_(d_style);
    return {dx, d_bias, d_strength, d_style};
  }
  const Launcher launch(x);
  noise = made(launch, x, noise, stream);
  with_type(x.scalar_type(), [&](auto t) {
    using T = decltype(t);
    using A = accumulate_t<T>;
    auto p = operands<T>(x, data<T>(dy), dx, bias, noise, strength, style, mean, rstd, stream, slope, norm, 0);
    const Plan<T> plan(p, !x.is_contiguous());
    const Tensor by_channel = room(mean, p, p.channel_sums);
    const Tensor sums = style ? d_style : torch::stable::new_empty(x, {both, 2}, type);
    if (norm || style) p.sums = data_out<A>(sums);
    if (!p.sums) {
      plan.backward(launch, p, Pass::write);
    } else if (p.chunks == 1) {
      plan.backward(launch, p, Pass::whole);
    } else {
      const Tensor scratch = room(mean, p, p.partial);
      plan.backward(launch, p, Pass::sums);
      row_sums<A>(launch, {{p.partial[0], p.partial[1]}, {p.sums, p.sums + p.channels},
                           p.samples, p.chunks, p.channels, 2 * p.channels});
      plan.backward(launch, p, Pass::write);
    }
    row_sums<A>(launch, {{p.channel_sums[0], p.channel_sums[1]}, {data_out<A>(d_bias), data_out<A>(d_strength)},
                         1, p.samples * p.chunks, p.channels, p.channels});
  });
  return {dx, d_bias, d_strength, d_style};
}

}  // namespace
}  // namespace stylegan

STYLEGAN_KERNELS(m) {
  m.impl("style_epilogue", TORCH_BOX(&stylegan::style_epilogue));
  m.impl("style_epilogue_grad", TORCH_BOX(&stylegan::style_epilogue_grad));
}
