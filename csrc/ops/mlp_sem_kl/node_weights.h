// The parameters of consecutive nodes as the kernels read them, and the gradients of these in the same layout.
#pragma once

#include <algorithm>
#include <vector>

#include "common/batch_sum.h"
#include "common/scratch.h"
#include "ops/mlp_sem_kl/mlp_sem_kl.h"

namespace cvf::mlp_sem_kl::CVF_ISA {

using namespace cvf::CVF_ISA;

// Parents [begin, end) of a node; begin is a multiple of the width of a vector.
struct Parents {
  int64_t begin, end;
};

// One node. Weights are those of w_in times the edges, U_ikj m_ij.
template <class T>
struct Node {
  int64_t index;     // i
  int64_t row;       // elements between rows of `rows`: i, rounded up to whole vectors
  const T* rows;     // (h, row): of each hidden unit, zeros behind parent i - 1
  const T* columns;  // (i, units): of each parent, zeros behind unit h - 1
  const T* b_in;     // (units,), padded with zeros
  const T* w_out;    // (units,), padded with zeros
  T b_out;
  const Parents* parents;  // those whose edges are not all 0, in ranges
  const Parents* parents_end;
};

// Nodes [first, end).
template <class T>
class NodeWeights {
  static constexpr int64_t kWidth = kLanes<T>;
  static constexpr int64_t kPacked = 32;  // parents whose columns stay in the first cache while all units write to them

 public:
  NodeWeights(const Arguments<T>& args, int64_t first, int64_t end)
      : args_(args),
        first_(first),
        units_(round_up(args.hidden, kWidth)),
        rows_(begin_of_rows(end)),
        columns_(begin_of_columns(end)),
        b_in_((end - first) * units_),
        w_out_((end - first) * units_) {
    ranges_of_.push_back(0);
    for (int64_t i = first; i < end; ++i) {
      find_parents(i);
      pack(i);
    }
  }

  Node<T> node(int64_t i) const {
    const int64_t k = i - first_;
    return {i,
            row(i),
            &rows_[begin_of_rows(i)],
            &columns_[begin_of_columns(i)],
            &b_in_[k * units_],
            &w_out_[k * units_],
            args_.b_out[i],
            ranges_.data() + ranges_of_[static_cast<size_t>(k)],
            ranges_.data() + ranges_of_[static_cast<size_t>(k + 1)]};
  }

  int64_t first() const { return first_; }
  static int64_t row(int64_t i) { return round_up(i, kWidth); }
  // Where the rows of node i begin, among those of all nodes from `first` on.
  int64_t begin_of_rows(int64_t i) const { return args_.hidden * (rows_before(i) - rows_before(first_)); }

  // Bytes of the weights of node i and of their gradients.
  static int64_t bytes(const Arguments<T>& args, int64_t i) {
    return (3 * args.hidden * row(i) + 4 * args.hidden) * static_cast<int64_t>(sizeof(T));
  }

 private:
  // Elements in one row of each node before node i.
  static int64_t rows_before(int64_t i) {
    if (i == 0) return 0;
    const int64_t vectors = (i - 1) / kWidth, rest = (i - 1) % kWidth;
    return kWidth * (kWidth * vectors * (vectors + 1) / 2 + rest * (vectors + 1));
  }
  int64_t begin_of_columns(int64_t i) const { return units_ * (i * (i - 1) / 2 - first_ * (first_ - 1) / 2); }

  // A gradient of the edges is not zero where the edge is.
  void find_parents(int64_t i) {
    const T* edges = args_.edges + i * args_.d;
    const auto begin = static_cast<int64_t>(ranges_.size());
    for (int64_t j = 0; j < i; j += kWidth) {
      const int64_t end = std::min(j + kWidth, i);
      if (!args_.grad_edges && std::all_of(edges + j, edges + end, [](T edge) { return edge == T(0); })) continue;
      if (static_cast<int64_t>(ranges_.size()) > begin && ranges_.back().end == j) {
        ranges_.back().end = end;
      } else {
        ranges_.push_back({j, end});
      }
    }
    ranges_of_.push_back(static_cast<int64_t>(ranges_.size()));
  }

  void pack(int64_t i) {
    const T* edges = args_.edges + i * args_.d;
    T* rows = &rows_[begin_of_rows(i)];
    T* columns = &columns_[begin_of_columns(i)];
    for (int64_t first = 0; first < i; first += kPacked) {
      const int64_t end = std::min(first + kPacked, i);
      for (int64_t k = 0; k < args_.hidden; ++k) {
        const T* w_in = args_.w_in + (i * args_.hidden + k) * args_.d;
        T* of_unit = rows + k * row(i);
        for (int64_t j = first; j < end; ++j) {
          const T weight = w_in[j] * edges[j];
          of_unit[j] = weight;
          columns[j * units_ + k] = weight;
        }
      }
    }
    for (int64_t k = 0; k < args_.hidden; ++k) std::fill(rows + k * row(i) + i, rows + (k + 1) * row(i), T(0));
    for (int64_t j = 0; j < i; ++j) std::fill(columns + j * units_ + args_.hidden, columns + (j + 1) * units_, T(0));
    pad(args_.b_in + i * args_.hidden, &b_in_[(i - first_) * units_]);
    pad(args_.w_out + i * args_.hidden, &w_out_[(i - first_) * units_]);
  }

  void pad(const T* of_units, T* out) const {
    std::copy_n(of_units, args_.hidden, out);
    std::fill(out + args_.hidden, out + units_, T(0));
  }

  const Arguments<T>& args_;
  const int64_t first_, units_;
  Scratch<T> rows_, columns_, b_in_, w_out_;
  std::vector<Parents> ranges_;
  std::vector<int64_t> ranges_of_;  // where the ranges of each node begin
};

// The gradients of the parameters of nodes [first, end), summed over the batch: in T by each thread, and from time to
// time in double.
template <class T>
class NodeGradients {
  static constexpr int64_t kWidth = kLanes<T>;

 public:
  NodeGradients(const Arguments<T>& args, const NodeWeights<T>& weights, int64_t end, int threads)
      : args_(args),
        weights_(weights),
        first_(weights.first()),
        end_(end),
        units_(round_up(args.hidden, kWidth)),
        layout_{args.wants_weights() ? weights.begin_of_rows(end) : 0, (end - first_) * units_, end - first_},
        threads_(threads),
        sums_(threads * layout_.size()),
        totals_(threads * layout_.size()),
        of_edges_(args.wants_weights() ? args.d : 0) {
    std::fill_n(sums_.data(), threads * layout_.size(), T(0));
    std::fill_n(totals_.data(), threads * layout_.size(), 0.0);
  }

  // Of one thread and node: (h, row), or null if they are not wanted; (units,), (units,), and one number each.
  struct Sums {
    T *w_in, *b_in, *w_out, *b_out, *log_sigma;
  };
  Sums of(int thread, int64_t i) {
    T* sums = &sums_[thread * layout_.size()];
    const int64_t k = i - first_;
    T* vectors = sums + layout_.weights;
    T* numbers = vectors + 2 * layout_.units;
    return {args_.wants_weights() ? sums + weights_.begin_of_rows(i) : nullptr, vectors + k * units_,
            vectors + layout_.units + k * units_, numbers + k, numbers + layout_.nodes + k};
  }

  void flush(int thread) {
    T* sums = &sums_[thread * layout_.size()];
    double* totals = &totals_[thread * layout_.size()];
    for (int64_t k = 0; k < layout_.size(); ++k) {
      totals[k] += static_cast<double>(sums[k]);
      sums[k] = T(0);
    }
  }

  // Writes, or adds, the sum of all threads to the outputs.
  void write(bool add) {
    for (int thread = 1; thread < threads_; ++thread) {
      for (int64_t k = 0; k < layout_.size(); ++k) totals_[k] += totals_[thread * layout_.size() + k];
    }
    const double* vectors = totals_.data() + layout_.weights;
    const double* numbers = vectors + 2 * layout_.units;
    auto put = [&](T* out, int64_t k, double x) {
      if (out) out[k] = static_cast<T>(add ? static_cast<double>(out[k]) + x : x);
    };
    for (int64_t i = first_; i < end_; ++i) {
      const int64_t n = i - first_;
      for (int64_t k = 0; k < args_.hidden; ++k) {
        put(args_.grad_b_in, i * args_.hidden + k, vectors[n * units_ + k]);
        put(args_.grad_w_out, i * args_.hidden + k, vectors[layout_.units + n * units_ + k]);
      }
      put(args_.grad_b_out, i, numbers[n]);
      put(args_.grad_log_sigma, i, numbers[layout_.nodes + n]);
      if (args_.wants_weights()) write_weights(i, put);
    }
  }

 private:
  struct Layout {
    int64_t weights, units, nodes;
    int64_t size() const { return weights + 2 * units + round_up(2 * nodes, kWidth); }
  };

  // dU_ikj = m_ij d(U_ikj m_ij), dm_ij = sum_k U_ikj d(U_ikj m_ij); unit after unit, as they lie in memory.
  template <class Put>
  void write_weights(int64_t i, Put&& put) {
    const int64_t d = args_.d;
    const T* edges = args_.edges + i * d;
    std::fill_n(of_edges_.data(), d, 0.0);
    for (int64_t k = 0; k < args_.hidden; ++k) {
      const double* of_unit = totals_.data() + weights_.begin_of_rows(i) + k * NodeWeights<T>::row(i);
      const int64_t begin = (i * args_.hidden + k) * d;
      for (int64_t j = 0; j < i; ++j) {
        put(args_.grad_w_in, begin + j, static_cast<double>(edges[j]) * of_unit[j]);
        of_edges_[j] += static_cast<double>(args_.w_in[begin + j]) * of_unit[j];
      }
      for (int64_t j = i; j < d; ++j) put(args_.grad_w_in, begin + j, 0.0);
    }
    for (int64_t j = 0; j < d; ++j) put(args_.grad_edges, i * d + j, of_edges_[j]);
  }

  const Arguments<T>& args_;
  const NodeWeights<T>& weights_;
  const int64_t first_, end_, units_;
  const Layout layout_;
  const int threads_;
  Scratch<T> sums_;
  Scratch<double> totals_;
  Scratch<double> of_edges_;  // (d,): those of one node
};

}  // namespace cvf::mlp_sem_kl::CVF_ISA
