// loc for one jac that the batch shares: samples across SIMD lanes, numbers of A broadcast over them. No sample has a
// matrix of its own.
#pragma once

#include "common/lane_blocks.h"
#include "common/triangular_solve.h"
#include "ops/propagate/terms.h"

namespace cvf::propagate::CVF_ISA {

template <class T>
class SharedForward {
  using Blocks = LaneBlocks<T>;

 public:
  explicit SharedForward(const Forward<T>& args) : args_(args), x_(Blocks::kGroups * args.d) {}

  // loc = W^-1 b of one block.
  void run(int64_t block) {
    const int64_t d = args_.d, first = block * Blocks::kSamples;
    Blocks::gather(args_.offset, first, args_.batch, d, x_.data());
    solve_lower<T, Blocks::kRows, Blocks::kGroups>(Left<T>{args_.jac.data, d, 1}, Solution<T>{x_.data(), 1, d}, 0, d);
    Blocks::scatter(x_.data(), first, args_.batch, d, args_.loc);
  }

 private:
  const Forward<T>& args_;
  Scratch<Vec<T>> x_;  // (groups, d)
};

template <class T>
class SharedBackward {
  using Blocks = LaneBlocks<T>;

 public:
  explicit SharedBackward(const Backward<T>& args)
      : args_(args), adjoint_(Blocks::kGroups * args.d), jac_sum_(args.grad_jac, args.d) {}

  // y = W^-T g of one block, which is the gradient of b; y loc^T is summed until `flush`.
  void run(int64_t block) {
    const int64_t d = args_.d, first = block * Blocks::kSamples;
    Blocks::gather(args_.upstream_loc, first, args_.batch, d, adjoint_.data());
    solve_transposed<T, Blocks::kRows, Blocks::kGroups>(Left<T>{args_.jac.data, d, 1},
                                                        Solution<T>{adjoint_.data(), 1, d}, 0, d);
    if (args_.grad_offset) Blocks::scatter(adjoint_.data(), first, args_.batch, d, args_.grad_offset);
    if (args_.grad_jac) jac_sum_.add(adjoint_.data(), args_.loc, [](T x) { return x; }, first, args_.batch);
  }

  // Adds what was summed to `total` (d, d), below the diagonal.
  void flush(double* total) { jac_sum_.flush(total); }

 private:
  const Backward<T>& args_;
  Scratch<Vec<T>> adjoint_;  // (groups, d): y
  OuterProductSum<T> jac_sum_;
};

}  // namespace cvf::propagate::CVF_ISA
