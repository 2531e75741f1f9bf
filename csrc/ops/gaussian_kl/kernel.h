// gaussian_kl on one unit of work at a time, a group of small samples or one large sample.
#pragma once

#include "common/scratch.h"
#include "ops/gaussian_kl/gaussian_kl.h"
#include "ops/gaussian_kl/triangular.h"

namespace cvf::gaussian_kl::CVF_ISA {

// Gradients of what p shares among the batch, in double, so that the rounding error does not grow with the batch.
template <class T>
class SharedSums {
 public:
  SharedSums(const Arguments<T>& args, int threads)
      : args_(args),
        threads_(threads),
        loc_(args.shared_loc_p && args.grad_loc_p ? threads * args.d : 0),
        matrix_(args.shared_matrix_p && args.grad_matrix_p ? threads * args.d * args.d : 0) {
    if (sums_loc()) std::fill_n(loc_.data(), threads * args.d, 0.0);
    if (sums_matrix()) std::fill_n(matrix_.data(), threads * args.d * args.d, 0.0);
  }

  bool sums_loc() const { return args_.shared_loc_p && args_.grad_loc_p; }
  bool sums_matrix() const { return args_.shared_matrix_p && args_.grad_matrix_p; }

  double* loc(int thread) { return &loc_[thread * args_.d]; }                  // (d,): a thread's totals
  double* matrix(int thread) { return &matrix_[thread * args_.d * args_.d]; }  // (d, d), below the diagonal

  // Adds up the threads, in their order, into the outputs.
  void write() const {
    const int64_t d = args_.d;
    if (sums_loc()) {
      for (int64_t i = 0; i < d; ++i) args_.grad_loc_p[i] = total(loc_, d, i);
    }
    if (!sums_matrix()) return;
    for (int64_t i = 0; i < d; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        const T sum = total(matrix_, d * d, i * d + j);
        args_.grad_matrix_p[j * d + i] = args_.covariance_p ? sum : T(0);
        args_.grad_matrix_p[i * d + j] = sum;
      }
    }
  }

 private:
  T total(const Scratch<double>& totals, int64_t count, int64_t k) const {
    double sum = 0;
    for (int thread = 0; thread < threads_; ++thread) sum += totals[thread * count + k];
    return static_cast<T>(sum);
  }

  const Arguments<T>& args_;
  int threads_;
  Scratch<double> loc_, matrix_;
};

// Working memory of one thread, and the computation. Matrices are lower triangular, (d, row) elements of the layout.
template <class T, class Layout>
class Kernel {
  using Element = typename Layout::Element;

 public:
  explicit Kernel(const Arguments<T>& args)
      : args_(args),
        d_(args.d),
        row_(Layout::padded_row(args.d)),
        size_(d_ * row_ + Layout::kPadding),
        layout_(args.batch, args.d),
        triangular_(args.d),
        factor_q_(size_),
        factor_p_(size_),
        whitened_(size_),
        product_(args.wants_gradient() ? size_ : 0),
        inverse_p_(wants_inverse_p() ? size_ : 0),
        work_(wants_inverse_p() ? size_ : 0),
        gradient_(args.wants_gradient() ? size_ : 0),
        transposed_(std::max(Layout::transposed_size(args.d), int64_t{1})),
        inverse_diagonal_q_(row_),
        inverse_diagonal_p_(row_),
        difference_(row_),
        residual_(row_),
        loc_sum_(row_),
        matrix_sum_(args.shared_matrix_p && args.grad_matrix_p ? size_ : 0) {
    for (int64_t i = 0; i < row_; ++i) difference_[i] = residual_[i] = loc_sum_[i] = Element{};
    if (args.shared_matrix_p) {
      load_p(0);
      if (args.grad_matrix_p) std::fill_n(matrix_sum_.data(), d_ * row_, Element{});
    }
  }

  void run(int64_t unit) {
    if (!args_.shared_matrix_p) load_p(unit);
    load(args_.matrix_q, args_.covariance_q, unit, factor_q_.data(), inverse_diagonal_q_.data());
    whiten_difference(unit);
    // N = L_p^-1 L_q
    const Element squares =
        triangular_.solve(factor_p_.data(), inverse_diagonal_p_.data(), factor_q_.data(), whitened_.data());
    if (args_.value) write_value(unit, squares);
    if (args_.wants_gradient()) gradients(unit);
  }

  // Adds what has been summed since the last flush to a thread's totals.
  void flush(SharedSums<T>& sums, int thread) {
    if (sums.sums_loc()) {
      for (int64_t i = 0; i < d_; ++i) sums.loc(thread)[i] += take_sum(loc_sum_[i]);
    }
    if (sums.sums_matrix()) {
      for (int64_t i = 0; i < d_; ++i) {
        for (int64_t j = 0; j <= i; ++j) sums.matrix(thread)[i * d_ + j] += take_sum(matrix_sum_[i * row_ + j]);
      }
    }
  }

  // To be called after the last unit.
  void finish() const { layout_.finish_writing(); }

 private:
  bool wants_inverse_p() const {
    return (args_.grad_matrix_q && args_.covariance_q) || (args_.grad_matrix_p && args_.covariance_p);
  }

  static double take_sum(Element& element) {
    const double sum = static_cast<double>(Layout::sum(element));
    element = Element{};
    return sum;
  }

  // The factor of a side, from whatever it is given by.
  void load(const Batched<T>& matrices, bool covariance, int64_t unit, Element* factor, Element* inverse_diagonal) {
    if (covariance) {
      layout_.load_factor(matrices, unit, factor, transposed_.data(), [&](Element* upper, int64_t row, int64_t column) {
        triangular_.factorise(upper, row, column, inverse_diagonal);
      });
    } else {
      layout_.load_lower(matrices, unit, factor);
      triangular_.invert_diagonal(factor, inverse_diagonal);
    }
  }

  void load_p(int64_t unit) {
    load(args_.matrix_p, args_.covariance_p, unit, factor_p_.data(), inverse_diagonal_p_.data());
    log_det_p_ = layout_.log_det(factor_p_.data());
    if (wants_inverse_p()) {
      triangular_.invert(factor_p_.data(), inverse_diagonal_p_.data(), inverse_p_.data());
    }
  }

  // u = L_p^-1 (loc_q - loc_p)
  void whiten_difference(int64_t unit) {
    layout_.load_vector(args_.loc_q, unit, difference_.data());
    layout_.load_vector(args_.loc_p, unit, residual_.data());
    for (int64_t i = 0; i < d_; ++i) difference_[i] -= residual_[i];
    triangular_.solve_vector(factor_p_.data(), inverse_diagonal_p_.data(), difference_.data());
  }

  void write_value(int64_t unit, Element squares) {
    for (int64_t i = 0; i < d_; ++i) squares += difference_[i] * difference_[i];
    const Element log_ratio = log_det_p_ - layout_.log_det(factor_q_.data());
    layout_.write_number(T(0.5) * (squares - static_cast<T>(d_)) + log_ratio, unit, args_.value);
  }

  void gradients(int64_t unit) {
    const Element upstream = layout_.load_number(args_.upstream, unit);
    const bool needs_product =
        (args_.grad_matrix_q && !args_.covariance_q) || (args_.grad_matrix_p && !args_.covariance_p);
    if (needs_product) {  // L_p^-T N
      triangular_.solve_transposed(factor_p_.data(), inverse_diagonal_p_.data(), whitened_.data(), product_.data());
    }
    loc_gradients(unit, upstream);
    if (args_.grad_matrix_q) {
      if (args_.covariance_q) {
        covariance_q_gradient(upstream);
        layout_.write_symmetric(gradient_.data(), unit, args_.grad_matrix_q);
      } else {
        scale_tril_q_gradient(upstream);
        layout_.write_lower(gradient_.data(), unit, args_.grad_matrix_q);
      }
    }
    if (args_.grad_matrix_p) {
      if (args_.covariance_p) {
        covariance_p_gradient(upstream);
      } else {
        scale_tril_p_gradient(upstream);
      }
      write_matrix_p_gradient(unit);
    }
  }

  // dloc_q = g v and dloc_p = -g v with v = L_p^-T u. Leaves v in `residual_`.
  void loc_gradients(int64_t unit, Element upstream) {
    for (int64_t i = 0; i < d_; ++i) residual_[i] = difference_[i];
    triangular_.solve_vector_transposed(factor_p_.data(), inverse_diagonal_p_.data(), residual_.data());
    if (args_.grad_loc_q) {
      for (int64_t i = 0; i < d_; ++i) gradient_[i] = upstream * residual_[i];
      layout_.write_vector(gradient_.data(), unit, args_.grad_loc_q);
    }
    if (!args_.grad_loc_p) return;
    for (int64_t i = 0; i < d_; ++i) gradient_[i] = -upstream * residual_[i];
    if (args_.shared_loc_p) {
      for (int64_t i = 0; i < d_; ++i) loc_sum_[i] += gradient_[i];
    } else {
      layout_.write_vector(gradient_.data(), unit, args_.grad_loc_p);
    }
  }

  // dL_q = g (L_p^-T N - diag(1 / L_q,ii))
  void scale_tril_q_gradient(Element upstream) {
    const auto weight = Layout::spread(upstream);
    for (int64_t i = 0; i < d_; ++i) {
      for (int64_t j = 0; j <= i; j += Layout::kColumns) {
        Layout::store(&gradient_[i * row_ + j], weight * Layout::load(&product_[i * row_ + j]));
      }
      gradient_[i * (row_ + 1)] -= upstream * inverse_diagonal_q_[i];
    }
  }

  // dL_p = g (diag(1 / L_p,ii) - L_p^-T N N^T - v u^T)
  void scale_tril_p_gradient(Element upstream) {
    const auto weight = Layout::spread(-upstream);
    const Right<T> right = layout_.transposed(whitened_.data(), transposed_.data());
    triangular_.times_transpose(product_.data(), right, [&](auto& acc, int64_t i, int64_t j) {
      add_outer(acc, residual_.data() + i, difference_.data() + j);
      scale(acc, weight);
      triangular_.store_tile(gradient_.data(), i, j, acc);
    });
    for (int64_t i = 0; i < d_; ++i) gradient_[i * (row_ + 1)] += upstream * inverse_diagonal_p_[i];
  }

  // dSigma_q = g/2 (L_p^-T L_p^-1 - L_q^-T L_q^-1)
  void covariance_q_gradient(Element upstream) {
    triangular_.invert(factor_q_.data(), inverse_diagonal_q_.data(), work_.data());
    const auto weight = Layout::spread(T(0.5) * upstream);
    triangular_.for_lower_tiles([&](auto& acc, int64_t i, int64_t j, int64_t) {
      triangular_.template add_transpose_times<1>(acc, inverse_p_.data(), inverse_p_.data(), i, j);
      triangular_.template add_transpose_times<-1>(acc, work_.data(), work_.data(), i, j);
      scale(acc, weight);
      triangular_.store_tile(gradient_.data(), i, j, acc);
    });
  }

  // dSigma_p = g/2 L_p^-T (I - N N^T - u u^T) L_p^-1
  void covariance_p_gradient(Element upstream) {
    const Right<T> right = layout_.transposed(whitened_.data(), transposed_.data());
    triangular_.times_transpose(whitened_.data(), right, [&](auto& acc, int64_t i, int64_t j) {
      add_outer(acc, difference_.data() + i, difference_.data() + j);
      scale(acc, Layout::spread(Element{} - T(1)));
      triangular_.store_tile(work_.data(), i, j, acc);
    });
    for (int64_t i = 0; i < d_; ++i) work_[i * (row_ + 1)] += T(1);
    layout_.mirror(work_.data());
    triangular_.symmetric_times(work_.data(), inverse_p_.data(), product_.data());
    const auto weight = Layout::spread(T(0.5) * upstream);
    triangular_.for_lower_tiles([&](auto& acc, int64_t i, int64_t j, int64_t) {
      triangular_.template add_transpose_times<1>(acc, inverse_p_.data(), product_.data(), i, j);
      scale(acc, weight);
      triangular_.store_tile(gradient_.data(), i, j, acc);
    });
  }

  void write_matrix_p_gradient(int64_t unit) {
    if (args_.shared_matrix_p) {
      for (int64_t i = 0; i < d_; ++i) {
        for (int64_t j = 0; j <= i; j += Layout::kColumns) {
          Element* sum = &matrix_sum_[i * row_ + j];
          Layout::store(sum, Layout::load(sum) + Layout::load(&gradient_[i * row_ + j]));
        }
      }
    } else if (args_.covariance_p) {
      layout_.write_symmetric(gradient_.data(), unit, args_.grad_matrix_p);
    } else {
      layout_.write_lower(gradient_.data(), unit, args_.grad_matrix_p);
    }
  }

  // acc(r, c) += x_r y_c
  template <int kRows, int kVectors>
  static CVF_INLINE void add_outer(Vec<T> (&acc)[kRows][kVectors], const Element* x, const Element* y) {
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kVectors; ++c) acc[r][c] += Layout::spread(x[r]) * Layout::load(y + c * Layout::kColumns);
    }
  }

  template <int kRows, int kVectors>
  static CVF_INLINE void scale(Vec<T> (&acc)[kRows][kVectors], Vec<T> weight) {
    for (int r = 0; r < kRows; ++r) {
      for (int c = 0; c < kVectors; ++c) acc[r][c] *= weight;
    }
  }

  const Arguments<T>& args_;
  const int64_t d_, row_;
  const int64_t size_;  // elements of a matrix, with what lies behind its rows
  const Layout layout_;
  const Triangular<T, Layout> triangular_;
  Element log_det_p_{};
  Scratch<Element> factor_q_, factor_p_;                      // L_q, L_p
  Scratch<Element> whitened_;                                 // N
  Scratch<Element> product_;                                  // L_p^-T N; then (I - N N^T - u u^T) L_p^-1
  Scratch<Element> inverse_p_;                                // L_p^-1
  Scratch<Element> work_;                                     // L_q^-1; then I - N N^T - u u^T
  Scratch<Element> gradient_;                                 // one after the other
  Scratch<Element> transposed_;                               // a transpose, in layouts that need one
  Scratch<Element> inverse_diagonal_q_, inverse_diagonal_p_;  // (row,): 1 / L_ii
  Scratch<Element> difference_;                               // (row,): u
  Scratch<Element> residual_;                                 // (row,): loc_p, then v
  Scratch<Element> loc_sum_, matrix_sum_;                     // summed over the thread's samples since the last flush
};

}  // namespace cvf::gaussian_kl::CVF_ISA
