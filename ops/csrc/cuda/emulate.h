// Runs the CUDA kernels on the CPU, so that their indexing, tails, shared memory and reductions can be tested without a
// GPU. It defines the few CUDA functions that they use, and blocks whose threads are fibers.
//
// Blocks run one after the other. In a block, a warp runs up to the next barrier of the whole block before the next
// warp runs, and its threads run one after the other up to the next barrier or shuffle. All these orders change from
// block to block: running a kernel twice reveals a missing barrier, or a result that depends on the order. A barrier
// that only some of the threads reach is an error, and so is a 16-byte access to an address that is not a multiple of
// 16. A GPU would hang or trap.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <type_traits>
#include <vector>

#define __global__
#define __host__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // one block runs at a time

struct uint4 {
  uint32_t x, y, z, w;
};

namespace stylegan::emulated {

struct Index {
  unsigned x;
};

}  // namespace stylegan::emulated

inline stylegan::emulated::Index threadIdx, blockIdx, blockDim, gridDim;

namespace stylegan::emulated {

struct Barrier {
  int arrived = 0;
  uint64_t opened = 0;  // number of times
};

class Block {
 public:
  // Calls body() once per thread.
  void run(int threads, const std::function<void()>& body) {
    // Blocks reuse the fibers, each of which runs a loop, because creating a fiber costs more than running it.
    while (int(fibers_.size()) < threads) fibers_.push_back(std::make_unique<Fiber>());
    threads_ = threads;
    body_ = &body;
    whole_ = {};
    warps_.assign((threads + 31) / 32, {});
    for (int i = 0; i < threads; ++i) fibers_[i]->done = false;
    const int count = int(warps_.size()), first = int(turn_ / 2 % count), step = turn_ % 2 ? count - 1 : 1;
    ++turn_;
    for (bool all_done = false, moved = true; !all_done;) {
      if (!moved) {
        fibers_.clear();  // they are stopped in the middle of a kernel
        throw std::runtime_error("only some threads of a block reached a barrier or shuffle");
      }
      all_done = true, moved = false;
      for (int k = 0; k < count; ++k) {
        bool done = false;
        do {
          moved_ = false;
          done = go_round((first + k * step) % count);
          moved = moved || moved_;
        } while (moved_ && !done);
        all_done = all_done && done;
      }
    }
  }

  void sync() { wait(whole_, threads_); }

  // The `value` that lane `from` of the calling thread's warp passes.
  template <class T> T shuffle(T value, int from) {
    static_assert(sizeof(T) <= 8);
    const int warp = now_ / 32, lanes = std::min(32, threads_ - warp * 32);
    // Two sets of slots alternate, so that none is overwritten before all threads have read it.
    uint64_t* slots = slots_[warps_[warp].opened % 2];
    std::memcpy(&slots[now_], &value, sizeof value);
    wait(warps_[warp], lanes);
    // For a lane outside the warp, the result is the caller's own value, as on the GPU.
    if (from >= 0 && from < lanes) std::memcpy(&value, &slots[warp * 32 + from], sizeof value);
    return value;
  }

 private:
  struct Fiber {
    ucontext_t start;
    jmp_buf at;
    bool started = false, done = true;
    std::unique_ptr<char[]> stack;
  };

  // Lets each thread of a warp run until it waits; returns whether all have finished.
  bool go_round(int warp) {
    const int begin = warp * 32, lanes = std::min(32, threads_ - begin);
    bool all_done = true;
    for (int k = 0; k < lanes; ++k) {
      const int i = begin + (turn_ % 2 ? k : lanes - 1 - k);
      if (!fibers_[i]->done) resume(i);
      all_done = all_done && fibers_[i]->done;
    }
    return all_done;
  }

  void wait(Barrier& barrier, int expected) {
    const uint64_t opened = barrier.opened;
    moved_ = true;
    if (++barrier.arrived == expected) {
      barrier.arrived = 0;
      ++barrier.opened;
      return;
    }
    while (barrier.opened == opened) leave();
  }

  // Faster than swapcontext(), which makes a system call each time.
  void leave() {
    if (!_setjmp(fibers_[now_]->at)) _longjmp(home_, 1);
  }
  void resume(int i) {
    Fiber& fiber = *fibers_[i];
    now_ = i;
    threadIdx.x = unsigned(i);
    if (_setjmp(home_)) return;
    if (fiber.started) _longjmp(fiber.at, 1);
    constexpr size_t stack_size = 64 << 10;
    fiber.started = true;
    fiber.stack.reset(new char[stack_size]);
    getcontext(&fiber.start);
    fiber.start.uc_stack.ss_sp = fiber.stack.get();
    fiber.start.uc_stack.ss_size = stack_size;
    makecontext(&fiber.start, &Block::enter, 0);
    setcontext(&fiber.start);
  }
  static void enter();

  int threads_ = 0, now_ = 0;
  uint64_t turn_ = 0;
  bool moved_ = false;  // whether a thread has reached a barrier or its end
  const std::function<void()>* body_ = nullptr;
  Barrier whole_;
  std::vector<Barrier> warps_;
  uint64_t slots_[2][1024];
  jmp_buf home_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
};

inline Block block;

inline void Block::enter() {
  for (;;) {
    (*block.body_)();
    block.fibers_[block.now_]->done = block.moved_ = true;
    block.leave();
  }
}

template <class... P> void launch(void (*kernel)(P...), int64_t blocks, int threads, const std::type_identity_t<P>&... args) {
  gridDim.x = unsigned(blocks);
  blockDim.x = unsigned(threads);
  const std::function<void()> body = [&] { kernel(args...); };
  // Every second launch runs the blocks in reverse order.
  static uint64_t launches = 0;
  const bool backwards = ++launches % 2;
  for (int64_t b = 0; b < blocks; ++b) {
    blockIdx.x = unsigned(backwards ? blocks - 1 - b : b);
    block.run(threads, body);
  }
}

inline void check_aligned(const void* p) {
  // Not an exception, which could not leave the fiber's stack.
  if (reinterpret_cast<uintptr_t>(p) % 16) {
    std::fprintf(stderr, "16-byte access to %p, which is not aligned\n", p);
    std::abort();
  }
}

}  // namespace stylegan::emulated

inline void __syncthreads() { stylegan::emulated::block.sync(); }
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
  return stylegan::emulated::block.shuffle(value, int(threadIdx.x % 32) ^ mask);
}
inline uint4 __ldg(const uint4* p) {
  stylegan::emulated::check_aligned(p);
  return *p;
}
inline void __stwb(uint4* p, uint4 value) {
  stylegan::emulated::check_aligned(p);
  *p = value;
}
