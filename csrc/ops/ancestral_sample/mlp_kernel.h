// Masked-MLP mechanisms, a block of samples at a time: all of its groups take a node before any takes the next one, so
// that the weights of the node are read from the cache once for the block.
#pragma once

#include "common/vector_activation.h"
#include "ops/ancestral_sample/intervention.h"
#include "ops/ancestral_sample/mlp_products.h"
#include "ops/ancestral_sample/mlp_weights.h"

namespace cvf::ancestral_sample::mlp::CVF_ISA {

using namespace cvf::ancestral_sample::CVF_ISA;

// What both directions need. Buffers of a block hold vectors [group][element] for the samples, [unit][group] for the
// hidden units of a node.
template <class T>
class BlockKernel {
 public:
  static constexpr int kWidth = kLanes<T>;
  static constexpr int kMostGroups = 8;

 protected:
  using V = Vec<T>;

  BlockKernel(const Equations<T>& equations, const T* weights, int64_t groups)
      : equations_(equations),
        d_(equations.d),
        hidden_(equations.hidden),
        layout_{d_, hidden_},
        weights_(weights),
        inputs_(groups * (d_ + 1)),
        own_(groups * d_),
        units_(groups * hidden_) {}

  // Begins the block of `count` samples from `first` on.
  void begin(int64_t first, int64_t count, const Batched<T>& inputs) {
    first_ = first;
    count_ = count;
    groups_ = (count + kPair * kWidth - 1) / (kPair * kWidth) * kPair;
    gather(inputs, inputs_.data() + 1, d_ + 1);
    for (int64_t q = 0; q < groups_; ++q) {
      inputs_[q * (d_ + 1)] = V{} + T(1);
      for (int64_t i = 0; i < d_; ++i) own_[q * d_ + i] = LaneMask<T>{};
      if (group(q).count > 0) load_own_equations<T>(equations_.do_mask, group(q), d_, &own_[q * d_]);
    }
  }

  LaneGroup group(int64_t q) const {
    return {first_ + q * kWidth, std::clamp<int64_t>(count_ - q * kWidth, 0, kWidth)};
  }

  // out[q * stride + i]: element i of the samples of group q, zero in a group without samples.
  void gather(const Batched<T>& rows, V* out, int64_t stride) const {
    for (int64_t q = 0; q < groups_; ++q) {
      if (group(q).count > 0) {
        gather_lanes(rows, group(q), d_, rows.end(equations_.batch, d_), out + q * stride);
      } else {
        for (int64_t i = 0; i < d_; ++i) out[q * stride + i] = V{};
      }
    }
  }

  void scatter(const V* in, int64_t stride, T* out) const {
    for (int64_t q = 0; q < groups_; ++q) {
      if (group(q).count > 0) scatter_lanes<T>(in + q * stride, group(q), d_, out);
    }
  }

  // Whether the node is replaced in all samples, as the batch shares one mask.
  bool replaced(int64_t i) const { return equations_.do_mask.stride == 0 && equations_.do_mask.data[i] != 0; }

  NodeWeights<T> weights(int64_t i) const { return {weights_ + layout_.offset(i), layout_.row(i), hidden_, i + 1}; }

  // To units_: the pre-activations of node i.
  void compute_units(int64_t i) {
    for (int64_t q = 0; q < groups_; q += kPair) {
      pre_activations<T>(weights(i), &inputs_[q * (d_ + 1)], d_ + 1, &units_[q], groups_);
    }
  }

  const Equations<T>& equations_;
  const int64_t d_, hidden_;
  const PackedLayout<T> layout_;
  const T* const weights_;  // packed
  int64_t first_ = 0, count_ = 0, groups_ = 0;
  Scratch<V> inputs_;         // (groups, 1 + d): 1, then z
  Scratch<LaneMask<T>> own_;  // (groups, d): where a node follows its own equation
  Scratch<V> units_;          // (hidden, groups)
};

template <class T>
class ForwardKernel : BlockKernel<T> {
  using Base = BlockKernel<T>;
  using Base::d_, Base::equations_, Base::groups_, Base::hidden_, Base::inputs_, Base::own_, Base::units_;
  using typename Base::V;

 public:
  ForwardKernel(const Forward<T>& args, const T* weights, int64_t groups)
      : Base(args.equations, weights, groups), args_(args), values_(groups * d_) {}

  void run(int64_t first, int64_t count) {
    Base::begin(first, count, args_.noise);  // noise stands in the place of z until that is known
    Base::gather(args_.do_values, values_.data(), d_);
    for (int64_t i = 0; i < d_; ++i) {
      const bool computed = !Base::replaced(i);
      if (computed) {
        Base::compute_units(i);
        activate<T>(equations_.activation, units_.data(), hidden_ * groups_);
      }
      for (int64_t q = 0; q < groups_; ++q) {
        V sum = inputs_[q * (d_ + 1) + 1 + i] + equations_.b_out[i];
        for (int64_t k = 0; computed && k < hidden_; ++k) {
          sum += equations_.w_out[i * hidden_ + k] * units_[k * groups_ + q];
        }
        inputs_[q * (d_ + 1) + 1 + i] = select<T>(own_[q * d_ + i], sum, values_[q * d_ + i]);
      }
    }
    Base::scatter(inputs_.data() + 1, d_ + 1, args_.z);
  }

 private:
  const Forward<T>& args_;
  Scratch<V> values_;  // (groups, d)
};

// Sums over the batch in double, one for each gradient that the batch shares; null where it is not wanted.
struct Totals {
  double *weights, *w_out, *b_out, *values;
};

template <class T>
class BackwardKernel : BlockKernel<T> {
  using Base = BlockKernel<T>;
  using Base::d_, Base::equations_, Base::groups_, Base::hidden_, Base::inputs_, Base::own_, Base::units_,
      Base::layout_;
  using Base::kWidth;
  using typename Base::V;

 public:
  BackwardKernel(const Backward<T>& args, const T* weights, int64_t groups, bool sums_weights)
      : Base(args.equations, weights, groups),
        args_(args),
        adjoint_(groups * d_),
        values_(groups * d_),
        slopes_(groups * hidden_),
        row_(layout_.row(d_ - 1)),
        rows_(sums_weights ? groups * kWidth * row_ : 0),
        weight_sum_(sums_weights ? layout_.offset(d_) : 0),
        w_out_sum_(d_ * hidden_),
        b_out_sum_(d_),
        values_sum_(d_),
        sums_weights_(sums_weights) {
    for (int64_t k = 0; sums_weights && k < groups * kWidth * row_; ++k) rows_[k] = T(0);
    for (int64_t k = 0; sums_weights && k < layout_.offset(d_); ++k) weight_sum_[k] = T(0);
    for (int64_t k = 0; k < d_ * hidden_; ++k) w_out_sum_[k] = V{};
    for (int64_t i = 0; i < d_; ++i) b_out_sum_[i] = values_sum_[i] = V{};
  }

  void run(int64_t first, int64_t count) {
    Base::begin(first, count, args_.z);
    Base::gather(args_.upstream, adjoint_.data(), d_);
    for (int64_t q = 0; q < groups_; ++q) {  // lanes without a sample add nothing
      for (int64_t i = 0; i < d_; ++i) adjoint_[q * d_ + i] = keep_first<T>(adjoint_[q * d_ + i], Base::group(q).count);
    }
    if (sums_weights_) load_rows();
    for (int64_t i = d_ - 1; i >= 0; --i) {
      split(i);
      if (!Base::replaced(i)) differentiate(i);
    }
    if (args_.grad_noise) Base::scatter(adjoint_.data(), d_, args_.grad_noise);
    if (args_.grad_values && !args_.shared_values) Base::scatter(values_.data(), d_, args_.grad_values);
  }

  // Adds what was summed, and begins anew.
  void flush(const Totals& totals) {
    if (totals.weights) {
      for (int64_t k = 0; k < layout_.offset(d_); ++k) {
        totals.weights[k] += static_cast<double>(weight_sum_[k]);
        weight_sum_[k] = T(0);
      }
    }
    flush(w_out_sum_, d_ * hidden_, totals.w_out);
    flush(b_out_sum_, d_, totals.b_out);
    flush(values_sum_, d_, totals.values);
  }

 private:
  // Each sample's inputs, as rows.
  void load_rows() {
    for (int64_t sample = 0; sample < Base::count_; ++sample) {
      const T* z = args_.z[Base::first_ + sample];
      T* row = &rows_[sample * row_];
      row[0] = T(1);
      for (int64_t j = 0; j + 1 < d_; ++j) row[1 + j] = z[j];
    }
  }

  // The gradient of z_i goes to its equation or to its value.
  void split(int64_t i) {
    for (int64_t q = 0; q < groups_; ++q) {
      const V total = adjoint_[q * d_ + i];
      adjoint_[q * d_ + i] = where<T>(own_[q * d_ + i], total);
      values_[q * d_ + i] = where<T>(~own_[q * d_ + i], total);
      b_out_sum_[i] += adjoint_[q * d_ + i];
      values_sum_[i] += values_[q * d_ + i];
    }
  }

  // From the equation of node i to its weights and to the nodes before it.
  void differentiate(int64_t i) {
    Base::compute_units(i);
    activate_with_slope<T>(equations_.activation, units_.data(), slopes_.data(), hidden_ * groups_);
    V adjoint[Base::kMostGroups];
    LaneMask<T> own[Base::kMostGroups];
    for (int64_t q = 0; q < groups_; ++q) {
      adjoint[q] = adjoint_[q * d_ + i];
      own[q] = own_[q * d_ + i];
    }
    for (int64_t k = 0; k < hidden_; ++k) {
      const int64_t unit = i * hidden_ + k;
      const T w_out = equations_.w_out[unit];
      V sum = w_out_sum_[unit];
      for (int64_t q = 0; q < groups_; ++q) {
        sum += adjoint[q] * units_[k * groups_ + q];
        slopes_[k * groups_ + q] = where<T>(own[q], w_out * adjoint[q] * slopes_[k * groups_ + q]);
      }
      w_out_sum_[unit] = sum;
    }
    if (sums_weights_) {
      add_outer_products<T>(reinterpret_cast<const T*>(slopes_.data()), groups_ * kWidth, rows_.data(), row_,
                            Base::count_, hidden_, layout_.row(i), &weight_sum_[layout_.offset(i)]);
    }
    for (int64_t q = 0; q < groups_; q += kPair) {
      pass_back<T>(Base::weights(i), &slopes_[q], groups_, &adjoint_[q * d_], d_);
    }
  }

  static void flush(Scratch<V>& sums, int64_t count, double* totals) {
    if (!totals) return;
    for (int64_t k = 0; k < count; ++k) {
      totals[k] += static_cast<double>(sum_lanes<T>(sums[k]));
      sums[k] = V{};
    }
  }

  const Backward<T>& args_;
  Scratch<V> adjoint_;  // (groups, d): the gradient of z, then that of the noise
  Scratch<V> values_;   // (groups, d)
  Scratch<V> slopes_;   // (hidden, groups): phi', then the gradients of the pre-activations
  const int64_t row_;
  Scratch<T> rows_;        // (samples, row): 1, then z, padded with zeros
  Scratch<T> weight_sum_;  // packed
  Scratch<V> w_out_sum_;   // (d, hidden): for each lane
  Scratch<V> b_out_sum_;   // (d,)
  Scratch<V> values_sum_;  // (d,)
  const bool sums_weights_;
};

}  // namespace cvf::ancestral_sample::mlp::CVF_ISA
