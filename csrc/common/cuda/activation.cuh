// Activations of hidden units and their slopes.
#pragma once

#include <cmath>

#include "common/activation.h"
#include "common/cuda/launch.h"

namespace cvf::cuda {

template <class T>
struct Activated {
  T value, slope;
};

template <class T>
__device__ Activated<T> activate(Activation activation, T x) {
  using std::exp;
  using std::log1p;
  using std::tanh;
  if (activation == Activation::kTanh) {
    const T value = tanh(x);
    return {value, 1 - value * value};
  }
  if (activation == Activation::kLeakyRelu) {
    const T slope = x > 0 ? T(1) : T(0.01);
    return {slope * x, slope};
  }
  const T fraction = exp(x < 0 ? x : -x);  // in [0, 1], NaN for NaN
  const T logistic = (x < 0 ? fraction : T(1)) / (1 + fraction);
  if (activation == Activation::kSilu) return {x * logistic, logistic * (1 + x * (1 - logistic))};
  return {(x < 0 ? T(0) : x) + log1p(fraction), logistic};
}

}  // namespace cvf::cuda
