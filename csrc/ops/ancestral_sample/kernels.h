// The entries of each instruction set's kernels.
#pragma once

#include "ops/ancestral_sample/ancestral_sample.h"

namespace cvf::ancestral_sample {

namespace baseline {
template <class T>
void forward(const Forward<T>& args, int threads);
template <class T>
void backward(const Backward<T>& args, int threads);
}  // namespace baseline
namespace avx2 {
template <class T>
void forward(const Forward<T>& args, int threads);
template <class T>
void backward(const Backward<T>& args, int threads);
}  // namespace avx2
namespace avx512 {
template <class T>
void forward(const Forward<T>& args, int threads);
template <class T>
void backward(const Backward<T>& args, int threads);
}  // namespace avx512

}  // namespace cvf::ancestral_sample
