// Activations by their names.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "common/activation.h"

namespace cvf::bindings {

inline Activation activation_named(std::string_view name) {
  if (name == "tanh") return Activation::kTanh;
  if (name == "silu") return Activation::kSilu;
  if (name == "softplus") return Activation::kSoftplus;
  if (name == "leaky_relu") return Activation::kLeakyRelu;
  throw std::invalid_argument("there is no activation '" + std::string(name) + "'");
}

}  // namespace cvf::bindings
